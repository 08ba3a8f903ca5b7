"""A bounds-checked view of flatbuffer tables.

The flatbuffers library reads without checks; containers come from strangers. This view follows
the same public wire format, and every offset is checked against the buffer before it is used.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from compiler.errors import PackageError

T = TypeVar("T")


def _unpack(fmt: str, data: memoryview, at: int, what: str) -> int | float:
    if at < 0 or at + struct.calcsize(fmt) > len(data):
        raise PackageError(f"{what} is damaged: an offset leaves the buffer of {len(data)} bytes")
    value: int | float = struct.unpack_from(fmt, data, at)[0]
    return value


@dataclass(frozen=True)
class TableView:
    """One table of a flatbuffer.

    Parameters
    ----------
    data:
        The whole buffer.
    at:
        Position of the table.
    what:
        Name of the buffer for error messages.
    """

    data: memoryview
    at: int
    what: str

    @classmethod
    def root(cls, data: bytes | memoryview, what: str, identifier: bytes | None = None) -> TableView:
        """Return the root table.

        Raises
        ------
        PackageError
            When the buffer is too short or carries another file identifier.
        """
        view = memoryview(data)
        if identifier is not None and bytes(view[4:8]) != identifier:
            raise PackageError(f"{what} does not begin with the identifier {identifier.decode()}")
        return cls(view, int(_unpack("<I", view, 0, what)), what)

    def _field(self, slot: int) -> int:
        """Position of a field, 0 when absent."""
        vtable = self.at - int(_unpack("<i", self.data, self.at, self.what))
        size = int(_unpack("<H", self.data, vtable, self.what))
        entry = 4 + 2 * slot
        if entry + 2 > size:
            return 0
        offset = int(_unpack("<H", self.data, vtable + entry, self.what))
        return self.at + offset if offset else 0

    def integer(self, slot: int, fmt: str = "<i", default: int = 0) -> int:
        """Return an integer field."""
        at = self._field(slot)
        return int(_unpack(fmt, self.data, at, self.what)) if at else default

    def real(self, slot: int) -> float:
        """Return a float32 field."""
        at = self._field(slot)
        return float(_unpack("<f", self.data, at, self.what)) if at else 0.0

    def has(self, slot: int) -> bool:
        """Tell whether the field is present."""
        return bool(self._field(slot))

    def table(self, slot: int) -> TableView | None:
        """Return a sub-table."""
        at = self._field(slot)
        return TableView(self.data, self._follow(at), self.what) if at else None

    def blob(self, slot: int) -> memoryview:
        """Return a vector of bytes (or a string) as a view; empty when absent."""
        at = self._field(slot)
        return self._bytes(self._follow(at)) if at else memoryview(b"")

    def string(self, slot: int) -> str:
        """Return a string; empty when absent."""
        return bytes(self.blob(slot)).decode("utf-8", "replace")

    def integers(self, slot: int) -> tuple[int, ...]:
        """Return a vector of int32."""
        at = self._field(slot)
        if not at:
            return ()
        start, count = self._vector(self._follow(at), 4)
        return struct.unpack_from(f"<{count}i", self.data, start)

    def pairs(self, slot: int) -> tuple[tuple[int, int], ...]:
        """Return a vector of structs of two int32."""
        at = self._field(slot)
        if not at:
            return ()
        start, count = self._vector(self._follow(at), 8)
        flat = struct.unpack_from(f"<{2 * count}i", self.data, start)
        return tuple(zip(flat[::2], flat[1::2], strict=True))

    def tables(self, slot: int, make: Callable[[TableView], T]) -> tuple[T, ...]:
        """Return a vector of tables, each turned into an object by ``make``."""
        return tuple(make(TableView(self.data, self._follow(at), self.what)) for at in self._elements(slot))

    def blobs(self, slot: int) -> tuple[memoryview, ...]:
        """Return a vector of strings as views."""
        return tuple(self._bytes(self._follow(at)) for at in self._elements(slot))

    def _elements(self, slot: int) -> range:
        at = self._field(slot)
        if not at:
            return range(0)
        start, count = self._vector(self._follow(at), 4)
        return range(start, start + 4 * count, 4)

    def _follow(self, at: int) -> int:
        return at + int(_unpack("<I", self.data, at, self.what))

    def _vector(self, at: int, element: int) -> tuple[int, int]:
        count = int(_unpack("<I", self.data, at, self.what))
        if at + 4 + count * element > len(self.data):
            raise PackageError(f"{self.what} is damaged: a vector of {count} elements leaves the buffer")
        return at + 4, count

    def _bytes(self, at: int) -> memoryview:
        start, count = self._vector(at, 1)
        return self.data[start:start + count]
