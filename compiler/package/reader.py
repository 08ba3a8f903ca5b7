"""Containers to dataclasses."""

from __future__ import annotations

from compiler.errors import PackageError
from compiler.package.flat import TableView
from compiler.package.model import (
    BaseAddress,
    DataType,
    DescriptorHint,
    Direction,
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
    Position,
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


def read_package(data: bytes | memoryview, what: str = "executable package") -> Package:
    """Read a container.

    Parameters
    ----------
    data:
        The bytes of the package, as the custom operator carries them.
    what:
        Name for error messages.

    Raises
    ------
    PackageError
        When the bytes are no container, or damaged, or meant for several chips at once.
    """
    root = TableView.root(data, what, FILE_IDENTIFIER)
    if root.has(PackageSlot.MULTI_CHIP_PACKAGE):
        raise PackageError(f"{what} holds one package for each of several chips; only single chips are supported.")
    multi = TableView.root(root.blob(PackageSlot.SERIALIZED_MULTI_EXECUTABLE), f"the list of executables of {what}")
    executables = tuple(_executable(TableView.root(blob, f"executable {i} of {what}"))
                        for i, blob in enumerate(multi.blobs(MultiExecutableSlot.SERIALIZED_EXECUTABLES)))
    if not any(e.type is not ExecutableType.PARAMETER_CACHING for e in executables):
        raise PackageError(f"{what} holds no executable that runs an inference.")
    identifier = PackageSlot.MODEL_IDENTIFIER
    return Package(
        executables=executables,
        min_runtime_version=root.integer(PackageSlot.MIN_RUNTIME_VERSION),
        compiler_version=root.string(PackageSlot.COMPILER_VERSION),
        model_identifier=root.string(identifier) if root.has(identifier) else None,
        keypair_version=root.integer(PackageSlot.KEYPAIR_VERSION),
        virtual_chip_id=root.integer(PackageSlot.VIRTUAL_CHIP_ID),
        signature=bytes(root.blob(PackageSlot.SIGNATURE)),
    )


def _executable(t: TableView) -> Executable:
    slot = ExecutableSlot
    hints = t.table(slot.DMA_HINTS)
    return Executable(
        type=t.member(slot.TYPE, ExecutableType),
        name=t.string(slot.NAME),
        chunks=t.tables(slot.INSTRUCTION_BITSTREAMS, _chunk),
        parameters=bytes(t.blob(slot.PARAMETERS)),
        hints=None if hints is None else _hints(hints),
        inputs=t.tables(slot.INPUT_LAYERS, _layer),
        outputs=t.tables(slot.OUTPUT_LAYERS, _layer),
        token=t.integer(slot.PARAMETER_CACHING_TOKEN, "<Q"),
        version=t.integer(slot.VERSION),
        batch_size=t.integer(slot.BATCH_SIZE),
        scratch_size=t.integer(slot.SCRATCH_SIZE_BYTES),
        chip=t.string(slot.CHIP),
        estimated_cycles=t.integer(slot.ESTIMATED_CYCLES),
        estimated_cycles_64bit=t.integer(slot.ESTIMATED_CYCLES_64BIT, "<q"),
        used_narrow_bytes=t.integer(slot.USED_NARROW_MEMORY_BYTES_PER_TILE),
        serialized_model=bytes(t.blob(slot.SERIALIZED_MODEL)) if t.has(slot.SERIALIZED_MODEL) else None,
        parameters_in_dram=t.flag(slot.USE_TPU_DRAM_FOR_PARAMETERS),
    )


def _chunk(t: TableView) -> InstructionChunk:
    return InstructionChunk(bytes(t.blob(BitstreamSlot.BITSTREAM)), t.tables(BitstreamSlot.FIELD_OFFSETS, _field_offset))


def _field_offset(t: TableView) -> FieldOffset:
    return FieldOffset(_meta(t, FieldOffsetSlot.META), t.integer(FieldOffsetSlot.OFFSET_BIT))


def _meta(parent: TableView, slot: FieldOffsetSlot | DescriptorHintSlot) -> Meta:
    t = parent.table(slot)
    if t is None:
        raise parent.damage(slot, "is missing")
    return Meta(t.member(MetaSlot.DESC, BaseAddress), t.string(MetaSlot.NAME), t.integer(MetaSlot.BATCH),
                t.member(MetaSlot.POSITION, Position))


def _hints(t: TableView) -> DmaHints:
    return DmaHints(t.tables(HintsSlot.HINTS, _hint), t.flag(HintsSlot.FULLY_DETERMINISTIC))


def _hint(t: TableView) -> Hint:
    direction = t.member(HintSlot.DIRECTION, Direction)
    kind = t.member(HintSlot.ANY_HINT_TYPE, HintKind, "<B")
    body = t.table(HintSlot.ANY_HINT)
    if body is None:
        raise t.damage(HintSlot.ANY_HINT, "is missing")
    if kind is HintKind.DMA_DESCRIPTOR:
        slot = DescriptorHintSlot
        return DescriptorHint(_meta(body, slot.META), body.integer(slot.OFFSET_IN_BYTES),
                              body.integer(slot.SIZE_IN_BYTES), direction)
    if kind is HintKind.INSTRUCTION:
        return InstructionHint(body.integer(InstructionHintSlot.INSTRUCTION_CHUNK_INDEX), direction)
    if kind is HintKind.INTERRUPT:
        return InterruptHint(body.integer(InterruptHintSlot.TYPE, "<h"), direction)
    return FenceHint(direction)


def _layer(t: TableView) -> Layer:
    slot = LayerSlot
    numerics, shape, body = t.table(slot.NUMERICS), t.table(slot.SHAPE), t.table(slot.ANY_LAYER)
    is_output = t.member(slot.ANY_LAYER_TYPE, LayerKind, "<B") is LayerKind.OUTPUT
    own = body if is_output else None
    layout = None if own is None else own.table(OutputLayerSlot.LAYOUT)
    return Layer(
        name=t.string(slot.NAME),
        size=t.integer(slot.SIZE_BYTES),
        y=t.integer(slot.Y_DIM),
        x=t.integer(slot.X_DIM),
        z=t.integer(slot.Z_DIM),
        zero_point=0 if numerics is None else numerics.integer(NumericsSlot.ZERO_POINT),
        scale=0.0 if numerics is None else numerics.real(NumericsSlot.DEQUANTIZATION_FACTOR),
        data_type=t.member(slot.DATA_TYPE, DataType),
        is_output=is_output,
        layout=None if layout is None else _layout(layout),
        shape=None if shape is None else shape.pairs(TensorShapeSlot.DIMENSION),
        executions=t.integer(slot.EXECUTION_COUNT_PER_INFERENCE, default=1),
        cache_on_dram=t.flag(slot.CACHE_ON_DRAM),
        has_slices=own is not None and own.has(OutputLayerSlot.SHAPE_INFO),
    )


def _layout(t: TableView) -> OutputLayout:
    return OutputLayout(*(t.integers(slot) for slot in OutputLayoutSlot))
