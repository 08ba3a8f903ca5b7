"""TRANSPOSE_CONV: results at equal places between input pixels form a convolution of their own.

With stride s every s-th row and column of the result is a plain convolution of the input with every
s-th row and column of the kernel, mirrored; each writes its part of the result.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from compiler.graph import Graph, Operator
from compiler.lowering.arithmetic import bias_values, clamp, multipliers, unsigned_weights, zero_point
from compiler.lowering.lowered import refusal
from compiler.lowering.parameters import DenseParameters
from compiler.lowering.spatial.bands import Windows
from compiler.lowering.spatial.context import Context
from compiler.lowering.spatial.emission import Emission
from compiler.lowering.spatial.families.convolution import Convolution
from compiler.lowering.spatial.families.family import Family, fused_objection
from compiler.lowering.spatial.geometry import Activation, Lane, OnLane, Several, Window, split
from compiler.lowering.spatial.layer import Activations, Effort, Layer
from compiler.lowering.spatial.weights import convolution_kernel
from compiler.mapping import Status, Verdict
from compiler.records import record

_SAME = 0


@record
class TransposedConvolution(Layer):
    """A transposed convolution ready for code generation.

    Attributes
    ----------
    parts:
        A convolution for every place between input pixels; all have the same source and target.
    """

    name: str
    parts: tuple[Convolution, ...]

    moves: ClassVar[bool] = True

    @property
    def source(self) -> int:
        """The image."""
        return self.parts[0].source

    @property
    def target(self) -> int:  # type: ignore[override]
        """The result."""
        return self.parts[0].target

    @property
    def sources(self) -> tuple[int, ...]:
        """The image."""
        return (self.source,)

    @property
    def convolutions(self) -> tuple[Convolution, ...]:
        """Layers with parameters."""
        return self.parts

    def windows_of(self, source: int) -> Windows:
        """Return what all parts read."""
        rows, columns = ([OnLane(window=p.windows[axis], lane=p.lanes[axis]) for p in self.parts] for axis in (0, 1))
        return Several(windows=tuple(rows)), Several(windows=tuple(columns))

    def fill(self, source: int) -> int | None:
        """Padding is zero."""
        del source
        return self.parts[0].in_zero_point

    def effort(self, target: Activation) -> Effort:
        """Return the steps of a pixel and the rows of weights."""
        efforts = [part.effort(target) for part in self.parts]
        return Effort(sum(e.steps for e in efforts) // len(efforts), sum(e.rows for e in efforts))

    def lowest_row(self, scenes: Sequence[Activations], top: int) -> int:
        """Return the lowest row of all parts."""
        del top
        return min(part.blocks(part.pixels(scene[self.target])).lowest for part in self.parts for scene in scenes)

    def emit(self, emission: Emission, activations: Activations) -> None:
        """Exchange borders, compute part after part."""
        self.exchange(emission, activations, self.source)
        for part in (p for p in self.parts if p.pixels(activations[self.target])):
            emission.b.barrier()
            emission.reset()
            part.compute(emission, activations)
        emission.b.barrier()
        emission.reset()


@record
class _Phase:
    """Rows (or columns) of the result at one place between input rows.

    Attributes
    ----------
    taps:
        Rows of the kernel, in the order in which input rows are read; none when only the bias is left.
    """

    lane: Lane
    window: Window
    taps: tuple[int, ...]


def phases_of(size: int, stride: int, before: int, length: int) -> list[_Phase]:
    """Return the phases along one axis.

    Parameters
    ----------
    size, stride:
        Of the kernel.
    before:
        Rows of the full result that are cut off in front.
    length:
        Rows of the result.

    Examples
    --------
    >>> [(p.lane.phase, p.taps, p.window.before) for p in phases_of(3, 2, 0, 8)]
    [(0, (2, 0), 1), (1, (1,), 0)]
    """
    found = []
    for first in range(min(stride, length)):
        tap, place = (first + before) % stride, (first + before) // stride
        taps = tuple(reversed(range(tap, size, stride)))
        count = max(len(taps), 1)
        found.append(_Phase(Lane(phase=first, period=stride), Window(count, before=count - 1 - place), taps))
    return found


def _phases(op: Operator, graph: Graph) -> tuple[list[_Phase], list[_Phase]]:
    y, w, x = graph.output(op), graph.tensors[op.inputs[1]], graph.tensors[op.inputs[2]]
    found = []
    for axis, stride in ((1, op.options.strideH), (2, op.options.strideW)):
        beyond = (x.shape[axis] - 1) * stride + w.shape[axis] - y.shape[axis]
        before = max(beyond, 0) // 2 if op.options.padding == _SAME else 0
        found.append(phases_of(w.shape[axis], stride, before, y.shape[axis]))
    return found[0], found[1]


def _read(context: Context, op: Operator) -> TransposedConvolution:
    graph = context.graph
    y, w, x = graph.output(op), graph.tensors[op.inputs[1]], graph.tensors[op.inputs[2]]
    assert w.quantization is not None  # checked by the objection
    base = DenseParameters(np.zeros((y.shape[3], 0), np.uint8), zero_point(w), w.quantization.per_channel,
                           multipliers(x, w, y), bias_values(graph.input(op, 3), y.shape[3]))
    filters = unsigned_weights(w)
    low, high = clamp(y, getattr(op.options, "fusedActivationFunction", 0))
    parts: list[Convolution] = []
    for rows in (phases := _phases(op, graph))[0]:
        for columns in phases[1]:
            taps = np.full((y.shape[3], rows.window.size, columns.window.size, x.shape[3]), zero_point(w), np.uint8)
            if rows.taps and columns.taps:
                taps[:] = filters[:, rows.taps][:, :, columns.taps]
            pixels = max(len(rows.lane.indices(r)) * len(columns.lane.indices(c)) for r in split(y.shape[1])
                         for c in split(y.shape[2]))
            parts.append(Convolution(
                f"{op.title} part {len(parts)}", convolution_kernel(taps, base, pixels=pixels), context.resolve(x.index),
                y.index, (rows.window, columns.window), zero_point(x), zero_point(y), low, high, (rows.lane, columns.lane)))
    return TransposedConvolution(op.title, tuple(parts))


def _objection(graph: Graph, op: Operator) -> Verdict | None:
    """Constant weights and bias, batch size 1. RELU, RELU6 and RELU_N1_TO_1 may be fused."""
    shape, w, x, bias = (graph.input(op, i) for i in range(4))
    y = graph.output(op)
    if any(t is None or not t.is_constant for t in (shape, w)) or (bias is not None and not bias.is_constant) or w is None:
        return Verdict(Status.NOT_CONSTANT, f"{op.title}: output shape, weights and bias must be constants.",
                       "Freeze the model before converting it.")
    if x is None or x.quantization is None or w.quantization is None or y.quantization is None or not (
            x.type is w.type is y.type):
        return refusal(op, f"mixes types, or input, weights {w.name} or output carry no quantization.",
                       "Quantize all of it to one type.")
    if len(x.shape) != 4 or x.shape[0] != 1 or len(w.shape) != 4 or w.shape[3] != x.shape[3]:
        return refusal(op, f"its input {x.name} has shape {list(x.shape)}, weights {list(w.shape)}; images of batch size 1 "
                           "and weights for all their channels are needed.")
    if w.quantization.per_channel and w.quantization.axis != 0:
        return refusal(op, f"weights {w.name} have scales along dimension {w.quantization.axis}.")
    return fused_objection(op)


TRANSPOSED = Family(_objection, _read)
