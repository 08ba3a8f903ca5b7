"""Weights of convolutions: the order in which they lie in the blob and travel over the ring.

A step of the computation takes four input channels at one position of the kernel. Steps of large
layers come in chunks of input channels so that two chunks fit the wide memory set aside.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from compiler.facts import LANES, PARAMETER_LINE_BYTES, WIDE_ROW_BYTES
from compiler.lowering.parameters import DenseParameters, dense_blob
from compiler.records import record

Bytes = npt.NDArray[np.uint8]
_CHUNK_ROWS = 16
"""Rows of a chunk at most, those of its header included."""
_SINGLE_SLOT_ROWS = range(13, 32)
"""Groups of so many rows, in one chunk, get one slot of wide memory instead of two."""
_PACKED_LANES = 4


@record
class Kernel:
    """Parameters of a convolution in the order of the chip.

    Attributes
    ----------
    parameters:
        Weights as (outputs, 4 * steps), steps in the order of use, and what belongs to outputs.
    taps:
        Positions of the kernel.
    blocks:
        Input channels in fours per chunk.
    chunks:
        Chunks per group of output channels.
    depthwise:
        Each channel by itself: groups of four channels, weights on a diagonal.
    """

    parameters: DenseParameters
    taps: int
    blocks: int
    chunks: int
    depthwise: bool

    @property
    def rows(self) -> int:
        """Steps of a chunk."""
        return self.taps * self.blocks

    @property
    def slots(self) -> int:
        """Places for chunks in wide memory."""
        return 1 if self.rows in _SINGLE_SLOT_ROWS and self.chunks == 1 and not self.depthwise else 2

    @property
    def groups(self) -> int:
        """Groups of output channels."""
        return self.parameters.groups

    @property
    def lanes(self) -> int:
        """Lanes of a step in the blob."""
        return self.parameters.lanes

    @property
    def packed(self) -> bool:
        """Steps of four lanes lie densely and pass through the scalar core."""
        return self.lanes == _PACKED_LANES

    @property
    def ragged(self) -> bool:
        """Packets of four lanes end inside a line of the blob."""
        p = self.parameters
        return p.groups * p.group_bytes % PARAMETER_LINE_BYTES != 0

    @property
    def blob(self) -> bytes:
        """Parameters as they lie in the file."""
        return dense_blob(self.parameters)

    @property
    def lines(self) -> int:
        """64-byte lines of the blob."""
        p = self.parameters
        return -(-p.groups * p.group_bytes // PARAMETER_LINE_BYTES)

    @property
    def cached_rows(self) -> int:
        """Wide rows on the owner tiles."""
        p = self.parameters
        if self.packed:
            return -(-p.groups * p.group_bytes // WIDE_ROW_BYTES)
        return p.groups * p.group_rows


def convolution_kernel(filters: Bytes, base: DenseParameters, *, pixels: int) -> Kernel:
    """Order the weights of a convolution.

    Parameters
    ----------
    filters:
        uint8, shape (outputs, height, width, inputs).
    base:
        Everything else; its weights are ignored.
    pixels:
        Output pixels of the largest tile; decides how many input channels make a chunk.
    """
    outputs, height, width, inputs = filters.shape
    taps, blocks = height * width, -(-inputs // 4)
    chunk = chunk_blocks(taps, blocks, pixels, base.header_rows)
    padded = np.full((outputs, height, width, 4 * blocks), base.zero_point, np.uint8)
    padded[..., :inputs] = filters
    steps = padded.reshape(outputs, taps, blocks // chunk, chunk, 4).swapaxes(1, 2)
    least = _PACKED_LANES if outputs <= _PACKED_LANES else 16
    parameters = DenseParameters(steps.reshape(outputs, -1), base.zero_point, base.per_channel, base.factors, base.bias,
                                 least_lanes=least)
    return Kernel(parameters, taps, chunk, blocks // chunk, depthwise=False)


def depthwise_kernel(filters: Bytes, base: DenseParameters) -> Kernel:
    """Order the weights of a depthwise convolution; shape (height, width, channels)."""
    height, width, channels = filters.shape
    taps = height * width
    steps = np.full((channels, taps, 4), base.zero_point, np.uint8)
    index = np.arange(channels)
    steps[index, :, index % 4] = filters.reshape(taps, channels).T
    parameters = DenseParameters(steps.reshape(channels, -1), base.zero_point, base.per_channel, base.factors, base.bias,
                                 group_outputs=_PACKED_LANES, least_lanes=_PACKED_LANES)
    return Kernel(parameters, taps, 1, 1, depthwise=True)


def chunk_blocks(taps: int, blocks: int, pixels: int, header: int) -> int:
    """Return the input channels of a chunk, in fours; all of them when the whole layer is one chunk.

    A chunk and the header of its group take at most 16 rows. Two whole groups of weights must need
    no more rows than two chunks and a row of partial sums per pixel.

    Parameters
    ----------
    header:
        Rows of the header: multipliers, bias, zero points.

    Examples
    --------
    >>> chunk_blocks(9, 16, 96, 0), chunk_blocks(9, 8, 256, 0), chunk_blocks(1, 240, 4, 1), chunk_blocks(1, 240, 4, 3)
    (1, 8, 15, 12)
    """
    chunk = max((d for d in range(1, blocks + 1) if blocks % d == 0 and taps * d + header <= _CHUNK_ROWS), default=1)
    return blocks if 2 * taps * blocks <= pixels + 2 * taps * chunk else chunk


__all__ = ["LANES", "Kernel", "chunk_blocks", "convolution_kernel", "depthwise_kernel"]
