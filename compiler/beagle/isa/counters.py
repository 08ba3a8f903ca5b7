"""Names of sync counters, engines and host transfer tags, in the chip's own order.

The order is that of the control registers in libedgetpu's public headers; programs of official
models block on the right events with it and on no other.
"""

from __future__ import annotations

from enum import IntEnum


class TileCounter(IntEnum):
    """Sync counters of a tile."""

    AVDATA = 0
    PARAMETERS = 1
    PARTIAL_SUMS = 2
    MESH_NORTH_IN = 3
    MESH_EAST_IN = 4
    MESH_SOUTH_IN = 5
    MESH_WEST_IN = 6
    MESH_NORTH_OUT = 7
    MESH_EAST_OUT = 8
    MESH_SOUTH_OUT = 9
    MESH_WEST_OUT = 10
    WIDE_TO_NARROW = 11
    WIDE_TO_SCALING = 12
    NARROW_TO_WIDE = 13
    RING_READ_A = 14
    RING_READ_B = 15
    RING_WRITE = 16
    RING_PRODUCER_A = 17
    RING_PRODUCER_B = 18


class ScalarCounter(IntEnum):
    """Sync counters of the scalar core."""

    AVDATA_POP = 0
    PARAMETER_POP = 1
    AVDATA_INFEED = 2
    PARAMETER_INFEED = 3
    SCALAR_INFEED = 4
    PRODUCER_A = 5
    PRODUCER_B = 6
    RING_OUTFEED = 7
    SCALAR_PIPELINE = 8


class TileEngine(IntEnum):
    """Engines of a tile; the value is the bit in the engine mask of a tile fence."""

    OP = 0
    RING_A = 1
    RING_B = 2
    RING_SEND = 3
    WIDE_TO_NARROW = 4
    NARROW_TO_WIDE = 5
    MESH_NORTH = 6
    MESH_EAST = 7
    MESH_SOUTH = 8
    MESH_WEST = 9


class ScalarEngine(IntEnum):
    """Engines of the scalar core; the value is the bit in the engine mask of a scalar fence."""

    AVDATA_POP = 0
    PARAMETER_POP = 1
    INFEED = 2
    OUTFEED = 3


class DmaTag(IntEnum):
    """Kind of a host transfer."""

    INSTRUCTIONS = 0
    INPUT = 1
    PARAMETERS = 2
    OUTPUT = 3
    INTERRUPT = 4


class AluOperation(IntEnum):
    """Operations of the scalar ALU, without the immediate bit."""

    ADD = 1
    SUB = 2
    AND = 3
    OR = 4
    XOR = 5
    SHL = 6
    SHR = 7
    ASR = 8
    EQUAL = 9
    NOT_EQUAL = 10
    GREATER = 11
    LESS = 12
    NOT_LESS = 13
    MOVE = 15
    TO_FLOAT = 16
    TO_INTEGER = 17
    FLOAT_ADD = 18
    FLOAT_SUB = 19
    FLOAT_MULTIPLY = 20
    FLOAT_MAXIMUM = 21
    FLOAT_MINIMUM = 22


class SpecialFunction(IntEnum):
    """Functions beside the scalar ALU, on float32 registers."""

    RECIPROCAL = 2
    EXP2 = 3


LOAD_FIXED, STORE_FIXED = 1, 2
"""Load port and vector operation whose word address stands in the instruction."""
STORES = (STORE_FIXED, 4, 6)
"""Vector operations that store a register to scalar memory."""
IMMEDIATE = 32
"""Bit of an ALU operation: the operand is the immediate, not a register."""
