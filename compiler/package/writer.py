"""Dataclasses to containers, laid out as official files are.

The order in which objects enter the flatbuffer, explicit default values and page alignment follow
published files, so that equal content gives equal bytes.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from enum import IntEnum
from typing import Any

import flatbuffers
import numpy as np
from flatbuffers import number_types as n

from compiler.errors import PackageError
from compiler.package.model import (
    DescriptorHint,
    DmaHints,
    Executable,
    ExecutableType,
    FenceHint,
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
from compiler.package.schema import (
    FILE_IDENTIFIER,
    BitstreamSlot,
    DescriptorHintSlot,
    ExecutableSlot,
    FieldOffsetSlot,
    HintKind,
    HintSlot,
    HintsSlot,
    InstructionHintSlot,
    InterruptHintSlot,
    LayerKind,
    LayerSlot,
    MetaSlot,
    MultiExecutableSlot,
    NumericsSlot,
    OutputLayerSlot,
    OutputLayoutSlot,
    PackageSlot,
    TensorShapeSlot,
)

PAGE = 4096
_HINT_KINDS = {DescriptorHint: HintKind.DMA_DESCRIPTOR, InstructionHint: HintKind.INSTRUCTION,
               InterruptHint: HintKind.INTERRUPT, FenceHint: HintKind.FENCE}
_U8, _I16, _I32, _I64, _U64, _F32 = (n.Uint8Flags, n.Int16Flags, n.Int32Flags, n.Int64Flags, n.Uint64Flags,
                                     n.Float32Flags)
_OFFSET = "offset"
Field = tuple[IntEnum, Any, Any, Any]
"""Slot, type, value, and the default at which the field is left out (None: never)."""


def write_package(package: Package) -> bytes:
    """Return the bytes of a container.

    Raises
    ------
    PackageError
        When the package was read from one with content that is not kept.
    """
    multi = _multi_executable(package)
    b = flatbuffers.Builder(len(multi) + PAGE)
    serialized = _bytes(b, multi, PAGE)
    signature = _bytes(b, package.signature)
    version = b.CreateString(package.compiler_version)
    identifier = None if package.model_identifier is None else b.CreateString(package.model_identifier)
    slot = PackageSlot
    b.Finish(_table(b, slot, [
        (slot.MIN_RUNTIME_VERSION, _I32, package.min_runtime_version, None),
        (slot.SERIALIZED_MULTI_EXECUTABLE, _OFFSET, serialized, None),
        (slot.SIGNATURE, _OFFSET, signature, None),
        (slot.KEYPAIR_VERSION, _I32, package.keypair_version, None),
        (slot.COMPILER_VERSION, _OFFSET, version, None),
        (slot.VIRTUAL_CHIP_ID, _I32, package.virtual_chip_id, None),
        (slot.MODEL_IDENTIFIER, _OFFSET, identifier, None),
    ]), FILE_IDENTIFIER)
    return bytes(b.Output())


def _multi_executable(package: Package) -> bytes:
    blobs = [write_executable(e) for e in package.executables]
    b = flatbuffers.Builder(sum(map(len, blobs)) + PAGE)
    vector = _offsets(b, [_page_string(b, blob) for blob in blobs])
    slot = MultiExecutableSlot
    b.Finish(_table(b, slot, [(slot.SERIALIZED_EXECUTABLES, _OFFSET, vector, None)]))
    return bytes(b.Output())


def write_executable(executable: Executable) -> bytes:
    """Return the bytes of one executable.

    Raises
    ------
    PackageError
        When it was read from one with content that is not kept.
    """
    b = flatbuffers.Builder(len(executable.parameters) + 4 * PAGE)
    w = _Writer(b)
    chunks = [w.chunk(c) for c in executable.chunks]
    inputs = [w.layer(layer) for layer in executable.inputs]
    outputs = [w.layer(layer) for layer in executable.outputs]
    parameters = _bytes(b, executable.parameters, PAGE)
    name = b.CreateString(executable.name)
    model = None if executable.serialized_model is None else _bytes(b, executable.serialized_model)
    bitstreams = _offsets(b, chunks)
    hints = None if executable.hints is None else w.hints(executable.hints)
    caching = executable.type is ExecutableType.PARAMETER_CACHING
    input_layers = None if caching and not inputs else _offsets(b, inputs)
    output_layers = None if caching and not outputs else _offsets(b, outputs)
    chip = b.CreateString(executable.chip)
    slot = ExecutableSlot
    b.Finish(_table(b, slot, [
        (slot.VERSION, _I32, executable.version, 0),
        (slot.NAME, _OFFSET, name, None),
        (slot.SERIALIZED_MODEL, _OFFSET, model, None),
        (slot.BATCH_SIZE, _I32, executable.batch_size, 0),
        (slot.SCRATCH_SIZE_BYTES, _I32, executable.scratch_size, 0),
        (slot.INSTRUCTION_BITSTREAMS, _OFFSET, bitstreams, None),
        (slot.PARAMETERS, _OFFSET, parameters, None),
        (slot.DMA_HINTS, _OFFSET, hints, None),
        (slot.INPUT_LAYERS, _OFFSET, input_layers, None),
        (slot.OUTPUT_LAYERS, _OFFSET, output_layers, None),
        (slot.CHIP, _OFFSET, chip, None),
        (slot.ESTIMATED_CYCLES, _I32, executable.estimated_cycles, 0),
        (slot.USED_NARROW_MEMORY_BYTES_PER_TILE, _I32, executable.used_narrow_bytes, 0),
        (slot.TYPE, _I16, int(executable.type), 0),
        (slot.PARAMETER_CACHING_TOKEN, _U64, executable.token, 0),
        (slot.USE_TPU_DRAM_FOR_PARAMETERS, _U8, int(executable.parameters_in_dram), 0),
        (slot.ESTIMATED_CYCLES_64BIT, _I64, executable.estimated_cycles_64bit, 0),
    ]))
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
        data = _bytes(self.b, chunk.data)
        vector = _offsets(self.b, [self.field_offset(f) for f in chunk.field_offsets])
        slot = BitstreamSlot
        return _table(self.b, slot, [(slot.BITSTREAM, _OFFSET, data, None), (slot.FIELD_OFFSETS, _OFFSET, vector, None)])

    def field_offset(self, offset: FieldOffset) -> int:
        slot = FieldOffsetSlot
        return _table(self.b, slot, [(slot.META, _OFFSET, self.meta(offset.meta), None),
                                     (slot.OFFSET_BIT, _I32, offset.offset_bit, 0)])

    def meta(self, meta: Meta) -> int:
        slot = MetaSlot
        return _table(self.b, slot, [
            (slot.DESC, _I16, int(meta.base), 0),
            (slot.BATCH, _I32, meta.batch, 0),
            (slot.NAME, _OFFSET, self.string(meta.name), None),
            (slot.POSITION, _I16, int(meta.position), 0),
        ])

    def layer(self, layer: Layer) -> int:
        if layer.has_slices:
            raise PackageError(f"output {layer.name} is described by slices, which cannot be written.")
        slot = LayerSlot
        name = self.b.CreateString(layer.name)
        numerics = _table(self.b, NumericsSlot, [
            (NumericsSlot.ZERO_POINT, _I32, layer.zero_point, 0),
            (NumericsSlot.DEQUANTIZATION_FACTOR, _F32, layer.scale, 0.0),
        ])
        body = self.body(layer)
        shape = None if layer.shape is None else self.shape(layer.shape)
        kind = LayerKind.OUTPUT if layer.is_output else LayerKind.INPUT
        return _table(self.b, slot, [
            (slot.NAME, _OFFSET, name, None),
            (slot.SIZE_BYTES, _I32, layer.size, 0),
            (slot.Y_DIM, _I32, layer.y, 0),
            (slot.X_DIM, _I32, layer.x, 0),
            (slot.Z_DIM, _I32, layer.z, 0),
            (slot.NUMERICS, _OFFSET, numerics, None),
            (slot.DATA_TYPE, _I16, int(layer.data_type), 0),
            (slot.ANY_LAYER_TYPE, _U8, int(kind), 0),
            (slot.ANY_LAYER, _OFFSET, body, None),
            (slot.EXECUTION_COUNT_PER_INFERENCE, _I32, layer.executions, 1),
            (slot.CACHE_ON_DRAM, _U8, int(layer.cache_on_dram), 0),
            (slot.SHAPE, _OFFSET, shape, None),
        ])

    def body(self, layer: Layer) -> int:
        if not layer.is_output:
            return _table(self.b, (), [])
        layout = None if layer.layout is None else self.layout(layer.layout)
        return _table(self.b, OutputLayerSlot, [(OutputLayerSlot.LAYOUT, _OFFSET, layout, None)])

    def layout(self, layout: OutputLayout) -> int:
        tables = (layout.tile_y, layout.tile_x, layout.tile_offset, layout.local_x, layout.local_y, layout.row_size)
        vectors = [_integers(self.b, table) for table in tables]
        return _table(self.b, OutputLayoutSlot,
                      [(slot, _OFFSET, vector, None) for slot, vector in zip(OutputLayoutSlot, vectors, strict=True)])

    def shape(self, ranges: Sequence[tuple[int, int]]) -> int:
        self.b.StartVector(8, len(ranges), 4)
        vector = _fill(self.b, np.asarray(ranges, "<i4").tobytes(), len(ranges))
        return _table(self.b, TensorShapeSlot, [(TensorShapeSlot.DIMENSION, _OFFSET, vector, None)])

    def hints(self, hints: DmaHints) -> int:
        vector = _offsets(self.b, [self.hint(h) for h in hints.hints])
        slot = HintsSlot
        return _table(self.b, slot, [(slot.HINTS, _OFFSET, vector, None),
                                     (slot.FULLY_DETERMINISTIC, _U8, int(hints.fully_deterministic), 0)])

    def hint(self, hint: Hint) -> int:
        body, slot = self.hint_body(hint), HintSlot
        return _table(self.b, slot, [
            (slot.ANY_HINT_TYPE, _U8, int(_HINT_KINDS[type(hint)]), 0),
            (slot.ANY_HINT, _OFFSET, body, None),
            (slot.DIRECTION, _I16, int(hint.direction), 0),
        ])

    def hint_body(self, hint: Hint) -> int:
        if isinstance(hint, DescriptorHint):
            slot = DescriptorHintSlot
            return _table(self.b, slot, [(slot.META, _OFFSET, self.meta(hint.meta), None),
                                         (slot.OFFSET_IN_BYTES, _I32, hint.offset, 0),
                                         (slot.SIZE_IN_BYTES, _I32, hint.size, 0)])
        if isinstance(hint, InstructionHint):
            return _table(self.b, InstructionHintSlot, [(InstructionHintSlot.INSTRUCTION_CHUNK_INDEX, _I32, hint.chunk, 0)])
        if isinstance(hint, InterruptHint):
            return _table(self.b, InterruptHintSlot, [(InterruptHintSlot.TYPE, _I16, hint.interrupt, 0)])
        return _table(self.b, (), [])


def _table(b: Any, slots: Collection[IntEnum] | type[IntEnum], fields: Sequence[Field]) -> int:
    """Add a table: larger fields first, later slots first; values equal to the default are dropped."""
    present = [f for f in fields if f[2] is not None and (f[3] is None or f[2] != f[3])]
    present.sort(key=lambda f: (-(4 if f[1] is _OFFSET else f[1].bytewidth), -f[0]))
    b.StartObject(len(slots))
    for slot, kind, value, _ in present:
        if kind is _OFFSET:
            b.PrependUOffsetTRelativeSlot(slot, value, 0)
        else:
            b.Prepend(kind, value)
            b.Slot(slot)
    return int(b.EndObject())


def _page_string(b: Any, blob: bytes) -> int:
    """Add a string whose bytes, counted with its terminating zero, begin on a page."""
    b.Prep(PAGE, len(blob) + 1)
    b.assertNotNested()
    b.nested = True
    b.Place(0, n.Uint8Flags)
    return _fill(b, blob, len(blob))


def _bytes(b: Any, data: bytes, alignment: int = 1) -> int:
    b.StartVector(1, len(data), alignment)
    return _fill(b, data, len(data))


def _fill(b: Any, data: bytes, count: int) -> int:
    """Add the content of an opened vector at once."""
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
