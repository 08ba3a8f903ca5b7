"""From weights, biases and scales to the parameter blob.

Output channels come in groups of 64. A group is header rows (multipliers, bias, zero points as far
as they are needed) and then one row per step of the computation: P lanes of 4 bytes, a lane per
output channel, its bytes the weights of four consecutive input channels.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from compiler.facts import LANES, PARAMETER_LINE_BYTES
from compiler.records import record

Bytes = npt.NDArray[np.uint8]


def round_up(value: int, multiple: int) -> int:
    """Round up to a multiple."""
    return -(-value // multiple) * multiple


@record
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
        bits = self.factors.view(np.uint32)
        return self.per_channel and bool((bits != bits[:1]).any())

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
    rows = np.concatenate([*_headers(p), _weights(p)], axis=1)
    blob = rows.tobytes()
    return blob.ljust(round_up(len(blob), PARAMETER_LINE_BYTES), b"\0")


def _headers(p: DenseParameters) -> list[Bytes]:
    """Header rows of all groups, each of shape (groups, 1, lanes, 4)."""
    rows = []
    if p.has_factor_row:
        factors = _by_group(p, p.factors, 1.0 if p.outputs > LANES else 0.0)
        # lanes that only fill up a word of four repeat the first factor of the layer
        factors[_fills_up(p)] = p.factors[0]
        rows.append(factors)
    if p.bias is not None:
        rows.append(_by_group(p, p.bias, 0))
    if p.per_channel:
        points = _by_group(p, np.full(p.outputs, p.zero_point, np.int32), 0)
        points[_fills_up(p)] = p.zero_point
        rows.append(points)
    return [row.view(np.uint8).reshape(p.groups, 1, p.lanes, 4) for row in rows]


def _weights(p: DenseParameters) -> Bytes:
    """Weights of all groups, shape (groups, main rows, lanes, 4)."""
    lanes = np.zeros((p.groups * p.lanes, p.main_rows * 4), np.uint8)
    lanes[_fills_up(p).ravel()] = p.zero_point
    lanes[:p.outputs] = p.zero_point
    lanes[:p.outputs, :p.inputs] = p.weights
    return lanes.reshape(p.groups, p.lanes, p.main_rows, 4).swapaxes(1, 2)


def _by_group(p: DenseParameters, values: npt.NDArray[Any], rest: float) -> npt.NDArray[Any]:
    """Spread values of outputs over lanes, shape (groups, lanes); ``rest``: of lanes without an output."""
    lanes = np.full(p.groups * p.lanes, rest, values.dtype)
    lanes[:p.outputs] = values
    return lanes.reshape(p.groups, p.lanes)


def _fills_up(p: DenseParameters) -> npt.NDArray[np.bool_]:
    """Tell which lanes have no output but fill up a word of four, shape (groups, lanes)."""
    lane = np.arange(p.groups * p.lanes)
    return ((lane >= p.outputs) & (lane < round_up(p.outputs, 4))).reshape(p.groups, p.lanes)
