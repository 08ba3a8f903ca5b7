"""Structural check of a TensorFlow Lite flatbuffer before anything is unpacked.

The Python bindings trust a file: a wild vector length makes them loop or allocate for it.
This walk looks at every table that unpacking visits, so that afterwards all offsets lie
inside the file and the number of tables and characters is bounded by its size. Options of
builtin operators are small tables of scalars and numbers; of them only the frame is checked.
"""

from __future__ import annotations

import struct

from compiler.errors import InvalidModelError

Bytes = bytes | memoryview

_STRING, _FRAME = "string", "frame"
_BYTES_PER_TABLE = 4
"""A table is at least its offset to the vtable."""

TABLES: dict[str, dict[int, str]] = {
    "Model": {1: "[OperatorCode]", 2: "[SubGraph]", 3: _STRING, 4: "[Buffer]", 5: "*4", 6: "[Metadata]",
              7: "[SignatureDef]", 8: "[ExternalBufferGroup]", 9: "[ExternalBuffer]"},
    "OperatorCode": {1: _STRING},
    "SubGraph": {0: "[Tensor]", 1: "*4", 2: "*4", 3: "[Operator]", 4: _STRING},
    "Tensor": {0: "*4", 3: _STRING, 4: "Quantization", 6: "Sparsity", 7: "*4", 9: "[VariantSubType]"},
    "Quantization": {0: "*4", 1: "*4", 2: "*4", 3: "*8", 5: _FRAME},
    "Sparsity": {0: "*4", 1: "*4", 2: "[DimensionMetadata]"},
    "DimensionMetadata": {3: _FRAME, 5: _FRAME},
    "VariantSubType": {0: "*4"},
    "Operator": {1: "*4", 2: "*4", 4: _FRAME, 5: "*1", 7: "*1", 8: "*4", 12: _FRAME},
    "Buffer": {0: "*1"},
    "Metadata": {0: _STRING},
    "SignatureDef": {0: "[TensorMap]", 1: "[TensorMap]", 2: _STRING},
    "TensorMap": {0: _STRING},
    "ExternalBufferGroup": {0: _STRING},
    "ExternalBuffer": {4: _STRING},
    _FRAME: {},
}
"""Offset fields of each table by slot: ``*n`` is a vector of numbers of n bytes, ``[T]`` of tables."""


def verify_structure(data: Bytes, source: str) -> None:
    """Check that the offsets and lengths of a file stay inside it.

    Raises
    ------
    InvalidModelError
        When one does not.
    """
    verifier = _Verifier(data)
    try:
        verifier.table(verifier.offset(0, "Model"), "Model")
    except _DamageError as error:
        raise InvalidModelError(f"{source}: is damaged or truncated: {error}.",
                                advice="Copy or export the model again.") from error


class _DamageError(Exception):
    """What is wrong, without the name of the file."""


class _Verifier:
    def __init__(self, data: Bytes) -> None:
        self.data = data
        self.size = len(data)
        self.tables_left = self.size // _BYTES_PER_TABLE
        self.characters_left = self.size

    def number(self, layout: str, width: int, at: int, what: str) -> int:
        if not 0 <= at <= self.size - width:
            raise _DamageError(f"{what} lies at byte {at}, the file has {self.size}")
        value: int = struct.unpack_from(layout, self.data, at)[0]
        return value

    def offset(self, at: int, what: str) -> int:
        return at + self.number("<I", 4, at, what)

    def table(self, at: int, kind: str) -> None:
        self.tables_left -= 1
        if self.tables_left < 0:
            raise _DamageError("its tables overlap")
        vtable = at - self.number("<i", 4, at, kind)
        entries = self.number("<H", 2, vtable, f"vtable of {kind}")
        extent = self.number("<H", 2, vtable + 2, f"vtable of {kind}")
        if entries < 4 or vtable + entries > self.size or extent < 4 or at + extent > self.size:
            raise _DamageError(f"{kind} at byte {at} does not fit")
        for slot, field in TABLES[kind].items():
            position = 4 + 2 * slot
            if position + 2 > entries:
                continue
            inside = self.number("<H", 2, vtable + position, kind)
            if inside:
                if inside + 4 > extent:
                    raise _DamageError(f"a field of {kind} at byte {at} lies outside of it")
                self.field(self.offset(at + inside, kind), field, kind)

    def field(self, at: int, field: str, owner: str) -> None:
        if field == _STRING:
            self.characters_left -= self.vector(at, 1, owner)
            if self.characters_left < 0:
                raise _DamageError("its strings overlap")
        elif field.startswith("*"):
            self.vector(at, int(field[1:]), owner)
        elif field.startswith("["):
            kind = field[1:-1]
            first = at + 4
            for i in range(self.vector(at, 4, kind)):
                self.table(self.offset(first + 4 * i, kind), kind)
        else:
            self.table(at, field)

    def vector(self, at: int, width: int, owner: str) -> int:
        count = self.number("<I", 4, at, f"a vector of {owner}")
        end = at + 4 + count * width
        if end > self.size:
            raise _DamageError(f"a vector of {owner} ends at byte {end}, the file has {self.size}")
        return count
