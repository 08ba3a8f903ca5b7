"""Instruction streams to instructions and back.

A stream is a sequence of 128-bit little-endian words. The low bits of the first word of an
instruction tell its form, the form tells its length. Decoding is vectorised: all instructions
of one form are unpacked together.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import field
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from compiler.beagle.isa.fields import WORD_BITS, Form
from compiler.beagle.isa.forms import FORM_BY_KEY, FORM_BY_NAME
from compiler.errors import ProgramError
from compiler.records import record

WORD_BYTES = WORD_BITS // 8


@record
class Instruction:
    """One instruction: its form and the values of its fields.

    Attributes
    ----------
    form:
        Table of the opcode.
    values:
        Field values by name. Fields that are zero are absent; :meth:`__getitem__` gives 0.
    offset:
        Position in the stream, in 128-bit words (-1 when not placed).
    unexplained:
        Mask of set bits that no field covers. Zero in every known program; kept so that
        a decoded stream encodes to the same bytes whatever it holds.
    """

    form: Form
    values: Mapping[str, int]
    offset: int = -1
    unexplained: int = field(default=0, repr=False)

    @property
    def name(self) -> str:
        """Mnemonic of the form."""
        return self.form.name

    def __getitem__(self, name: str) -> int:
        value = self.values.get(name)
        if value is not None:
            return value
        if name not in self.form.by_name:
            raise KeyError(f"{self.form.name} has no field {name}")
        return 0

    def replace(self, **values: int) -> Instruction:
        """Return a copy with other values; dots of a field name are written as double underscores."""
        return self.with_values({k.replace("__", "."): v for k, v in values.items()})

    def with_values(self, values: Mapping[str, int]) -> Instruction:
        """Return a copy with the given fields changed."""
        return instruction(self.form.name, {**self.values, **values}, offset=self.offset)


def instruction(name: str, values: Mapping[str, int], *, offset: int = -1) -> Instruction:
    """Make an instruction from a mnemonic and field values; opcode and class are filled in.

    Raises
    ------
    ProgramError
        When the form, a field, or a value does not exist or fit.
    """
    form = _form(name)
    full = {k: int(v) for k, v in values.items() if v}
    for key, own in form.identity.items():
        if own:
            full[key] = own
        else:
            full.pop(key, None)
    _pack(form, full)
    return Instruction(form, MappingProxyType(full), offset)


def encode(ins: Instruction) -> bytes:
    """Encode one instruction.

    Raises
    ------
    ProgramError
        When a value does not fit its field.
    """
    return (ins.unexplained | _pack(ins.form, ins.values)).to_bytes(ins.form.words * WORD_BYTES, "little")


def encode_values(name: str, values: Mapping[str, int]) -> tuple[Form, bytes]:
    """Encode an instruction from a mnemonic and field values other than opcode and class; returns its form, too.

    Raises
    ------
    ProgramError
        As :func:`instruction`.
    """
    form = _form(name)
    return form, (_pack(form, form.identity) | _pack(form, values)).to_bytes(form.words * WORD_BYTES, "little")


def _form(name: str) -> Form:
    form = FORM_BY_NAME.get(name)
    if form is None:
        raise ProgramError(f"no instruction is called {name}")
    return form


def _pack(form: Form, values: Mapping[str, int]) -> int:
    """Return the bits of fields that exist and fit."""
    word, packing = 0, form.packing
    for name, value in values.items():
        if value:
            if name not in packing:
                raise ProgramError(f"{form.name} has no field {name}")
            low, mask, minimum, maximum = packing[name]
            if not minimum <= value <= maximum:
                raise _does_not_fit(form, name, value)
            word |= (int(value) & mask) << low
    return word


def _does_not_fit(form: Form, name: str, value: int) -> ProgramError:
    f = form.by_name[name]
    return ProgramError(f"{form.name}.{name} = {value} does not fit {f.width} bits ({f.minimum}..{f.maximum})")


def encode_stream(instructions: Iterable[Instruction]) -> bytes:
    """Encode instructions one after the other."""
    return b"".join(map(encode, instructions))


def frame(data: bytes | memoryview) -> Iterator[tuple[int, Form]]:
    """Yield (word offset, form) of every instruction of a stream.

    Raises
    ------
    ProgramError
        When the length is no multiple of 16, an opcode is unknown, or the last
        instruction is cut.
    """
    view = memoryview(data)
    if len(view) % WORD_BYTES:
        raise ProgramError(f"instruction stream of {len(view)} bytes is not a multiple of {WORD_BYTES}")
    words = len(view) // WORD_BYTES
    at = 0
    while at < words:
        low = view[at * WORD_BYTES] | view[at * WORD_BYTES + 1] << 8
        form = FORM_BY_KEY.get((bool(low >> 11 & 1), low >> 6 & 31))
        if form is None:
            kind = "S" if low >> 11 & 1 else "T"
            raise ProgramError(f"unknown opcode {kind}{low >> 6 & 31:02x} at word {at:#x} of the instruction stream")
        if at + form.words > words:
            raise ProgramError(f"{form.name} at word {at:#x} is cut: the stream ends after {words} words")
        yield at, form
        at += form.words


def decode_stream(data: bytes | memoryview) -> tuple[Instruction, ...]:
    """Decode a complete stream.

    Parameters
    ----------
    data:
        The stream, a multiple of 16 bytes.

    Raises
    ------
    ProgramError
        See :func:`frame`.
    """
    places: dict[str, list[int]] = {}
    order: list[tuple[int, Form]] = list(frame(data))
    for at, form in order:
        places.setdefault(form.name, []).append(at)
    words = np.frombuffer(data, np.uint8).reshape(-1, WORD_BYTES)
    decoded: dict[int, Instruction] = {}
    for name, offsets in places.items():
        form = FORM_BY_NAME[name]
        rows = words[np.add.outer(np.asarray(offsets), np.arange(form.words))].reshape(len(offsets), -1)
        for ins in _decode_rows(form, rows, offsets):
            decoded[ins.offset] = ins
    return tuple(decoded[at] for at, _ in order)


def _decode_rows(form: Form, rows: npt.NDArray[np.uint8], offsets: Sequence[int]) -> Iterator[Instruction]:
    """Decode instructions of one form; rows has shape (instructions, bytes of the form)."""
    columns = [(f.name, _extract(rows, f.low, f.width, f.signed)) for f in form.fields]
    nonzero = [(name, column.tolist(), np.flatnonzero(column).tolist()) for name, column in columns]
    values: list[dict[str, int]] = [{} for _ in offsets]
    for name, column, present in nonzero:
        for i in present:
            values[i][name] = column[i]
    spare = _spare_bits(form, rows)
    for i, at in enumerate(offsets):
        yield Instruction(form, MappingProxyType(values[i]), at, spare[i])


def _extract(rows: npt.NDArray[np.uint8], low: int, width: int, signed: bool) -> npt.NDArray[np.int64]:
    """Take one bit field out of every row, as int64 (fields wider than 56 bits as Python integers)."""
    first, last = low // 8, (low + width - 1) // 8
    if last - first >= 8:
        return _extract_wide(rows, low, width)
    total: npt.NDArray[np.uint64] = np.zeros(len(rows), np.uint64)
    for i in range(first, last + 1):
        total |= rows[:, i].astype(np.uint64) << np.uint64(8 * (i - first))
    out = ((total >> np.uint64(low % 8)) & np.uint64((1 << width) - 1)).astype(np.int64)
    if signed:
        out -= (out >> (width - 1)) << width
    return out


def _extract_wide(rows: npt.NDArray[np.uint8], low: int, width: int) -> npt.NDArray[np.int64]:
    out = np.empty(len(rows), object)
    for i, row in enumerate(rows):
        out[i] = int.from_bytes(row.tobytes(), "little") >> low & ((1 << width) - 1)
    return out


def _spare_bits(form: Form, rows: npt.NDArray[np.uint8]) -> list[int]:
    keep = np.frombuffer((~form.covered & ((1 << form.words * WORD_BITS) - 1)).to_bytes(form.words * WORD_BYTES, "little"),
                         np.uint8)
    extra = rows & keep
    if not extra.any():
        return [0] * len(rows)
    return [int.from_bytes(row.tobytes(), "little") for row in extra]
