"""CONV_2D and DEPTHWISE_CONV_2D: when they can be generated, how they are read, what they need."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from compiler.facts import LANES, PARAMETER_LINE_BYTES, TILES, WIDE_ROWS
from compiler.generation import CURRENT, Generation
from compiler.graph import Graph, Operator, Tensor
from compiler.lowering.arithmetic import (
    bias_values,
    clamp,
    multipliers,
    unsigned_weights,
    zero_point,
)
from compiler.lowering.caching_program import CacheSegment
from compiler.lowering.lowered import refusal
from compiler.lowering.parameters import DenseParameters
from compiler.lowering.spatial.bands import Windows
from compiler.lowering.spatial.buffers import stack_wide
from compiler.lowering.spatial.context import Context, Padding, is_flat, most_pixels, same_padding
from compiler.lowering.spatial.emission import Emission
from compiler.lowering.spatial.families.convolution_program import active_tiles, emit_convolution
from compiler.lowering.spatial.families.dense import read_dense
from compiler.lowering.spatial.families.family import Family, fused_objection, weights_objection
from compiler.lowering.spatial.families.move import gapped, with_gaps
from compiler.lowering.spatial.geometry import EVERY, Activation, Lane, Span, Window
from compiler.lowering.spatial.layer import NO_LIMIT, Activations, Effort, Layer, Stored
from compiler.lowering.spatial.layer import most_pixels as computed_at_once
from compiler.lowering.spatial.origins import PADDING
from compiler.lowering.spatial.weights import Kernel, convolution_kernel, depthwise_kernel
from compiler.mapping import Status, Verdict
from compiler.memory.demand import Kind, ParameterTensor
from compiler.memory.placement import Piece
from compiler.records import record

HEADER_GAP_ROWS = 32
"""Rows that official programs leave free above the header slots."""
_CHANNEL_AXIS = {"CONV_2D": 0, "DEPTHWISE_CONV_2D": 3}
_VALID = 1


@record
class WideBlocks:
    """First wide rows of the blocks of a convolution."""

    partial: int
    header: int
    weights: int

    @property
    def lowest(self) -> int:
        """Lowest row in use."""
        return min(self.partial, self.header, self.weights)


@record
class Convolution(Layer):
    """A convolution ready for code generation.

    Attributes
    ----------
    source, target:
        Numbers of activations.
    windows:
        Rows and columns.
    clamp_low, clamp_high:
        Bit patterns of float32 bounds.
    lanes:
        Rows and columns of the target that it computes.
    """

    name: str
    kernel: Kernel
    source: int
    target: int
    windows: Windows
    in_zero_point: int
    out_zero_point: int
    clamp_low: int
    clamp_high: int
    lanes: tuple[Lane, Lane] = (EVERY, EVERY)

    below_top: ClassVar[bool] = True
    follows_input: ClassVar[bool] = True

    @property
    def sources(self) -> tuple[int, ...]:
        """The image."""
        return (self.source,)

    @property
    def convolutions(self) -> tuple[Convolution, ...]:
        """Itself."""
        return (self,)

    def results(self, target: Activation, tile: int) -> tuple[Span, Span]:
        """Return which rows and columns of its lanes a tile computes."""
        down, across = self.lanes
        rows, columns = target.own(tile)
        return down.indices(rows), across.indices(columns)

    def pixels(self, target: Activation) -> int:
        """Return the pixels of the tile that computes most."""
        return max(len(r) * len(c) for r, c in (self.results(target, tile) for tile in range(TILES)))

    def windows_of(self, source: int) -> Windows:
        """Return the window of the kernel."""
        del source
        return self.windows

    def with_windows(self, windows: Windows) -> Convolution:
        """Return the same convolution with another window."""
        return replace(self, windows=windows)

    def fill(self, source: int) -> int | None:
        """Padding is zero."""
        del source
        return self.in_zero_point

    def blocks(self, pixels: int, top: int = WIDE_ROWS) -> WideBlocks:
        """Places in wide memory.

        Parameters
        ----------
        pixels:
            Output pixels of the largest tile.
        top:
            Rows from here on are taken.
        """
        k = self.kernel
        partial = pixels if k.chunks > 1 else 0
        headers = k.slots * k.parameters.header_rows
        sizes = [partial, headers + HEADER_GAP_ROWS if headers else 0, k.slots * k.rows]
        return WideBlocks(*stack_wide(sizes, top))

    @cached_property
    def parameters(self) -> tuple[Stored, ...]:
        """The kernel."""
        k = self.kernel
        why = (f"its {PARAMETER_LINE_BYTES * k.lines} bytes of parameters do not fit the on-chip memory, and rows of 16 "
               "bytes that do not fill lines of 64 are not streamed") if k.ragged else ""
        return (Stored(ring_tensor(self.name, k), k.blob, self._segments, why),)

    def _segments(self, pieces: Sequence[Piece], on_ring: bool) -> list[CacheSegment]:
        """Return where the lines of the blob go."""
        del on_ring
        lanes = LANES if self.kernel.packed else self.kernel.lanes
        left, segments = self.kernel.lines, []
        for piece in pieces:
            lines = min(left, piece.rows * lanes // 16)
            segments.append(CacheSegment(piece.tile, piece.row, lines, lanes))
            left -= lines
        return segments

    def effort(self, target: Activation) -> Effort:
        """Return the steps of a pixel and the rows of weights."""
        del target
        k = self.kernel
        steps = k.rows * k.chunks * k.groups
        return Effort(steps, steps, self.blocks(0).lowest if k.chunks > 1 else NO_LIMIT)

    def lowest_row(self, scenes: Sequence[Activations], top: int) -> int:
        """Return the lowest of its blocks."""
        return self.blocks(computed_at_once(self, scenes), top).lowest

    def emit(self, emission: Emission, activations: Activations) -> None:
        """Write borders, weights and the operation."""
        self.exchange(emission, activations, self.source)
        emission.b.barrier()
        emission.even_out(active_tiles(self, activations[self.target]))
        self.compute(emission, activations)

    def compute(self, emission: Emission, activations: Activations) -> None:
        """Write weights and the operation."""
        emission.announce(self.target, self.kernel.groups, at_end=self.kernel.depthwise)
        emit_convolution(emission.b, emission.books, self, activations[self.source], activations[self.target],
                         emission.pieces[self.name], emission.tops.get(self.name, WIDE_ROWS))


def ring_tensor(name: str, kernel: Kernel, reads: int = 1) -> ParameterTensor:
    """Return what a convolution asks of parameter memory; in bands it reads its parameters several times."""
    return ParameterTensor(name, Kind.RING, kernel.cached_rows, PARAMETER_LINE_BYTES * kernel.lines,
                           reads=reads, depthwise=kernel.depthwise)


def kernel_of(graph: Graph, op: Operator, places: Sequence[int] | None = None, pixels: int | None = None,
              generation: Generation = CURRENT) -> Kernel:
    """Put the parameters of a convolution, or of a FULLY_CONNECTED of every pixel, into the order of the chip.

    Parameters
    ----------
    places:
        Output channel that lies at each place, or ``PADDING``; by default they lie side by side.
    pixels:
        Pixels of the largest tile, where the result has another shape than the operator's output.
    generation:
        Decides whether a bias that is all zero is kept.
    """
    x, w, bias = (graph.input(op, i) for i in range(3))
    y = graph.output(op)
    assert x is not None and w is not None and w.quantization is not None  # checked by the objection
    outputs = y.shape[-1]
    base = DenseParameters(np.zeros((outputs, 0), np.uint8), zero_point(w), w.quantization.per_channel,
                           multipliers(x, w, y), bias_values(bias, outputs, keep_zero=generation.keeps_zero_bias(op.name)))
    filters, pixels = unsigned_weights(w), most_pixels(y) if pixels is None else pixels
    if places is not None:
        base, filters = _with_gaps(base, filters, np.array(places))
    if op.name == "FULLY_CONNECTED":
        return convolution_kernel(filters[:, None, None], base, pixels=pixels)
    if op.name == "CONV_2D":
        return convolution_kernel(filters, base, pixels=pixels)
    if x.shape[-1] == 1:
        return convolution_kernel(filters.transpose(3, 1, 2, 0), base, pixels=pixels)
    if outputs != x.shape[-1]:
        return convolution_kernel(_multiplied(filters[0], x.shape[-1], zero_point(w)), base, pixels=pixels)
    return depthwise_kernel(filters[0], base)


def _with_gaps(base: DenseParameters, filters: npt.NDArray[np.uint8], places: npt.NDArray[np.int_],
               ) -> tuple[DenseParameters, npt.NDArray[np.uint8]]:
    """Spread output channels; gaps have no weights, no bias, and the first multiplier, as in official files."""
    gaps = places == PADDING
    bias = None if base.bias is None else np.where(gaps, 0, base.bias[places]).astype(np.int32)
    factors = base.factors
    if len(factors) > 1:
        factors = np.where(gaps, factors[0], factors[places])
    spread = filters[places]
    spread[gaps] = base.zero_point
    weights = np.zeros((len(places), 0), np.uint8)
    return replace(base, weights=weights, bias=bias, factors=factors), spread


def _multiplied(filters: npt.NDArray[np.uint8], inputs: int, zero: int) -> npt.NDArray[np.uint8]:
    """Return a depthwise kernel with several outputs per channel as one that reads all channels."""
    height, width, outputs = filters.shape
    found = np.full((outputs, height, width, inputs), zero, np.uint8)
    index = np.arange(outputs)
    found[index, :, :, index // (outputs // inputs)] = filters.transpose(2, 0, 1)
    return found


def _windows(context: Context, op: Operator, x: Tensor, w: Tensor) -> tuple[Window, Window]:
    o = op.options
    pad = context.padding.get(x.index, Padding())
    strides, dilations = (o.strideH, o.strideW), (o.dilationHFactor, o.dilationWFactor)
    windows = []
    for axis, extra in ((0, pad.rows), (1, pad.columns)):
        window = Window(w.shape[1 + axis], strides[axis], 0, dilations[axis])
        if o.padding != _VALID:
            window = same_padding(x.shape[1 + axis], window)
        windows.append(window.later(extra[0]))
    return windows[0], windows[1]


def _read(context: Context, op: Operator) -> Layer:
    graph = context.graph
    if _reduces_all(context, op):
        return read_dense(context, op)
    x, w, y = graph.tensors[op.inputs[0]], graph.tensors[op.inputs[1]], graph.output(op)
    low, high = clamp(y, op.options.fusedActivationFunction)
    kernel, target = kernel_of(graph, op, generation=context.generation), y.index
    size = _apart(context, op)
    if size:
        kernel = kernel_of(graph, op, gapped(y.shape[3], size), generation=context.generation)
        target = context.between(y, with_gaps(y, size), "apart").index
        context.apart[y.index] = target, size
    return Convolution(op.title, kernel, context.resolve(x.index), target, _windows(context, op, x, w), zero_point(x),
                       zero_point(y), low, high)


def _apart(context: Context, op: Operator) -> int:
    """Return how many channels a RESHAPE behind a convolution takes at once: they get words of their own; else 0."""
    y = context.graph.output(op)
    users = context.members(y.index)
    only = len(users) == len(context.graph.consumers.get(y.index, ())) and y.index not in context.subgraph.outputs
    if op.name != "CONV_2D" or is_flat(y) or not only or [u.name for u in users] != ["RESHAPE"]:
        return 0
    size = context.graph.output(users[0]).shape[-1]
    return size if size < y.shape[3] and y.shape[3] % size == 0 and size % 4 else 0


def _reduces_all(context: Context, op: Operator) -> bool:
    """Tell whether a convolution makes one pixel of a whole image, each of its pixels having weights of its own."""
    x, w = context.graph.tensors[op.inputs[0]], context.graph.tensors[op.inputs[1]]
    return (op.name == "CONV_2D" and is_flat(context.graph.output(op)) and x.shape[1:3] == w.shape[1:3]
            and x.index not in context.padding)


def convolution_objection(graph: Graph, op: Operator) -> Verdict | None:
    """Constant weights and bias, batch size 1, one group.

    Any kernel, stride, dilation and padding, scales per tensor or per output channel; RELU, RELU6 and RELU_N1_TO_1
    may be fused.
    """
    x, w, bias = (graph.input(op, i) for i in range(3))
    y = graph.output(op)
    if x is None or w is None or not w.is_constant or (bias is not None and not bias.is_constant):
        return Verdict(Status.NOT_CONSTANT, f"{op.title}: weights and bias must be constants.",
                       "Freeze the model before converting it.")
    if (objection := weights_objection(op, x, w, y)) is not None:
        return objection
    if len(x.shape) != 4 or len(y.shape) != 4 or len(w.shape) != 4 or x.shape[0] != 1:
        return refusal(op, f"its input {x.name} has shape {list(x.shape)}, four dimensions and batch size 1 are needed.")
    scales = w.quantization
    if scales is not None and scales.per_channel and scales.axis != _CHANNEL_AXIS[op.name]:
        return refusal(op, f"weights {w.name} have scales along dimension {scales.axis}.")
    return fused_objection(op) or _shape_objection(op, x, w)


def _shape_objection(op: Operator, x: Tensor, w: Tensor) -> Verdict | None:
    if op.name == "CONV_2D" and w.shape[3] != x.shape[3]:
        return refusal(op, f"reads {w.shape[3]} of the {x.shape[3]} channels of {x.name} per output; grouped "
                           "convolutions are not generated.", "Split it into one convolution per group.")
    return None


CONVOLUTION = Family(convolution_objection, _read)
