"""What an executable container holds, as frozen dataclasses.

Names follow the public headers of the runtime (libedgetpu). Sizes are bytes.
"""

from __future__ import annotations

from dataclasses import field
from enum import IntEnum
from typing import Union

from compiler.records import record


class ExecutableType(IntEnum):
    """When the runtime runs an executable."""

    STAND_ALONE = 0
    PARAMETER_CACHING = 1
    EXECUTION_ONLY = 2


class BaseAddress(IntEnum):
    """Which host buffer an address field points to."""

    OUTPUT = 0
    INPUT = 1
    PARAMETER = 2
    SCRATCH = 3


class Position(IntEnum):
    """Which half of a 64-bit address."""

    LOWER = 0
    UPPER = 1


class Direction(IntEnum):
    """Direction of a host transfer, seen from the device."""

    INFEED = 0
    OUTFEED = 1


class DataType(IntEnum):
    """Element type of a layer."""

    FIXED_POINT8 = 0
    FIXED_POINT16 = 1
    SIGNED_FIXED_POINT32 = 2
    BFLOAT = 3
    HALF = 4
    SINGLE = 5
    SIGNED_FIXED_POINT8 = 8
    SIGNED_FIXED_POINT16 = 9

    @property
    def bytes(self) -> int:
        """Size of one element on the host."""
        return {DataType.FIXED_POINT8: 1, DataType.SIGNED_FIXED_POINT8: 1, DataType.SIGNED_FIXED_POINT32: 4,
                DataType.SINGLE: 4}.get(self, 2)


@record
class Meta:
    """A host buffer: what, and for layers which."""

    base: BaseAddress
    name: str = ""
    batch: int = 0
    position: Position = Position.LOWER


@record
class FieldOffset:
    """Where the runtime writes half of an address into a stream (bit offset from its start)."""

    meta: Meta
    offset_bit: int


@record
class InstructionChunk:
    """One instruction stream and the addresses to be written into it."""

    data: bytes
    field_offsets: tuple[FieldOffset, ...] = ()


@record
class DescriptorHint:
    """A host transfer."""

    meta: Meta
    offset: int
    size: int
    direction: Direction


@record
class InstructionHint:
    """The device fetches an instruction chunk."""

    chunk: int
    direction: Direction = Direction.INFEED


@record
class InterruptHint:
    """The device raises an interrupt."""

    interrupt: int
    direction: Direction = Direction.OUTFEED


@record
class FenceHint:
    """All transfers before it end before the next begins."""

    direction: Direction = Direction.INFEED


Hint = Union[DescriptorHint, InstructionHint, InterruptHint, FenceHint]  # noqa: UP007 - evaluated at run time on 3.9


@record
class DmaHints:
    """Host transfers in program order."""

    hints: tuple[Hint, ...]
    fully_deterministic: bool = True


@record
class OutputLayout:
    """How a tensor lies in the output buffer: tile by tile.

    Element (y, x, z) is at ``tile_offset[tile_y[y] + tile_x[x]] + local_y[y] * row_size[x] + local_x[x] + z``,
    all counted in elements. The runtime reads vectors (y = x = 1) densely, whatever their layout says.

    Attributes
    ----------
    tile_y, tile_x:
        Per y and per x: first and second part of the number of the tile.
    tile_offset:
        Per tile: its first element.
    local_x:
        Per x: first element within a row of the tile.
    local_y:
        Per y: row within the tile.
    row_size:
        Per x: elements of a row of the tile.
    """

    tile_y: tuple[int, ...]
    tile_x: tuple[int, ...]
    tile_offset: tuple[int, ...]
    local_x: tuple[int, ...]
    local_y: tuple[int, ...]
    row_size: tuple[int, ...]


@record
class Layer:
    """An input or output of an executable.

    Attributes
    ----------
    size:
        Bytes of one batch element in the host buffer.
    y, x, z:
        Dimensions.
    zero_point, scale:
        Quantization as the chip sees it (unsigned).
    shape:
        Inclusive ranges of the dimensions of the TensorFlow Lite tensor, may be absent.
    layout:
        Output layers only.
    executions:
        How often the layer is transferred per inference.
    has_slices:
        The output is described by slices (several batches at once) instead; their content is not kept.
    """

    name: str
    size: int
    y: int
    x: int
    z: int
    zero_point: int
    scale: float
    data_type: DataType
    is_output: bool
    layout: OutputLayout | None = None
    shape: tuple[tuple[int, int], ...] | None = None
    executions: int = 1
    cache_on_dram: bool = False
    has_slices: bool = False


@record
class Executable:
    """A program with its parameters and the description of its host buffers."""

    type: ExecutableType
    name: str
    chunks: tuple[InstructionChunk, ...]
    parameters: bytes = field(repr=False, default=b"")
    hints: DmaHints | None = None
    inputs: tuple[Layer, ...] = ()
    outputs: tuple[Layer, ...] = ()
    token: int = 0
    version: int = 0
    batch_size: int = 0
    scratch_size: int = 0
    chip: str = ""
    estimated_cycles: int = 0
    estimated_cycles_64bit: int = 0
    used_narrow_bytes: int = 0
    serialized_model: bytes | None = None
    parameters_in_dram: bool = False


@record
class Package:
    """The container: executables of one Edge TPU subgraph."""

    executables: tuple[Executable, ...]
    min_runtime_version: int
    compiler_version: str = ""
    model_identifier: str | None = None
    keypair_version: int = 0
    virtual_chip_id: int = 0
    signature: bytes = b""

    def of_type(self, kind: ExecutableType) -> Executable | None:
        """Return the executable of a type, None when there is none."""
        return next((e for e in self.executables if e.type is kind), None)

    @property
    def caching(self) -> Executable | None:
        """The executable that fills the parameter cache."""
        return self.of_type(ExecutableType.PARAMETER_CACHING)

    @property
    def execution(self) -> Executable:
        """The executable that runs an inference.

        Raises
        ------
        StopIteration
            Never for packages from :func:`compiler.package.read_package`, which checks.
        """
        return next(e for e in self.executables if e.type is not ExecutableType.PARAMETER_CACHING)
