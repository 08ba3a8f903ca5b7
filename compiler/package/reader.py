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

IDENTIFIER = b"DWN1"


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
        When the bytes are no container, or damaged.
    """
    root = TableView.root(data, what, IDENTIFIER)
    multi = TableView.root(root.blob(1), what)
    executables = tuple(_executable(TableView.root(blob, what)) for blob in multi.blobs(0))
    if not any(e.type is not ExecutableType.PARAMETER_CACHING for e in executables):
        raise PackageError(f"{what} holds no executable that runs an inference")
    return Package(
        executables=executables,
        min_runtime_version=root.integer(0),
        compiler_version=root.string(4),
        model_identifier=root.string(7) if root.has(7) else None,
        keypair_version=root.integer(3),
        virtual_chip_id=root.integer(5),
        signature=bytes(root.blob(2)),
    )


def _executable(t: TableView) -> Executable:
    hints = t.table(7)
    try:
        return Executable(
            type=ExecutableType(t.integer(13, "<h")),
            name=t.string(1),
            chunks=t.tables(5, _chunk),
            parameters=bytes(t.blob(6)),
            hints=_hints(hints) if hints else None,
            inputs=t.tables(8, _layer),
            outputs=t.tables(9, _layer),
            token=t.integer(14, "<Q"),
            version=t.integer(0),
            batch_size=t.integer(3),
            scratch_size=t.integer(4),
            chip=t.string(10),
            estimated_cycles=t.integer(11),
            estimated_cycles_64bit=t.integer(16, "<q"),
            used_narrow_bytes=t.integer(12),
            serialized_model=bytes(t.blob(2)) if t.has(2) else None,
            parameters_in_dram=bool(t.integer(15, "<B")),
        )
    except ValueError as error:
        raise PackageError(f"{t.what} is damaged: {error}") from error


def _chunk(t: TableView) -> InstructionChunk:
    return InstructionChunk(bytes(t.blob(0)), t.tables(1, _field_offset))


def _field_offset(t: TableView) -> FieldOffset:
    return FieldOffset(_meta(t.table(0)), t.integer(1))


def _meta(t: TableView | None) -> Meta:
    if t is None:
        return Meta(BaseAddress.OUTPUT)
    return Meta(BaseAddress(t.integer(0, "<h")), t.string(2), t.integer(1), Position(t.integer(3, "<h")))


def _hints(t: TableView) -> DmaHints:
    return DmaHints(t.tables(0, _hint), bool(t.integer(1, "<B")))


def _hint(t: TableView) -> Hint:
    direction = Direction(t.integer(2, "<h"))
    kind, body = t.integer(0, "<B"), t.table(1)
    if body is None:
        raise PackageError(f"{t.what} is damaged: a transfer hint without content")
    if kind == 1:
        return DescriptorHint(_meta(body.table(0)), body.integer(1), body.integer(2), direction)
    if kind == 2:
        return InstructionHint(body.integer(0), direction)
    if kind == 3:
        return InterruptHint(body.integer(0, "<h"), direction)
    if kind == 4:
        return FenceHint(direction)
    raise PackageError(f"{t.what} holds an unknown transfer hint of kind {kind}")


def _layer(t: TableView) -> Layer:
    numerics, shape, body = t.table(5), t.table(11), t.table(8)
    is_output = t.integer(7, "<B") == 1
    layout = body.table(0) if body is not None and is_output else None
    return Layer(
        name=t.string(0),
        size=t.integer(1),
        y=t.integer(2),
        x=t.integer(3),
        z=t.integer(4),
        zero_point=numerics.integer(0) if numerics else 0,
        scale=numerics.real(1) if numerics else 0.0,
        data_type=DataType(t.integer(6, "<h")),
        is_output=is_output,
        layout=_layout(layout) if layout else None,
        shape=shape.pairs(0) if shape else None,
        executions=t.integer(9, default=1),
        cache_on_dram=bool(t.integer(10, "<B")),
    )


def _layout(t: TableView) -> OutputLayout:
    return OutputLayout(*(t.integers(slot) for slot in range(6)))
