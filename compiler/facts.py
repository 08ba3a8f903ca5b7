"""Facts about the chip and its runtime, each in one place.

Sources: positions and sizes were read off published compiled models; the runtime
versions off the public headers of libedgetpu.
"""

from __future__ import annotations

TILES = 16
"""Tiles of the chip, a 4x4 mesh, row-major."""
TILE_ROWS = 4
TILE_COLUMNS = 4

NARROW_BYTES = 196_608
"""Narrow memory (activations) of one tile, bytes."""

WIDE_ROWS = 2080
"""Rows of wide memory (parameters) of one tile; no program addresses a higher one."""
WIDE_ROW_BYTES = 256
"""One wide row: 64 lanes of 4 bytes."""
LANES = 64
"""Lanes (output channels) of one wide row."""
LANE_BYTES = 4
"""Bytes of a lane of a wide row: four input channels."""

WIDE_BYTES = TILES * WIDE_ROWS * WIDE_ROW_BYTES
"""Wide memory of the whole chip: 8.125 MiB."""

PARAMETER_FIFO_LINES = 2048
PARAMETER_LINE_BYTES = 64
ACTIVATION_FIFO_WORDS = 32_768
ACTIVATION_WORD_BYTES = 8

CHUNK_BITSTREAM_BYTES = 262_144
"""Largest body of one instruction stream; longer programs are split at a tile fence."""

RUNTIME_VERSION_LOWEST = 10
RUNTIME_VERSION_CURRENT = 14
RUNTIME_FEATURES = {
    10: "first public runtime",
    11: "native batch",
    12: "int8 as host data type",
    13: "16-bit float",
    14: "variable tensors",
}

RUNTIME_INT8_HOST = 12
"""First runtime that takes int8 host data."""

COMPILER_VERSION = "16.0.384591198"
"""Version of the official compiler whose output we follow; its drop-in command prints it."""

CUSTOM_OPERATOR = "edgetpu-custom-op"
"""Name of the TensorFlow Lite custom operator that holds the executables."""
