"""Readable assembly that turns back into the same bytes.

One instruction per line: offset in words, mnemonic, fields. Address generators are written as
``src=2078[4x1 2x64]`` - start and (count x stride) per dimension, innermost first - followed by
``m3`` (mask), ``/2+64`` (slot 64, toggled after two dimensions) and ``~1:31:16352`` (epilogue:
dimension, elements, skipped addresses). Watches read ``watch0=RING_READ_A>=1+1/1`` (count, step,
level; ``@dst`` guards the destination), signals ``done=/1`` (level). Text after ``;`` is comment.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from compiler.beagle.isa import (
    FORM_BY_NAME,
    AddressGenerator,
    Form,
    Instruction,
    decode_stream,
    encode_stream,
    instruction,
)
from compiler.beagle.isa.counters import ScalarCounter, TileCounter
from compiler.errors import ProgramError

_HEXADECIMAL = ("tiles", "receivers", "engines", "reset", "notified", "reduction", "multiplier", "clamp_high",
                "clamp_low", "fill_value", "immediate")
_IMPLIED = ("opcode", "scalar")
_WALK = re.compile(r"(-?\d+)\[([^\]]*)\]m([0-9a-f]+)(?:/(\d+)\+(-?\d+))?(?:~(\d+):(\d+):(\d+))?$")
_WATCH = re.compile(r"(\w+)>=(-?\d+)\+(-?\d+)/(\d+)(@dst)?(!off)?$")
_SIGNAL = re.compile(r"/(\d+)(!off)?$")


def disassemble(stream: bytes, *, raw: bool = False) -> str:
    """Return the text of an instruction stream.

    Parameters
    ----------
    raw:
        Plain field values instead of the compact notations.

    Raises
    ------
    ProgramError
        When the bytes are no instruction stream.
    """
    return "\n".join(line(ins, raw=raw) for ins in decode_stream(stream))


def line(ins: Instruction, *, raw: bool = False) -> str:
    """Return the text of one instruction."""
    rest = {k: v for k, v in ins.values.items() if k not in _IMPLIED}
    parts: list[str] = []
    if not raw:
        parts += _compact(ins, rest)
    plain = [f"{k}={v:#x}" if k in _HEXADECIMAL and v >= 0 else f"{k}={v}" for k, v in rest.items()]
    if ins.unexplained:
        plain.append(f"bits={ins.unexplained:#x}")
    return " ".join([f"{ins.offset:05x}:", ins.name, *plain, *parts])


def _compact(ins: Instruction, rest: dict[str, int]) -> list[str]:
    """Take generators, watches and signals out of ``rest`` and return their text."""
    parts = []
    for generator in ins.form.generators:
        names = [k for k in rest if k.startswith(f"{generator.prefix}.")]
        if names:
            parts.append(_walk_text(ins, generator))
            for k in names:
                del rest[k]
    counters = ScalarCounter if ins.form.scalar else TileCounter
    for name in ins.form.watches:
        names = [k for k in rest if k.startswith(f"{name}.")]
        if names:
            side = "@dst" if f"{name}.side" in ins.form.by_name and ins[f"{name}.side"] else ""
            off = "" if ins[f"{name}.valid"] else "!off"
            parts.append(f"{name}={_counter_name(counters, ins[f'{name}.counter'])}>={ins[f'{name}.count']}"
                         f"+{ins[f'{name}.step']}/{ins[f'{name}.level']}{side}{off}")
            for k in names:
                del rest[k]
    for name in ins.form.signals:
        names = [k for k in rest if k in (f"{name}.valid", f"{name}.level")]
        if names:
            parts.append(f"{name}=/{ins[f'{name}.level']}{'' if ins[f'{name}.valid'] else '!off'}")
            for k in names:
                del rest[k]
    return parts


def _counter_name(counters: type[ScalarCounter] | type[TileCounter], number: int) -> str:
    try:
        return counters(number).name
    except ValueError:
        return f"C{number}"


def _walk_text(ins: Instruction, generator: AddressGenerator) -> str:
    p = generator.prefix
    dims, inner = [], 0
    for d in range(generator.dims):
        stride = ins[f"{p}.delta{d}"] + inner
        count = ins[f"{p}.limit{d}"] + 1
        inner += stride * (count - 1)
        dims.append((count, stride))
    while dims and dims[-1] == (1, 0):
        dims.pop()
    text = f"{p}={ins[f'{p}.start']}[{' '.join(f'{n}x{s}' for n, s in dims)}]m{ins[f'{p}.mask']:x}"
    if ins[f"{p}.level"] or ins[f"{p}.slot"]:
        text += f"/{ins[f'{p}.level']}+{ins[f'{p}.slot']}"
    epilogue = (ins[f"{p}.epilogue_dim"], ins[f"{p}.epilogue_limit"], ins[f"{p}.epilogue_delta"])
    if any(epilogue):
        text += "~{}:{}:{}".format(*epilogue)
    return text


def assemble(text: str) -> bytes:
    """Turn assembly text into an instruction stream.

    Raises
    ------
    ProgramError
        Naming the line that cannot be understood.
    """
    return encode_stream(_parse(text))


def _parse(text: str) -> Iterator[Instruction]:
    for number, row in enumerate(text.splitlines(), 1):
        words = row.split(";")[0].replace("[", "[\0").split()
        words = _rejoin(words)
        if not words:
            continue
        if words[0].endswith(":"):
            words = words[1:]
        form = FORM_BY_NAME.get(words[0]) if words else None
        if form is None:
            raise ProgramError(f"line {number}: no instruction is called {words[0] if words else ''!r}.")
        yield _instruction(form, words[1:], number)


def _rejoin(words: list[str]) -> list[str]:
    """Put the dimensions of a generator, which contain blanks, back into one word."""
    joined: list[str] = []
    inside = False
    for word in words:
        if inside:
            joined[-1] += " " + word
        else:
            joined.append(word)
        if "[" in word:
            inside = True
        if "]" in word:
            inside = False
    return [w.replace("\0", "") for w in joined]


def _instruction(form: Form, words: list[str], number: int) -> Instruction:
    values: dict[str, int] = {}
    unexplained = 0
    generators = {g.prefix: g for g in form.generators}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals:
            raise ProgramError(f"line {number}: {word!r} is no field=value.")
        try:
            if name in generators:
                values |= _walk_values(generators[name], value)
            elif name in form.watches:
                values |= _watch_values(form, name, value)
            elif name in form.signals:
                values |= _signal_values(name, value)
            elif name == "bits" and "bits" not in form.by_name:
                unexplained = int(value, 0)
            else:
                values[name] = int(value, 0)
        except (ValueError, AttributeError, KeyError) as error:
            raise ProgramError(f"line {number}: {word!r} cannot be understood.") from error
    made = instruction(form.name, values)
    return Instruction(made.form, made.values, made.offset, unexplained)


def _walk_values(generator: AddressGenerator, text: str) -> dict[str, int]:
    match = _WALK.match(text)
    if match is None:
        raise ValueError(text)
    start, dims_text, mask, level, slot, dim, limit, delta = match.groups()
    p = generator.prefix
    values = {f"{p}.start": int(start), f"{p}.mask": int(mask, 16), f"{p}.level": int(level or 0),
              f"{p}.slot": int(slot or 0), f"{p}.epilogue_dim": int(dim or 0), f"{p}.epilogue_limit": int(limit or 0),
              f"{p}.epilogue_delta": int(delta or 0)}
    dims = [tuple(int(v) for v in pair.split("x")) for pair in dims_text.split()]
    inner = 0
    for d in range(generator.dims):
        count, stride = dims[d] if d < len(dims) else (1, 0)
        values[f"{p}.delta{d}"] = stride - inner
        values[f"{p}.limit{d}"] = count - 1
        inner += stride * (count - 1)
    return values


def _watch_values(form: Form, name: str, text: str) -> dict[str, int]:
    match = _WATCH.match(text)
    if match is None:
        raise ValueError(text)
    counter, count, step, level, side, off = match.groups()
    counters = ScalarCounter if form.scalar else TileCounter
    number = int(counter[1:]) if re.fullmatch(r"C\d+", counter) else counters[counter].value
    values = {f"{name}.counter": number, f"{name}.count": int(count), f"{name}.step": int(step),
              f"{name}.level": int(level), f"{name}.valid": int(not off)}
    if side:
        values[f"{name}.side"] = 1
    return values


def _signal_values(name: str, text: str) -> dict[str, int]:
    match = _SIGNAL.match(text)
    if match is None:
        raise ValueError(text)
    return {f"{name}.valid": int(not match.group(2)), f"{name}.level": int(match.group(1))}
