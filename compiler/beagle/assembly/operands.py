"""How records are written: address generators, loops, watches, signals.

========== ============================== =====================================================
record     text                           meaning
========== ============================== =====================================================
generator  ``src=2078[4x1 2x64]m3``       start, count x stride per dimension (innermost first),
                                          mask; further ``/2+64``: the second slot lies 64 further
                                          and is taken every other block of two dimensions;
                                          ``~1:32:16352``: in the last step of dimension 1 the
                                          innermost runs 32 elements, 16352 addresses are skipped
loops      ``loops=3.32.1.31~1:2``        iterations, innermost first; in the last iteration of
                                          loop 1 loop 0 runs 2
watch      ``watch0=RING_READ_A>=1+1/2``  block i of two dimensions waits for 1 + 1 * i; further
                                          ``@dst``: guards the destination, ``!off``: not in use
signal     ``done=/1``                    rises once per block of one dimension
========== ============================== =====================================================
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache

from compiler.beagle.isa import FORM_BY_NAME, AddressGenerator, Form, Instruction
from compiler.beagle.isa.counters import ScalarCounter, TileCounter

LOOPS = tuple(f"loop{i}" for i in range(8))
"""Fields of the loops of a compute instruction."""
_LOOP_FIELDS = (*LOOPS, "loop_epilogue_dim", "loop_epilogue_limit")
_WALK = re.compile(r"(-?\d+)\[([^\]]*)\]m([0-9a-f]+)(?:/(\d+)\+(-?\d+))?(?:~(\d+):(\d+):(\d+))?")
_WATCH = re.compile(r"(\w+)>=(-?\d+)\+(-?\d+)/(\d+)(@dst)?(!off)?")
_SIGNAL = re.compile(r"/(\d+)(!off)?")
_LOOPS = re.compile(r"(\d+(?:\.\d+)*)(?:~(\d+):(\d+))?")
_UNNAMED = re.compile(r"C(\d+)")


def take_records(ins: Instruction, rest: dict[str, int]) -> Iterator[str]:
    """Yield the texts of an instruction's records and take their fields out of ``rest``."""
    form = ins.form
    if _take(rest, _LOOP_FIELDS):
        yield f"loops={_loops_text(ins)}"
    for generator in form.generators:
        if _take(rest, _fields_of(form.name, generator.prefix)):
            yield f"{generator.prefix}={_walk_text(ins, generator)}"
    for name in form.watches:
        if _take(rest, _fields_of(form.name, name)):
            yield f"{name}={_watch_text(ins, name)}"
    for name in form.signals:
        if _take(rest, _fields_of(form.name, name)):
            yield f"{name}=/{ins[f'{name}.level']}{_off(ins, name)}"


def record_values(form: Form, name: str, text: str) -> dict[str, int] | None:
    """Return the field values of a record's text, None when the form has no such record.

    Raises
    ------
    ValueError, KeyError
        When the text cannot be understood.
    """
    for generator in form.generators:
        if generator.prefix == name:
            return _walk_values(generator, text)
    if name in form.watches:
        return _watch_values(form, name, text)
    if name in form.signals:
        level, off = _match(_SIGNAL, text)
        return {f"{name}.valid": int(not off), f"{name}.level": int(level)}
    if name == "loops" and LOOPS[0] in form.by_name:
        return _loops_values(text)
    return None


def counts_of(ins: Instruction, generator: AddressGenerator) -> list[tuple[int, int]]:
    """Return (elements, stride) per dimension, innermost first."""
    dims, inner = [], 0
    for d in range(generator.dims):
        stride = ins[f"{generator.prefix}.delta{d}"] + inner
        count = ins[f"{generator.prefix}.limit{d}"] + 1
        inner += stride * (count - 1)
        dims.append((count, stride))
    return dims


def _take(rest: dict[str, int], fields: tuple[str, ...]) -> bool:
    present = [name for name in fields if name in rest]
    for name in present:
        del rest[name]
    return bool(present)


@cache
def _fields_of(form: str, record: str) -> tuple[str, ...]:
    return tuple(name for name in FORM_BY_NAME[form].by_name if name.startswith(f"{record}."))


