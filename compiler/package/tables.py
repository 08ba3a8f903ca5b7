"""Writes the tables and vectors of flatbuffers in the order in which the C++ library writes them.

The bytes of a flatbuffer depend on the order in which its parts are added. The Python library leaves
the order of the fields of a table to its caller; this is the order of the C++ library, in which all
official files were written.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from enum import IntEnum
from typing import Any

import numpy as np
from flatbuffers import number_types as n

U8, U32, U64 = n.Uint8Flags, n.Uint32Flags, n.Uint64Flags
I8, I16, I32, I64, F32 = n.Int8Flags, n.Int16Flags, n.Int32Flags, n.Int64Flags, n.Float32Flags
OFFSET = "offset"
"""Type of fields that refer to a table, a vector or a string."""
Field = tuple[IntEnum, Any, Any, Any]
"""Slot, type, value, and the default at which the field is left out (None: never). Values of None are left out."""


def add_table(b: Any, slots: Collection[IntEnum] | type[IntEnum], fields: Sequence[Field]) -> int:
    """Add a table: larger fields first, later slots first."""
    present = [f for f in fields if f[2] is not None and (f[3] is None or f[2] != f[3])]
    present.sort(key=lambda f: (-(4 if f[1] is OFFSET else f[1].bytewidth), -f[0]))
    b.StartObject(len(slots))
    for slot, kind, value, _ in present:
        if kind is OFFSET:
            b.PrependUOffsetTRelativeSlot(slot, value, 0)
        else:
            b.Prepend(kind, value)
            b.Slot(slot)
    return int(b.EndObject())


def add_bytes(b: Any, data: Any, alignment: int = 1) -> int:
    """Add a vector of bytes (a bytes-like object) whose content is aligned."""
    view = memoryview(data).cast("B")
    b.StartVector(1, len(view), alignment)
    return fill_vector(b, view, len(view))


def add_integers(b: Any, values: Sequence[int]) -> int:
    """Add a vector of int32."""
    b.StartVector(4, len(values), 4)
    return fill_vector(b, np.asarray(values, "<i4").tobytes(), len(values))


def add_offsets(b: Any, offsets: Sequence[int]) -> int:
    """Add a vector of references to parts that are already there."""
    b.StartVector(4, len(offsets), 4)
    for offset in reversed(offsets):
        b.PrependUOffsetTRelative(offset)
    b.vectorNumElems = len(offsets)
    return int(b.EndVector())


def fill_vector(b: Any, data: bytes | memoryview, count: int) -> int:
    """Add the content of an opened vector of ``count`` elements at once."""
    b.head -= len(data)
    b.Bytes[b.head:b.head + len(data)] = data
    b.vectorNumElems = count
    return int(b.EndVector())
