"""Dataclasses to containers, laid out as official files are.

The order in which objects enter the flatbuffer, explicit default values and page alignment follow
published files, so that equal content gives equal bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import flatbuffers
import numpy as np

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
from compiler.package.tables import (
    F32,
    I16,
    I32,
    I64,
    OFFSET,
    U8,
    U64,
    add_bytes,
    add_integers,
    add_offsets,
    add_table,
    fill_vector,
)

PAGE = 4096
_HINT_KINDS = {DescriptorHint: HintKind.DMA_DESCRIPTOR, InstructionHint: HintKind.INSTRUCTION,
               InterruptHint: HintKind.INTERRUPT, FenceHint: HintKind.FENCE}


def write_package(package: Package) -> bytes:
    """Return the bytes of a container.

    Raises
    ------
    PackageError
        When the package was read from one with content that is not kept.
    """
    multi = _multi_executable(package)
    b = flatbuffers.Builder(len(multi) + PAGE)
    serialized = add_bytes(b, multi, PAGE)
    signature = add_bytes(b, package.signature)
    version = b.CreateString(package.compiler_version)
    identifier = None if package.model_identifier is None else b.CreateString(package.model_identifier)
    slot = PackageSlot
    b.Finish(add_table(b, slot, [
        (slot.MIN_RUNTIME_VERSION, I32, package.min_runtime_version, None),
        (slot.SERIALIZED_MULTI_EXECUTABLE, OFFSET, serialized, None),
        (slot.SIGNATURE, OFFSET, signature, None),
        (slot.KEYPAIR_VERSION, I32, package.keypair_version, None),
        (slot.COMPILER_VERSION, OFFSET, version, None),
        (slot.VIRTUAL_CHIP_ID, I32, package.virtual_chip_id, None),
        (slot.MODEL_IDENTIFIER, OFFSET, identifier, None),
    ]), FILE_IDENTIFIER)
    return bytes(b.Output())


def _multi_executable(package: Package) -> bytes:
    blobs = [write_executable(e) for e in package.executables]
    b = flatbuffers.Builder(sum(map(len, blobs)) + PAGE)
    vector = add_offsets(b, [_page_string(b, blob) for blob in blobs])
    slot = MultiExecutableSlot
    b.Finish(add_table(b, slot, [(slot.SERIALIZED_EXECUTABLES, OFFSET, vector, None)]))
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
    parameters = add_bytes(b, executable.parameters, PAGE)
    name = b.CreateString(executable.name)
    model = None if executable.serialized_model is None else add_bytes(b, executable.serialized_model)
    bitstreams = add_offsets(b, chunks)
    hints = None if executable.hints is None else w.hints(executable.hints)
    caching = executable.type is ExecutableType.PARAMETER_CACHING
    input_layers = None if caching and not inputs else add_offsets(b, inputs)
    output_layers = None if caching and not outputs else add_offsets(b, outputs)
    chip = b.CreateString(executable.chip)
    slot = ExecutableSlot
    b.Finish(add_table(b, slot, [
        (slot.VERSION, I32, executable.version, 0),
        (slot.NAME, OFFSET, name, None),
        (slot.SERIALIZED_MODEL, OFFSET, model, None),
        (slot.BATCH_SIZE, I32, executable.batch_size, 0),
        (slot.SCRATCH_SIZE_BYTES, I32, executable.scratch_size, 0),
        (slot.INSTRUCTION_BITSTREAMS, OFFSET, bitstreams, None),
        (slot.PARAMETERS, OFFSET, parameters, None),
        (slot.DMA_HINTS, OFFSET, hints, None),
        (slot.INPUT_LAYERS, OFFSET, input_layers, None),
        (slot.OUTPUT_LAYERS, OFFSET, output_layers, None),
        (slot.CHIP, OFFSET, chip, None),
        (slot.ESTIMATED_CYCLES, I32, executable.estimated_cycles, 0),
        (slot.USED_NARROW_MEMORY_BYTES_PER_TILE, I32, executable.used_narrow_bytes, 0),
        (slot.TYPE, I16, int(executable.type), 0),
        (slot.PARAMETER_CACHING_TOKEN, U64, executable.token, 0),
        (slot.USE_TPU_DRAM_FOR_PARAMETERS, U8, int(executable.parameters_in_dram), 0),
        (slot.ESTIMATED_CYCLES_64BIT, I64, executable.estimated_cycles_64bit, 0),
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
        data = add_bytes(self.b, chunk.data)
        vector = add_offsets(self.b, [self.field_offset(f) for f in chunk.field_offsets])
        slot = BitstreamSlot
        return add_table(self.b, slot, [(slot.BITSTREAM, OFFSET, data, None), (slot.FIELD_OFFSETS, OFFSET, vector, None)])

    def field_offset(self, offset: FieldOffset) -> int:
        slot = FieldOffsetSlot
        return add_table(self.b, slot, [(slot.META, OFFSET, self.meta(offset.meta), None),
                                     (slot.OFFSET_BIT, I32, offset.offset_bit, 0)])

    def meta(self, meta: Meta) -> int:
        slot = MetaSlot
        return add_table(self.b, slot, [
            (slot.DESC, I16, int(meta.base), 0),
            (slot.BATCH, I32, meta.batch, 0),
            (slot.NAME, OFFSET, self.string(meta.name), None),
            (slot.POSITION, I16, int(meta.position), 0),
        ])

    def layer(self, layer: Layer) -> int:
        if layer.has_slices:
            raise PackageError(f"output {layer.name} is described by slices, which cannot be written.")
        slot = LayerSlot
        name = self.b.CreateString(layer.name)
        numerics = add_table(self.b, NumericsSlot, [
            (NumericsSlot.ZERO_POINT, I32, layer.zero_point, 0),
            (NumericsSlot.DEQUANTIZATION_FACTOR, F32, layer.scale, 0.0),
        ])
        body = self.body(layer)
        shape = None if layer.shape is None else self.shape(layer.shape)
        kind = LayerKind.OUTPUT if layer.is_output else LayerKind.INPUT
        return add_table(self.b, slot, [
            (slot.NAME, OFFSET, name, None),
            (slot.SIZE_BYTES, I32, layer.size, 0),
            (slot.Y_DIM, I32, layer.y, 0),
            (slot.X_DIM, I32, layer.x, 0),
            (slot.Z_DIM, I32, layer.z, 0),
            (slot.NUMERICS, OFFSET, numerics, None),
            (slot.DATA_TYPE, I16, int(layer.data_type), 0),
            (slot.ANY_LAYER_TYPE, U8, int(kind), 0),
            (slot.ANY_LAYER, OFFSET, body, None),
            (slot.EXECUTION_COUNT_PER_INFERENCE, I32, layer.executions, 1),
            (slot.CACHE_ON_DRAM, U8, int(layer.cache_on_dram), 0),
            (slot.SHAPE, OFFSET, shape, None),
        ])

    def body(self, layer: Layer) -> int:
        if not layer.is_output:
            return add_table(self.b, (), [])
        layout = None if layer.layout is None else self.layout(layer.layout)
        return add_table(self.b, OutputLayerSlot, [(OutputLayerSlot.LAYOUT, OFFSET, layout, None)])

    def layout(self, layout: OutputLayout) -> int:
        tables = (layout.tile_y, layout.tile_x, layout.tile_offset, layout.local_x, layout.local_y, layout.row_size)
        vectors = [add_integers(self.b, table) for table in tables]
        return add_table(self.b, OutputLayoutSlot,
                      [(slot, OFFSET, vector, None) for slot, vector in zip(OutputLayoutSlot, vectors, strict=True)])

    def shape(self, ranges: Sequence[tuple[int, int]]) -> int:
        self.b.StartVector(8, len(ranges), 4)
        vector = fill_vector(self.b, np.asarray(ranges, "<i4").tobytes(), len(ranges))
        return add_table(self.b, TensorShapeSlot, [(TensorShapeSlot.DIMENSION, OFFSET, vector, None)])

    def hints(self, hints: DmaHints) -> int:
        vector = add_offsets(self.b, [self.hint(h) for h in hints.hints])
        slot = HintsSlot
        return add_table(self.b, slot, [(slot.HINTS, OFFSET, vector, None),
                                     (slot.FULLY_DETERMINISTIC, U8, int(hints.fully_deterministic), 0)])

    def hint(self, hint: Hint) -> int:
        body, slot = self.hint_body(hint), HintSlot
        return add_table(self.b, slot, [
            (slot.ANY_HINT_TYPE, U8, int(_HINT_KINDS[type(hint)]), 0),
            (slot.ANY_HINT, OFFSET, body, None),
            (slot.DIRECTION, I16, int(hint.direction), 0),
        ])

    def hint_body(self, hint: Hint) -> int:
        if isinstance(hint, DescriptorHint):
            slot = DescriptorHintSlot
            return add_table(self.b, slot, [(slot.META, OFFSET, self.meta(hint.meta), None),
                                         (slot.OFFSET_IN_BYTES, I32, hint.offset, 0),
                                         (slot.SIZE_IN_BYTES, I32, hint.size, 0)])
        if isinstance(hint, InstructionHint):
            index = (InstructionHintSlot.INSTRUCTION_CHUNK_INDEX, I32, hint.chunk, 0)
            return add_table(self.b, InstructionHintSlot, [index])
        if isinstance(hint, InterruptHint):
            return add_table(self.b, InterruptHintSlot, [(InterruptHintSlot.TYPE, I16, hint.interrupt, 0)])
        return add_table(self.b, (), [])


def _page_string(b: Any, blob: bytes) -> int:
    """Add a string whose bytes, counted with its terminating zero, begin on a page."""
    b.Prep(PAGE, len(blob) + 1)
    b.assertNotNested()
    b.nested = True
    b.Place(0, U8)
    return fill_vector(b, blob, len(blob))