def _match(pattern: re.Pattern[str], text: str) -> tuple[str, ...]:
    match = pattern.fullmatch(text)
    if match is None:
        raise ValueError(text)
    return match.groups()


def _off(ins: Instruction, record: str) -> str:
    return "" if ins[f"{record}.valid"] else "!off"


def _loops_text(ins: Instruction) -> str:
    counts = [ins[name] + 1 for name in LOOPS]
    while len(counts) > 1 and counts[-1] == 1:
        counts.pop()
    text = ".".join(map(str, counts))
    dim, limit = ins["loop_epilogue_dim"], ins["loop_epilogue_limit"]
    return f"{text}~{dim}:{limit + 1}" if dim or limit else text


def _loops_values(text: str) -> dict[str, int]:
    counts, dim, last = _match(_LOOPS, text)
    values = {name: int(count) - 1 for name, count in zip(LOOPS, counts.split("."), strict=False)}
    if len(values) != len(counts.split(".")):
        raise ValueError(text)
    return values | ({} if dim is None else {"loop_epilogue_dim": int(dim), "loop_epilogue_limit": int(last) - 1})


def _walk_text(ins: Instruction, generator: AddressGenerator) -> str:
    p = generator.prefix
    dims = counts_of(ins, generator)
    # A trailing dimension of one element without a delta of its own needs no mention.
    while dims and dims[-1] == (1, 0):
        dims.pop()
    text = f"{ins[f'{p}.start']}[{' '.join(f'{n}x{s}' for n, s in dims)}]m{ins[f'{p}.mask']:x}"
    if ins[f"{p}.level"] or ins[f"{p}.slot"]:
        text += f"/{ins[f'{p}.level']}+{ins[f'{p}.slot']}"
    dim, limit, delta = (ins[f"{p}.epilogue_{part}"] for part in ("dim", "limit", "delta"))
    return f"{text}~{dim}:{limit + 1}:{delta}" if dim or limit or delta else text


def _walk_values(generator: AddressGenerator, text: str) -> dict[str, int]:
    start, dims_text, mask, level, slot, dim, last, skipped = _match(_WALK, text)
    p = generator.prefix
    values = {f"{p}.start": int(start), f"{p}.mask": int(mask, 16), f"{p}.level": int(level or 0),
              f"{p}.slot": int(slot or 0), f"{p}.epilogue_dim": int(dim or 0), f"{p}.epilogue_limit": int(last or 1) - 1,
              f"{p}.epilogue_delta": int(skipped or 0)}
    dims = [(int(count), int(stride)) for count, stride in (pair.split("x") for pair in dims_text.split())]
    if len(dims) > generator.dims:
        raise ValueError(text)
    inner = 0
    for d, (count, stride) in enumerate([*dims, *[(1, 0)] * (generator.dims - len(dims))]):
        values[f"{p}.delta{d}"] = stride - inner
        values[f"{p}.limit{d}"] = count - 1
        inner += stride * (count - 1)
    return values


def _watch_text(ins: Instruction, name: str) -> str:
    counters = ScalarCounter if ins.form.scalar else TileCounter
    number = ins[f"{name}.counter"]
    # Five bits hold 32 numbers, the tile has 19 counters.
    counter = counters(number).name if number < len(counters) else f"C{number}"
    side = "@dst" if ins.values.get(f"{name}.side") else ""
    return f"{counter}>={ins[f'{name}.count']}+{ins[f'{name}.step']}/{ins[f'{name}.level']}{side}{_off(ins, name)}"


def _watch_values(form: Form, name: str, text: str) -> dict[str, int]:
    counter, count, step, level, side, off = _match(_WATCH, text)
    counters = ScalarCounter if form.scalar else TileCounter
    unnamed = _UNNAMED.fullmatch(counter)
    values = {f"{name}.counter": int(unnamed[1]) if unnamed else counters[counter].value, f"{name}.count": int(count),
              f"{name}.step": int(step), f"{name}.level": int(level), f"{name}.valid": int(not off)}
    return values | ({f"{name}.side": 1} if side else {})
