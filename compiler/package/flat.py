"""A bounds-checked view of flatbuffer tables.

The flatbuffers library reads without checks; containers come from strangers. This view follows
the same public wire format. Every offset is checked before it is used, and since an object may be
referred to from many places, the work that a damaged or hostile buffer can cause is limited too.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TypeVar

from compiler.errors import PackageError
from compiler.records import record

T = TypeVar("T")
_READS_PER_BYTE = 4
"""An intact buffer refers to everything once, except to the empty string: this is never reached."""


@dataclass
class _Buffer:
    """The bytes, their name for messages, and how much of them may still be read."""

    data: memoryview
    what: str
    budget: int = field(init=False)

    def __post_init__(self) -> None:
        self.budget = _READS_PER_BYTE * len(self.data)

    def number(self, fmt: str, at: int, slot: IntEnum | None = None) -> int | float:
        if at < 0 or at + struct.calcsize(fmt) > len(self.data):
            raise self.damage(slot, f"points outside of the buffer of {len(self.data)} bytes")
        value: int | float = struct.unpack_from(fmt, self.data, at)[0]
        return value

    def spend(self, size: int, slot: IntEnum) -> None:
        self.budget -= size
        if self.budget < 0:
            raise self.damage(slot, f"repeats content many times over in a buffer of {len(self.data)} bytes")

    def damage(self, slot: IntEnum | None, why: str) -> PackageError:
        where = "its beginning"
        if slot is not None:
            where = f"field {slot.name.lower()} of {type(slot).__name__.removesuffix('Slot')}"
        return PackageError(f"{self.what} is damaged: {where} {why}.", advice="Compile the model again.")


@record
class TableView:
    """One table of a flatbuffer.

    Fields are named by members of the enumerations in :mod:`compiler.package.schema`. All methods
    raise :class:`~compiler.errors.PackageError` when the table is damaged.

    Attributes
    ----------
    at:
        Position of the table in its buffer.
    """

    buffer: _Buffer
    at: int

    @classmethod
    def root(cls, data: bytes | memoryview, what: str, identifier: bytes | None = None) -> TableView:
        """Return the root table.

        Parameters
        ----------
        data:
            The whole buffer.
        what:
            Its name for messages.

        Raises
        ------
        PackageError
            When the buffer is too short or carries another file identifier.
        """
        buffer = _Buffer(memoryview(data), what)
        if identifier is not None and bytes(buffer.data[4:8]) != identifier:
            raise PackageError(f"{what} does not begin with the identifier {identifier.decode()}.")
        return cls(buffer, int(buffer.number("<I", 0)))

    def integer(self, slot: IntEnum, fmt: str = "<i", default: int = 0) -> int:
        """Return an integer field."""
        at = self._field(slot)
        return int(self.buffer.number(fmt, at, slot)) if at else default

    def real(self, slot: IntEnum) -> float:
        """Return a float32 field."""
        at = self._field(slot)
        return float(self.buffer.number("<f", at, slot)) if at else 0.0

    def flag(self, slot: IntEnum) -> bool:
        """Return a truth value."""
        return bool(self.integer(slot, "<B"))

    def member(self, slot: IntEnum, kind: Callable[[int], T], fmt: str = "<h") -> T:
        """Return a field that holds a member of an enumeration."""
        value = self.integer(slot, fmt)
        try:
            return kind(value)
        except ValueError as error:
            raise self.damage(slot, f"has the unknown value {value}") from error

    def has(self, slot: IntEnum) -> bool:
        """Tell whether the field is present."""
        return bool(self._field(slot))

    def table(self, slot: IntEnum) -> TableView | None:
        """Return a sub-table, None when absent."""
        at = self._field(slot)
        return TableView(self.buffer, self._follow(at, slot)) if at else None

    def blob(self, slot: IntEnum) -> memoryview:
        """Return a vector of bytes (or a string) as a view; empty when absent."""
        at = self._field(slot)
        return self._bytes(at, slot) if at else memoryview(b"")

    def string(self, slot: IntEnum) -> str:
        """Return a string; empty when absent. Bytes that are not UTF-8 become replacement marks, as in tensor names."""
        return bytes(self.blob(slot)).decode("utf-8", "replace")

    def integers(self, slot: IntEnum) -> tuple[int, ...]:
        """Return a vector of int32."""
        start, count = self._vector(slot, 4)
        return struct.unpack_from(f"<{count}i", self.buffer.data, start)

    def pairs(self, slot: IntEnum) -> tuple[tuple[int, int], ...]:
        """Return a vector of structs of two int32."""
        start, count = self._vector(slot, 8)
        flat = struct.unpack_from(f"<{2 * count}i", self.buffer.data, start)
        return tuple(zip(flat[::2], flat[1::2], strict=True))

    def tables(self, slot: IntEnum, make: Callable[[TableView], T]) -> tuple[T, ...]:
        """Return a vector of tables, each turned into an object by ``make``."""
        return tuple(make(TableView(self.buffer, self._follow(at, slot))) for at in self._elements(slot))

    def blobs(self, slot: IntEnum) -> tuple[memoryview, ...]:
        """Return a vector of strings as views."""
        return tuple(self._bytes(at, slot) for at in self._elements(slot))

    def damage(self, slot: IntEnum, why: str) -> PackageError:
        """Return the error for a field that makes no sense."""
        return self.buffer.damage(slot, why)

    def _field(self, slot: IntEnum) -> int:
        """Position of a field, 0 when absent."""
        number = self.buffer.number
        vtable = self.at - int(number("<i", self.at, slot))
        size = int(number("<H", vtable, slot))
        entry = 4 + 2 * slot
        if entry + 2 > size:
            return 0
        offset = int(number("<H", vtable + entry, slot))
        return self.at + offset if offset else 0

    def _follow(self, at: int, slot: IntEnum) -> int:
        self.buffer.spend(4, slot)
        return at + int(self.buffer.number("<I", at, slot))

    def _elements(self, slot: IntEnum) -> range:
        start, count = self._vector(slot, 4)
        return range(start, start + 4 * count, 4)

    def _vector(self, slot: IntEnum, element: int) -> tuple[int, int]:
        """First byte and number of elements of the vector of a field."""
        at = self._field(slot)
        return self._extent(self._follow(at, slot), element, slot) if at else (0, 0)

    def _bytes(self, at: int, slot: IntEnum) -> memoryview:
        start, count = self._extent(self._follow(at, slot), 1, slot)
        return self.buffer.data[start:start + count]

    def _extent(self, at: int, element: int, slot: IntEnum) -> tuple[int, int]:
        count = int(self.buffer.number("<I", at, slot))
        if at + 4 + count * element > len(self.buffer.data):
            raise self.damage(slot, f"has {count} elements, more than the buffer of {len(self.buffer.data)} bytes holds")
        self.buffer.spend(count * element, slot)
        return at + 4, count
