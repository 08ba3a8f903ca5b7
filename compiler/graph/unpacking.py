"""TensorFlow Lite flatbuffers to the objects of the schema, with every offset checked before it is used.

The Python bindings trust a file: a wild vector length makes them loop or allocate for it. They
also look for every field of every table anew. This walk reads a table by its vtable, of which a
file has few, and the number of tables and characters is bounded by the size of the file. The
options of builtin operators are small tables of scalars and numbers: of them only the frame is
checked, the bindings read the rest.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import cache
from types import SimpleNamespace
from typing import Any

import numpy as np

from compiler.errors import InvalidModelError

Bytes = bytes | memoryview
Field = tuple[int, str, Callable[[int], Any]]
"""Where it lies in its table, its name, and what reads it there."""

_STRING, _UNION = "string", "union"
_BYTES_PER_TABLE = 4
"""A table is at least its offset to the vtable."""
_DAMAGE = (struct.error, IndexError, ValueError, TypeError, OverflowError)
"""What the bindings raise on damaged options."""

TABLES: dict[str, dict[int, tuple[str, str]]] = {
    "Model": {
        0: ("version", "I"), 1: ("operatorCodes", "[OperatorCode]"), 2: ("subgraphs", "[SubGraph]"),
        3: ("description", _STRING), 4: ("buffers", "[Buffer]"), 5: ("metadataBuffer", "*<i4"),
        6: ("metadata", "[Metadata]"), 7: ("signatureDefs", "[SignatureDef]"),
        8: ("externalBufferGroups", "[ExternalBufferGroup]"), 9: ("externalBuffers", "[ExternalBuffer]")},
    "OperatorCode": {
        0: ("deprecatedBuiltinCode", "b"), 1: ("customCode", _STRING), 2: ("version", "i"), 3: ("builtinCode", "i")},
    "SubGraph": {
        0: ("tensors", "[Tensor]"), 1: ("inputs", "*<i4"), 2: ("outputs", "*<i4"), 3: ("operators", "[Operator]"),
        4: ("name", _STRING), 5: ("debugMetadataIndex", "i")},
    "Tensor": {
        0: ("shape", "*<i4"), 1: ("type", "b"), 2: ("buffer", "I"), 3: ("name", _STRING),
        4: ("quantization", "QuantizationParameters"), 5: ("isVariable", "?"), 6: ("sparsity", "SparsityParameters"),
        7: ("shapeSignature", "*<i4"), 8: ("hasRank", "?"), 9: ("variantTensors", "[VariantSubType]"),
        10: ("externalBuffer", "I")},
    "QuantizationParameters": {
        0: ("min", "*<f4"), 1: ("max", "*<f4"), 2: ("scale", "*<f4"), 3: ("zeroPoint", "*<i8"), 4: ("detailsType", "B"),
        5: ("details", _UNION), 6: ("quantizedDimension", "i")},
    "SparsityParameters": {
        0: ("traversalOrder", "*<i4"), 1: ("blockMap", "*<i4"), 2: ("dimMetadata", "[DimensionMetadata]")},
    "DimensionMetadata": {
        0: ("format", "b"), 1: ("denseSize", "i"), 2: ("arraySegmentsType", "B"), 3: ("arraySegments", _UNION),
        4: ("arrayIndicesType", "B"), 5: ("arrayIndices", _UNION)},
    "VariantSubType": {0: ("shape", "*<i4"), 1: ("type", "b"), 2: ("hasRank", "?")},
    "Operator": {
        0: ("opcodeIndex", "I"), 1: ("inputs", "*<i4"), 2: ("outputs", "*<i4"), 3: ("builtinOptionsType", "B"),
        4: ("builtinOptions", _UNION), 5: ("customOptions", "*|u1"), 6: ("customOptionsFormat", "b"),
        7: ("mutatingVariableInputs", "*|b1"), 8: ("intermediates", "*<i4"), 9: ("largeCustomOptionsOffset", "Q"),
        10: ("largeCustomOptionsSize", "Q"), 11: ("builtinOptions2Type", "B"), 12: ("builtinOptions2", _UNION),
        13: ("debugMetadataIndex", "i")},
    "Buffer": {0: ("data", "*|u1"), 1: ("offset", "Q"), 2: ("size", "Q")},
    "Metadata": {0: ("name", _STRING), 1: ("buffer", "I")},
    "SignatureDef": {
        0: ("inputs", "[TensorMap]"), 1: ("outputs", "[TensorMap]"), 2: ("signatureKey", _STRING),
        4: ("subgraphIndex", "I")},
    "TensorMap": {0: ("name", _STRING), 1: ("tensorIndex", "I")},
    "ExternalBufferGroup": {0: ("name", _STRING)},
    "ExternalBuffer": {0: ("id", "I"), 1: ("group", "I"), 2: ("offset", "Q"), 3: ("length", "Q"), 4: ("packing", _STRING)},
}
"""Name and type of the fields of each table by slot: a letter of ``struct``, ``*`` a vector of such numpy numbers, ``[T]``
a vector of tables."""
_UNIONS = {
    "builtinOptions": "BuiltinOptions", "builtinOptions2": "BuiltinOptions2", "details": "QuantizationDetails",
    "arraySegments": "SparseIndexVector", "arrayIndices": "SparseIndexVector",
}
"""Enumeration of the members of each union; the field in front of it, ``...Type``, tells which one it is."""


def unpack_model(data: Bytes, source: str) -> Any:
    """Return the model in a file, a ``ModelT`` of the schema; vectors of numbers are views into the file.

    Raises
    ------
    InvalidModelError
        When an offset or a length leaves the file.
    """
    unpacker = _Unpacker(data)
    try:
        return unpacker.table(unpacker.offset(0, "Model"), "Model")
    except _DamageError as error:
        raise InvalidModelError(f"{source}: is damaged or truncated: {error}.",
                                advice="Copy or export the model again.") from error


@cache
def names_of(enumeration: str) -> dict[int, str]:
    """Return the names of the members of an enumeration of the schema, by number."""
    import ai_edge_litert.schema_py_generated as schema

    return {value: name for name, value in vars(getattr(schema, enumeration)).items() if isinstance(value, int)}


class _DamageError(Exception):
    """What is wrong, without the name of the file."""


class _Unpacker:
    def __init__(self, data: Bytes) -> None:
        import ai_edge_litert.schema_py_generated as schema

        self.schema = schema
        self.data = data
        self.size = len(data)
        self.tables_left = self.size // _BYTES_PER_TABLE
        self.characters_left = self.size
        self.known: dict[tuple[int, str], tuple[int, list[Field]]] = {}

    def number(self, layout: struct.Struct, at: int, what: str) -> int:
        if not 0 <= at <= self.size - layout.size:
            raise _DamageError(f"{what} lies at byte {at}, the file has {self.size}")
        value: int = layout.unpack_from(self.data, at)[0]
        return value

    def offset(self, at: int, what: str) -> int:
        return at + self.number(_U32, at, what)

    def table(self, at: int, kind: str) -> Any:
        """Return a table as an object of the schema."""
        fields = self.frame(at, kind)
        # Older bindings lack the newest tables, and keep nothing of them.
        made = getattr(self.schema, f"{kind}T", SimpleNamespace)()
        for inside, name, read in fields:
            setattr(made, name, read(at + inside))
        for _, name, _ in fields:
            if name in _UNIONS:
                setattr(made, name, self.member(_UNIONS[name], getattr(made, f"{name}Type"), getattr(made, name)))
        return made

    def frame(self, at: int, kind: str) -> list[Field]:
        """Check that a table lies in the file; returns the fields that it has."""
        self.tables_left -= 1
        if self.tables_left < 0:
            raise _DamageError("its tables overlap")
        vtable = at - self.number(_I32, at, kind)
        if (vtable, kind) not in self.known:
            self.known[vtable, kind] = self.vtable(vtable, kind)
        extent, fields = self.known[vtable, kind]
        if at + extent > self.size:
            raise _DamageError(f"{kind} at byte {at} does not fit")
        return fields

    def vtable(self, at: int, kind: str) -> tuple[int, list[Field]]:
        """Return bytes and fields of all tables with a vtable."""
        entries = self.number(_U16, at, f"vtable of {kind}")
        extent = self.number(_U16, at + 2, f"vtable of {kind}")
        if entries < 4 or at + entries > self.size or extent < 4:
            raise _DamageError(f"{kind} with the vtable at byte {at} does not fit")
        fields = []
        for slot, (name, form) in TABLES.get(kind, {}).items():
            position = 4 + 2 * slot
            inside = self.number(_U16, at + position, kind) if position + 2 <= entries else 0
            if inside:
                width = struct.calcsize(f"<{form}") if len(form) == 1 else _U32.size
                if inside + width > extent:
                    raise _DamageError(f"a field of {kind} lies outside of it")
                fields.append((inside, name, self.reader(form, kind)))
        return extent, fields

    def reader(self, form: str, owner: str) -> Callable[[int], Any]:
        """Return what reads a field of some type at its place."""
        if len(form) == 1:
            scalar, data = struct.Struct(f"<{form}"), self.data
            return lambda at: scalar.unpack_from(data, at)[0]
        if form == _STRING:
            return lambda at: self.string(self.offset(at, owner), owner)
        if form == _UNION:
            return lambda at: self.offset(at, owner)
        if form.startswith("*"):
            dtype = np.dtype(form[1:])
            return lambda at: self.numbers(self.offset(at, owner), dtype, owner)
        if form.startswith("["):
            return lambda at: self.tables(self.offset(at, owner), form[1:-1])
        return lambda at: self.table(self.offset(at, owner), form)

    def string(self, at: int, owner: str) -> bytes:
        count = self.vector(at, 1, owner)
        self.characters_left -= count
        if self.characters_left < 0:
            raise _DamageError("its strings overlap")
        return bytes(self.data[at + 4:at + 4 + count])

    def numbers(self, at: int, dtype: np.dtype[Any], owner: str) -> Any:
        return np.frombuffer(self.data, dtype, self.vector(at, dtype.itemsize, owner), at + 4)

    def tables(self, at: int, kind: str) -> list[Any]:
        places = range(at + 4, at + 4 + 4 * self.vector(at, 4, kind), 4)
        return [self.table(self.offset(place, kind), kind) for place in places]

    def vector(self, at: int, width: int, owner: str) -> int:
        """Return how many elements a vector has."""
        count = self.number(_U32, at, f"a vector of {owner}")
        end = at + 4 + count * width
        if end > self.size:
            raise _DamageError(f"a vector of {owner} ends at byte {end}, the file has {self.size}")
        return count

    def member(self, union: str, number: int, at: int) -> Any:
        """Return the table in a union; None for a kind that the schema does not know."""
        self.frame(at, union)
        kind = getattr(self.schema, f"{names_of(union).get(number)}T", None)
        try:
            return None if kind is None else kind.InitFromBuf(self.data, at)
        except _DAMAGE as error:
            raise _DamageError(str(error)) from error


_U16, _I32, _U32 = struct.Struct("<H"), struct.Struct("<i"), struct.Struct("<I")
