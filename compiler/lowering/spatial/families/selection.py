"""SLICE, STRIDED_SLICE, SPLIT, PAD, TILE, TRANSPOSE and others: each result takes its element from one place.

Whole pixels are copied. Where channels move within words, the official compiler multiplies with a
matrix of zeros and ones: a convolution of size 1x1.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from compiler.graph import Graph, Operator, Tensor
from compiler.lowering.arithmetic import bits, clamp, unary_multiplier, zero_point
from compiler.lowering.lowered import refusal
from compiler.lowering.parameters import DenseParameters
from compiler.lowering.refusal import LoweringRefusal
from compiler.lowering.spatial.bands import Windows
from compiler.lowering.spatial.context import Context, extent_of, image_of, most_pixels
from compiler.lowering.spatial.families.convolution import Convolution
from compiler.lowering.spatial.families.family import Family
from compiler.lowering.spatial.families.move import (
    Move,
    closed,
    gapped,
    granule_of,
    same_words,
    with_gaps,
    word_origins,
)
from compiler.lowering.spatial.families.spread import Part, Spread, lanes_of
from compiler.lowering.spatial.families.unary import Shift
from compiler.lowering.spatial.geometry import IDENTITY, Lane
from compiler.lowering.spatial.layer import Layer
from compiler.lowering.spatial.origins import (
    PADDING,
    SAME_ORDER,
    Moved,
    Origins,
    missing_constant,
    operand_of,
    origins_of,
    window_of,
)
from compiler.lowering.spatial.weights import Kernel, convolution_kernel
from compiler.mapping import Status, Verdict

MOST_LANES = 8
"""Rows of a result that come from rows at different distances: the most that are tried."""


def selecting_kernel(taps: Sequence[Sequence[int]], shape: tuple[int, int, int], x: Tensor, y: Tensor) -> Kernel:
    """Return a kernel of zeros and ones.

    Parameters
    ----------
    taps:
        Per output channel: row, column and channel of the kernel that it takes; empty for padding.
    shape:
        Rows, columns and input channels of the kernel.
    """
    filters = np.zeros((len(taps), *shape), np.uint8)
    for output, tap in enumerate(taps):
        if tap:
            filters[output][tuple(tap)] = 1
    factor = np.array([unary_multiplier(x, y)], np.float32)
    # Official programs give these convolutions a bias of zeros.
    base = DenseParameters(np.zeros((len(taps), 0), np.uint8), 0, False, factor, np.zeros(len(taps), np.int32))
    return convolution_kernel(filters, base, pixels=most_pixels(y))


def select_channels(name: str, source: int, x: Tensor, target: int, y: Tensor, channels: Sequence[int],
                    windows: Windows) -> Convolution:
    """Return the convolution that takes each channel of a result from one channel of an image.

    Parameters
    ----------
    channels:
        Channel of the operand per channel of the result, ``PADDING`` for none.
    """
    taps = [(0, 0, c) if c != PADDING else () for c in channels]
    low, high = clamp(y, 0)
    kernel = selecting_kernel(taps, (1, 1, image_of(x).channels), x, y)
    return Convolution(name, kernel, source, target, windows, zero_point(x), zero_point(y), low, high)


def fill_words(context: Context, name: str, x: Tensor) -> int:
    """Return an image whose words hold the zero point where there are no channels; a copy is made where there are such."""
    source, image = context.resolve(x.index), image_of(x)
    spare = image.padded - image.channels
    if not spare:
        return source
    filled = context.between(x, (*x.shape[:-1], image.padded), "filled up")
    channels = [*range(image.channels), *[PADDING] * spare]
    context.before.append(select_channels(f"{name} filled up", source, x, filled.index, filled, channels,
                                          (IDENTITY, IDENTITY)))
    return filled.index


def copy_pixels(name: str, source: int, x: Tensor, target: int, y: Tensor, windows: Windows, channel: int = 0) -> Shift:
    """Return the copy of an image, rescaled where quantizations differ.

    Parameters
    ----------
    channel:
        First channel taken, a multiple of four.
    """
    low, high = clamp(y, 0)
    return Shift(name, source, target, zero_point(x), zero_point(y), bits(unary_multiplier(x, y)), low, high,
                 windows=windows, first_channel=channel)


def take(name: str, source: int, x: Tensor, target: int, y: Tensor, moved: Moved) -> Layer | None:
    """Return the layer that makes a result of an image; None when rows, columns and channels are mixed."""
    extent, parts = moved.extent, moved.parts
    if parts is None:
        return None
    channels = parts[2]
    first = channels[0]
    aligned = first % 4 == 0 and (len(channels) % 4 == 0 or len(channels) == extent[2])
    whole = aligned and channels == list(range(first, first + len(channels)))
    rows, columns = window_of(parts[0], extent[0]), window_of(parts[1], extent[1])
    if rows is not None and columns is not None:
        if whole:
            return copy_pixels(name, source, x, target, y, (rows, columns), first)
        return select_channels(name, source, x, target, y, channels, (rows, columns))
    lanes = [_shortest_lanes(places) for places in parts[:2]]
    if not whole or None in lanes:
        return None
    spread = tuple(Part(r, c, first) for r in lanes[0] or () for c in lanes[1] or ())
    return Spread(name, copy_pixels(name, source, x, target, y, (IDENTITY, IDENTITY)), spread)


def _shortest_lanes(places: Sequence[int]) -> tuple[Lane, ...] | None:
    found = (lanes_of(places, period) for period in range(1, MOST_LANES + 1))
    return next((lanes for lanes in found if lanes is not None), None)


def read_moved(context: Context, op: Operator) -> list[Layer]:
    """Read an operator that moves elements."""
    graph = context.graph
    x = graph.tensors[operand_of(op)]
    layers: list[Layer] = []
    if op.name in SAME_ORDER and extent_of(x) == extent_of(graph.output(op)):
        context.alias(op.outputs[0], x.index)
        return layers
    for t, moved in zip(op.outputs, origins_of(graph, op), strict=True):
        if t not in context.subgraph.outputs and not context.members(t):
            continue
        name = op.title if len(op.outputs) == 1 else f"{op.title} result {len(layers)}"
        y = graph.tensors[t]
        layer = take(name, context.resolve(x.index), x, t, y, moved)
        if layer is not None:
            layers.append(layer)
        elif (moved.origins == PADDING).any() or unary_multiplier(x, y) != 1 or zero_point(x) != zero_point(y):
            raise LoweringRefusal(op.index, refusal(
                op, f"moves elements of {x.name} of shape {list(x.shape)} to {y.name} of shape {list(y.shape)} in an order "
                "that is not generated."))
        else:
            layers += move(context, name, x, y, moved.origins)
    return layers


def move(context: Context, name: str, x: Tensor, y: Tensor, origins: Origins) -> list[Layer]:
    """Return the layers that move elements in any order."""
    before, after, stay = image_of(x), image_of(y), (IDENTITY, IDENTITY)
    granule = granule_of(origins, before.channels)
    layers: list[Layer] = []
    source, target = context.resolve(x.index), y
    known, size = context.apart.get(x.index, (source, 0))
    if size == granule:
        source = known
    elif not same_words(granule, before):
        apart, channels = context.between(x, with_gaps(x, granule), "apart"), gapped(before.channels, granule)
        layers.append(select_channels(f"{name} apart", source, x, apart.index, apart, channels, stay))
        source = apart.index
    if not same_words(granule, after):
        target = context.between(y, with_gaps(y, granule), "with gaps")
    last = target is y
    layers.append(Move(name if last else f"{name} moved", source, target.index, word_origins(origins, granule)))
    if not last:
        layers.append(select_channels(name, target.index, target, y.index, y, closed(after.channels, granule), stay))
    return layers


def moved_objection(graph: Graph, op: Operator) -> Verdict | None:
    """Constant operands; no ellipsis and no new axes."""
    name = missing_constant(graph, op)
    if name:
        return Verdict(Status.NOT_CONSTANT, f"{op.title}: its operand {name} must be a constant.",
                       "Freeze the model before converting it.")
    x = graph.tensors[operand_of(op)]
    for y in (graph.tensors[t] for t in op.outputs):
        if x.quantization is None or y.quantization is None or x.type is not y.type or not x.type.is_8bit:
            return refusal(op, f"turns {x.type.name} into {y.type.name}, or carries no quantization.")
    try:
        origins_of(graph, op)
    except ValueError as error:
        return refusal(op, f"{error}; that is not generated.")
    return None


SELECTION = Family(moved_objection, read_moved)
