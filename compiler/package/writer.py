"""Dataclasses to containers, laid out as official files are.

The order in which objects enter the flatbuffer, explicit default values and page alignment follow
published files, so that equal content gives equal bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import flatbuffers
import numpy as np
from flatbuffers import number_types as n

from compiler.package.model import (
    DescriptorHint,
    DmaHints,
    Executable,
    ExecutableType,
    FieldOffset,
    Hint,
    InstructionChunk,
    InstructionHint,
    InterruptHint,
    Layer,
    Meta,
    OutputLayout,
    Package,
)
from compiler.package.reader import IDENTIFIER

PAGE = 4096
_HINT_KINDS = {DescriptorHint: 1, InstructionHint: 2, InterruptHint: 3}
_FENCE_KIND = 4

_I8, _U8, _I16, _I32, _I64, _U64, _F32 = (n.Int8Flags, n.Uint8Flags, n.Int16Flags, n.Int32Flags, n.Int64Flags,
                                          n.Uint64Flags, n.Float32Flags)
_OFFSET = "offset"
Field = tuple[int, Any, Any, Any]


def write_package(package: Package) -> bytes:
    """Return the bytes of a container."""
    multi = _multi_executable(package)
    b = flatbuffers.Builder(len(multi) + PAGE)
    serialized = _bytes(b, multi, PAGE)
    signature = _bytes(b, package.signature, 1)
    version = b.CreateString(package.compiler_version)
    identifier = None if package.model_identifier is None else b.CreateString(package.model_identifier)
    fields: list[Field] = [
        (0, _I32, package.min_runtime_version, None), (1, _OFFSET, serialized, None), (2, _OFFSET, signature, None),
        (3, _I32, package.keypair_version, None), (4, _OFFSET, version, None), (5, _I32, package.virtual_chip_id, None),
    ]
    if identifier is not None:
        fields.append((7, _OFFSET, identifier, None))
    b.Finish(_table(b, 8, fields), IDENTIFIER)
    return bytes(b.Output())


def _multi_executable(package: Package) -> bytes:
    blobs = [write_executable(e) for e in package.executables]
    b = flatbuffers.Builder(sum(map(len, blobs)) + PAGE)
    offsets = [_page_string(b, blob) for blob in blobs]
    b.Finish(_table(b, 1, [(0, _OFFSET, _offsets(b, offsets), None)]))
    return bytes(b.Output())


def _page_string(b: Any, blob: bytes) -> int:
    """Add a string whose bytes, counted with its terminating zero, begin on a page."""
    b.Prep(PAGE, len(blob) + 1)
    return _raw(b, blob, 1, terminated=True)


def write_executable(executable: Executable) -> bytes:
    """Return the bytes of one executable."""
    b = flatbuffers.Builder(len(executable.parameters) + 4 * PAGE)
    w = _Writer(b)
    chunks = [w.chunk(c) for c in executable.chunks]
    inputs = [w.layer(layer) for layer in executable.inputs]
    outputs = [w.layer(layer) for layer in executable.outputs]
    parameters = _bytes(b, executable.parameters, PAGE)
    name = b.CreateString(executable.name)
    model = None if executable.serialized_model is None else _bytes(b, executable.serialized_model, 1)
    bitstreams = _offsets(b, chunks)
    hints = None if executable.hints is None else w.hints(executable.hints)
    caching = executable.type is ExecutableType.PARAMETER_CACHING
    input_layers = None if caching and not inputs else _offsets(b, inputs)
    output_layers = None if caching and not outputs else _offsets(b, outputs)
    chip = b.CreateString(executable.chip)
    fields: list[Field] = [
        (0, _I32, executable.version, 0), (1, _OFFSET, name, None), (2, _OFFSET, model, None),
        (3, _I32, executable.batch_size, 0), (4, _I32, executable.scratch_size, 0),
        (5, _OFFSET, bitstreams, None), (6, _OFFSET, parameters, None), (7, _OFFSET, hints, None),
        (8, _OFFSET, input_layers, None), (9, _OFFSET, output_layers, None), (10, _OFFSET, chip, None),
        (11, _I32, executable.estimated_cycles, 0), (12, _I32, executable.used_narrow_bytes, 0),
        (13, _I16, int(executable.type), 0), (14, _U64, executable.token, 0),
        (15, _U8, int(executable.parameters_in_dram), 0), (16, _I64, executable.estimated_cycles_64bit, 0),
    ]
    b.Finish(_table(b, 17, fields))
    return bytes(b.Output())


class _Writer:
    """Writes the parts of one executable; only empty strings are shared."""

    def __init__(self, builder: Any) -> None:
        self.b = builder
        self._empty: int | None = None

    def string(self, text: str) -> int:
        if text:
            return int(self.b.CreateString(text))
        if self._empty is None:
            self._empty = int(self.b.CreateString(""))
        return self._empty

    def chunk(self, chunk: InstructionChunk) -> int:
        data = _bytes(self.b, chunk.data, 1)
        offsets = [self.field_offset(f) for f in chunk.field_offsets]
        vector = _offsets(self.b, offsets)
        return _table(self.b, 2, [(0, _OFFSET, data, None), (1, _OFFSET, vector, None)])

    def field_offset(self, offset: FieldOffset) -> int:
        meta = self.meta(offset.meta)
        return _table(self.b, 2, [(0, _OFFSET, meta, None), (1, _I32, offset.offset_bit, 0)])

    def meta(self, meta: Meta) -> int:
        name = self.string(meta.name)
        return _table(self.b, 4, [(0, _I16, int(meta.base), 0), (1, _I32, meta.batch, 0), (2, _OFFSET, name, None),
                                  (3, _I16, int(meta.position), 0)])

    def layer(self, layer: Layer) -> int:
        name = self.b.CreateString(layer.name)
        numerics = _table(self.b, 2, [(0, _I32, layer.zero_point, 0), (1, _F32, layer.scale, 0.0)])
        body = self.body(layer)
        shape = None if layer.shape is None else self.shape(layer.shape)
        return _table(self.b, 12, [
            (0, _OFFSET, name, None), (1, _I32, layer.size, 0), (2, _I32, layer.y, 0), (3, _I32, layer.x, 0),
            (4, _I32, layer.z, 0), (5, _OFFSET, numerics, None), (6, _I16, int(layer.data_type), 0),
            (7, _U8, 1 if layer.is_output else 2, 0), (8, _OFFSET, body, None), (9, _I32, layer.executions, 1),
            (10, _U8, int(layer.cache_on_dram), 0), (11, _OFFSET, shape, None),
        ])

    def body(self, layer: Layer) -> int:
        if not layer.is_output:
            return _table(self.b, 0, [])
        layout = None if layer.layout is None else self.layout(layer.layout)
        return _table(self.b, 3, [(0, _OFFSET, layout, None)])

    def layout(self, layout: OutputLayout) -> int:
        vectors = [_integers(self.b, v) for v in (layout.tile_y, layout.tile_x, layout.tile_offset, layout.local_x,
                                                  layout.local_y, layout.row_size)]
        return _table(self.b, 6, [(i, _OFFSET, v, None) for i, v in enumerate(vectors)])

    def shape(self, ranges: Sequence[tuple[int, int]]) -> int:
        flat = np.asarray(ranges, "<i4").reshape(-1)
        self.b.StartVector(8, len(ranges), 4)
        vector = _fill(self.b, flat.tobytes(), len(ranges))
        return _table(self.b, 1, [(0, _OFFSET, vector, None)])

    def hints(self, hints: DmaHints) -> int:
        vector = _offsets(self.b, [self.hint(h) for h in hints.hints])
        return _table(self.b, 2, [(0, _OFFSET, vector, None), (1, _U8, int(hints.fully_deterministic), 0)])

    def hint(self, hint: Hint) -> int:
        fields: list[Field] = []
        if isinstance(hint, DescriptorHint):
            fields = [(0, _OFFSET, self.meta(hint.meta), None), (1, _I32, hint.offset, 0), (2, _I32, hint.size, 0)]
        elif isinstance(hint, InstructionHint):
            fields = [(0, _I32, hint.chunk, 0)]
        elif isinstance(hint, InterruptHint):
            fields = [(0, _I16, hint.interrupt, 0)]
        body = _table(self.b, 3, fields)
        kind = _HINT_KINDS.get(type(hint), _FENCE_KIND)
        return _table(self.b, 3, [(0, _U8, kind, 0), (1, _OFFSET, body, None), (2, _I16, int(hint.direction), 0)])


def _table(b: Any, slots: int, fields: Sequence[Field]) -> int:
    """Add a table: larger fields first, later slots first; values equal to the default are dropped."""
    present = [f for f in fields if f[2] is not None and (f[3] is None or f[2] != f[3])]
    present.sort(key=lambda f: (-(4 if f[1] is _OFFSET else f[1].bytewidth), -f[0]))
    b.StartObject(slots)
    for slot, kind, value, _ in present:
        if kind is _OFFSET:
            b.PrependUOffsetTRelativeSlot(slot, value, 0)
        else:
            b.Prepend(kind, value)
            b.Slot(slot)
    return int(b.EndObject())


def _bytes(b: Any, data: bytes, alignment: int) -> int:
    return _raw(b, data, alignment)


def _raw(b: Any, data: bytes, alignment: int, *, terminated: bool = False) -> int:
    if terminated:
        b.assertNotNested()
        b.nested = True
        b.Prep(4, len(data) + 1)
        b.Place(0, n.Uint8Flags)
        return _fill(b, data, len(data))
    b.StartVector(1, len(data), alignment)
    return _fill(b, data, len(data))


def _fill(b: Any, data: bytes, count: int) -> int:
    b.head -= len(data)
    b.Bytes[b.head:b.head + len(data)] = data
    b.vectorNumElems = count
    return int(b.EndVector())


def _integers(b: Any, values: Sequence[int]) -> int:
    b.StartVector(4, len(values), 4)
    return _fill(b, np.asarray(values, "<i4").tobytes(), len(values))


def _offsets(b: Any, offsets: Sequence[int]) -> int:
    b.StartVector(4, len(offsets), 4)
    for offset in reversed(offsets):
        b.PrependUOffsetTRelative(offset)
    b.vectorNumElems = len(offsets)
    return int(b.EndVector())

