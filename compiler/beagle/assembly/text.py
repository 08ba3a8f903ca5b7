"""Readable assembly that turns back into the same bytes.

One instruction per line: offset in words, mnemonic, ``field=value``. Records (address generators,
loops, watches, signals) have a compact notation, see :mod:`compiler.beagle.assembly.operands`;
multipliers and table coefficients are decimal float32. Text after ``;`` is comment: headings of the
parts of a program, and what scalar instructions do.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from compiler.beagle.assembly.operands import record_values, take_records
from compiler.beagle.assembly.remarks import remark
from compiler.beagle.assembly.sections import sections
from compiler.beagle.assembly.values import value_of, value_text
from compiler.beagle.isa import FORM_BY_NAME, Form, Instruction, decode_stream, encode_stream, instruction
from compiler.errors import ProgramError

_IMPLIED = ("opcode", "scalar")
_UNEXPLAINED = "bits?"
"""Set bits that no field explains; they survive the way through text."""
_WORD = re.compile(r"[^\s\[]+(?:\[[^\]]*\][^\s\[]*)?|\S+")
"""A word, with the blanks inside the brackets of a generator."""


def disassemble(stream: bytes, *, raw: bool = False, layers: Mapping[int, str] | None = None) -> str:
    """Return the text of an instruction stream.

    Parameters
    ----------
    raw:
        Plain field values instead of the compact notations, no comments.
    layers:
        Headings by word offset; by default what :func:`sections` reads from the program.

    Raises
    ------
    ProgramError
        When the bytes are no instruction stream.
    """
    program = decode_stream(stream)
    headings: Mapping[int, str] = {}
    if not raw:
        headings = sections(program) if layers is None else layers
    lines: list[str] = []
    for ins in program:
        if ins.offset in headings:
            lines.append(f"; ---- {headings[ins.offset]}")
        lines.append(line(ins, raw=raw))
    return "\n".join(lines)


def line(ins: Instruction, *, raw: bool = False) -> str:
    """Return the text of one instruction."""
    rest = {k: v for k, v in ins.values.items() if k not in _IMPLIED}
    records = [] if raw else list(take_records(ins, rest))
    plain = [f"{k}={value_text(ins.form, k, v, raw=raw)}" for k, v in rest.items()]
    if ins.unexplained:
        plain.append(f"{_UNEXPLAINED}={ins.unexplained:#x}")
    text = " ".join([f"{ins.offset:05x}:", ins.name, *plain, *records])
    comment = "" if raw else remark(ins)
    return f"{text}  ; {comment}" if comment else text


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
        words = _WORD.findall(row.partition(";")[0])
        if words and words[0].endswith(":"):
            words = words[1:]
        if not words:
            continue
        form = FORM_BY_NAME.get(words[0])
        if form is None:
            raise ProgramError(f"line {number}: no instruction is called {words[0]!r}.")
        yield _instruction(form, words[1:], number)


def _instruction(form: Form, words: list[str], number: int) -> Instruction:
    values: dict[str, int] = {}
    unexplained = 0
    for word in words:
        name, equals, text = word.partition("=")
        if not equals or not text:
            raise ProgramError(f"line {number}: {word!r} is no field=value.")
        try:
            if name == _UNEXPLAINED:
                unexplained = int(text, 0)
                continue
            record = record_values(form, name, text)
            added = {name: value_of(form, name, text)} if record is None else record
        except (ValueError, KeyError) as error:
            raise ProgramError(f"line {number}: {word!r} cannot be understood.") from error
        if values.keys() & added.keys():
            raise ProgramError(f"line {number}: {name} is given twice.")
        values |= added
    if unexplained & form.covered or unexplained >> form.words * 128:
        raise ProgramError(f"line {number}: {_UNEXPLAINED} sets bits that fields name, or that {form.name} does not have.")
    try:
        made = instruction(form.name, values)
    except ProgramError as error:
        raise ProgramError(f"line {number}: {error.message}") from error
    return Instruction(made.form, made.values, made.offset, unexplained)
