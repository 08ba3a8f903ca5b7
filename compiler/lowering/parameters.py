"""From weights, biases and scales to the parameter blob.

Output channels come in groups of 64. A group is header rows (multipliers, bias, zero points as far
as they are needed) and then one row per step of the computation: P lanes of 4 bytes, a lane per
output channel, its bytes the weights of four consecutive input channels.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from compiler.facts import LANES, PARAMETER_LINE_BYTES

Bytes = npt.NDArray[np.uint8]


def round_up(value: int, multiple: int) -> int:
    """Round up to a multiple."""
    return -(-value // multiple) * multiple


@dataclass(frozen=True)
class DenseParameters:
    """What a dense layer multiplies with.

    Attributes
    ----------
    weights:
        uint8, shape (outputs, inputs); unsigned domain.
    zero_point:
        Of the weights, unsigned domain.
    per_channel:
        Weights have one scale per output channel.
    factors:
        float32 multipliers: one, or one per output channel.
    bias:
        int32, None when there is none.
    group_outputs:
        Output channels of a group: 64, or 4 for depthwise convolutions.
    least_lanes:
        Layers of one group store a multiple of so many lanes.
    """

    weights: Bytes
    zero_point: int
    per_channel: bool
    factors: npt.NDArray[np.float32]
    bias: npt.NDArray[np.int32] | None
    group_outputs: int = LANES
    least_lanes: int = 16

    @property
    def outputs(self) -> int:
        """Output channels."""
        return int(self.weights.shape[0])

    @property
    def inputs(self) -> int:
        """Input elements."""
        return int(self.weights.shape[1])

    @property
    def lanes(self) -> int:
        """Lanes stored per row."""
        if self.outputs > self.group_outputs:
            return self.group_outputs
        return round_up(self.outputs, self.least_lanes)

    @property
    def groups(self) -> int:
        """Groups of output channels."""
        return -(-self.outputs // self.group_outputs)

    @cached_property
    def has_factor_row(self) -> bool:
        """Multipliers travel in the header only when they differ between channels."""
        return self.per_channel and len(np.unique(self.factors.view(np.uint32))) > 1

    @property
    def header_rows(self) -> int:
        """Rows of a group's header."""
        return int(self.has_factor_row) + int(self.bias is not None) + int(self.per_channel)

    @property
    def main_rows(self) -> int:
        """Rows of a group's weights."""
        return -(-self.inputs // 4)

    @property
    def group_rows(self) -> int:
        """Rows of a group."""
        return self.header_rows + self.main_rows

    @property
    def group_bytes(self) -> int:
        """Bytes of a group in the blob."""
        return self.group_rows * self.lanes * 4


def dense_blob(p: DenseParameters) -> bytes:
    """Return the parameters of a dense layer: all groups one after the other, padded to 64 bytes."""
    blob = b"".join(_header(p, g) + _rows(p, g).tobytes() for g in range(p.groups))
    return blob.ljust(round_up(len(blob), PARAMETER_LINE_BYTES), b"\0")


def _header(p: DenseParameters, group: int) -> bytes:
    part = slice(group * p.group_outputs, min((group + 1) * p.group_outputs, p.outputs))
    count = part.stop - part.start
    padded = round_up(count, 4)
    rows = []
    if p.has_factor_row:
        row = np.full(p.lanes, 1.0 if p.outputs > LANES else 0.0, np.float32)
        row[:count] = p.factors[part]
        row[count:padded] = p.factors[0]
        rows.append(row.tobytes())
    if p.bias is not None:
        row32 = np.zeros(p.lanes, np.int32)
        row32[:count] = p.bias[part]
        rows.append(row32.tobytes())
    if p.per_channel:
        points = np.zeros(p.lanes, np.int32)
        points[:padded] = p.zero_point
        rows.append(points.tobytes())
    return b"".join(rows)


def _rows(p: DenseParameters, group: int) -> Bytes:
    """Weights of a group, shape (main rows, lanes, 4)."""
    part = p.weights[group * p.group_outputs:(group + 1) * p.group_outputs]
    count = len(part)
    lanes = np.zeros((p.lanes, p.main_rows * 4), np.uint8)
    lanes[:round_up(count, 4)] = p.zero_point
    lanes[:count, :p.inputs] = part
    return np.ascontiguousarray(lanes.reshape(p.lanes, p.main_rows, 4).swapaxes(0, 1))
