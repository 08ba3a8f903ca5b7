"""MEAN, SUM and REDUCE_MAX along rows, columns or channels.

Along rows and columns they are pools. Along channels the words of a pixel pass through wide memory, one
to a row, and are summed up byte by byte.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from compiler.beagle.isa.counters import TileCounter
from compiler.facts import TILES
from compiler.graph import Graph, Operator
from compiler.lowering.arithmetic import bits, clamp, mean_multiplier, unary_multiplier, zero_point
from compiler.lowering.builder import LAYER_COUNTERS, Values, signal, walk, watch
from compiler.lowering.lowered import refusal
from compiler.lowering.spatial.context import Context, extent_of
from compiler.lowering.spatial.emission import Emission
from compiler.lowering.spatial.families.family import Family
from compiler.lowering.spatial.families.multiplication import OPERAND_ROW, blocks_of, pass_through
from compiler.lowering.spatial.families.pool import Pool
from compiler.lowering.spatial.families.whole_pool import read_whole_pool
from compiler.lowering.spatial.geometry import IDENTITY, Activation, Window, by_content
from compiler.lowering.spatial.layer import Activations, Effort, Layer
from compiler.mapping import Status, Verdict

_USUAL_STEPS = 64
_ROWS, _COLUMNS, _CHANNELS = range(3)
_NAMES = ("rows", "columns", "channels")


@dataclass(frozen=True)
class ChannelSum(Layer):
    """A sum or mean over the channels of every pixel, ready for code generation.

    Attributes
    ----------
    multiplier, clamp_low, clamp_high:
        Bit patterns of float32 numbers.
    """

    name: str
    source: int
    target: int
    in_zero_point: int
    out_zero_point: int
    multiplier: int
    clamp_low: int
    clamp_high: int

    @property
    def sources(self) -> tuple[int, ...]:
        """The image."""
        return (self.source,)

    def effort(self, target: Activation) -> Effort:
        """Return an estimate: how many channels are summed up is not known here."""
        del target
        return Effort(_USUAL_STEPS)

    def lowest_row(self, scenes: Sequence[Activations], top: int) -> int:
        """Return the first row that words pass through."""
        del scenes, top
        return OPERAND_ROW

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


def _read(context: Context, op: Operator) -> Layer:
    graph = context.graph
    x, y = graph.tensors[op.inputs[0]], graph.output(op)
    axes, extent = _axes(graph, op), extent_of(x)
    low, high = clamp(y, 0)
    if axes == {a for a in (_ROWS, _COLUMNS) if extent[a] > 1}:
        return read_whole_pool(context, op)
    (axis,) = axes
    maximum = op.name == "REDUCE_MAX"
    multiplier = unary_multiplier(x, y) if maximum else mean_multiplier(x, y, extent[axis] if op.name == "MEAN" else 1)
    fields = zero_point(x), zero_point(y), bits(multiplier), low, high
    source = context.resolve(x.index)
    if axis == _CHANNELS:
        return ChannelSum(op.title, source, y.index, *fields)
    windows = [IDENTITY, IDENTITY]
    windows[axis] = Window(extent[axis], extent[axis])
    return Pool(op.title, maximum, source, y.index, (windows[0], windows[1]), *fields)


def _objection(graph: Graph, op: Operator) -> Verdict | None:
    """Along rows, columns, both of them, or channels.

    Channels: MEAN and SUM only, a multiple of 4 of them. Along columns by themselves, and channels, the dimension
    must be kept.
    """
    x, y, axes = graph.tensors[op.inputs[0]], graph.output(op), graph.tensors[op.inputs[1]]
    if not axes.is_constant:
        return Verdict(Status.NOT_CONSTANT, f"{op.title}: its axes must be constants.", "Freeze the model first.")
    if x.type is not y.type or x.quantization is None or y.quantization is None:
        return refusal(op, f"turns {x.type.name} into {y.type.name}, or carries no quantization.")
    reduced, extent = _axes(graph, op), list(extent_of(x))
    whole = {a for a in (_ROWS, _COLUMNS) if extent[a] > 1}
    if (not reduced and whole) or min(reduced, default=0) < 0 or (len(reduced) > 1 and reduced != whole):
        return refusal(op, f"reduces {x.name} of shape {list(x.shape)} along {axes.array().reshape(-1).tolist()}; rows, "
                           "columns, both of them, or channels are generated.", "Reduce in several steps.")
    if reduced == {_CHANNELS} and (op.name == "REDUCE_MAX" or extent[_CHANNELS] % 4):
        return refusal(op, f"reduces the {extent[_CHANNELS]} channels of {x.name}; means and sums over a multiple of 4 are "
                           "generated.", "Make the number of channels a multiple of 4.")
    for axis in reduced:
        extent[axis] = 1
    if reduced != whole and tuple(extent) != extent_of(y):
        return refusal(op, f"drops the {_NAMES[min(reduced)]} of {x.name}, and the dimensions in front of them move.",
                       "Keep the reduced dimension.")
    return None


REDUCTION = Family(_objection, _read)
