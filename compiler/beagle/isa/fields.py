"""Building blocks of the instruction tables: fields, address generators, watches, signals.

An instruction is a little-endian integer of ``128 * words`` bits. A :class:`Field` names
a range of its bits; a :class:`Form` is the complete table of one opcode. Bits that no
field of a form covers are zero in every known program, and the encoder never sets them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property

from compiler.records import record

WORD_BITS = 128
"""Instructions are sequences of 128-bit words."""


class Evidence(Enum):
    """How well the meaning of a field is known."""

    PROVEN = "A"
    """Exact results of complete programs depend on position, value and meaning."""
    CONSISTENT = "B"
    """Every known program agrees; the meaning is inferred, not exercised numerically."""
    GUESS = "C"
    """Position and value are certain, the meaning is a guess."""


@record
class Field:
    """A named range of bits of an instruction.

    Attributes
    ----------
    name:
        Dotted name; fields of one record (an address generator, a watch) share a prefix.
    low, width:
        Lowest bit and number of bits, in the integer of the whole instruction.
    signed:
        Two's complement when true.
    """

    name: str
    low: int
    width: int
    signed: bool = False
    meaning: str = ""
    evidence: Evidence = Evidence.PROVEN

    @property
    def high(self) -> int:
        """Highest bit, inclusive."""
        return self.low + self.width - 1

    @property
    def minimum(self) -> int:
        """Smallest value that can be encoded."""
        return -(1 << (self.width - 1)) if self.signed else 0

    @property
    def maximum(self) -> int:
        """Largest value that can be encoded."""
        return (1 << (self.width - 1)) - 1 if self.signed else (1 << self.width) - 1


@record
class AddressGenerator:
    """Names of the fields of one tensor traversal unit (TTU) inside a form."""

    prefix: str
    width: int
    dims: int


@record
class Form:
    """The table of one opcode.

    Attributes
    ----------
    name:
        Mnemonic, as assembly text shows it.
    code:
        Opcode, bits 6..10.
    scalar:
        True for instructions of the scalar core (bit 11), false for tile instructions.
    words:
        Length in 128-bit words.
    """

    name: str
    code: int
    scalar: bool
    words: int
    summary: str
    fields: tuple[Field, ...]
    generators: tuple[AddressGenerator, ...] = ()
    watches: tuple[str, ...] = ()
    signals: tuple[str, ...] = ()

    @property
    def key(self) -> tuple[bool, int]:
        """What the first word tells: class and opcode."""
        return (self.scalar, self.code)

    @property
    def label(self) -> str:
        """Opcode as written in the notes: S or T and two hexadecimal digits."""
        return f"{'S' if self.scalar else 'T'}{self.code:02x}"

    @cached_property
    def by_name(self) -> dict[str, Field]:
        """Fields by name."""
        return {f.name: f for f in self.fields}

    @cached_property
    def identity(self) -> dict[str, int]:
        """Values of the fields that tell the form."""
        return {"opcode": self.code, "scalar": int(self.scalar)}

    @cached_property
    def packing(self) -> dict[str, tuple[int, int, int, int]]:
        """By name of the field: lowest bit, mask of the width, smallest and largest value."""
        return {f.name: (f.low, (1 << f.width) - 1, f.minimum, f.maximum) for f in self.fields}

    @cached_property
    def covered(self) -> int:
        """Mask of all bits that a field explains."""
        mask = 0
        for f in self.fields:
            mask |= ((1 << f.width) - 1) << f.low
        return mask


@dataclass
class FormBuilder:
    """Collects the fields of a form; refuses overlaps and bits outside it."""

    name: str
    code: int
    scalar: bool
    words: int
    summary: str
    fields: list[Field] = field(default_factory=list)
    generators: list[AddressGenerator] = field(default_factory=list)
    watches: list[str] = field(default_factory=list)
    signals: list[str] = field(default_factory=list)

    def add(self, name: str, low: int, width: int, meaning: str, *, signed: bool = False,
            evidence: Evidence = Evidence.PROVEN) -> FormBuilder:
        """Add one field."""
        self.fields.append(Field(name, low, width, signed, meaning, evidence))
        return self

    def header(self, *, tiles: bool = False, trace_low: int | None = None) -> FormBuilder:
        """Add the predicate, opcode and class, and for tile instructions mask and trace id."""
        self.add("predicated", 0, 1, "executes only if the predicate register has the wanted sense")
        self.add("predicate", 1, 3, "predicate register")
        self.add("sense", 4, 1, "wanted value of the predicate")
        self.add("opcode", 6, 5, "operation")
        self.add("scalar", 11, 1, "1: scalar core, 0: tiles")
        if tiles:
            self.add("tiles", 12, 16, "mask of the tiles addressed, bit t = tile t")
        if trace_low is not None:
            self.add("trace", trace_low, 16, "running number of the tile instruction")
        return self

    def generator(self, prefix: str, low: int, width: int, dims: int, meaning: str) -> FormBuilder:
        """Add the record of one tensor traversal unit; returns with all its fields added."""
        level_bits = 3 if dims > 4 else 2
        at = low
        self.add(f"{prefix}.start", at, width, f"{meaning}: first address")
        at += width
        for d in range(dims):
            self.add(f"{prefix}.delta{d}", at, width + 1, f"{meaning}: added when dimension {d} steps (contains the "
                     "rewind of the inner dimensions)", signed=True)
            self.add(f"{prefix}.limit{d}", at + width + 1, width, f"{meaning}: steps of dimension {d} minus one")
            at += 2 * width + 1
        self.add(f"{prefix}.mask", at, dims, f"{meaning}: dimensions with a net stride other than zero",
                 evidence=Evidence.CONSISTENT)
        at += dims
        self.add(f"{prefix}.level", at, level_bits, f"{meaning}: the slot toggles after this many inner dimensions")
        at += level_bits
        self.add(f"{prefix}.slot", at, width + 1, f"{meaning}: distance of the two ping-pong slots", signed=True)
        at += width + 1
        self.add(f"{prefix}.epilogue_limit", at, width, f"{meaning}: limit of dimension 0 in the epilogue")
        at += width
        self.add(f"{prefix}.epilogue_dim", at, level_bits, f"{meaning}: the last step of this dimension, 0 = none")
        at += level_bits
        self.add(f"{prefix}.epilogue_delta", at, width, f"{meaning}: added to the rewind in the epilogue")
        self.generators.append(AddressGenerator(prefix, width, dims))
        return self

    def signal(self, name: str, low: int, level_bits: int, meaning: str) -> FormBuilder:
        """Add a signal: a counter that rises once per completed block of ``level`` dimensions."""
        self.add(f"{name}.valid", low, 1, f"raises {meaning}")
        self.add(f"{name}.level", low + 1, level_bits, f"once per block of this many inner dimensions ({meaning})")
        self.signals.append(name)
        return self

    def watch(self, name: str, low: int, counter_bits: int, level_bits: int, *, side: bool = False) -> FormBuilder:
        """Add a watch: block i starts when counter - (count + step * i) >= 0, as signed 16-bit."""
        self.add(f"{name}.counter", low, counter_bits, "sync counter that is watched")
        at = low + counter_bits
        self.add(f"{name}.level", at, level_bits, "one check per block of this many inner dimensions")
        at += level_bits
        self.add(f"{name}.count", at, 16, "value the first block waits for", signed=True)
        self.add(f"{name}.step", at + 16, 16, "added to it per block", signed=True)
        self.add(f"{name}.valid", at + 32, 1, "the watch is in use")
        if side:
            self.add(f"{name}.side", at + 33, 1, "0: guards the source generator, 1: the destination")
        self.watches.append(name)
        return self

    def build(self) -> Form:
        """Check the table and freeze it.

        Raises
        ------
        ValueError
            When fields overlap, repeat a name or leave the instruction.
        """
        _check(self.name, self.words, self.fields)
        return Form(self.name, self.code, self.scalar, self.words, self.summary,
                    tuple(sorted(self.fields, key=lambda f: f.low)), tuple(self.generators),
                    tuple(self.watches), tuple(self.signals))


def _check(name: str, words: int, fields: Iterable[Field]) -> None:
    taken = 0
    names: set[str] = set()
    for f in fields:
        mask = ((1 << f.width) - 1) << f.low
        if taken & mask or f.name in names or f.high >= words * WORD_BITS:
            raise ValueError(f"table of {name}: field {f.name} overlaps, repeats or leaves the instruction")
        taken |= mask
        names.add(f.name)
