"""MEAN, SUM, REDUCE_MAX and REDUCE_MIN along rows, columns or channels.

Along rows and columns they are pools. Along channels the words of a pixel pass through wide memory, one
to a row, and are summed up or compared byte by byte.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from compiler.beagle.isa.counters import TileCounter
from compiler.facts import TILES
from compiler.graph import Graph, Operator, Tensor
from compiler.lowering.arithmetic import bits, clamp, mean_multiplier, zero_point
from compiler.lowering.builder import LAYER_COUNTERS, Values, signal, walk, watch
from compiler.lowering.lowered import refusal
from compiler.lowering.softmax_layer import Limits
from compiler.lowering.spatial.context import Context, extent_of, image_of
from compiler.lowering.spatial.emission import Emission
from compiler.lowering.spatial.families.channel_maximum import ChannelMaximum, OverChannels
from compiler.lowering.spatial.families.constant import PerChannel
from compiler.lowering.spatial.families.family import Family
from compiler.lowering.spatial.families.multiplication import OPERAND_ROW, blocks_of, pass_through
from compiler.lowering.spatial.families.selection import fill_words, move
from compiler.lowering.spatial.families.unary import HIGHEST, complement
from compiler.lowering.spatial.families.whole_pool import pool_of, read_whole_pool
from compiler.lowering.spatial.geometry import IDENTITY, Activation, Window, by_content
from compiler.lowering.spatial.layer import Activations, Layer
from compiler.mapping import Status, Verdict
from compiler.records import record

_MOST = 1 << 30
"""More than any value."""
_ROWS, _COLUMNS, _CHANNELS = range(3)
_NAMES = ("rows", "columns", "channels")


@record
class ChannelSum(OverChannels):
    """A sum or mean over the channels of every pixel, ready for code generation.

    Attributes
    ----------
    multiplier, clamp_low, clamp_high:
        Bit patterns of float32 numbers.
    """

    in_zero_point: int
    out_zero_point: int
    multiplier: int
    clamp_low: int
    clamp_high: int

    def emit(self, emission: Emission, activations: Activations) -> None:
        """Sum up."""
        b = emission.b
        source, target = activations[self.source], activations[self.target]
        tiles = [t for t in range(TILES) if target.pixels(t)]
        b.tile_fence(reset=LAYER_COUNTERS)
        for mask, fields in by_content({t: pass_through(source, target, t) for t in tiles}):
            b.tile("narrow_to_wide", mask, dict(fields))
        for mask, fields in by_content({t: self._sum(source, target, t) for t in tiles}):
            b.tile("tensor_sum", mask, dict(fields))
        emission.reset()

    def _sum(self, source: Activation, target: Activation, tile: int) -> Values:
        rows, columns = target.own(tile)
        slab = target.slab(tile)
        block, blocks = blocks_of(source)
        pixels = len(rows) * len(columns)
        fields: Values = {f"loop{i}": n - 1 for i, n in enumerate((block, blocks, pixels))}
        fields |= {"partial_from_zero": 1, "no_partial_sums": 1, "weights_zero_point": self.in_zero_point,
                   "channel_group_level": 1, "reduction": 3, "lanes_m1": 3, "lanes_last_m1": 3,
                   "multiplier": self.multiplier,
                   "clamp_low": self.clamp_low, "clamp_high": self.clamp_high, "out_zero_point": self.out_zero_point}
        fields |= walk("out", target.own_address(tile), [(1, 4), (len(columns), slab.pixel), (len(rows), slab.pitch),
                                                         (1, slab.size)], total_dims=8)
        fields |= walk("weights", 4 * OPERAND_ROW, [(block, 4), (blocks, 0), (pixels, 0)], total_dims=8, level=1,
                       slot=4 * block)
        fields |= walk("partial", 0, [(block * blocks, 0), (pixels, 0)], total_dims=8, level=1, slot=4)
        return fields | watch(0, TileCounter.NARROW_TO_WIDE, 1) | signal("parameters", 1)


def _axes(graph: Graph, op: Operator) -> set[int]:
    """Return what is reduced: 0 rows, 1 columns, 2 channels; below zero other dimensions. Single ones do not count."""
    x = graph.tensors[op.inputs[0]]
    rank, extent = len(x.shape), extent_of(x)
    found = {int(a) % rank - rank + 3 for a in graph.tensors[op.inputs[1]].array().reshape(-1)}
    return {a for a in found if a < 0 or extent[a] > 1}


def _read(context: Context, op: Operator) -> Layer | list[Layer]:
    graph = context.graph
    x, y = graph.tensors[op.inputs[0]], graph.output(op)
    axes, extent = _axes(graph, op), list(extent_of(x))
    if axes == {a for a in (_ROWS, _COLUMNS) if extent[a] > 1}:
        return read_whole_pool(context, op)
    (axis,) = axes
    count, extent[axis] = extent[axis], 1
    result = y if tuple(extent) == extent_of(y) else context.between(y, (1, *extent), "not moved")
    layer = _along(context, op, axis, count if op.name == "MEAN" else 1, count, result.index)
    if result is y:
        return layer
    origins = np.arange(y.elements).reshape(extent_of(y))
    return [layer, *move(context, f"{op.title} without its {_NAMES[axis]}", result, y, origins)]


def _along(context: Context, op: Operator, axis: int, share: int, length: int, target: int) -> Layer:
    """Return the reduction of one dimension of a length, which is kept."""
    x, y = context.graph.tensors[op.inputs[0]], context.graph.output(op)
    if axis == _CHANNELS and op.name in ("REDUCE_MAX", "REDUCE_MIN"):
        negated = op.name == "REDUCE_MIN"
        return ChannelMaximum(op.title, _least_elsewhere(context, op, x, negated=negated), target, zero_point(y),
                              Limits(bits(1.0), *clamp(y, 0)), negated)
    if axis == _CHANNELS:
        return ChannelSum(op.title, fill_words(context, op.title, x), target, zero_point(x), zero_point(y),
                          bits(mean_multiplier(x, y, share)), *clamp(y, 0))
    windows = [IDENTITY, IDENTITY]
    windows[axis] = Window(length, length)
    pool = pool_of(context, op, share, target, (windows[0], windows[1]))
    return replace(pool, source=context.resolve(pool.source))


def _least_elsewhere(context: Context, op: Operator, x: Tensor, *, negated: bool) -> int:
    """Return the image to compare, or what it lacks to 255: where words hold no channels stands the least value, zero."""
    source, image = context.resolve(x.index), image_of(x)
    spare = np.arange(image.padded) >= image.channels
    if not negated and not spare.any():
        return source
    made = context.between(x, (*x.shape[:-1], image.padded), "compared")
    z = zero_point(x)
    if not spare.any():
        context.before.append(complement(made.name, source, made.index))
        return made.index
    stage = (0, HIGHEST, bits(-1.0), bits(-HIGHEST), 0) if negated else (z, z, bits(1.0), *clamp(x, 0))
    # A complement takes away what is added.
    biases = np.where(spare, _MOST if negated else -_MOST, 0).astype(np.int32)
    context.before.append(PerChannel(made.name, source, made.index, *stage, constants=biases.tobytes(), added=True))
    return made.index


def _objection(graph: Graph, op: Operator) -> Verdict | None:
    """Along rows, columns, both of them, or channels."""
    x, y, axes = graph.tensors[op.inputs[0]], graph.output(op), graph.tensors[op.inputs[1]]
    if not axes.is_constant:
        return Verdict(Status.NOT_CONSTANT, f"{op.title}: its axes must be constants.", "Freeze the model first.")
    if x.type is not y.type or x.quantization is None or y.quantization is None:
        return refusal(op, f"turns {x.type.name} into {y.type.name}, or carries no quantization.")
    reduced, extent = _axes(graph, op), extent_of(x)
    whole = {a for a in (_ROWS, _COLUMNS) if extent[a] > 1}
    if (not reduced and whole) or min(reduced, default=0) < 0 or (len(reduced) > 1 and reduced != whole):
        return refusal(op, f"reduces {x.name} of shape {list(x.shape)} along {axes.array().reshape(-1).tolist()}; rows, "
                           "columns, both of them, or channels are generated.", "Reduce in several steps.")
    return None


REDUCTION = Family(_objection, _read)
