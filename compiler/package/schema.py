"""Tables of the container: their fields in slot order, and the numbers of their unions.

Order and numbers follow the public interface description of the runtime (libedgetpu). A slot is the
position of a field in its table; it never changes, later versions only add slots.
"""

from __future__ import annotations

from enum import IntEnum

FILE_IDENTIFIER = b"DWN1"


class PackageSlot(IntEnum):
    """The container."""

    MIN_RUNTIME_VERSION = 0
    SERIALIZED_MULTI_EXECUTABLE = 1
    SIGNATURE = 2
    KEYPAIR_VERSION = 3
    COMPILER_VERSION = 4
    VIRTUAL_CHIP_ID = 5
    MULTI_CHIP_PACKAGE = 6
    MODEL_IDENTIFIER = 7


class MultiExecutableSlot(IntEnum):
    """The list of executables, each a flatbuffer of its own."""

    SERIALIZED_EXECUTABLES = 0


class ExecutableSlot(IntEnum):
    """One executable."""

    VERSION = 0
    NAME = 1
    SERIALIZED_MODEL = 2
    BATCH_SIZE = 3
    SCRATCH_SIZE_BYTES = 4
    INSTRUCTION_BITSTREAMS = 5
    PARAMETERS = 6
    DMA_HINTS = 7
    INPUT_LAYERS = 8
    OUTPUT_LAYERS = 9
    CHIP = 10
    ESTIMATED_CYCLES = 11
    USED_NARROW_MEMORY_BYTES_PER_TILE = 12
    TYPE = 13
    PARAMETER_CACHING_TOKEN = 14
    USE_TPU_DRAM_FOR_PARAMETERS = 15
    ESTIMATED_CYCLES_64BIT = 16


class BitstreamSlot(IntEnum):
    """One instruction stream."""

    BITSTREAM = 0
    FIELD_OFFSETS = 1


class FieldOffsetSlot(IntEnum):
    """An address field of a stream."""

    META = 0
    OFFSET_BIT = 1


class MetaSlot(IntEnum):
    """What an address points to."""

    DESC = 0
    BATCH = 1
    NAME = 2
    POSITION = 3


class HintsSlot(IntEnum):
    """The transfers of an executable."""

    HINTS = 0
    FULLY_DETERMINISTIC = 1


class HintSlot(IntEnum):
    """One transfer: a union and its direction."""

    ANY_HINT_TYPE = 0
    ANY_HINT = 1
    DIRECTION = 2


class HintKind(IntEnum):
    """Members of the union of transfers."""

    DMA_DESCRIPTOR = 1
    INSTRUCTION = 2
    INTERRUPT = 3
    FENCE = 4


class DescriptorHintSlot(IntEnum):
    """A part of a host buffer."""

    META = 0
    OFFSET_IN_BYTES = 1
    SIZE_IN_BYTES = 2


class InstructionHintSlot(IntEnum):
    """An instruction stream as a transfer."""

    INSTRUCTION_CHUNK_INDEX = 0


class InterruptHintSlot(IntEnum):
    """An interrupt as a transfer."""

    TYPE = 0


class LayerSlot(IntEnum):
    """An input or output."""

    NAME = 0
    SIZE_BYTES = 1
    Y_DIM = 2
    X_DIM = 3
    Z_DIM = 4
    NUMERICS = 5
    DATA_TYPE = 6
    ANY_LAYER_TYPE = 7
    ANY_LAYER = 8
    EXECUTION_COUNT_PER_INFERENCE = 9
    CACHE_ON_DRAM = 10
    SHAPE = 11


class LayerKind(IntEnum):
    """Members of the union of layers."""

    OUTPUT = 1
    INPUT = 2


class NumericsSlot(IntEnum):
    """Quantization of a layer."""

    ZERO_POINT = 0
    DEQUANTIZATION_FACTOR = 1


class OutputLayerSlot(IntEnum):
    """What only outputs have."""

    LAYOUT = 0
    DATA_TYPE = 1
    SHAPE_INFO = 2


class OutputLayoutSlot(IntEnum):
    """Maps from coordinates to places in the output buffer."""

    Y_TO_LINEAR_TILE_ID = 0
    X_TO_LINEAR_TILE_ID = 1
    LINEARIZED_TILE_OFFSET = 2
    X_TO_LOCAL_OFFSET = 3
    Y_TO_LOCAL_Y_OFFSET = 4
    X_TO_LOCAL_Y_ROW_SIZE = 5


class TensorShapeSlot(IntEnum):
    """Ranges of the dimensions of a tensor."""

    DIMENSION = 0
