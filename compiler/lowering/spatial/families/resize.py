"""RESIZE_BILINEAR: the unit for interpolation reads 2 x 2 neighbours per result.

Neighbours beyond the border are copies of the pixels at the border. Positions count in quarters of
the distance between neighbours.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from math import floor, lcm
from typing import ClassVar

from compiler.facts import TILES
from compiler.graph import Graph, Operator
from compiler.lowering.arithmetic import bits, quantization
from compiler.lowering.builder import LAYER_COUNTERS, Values, standing, walk
from compiler.lowering.lowered import refusal
from compiler.lowering.spatial.bands import Windows
from compiler.lowering.spatial.context import Context
from compiler.lowering.spatial.emission import Emission
from compiler.lowering.spatial.families.family import Family
from compiler.lowering.spatial.families.unary import OnIdentity, build_identity, copied_words
from compiler.lowering.spatial.geometry import Activation, Span, Window, by_content
from compiler.lowering.spatial.layer import Activations, Effort, Layer
from compiler.mapping import Status, Verdict
from compiler.records import record

WEIGHT_BITS = 7
"""Neighbours share 2**7 in each direction."""
PARTS = 4
"""Positions are quarters of the distance between neighbours in all known official programs."""
NEIGHBOURS = 2


@record
class Interpolation(Window):
    """How an output row (or column) reads the two input rows around its place.

    Attributes
    ----------
    scale, offset:
        Place of output i in the input: scale * i + offset.
    """

    scale: Fraction = Fraction(1)
    offset: Fraction = Fraction(0)

    def place(self, index: int) -> Fraction:
        """Return the place of an output row in the input."""
        return self.scale * index + self.offset

    def needed(self, out: Span) -> Span:
        """Input rows for output rows; may stick out of the image by one."""
        if not len(out):
            return Span(0, 0)
        return Span(floor(self.place(out.start)), floor(self.place(out.stop - 1)) + NEIGHBOURS)


@record
class Resize(OnIdentity):
    """A bilinear resize ready for code generation."""

    name: str
    source: int
    target: int
    windows: tuple[Interpolation, Interpolation]

    moves: ClassVar[bool] = True

    @property
    def sources(self) -> tuple[int, ...]:
        """The image."""
        return (self.source,)

    def windows_of(self, source: int) -> Windows:
        """Return the places of rows and columns."""
        del source
        return self.windows

    def effort(self, target: Activation) -> Effort:
        """Return the steps of a pixel: four neighbours for every four channels."""
        return Effort(target.image.padded)

    def emit(self, emission: Emission, activations: Activations) -> None:
        """Exchange borders, copy the pixels at the border of the image beyond it, interpolate."""
        b, source, target = emission.b, activations[self.source], activations[self.target]
        emission.exchange(self.source, source)
        emission.b.barrier()
        b.tile_fence(reset=LAYER_COUNTERS)
        build_identity(b, emission.constants[self.name])
        tiles = [t for t in range(TILES) if target.pixels(t)]
        for across in (True, False):
            for place in (-1, source.image.width if across else source.image.height):
                copies = {t: _border(source, t, place, across=across) for t in tiles}
                for mask, fields in by_content({t: v for t, v in copies.items() if v}):
                    b.tile("tensor_op", mask, dict(fields))
        b.tile_fence(reset=LAYER_COUNTERS)
        for mask, fields in by_content({t: self._interpolate(source, target, t) for t in tiles}):
            b.tile("tensor_resize", mask, dict(fields))
        emission.reset()
        # Others find padding beyond the border.
        emission.made_anew({self.source})

    def _interpolate(self, source: Activation, target: Activation, tile: int) -> Values:
        rows, columns = target.own(tile)
        a, c = source.slab(tile), target.slab(tile)
        first = [window.place(span.start) for window, span in zip(self.windows, (rows, columns), strict=True)]
        steps = [int(window.scale * PARTS) for window in self.windows]
        phases = [int((place - floor(place)) * PARTS) for place in first]
        words = c.pixel // 4
        counts = [NEIGHBOURS, NEIGHBOURS, len(columns), len(rows), 1, words]
        while counts[-1] == 1:
            counts.pop()
        fields: Values = {f"loop{i}": n - 1 for i, n in enumerate(counts)}
        fields |= {"partial_from_zero": 1, "no_partial_sums": 1, "weights_16bit": 1, "slot2_off": 1, "slot3_off": 1,
                   "channel_group_level": 5, "reduction": 3, "lanes_m1": 3, "lanes_last_m1": 3,
                   "multiplier": bits(2.0 ** (-2 * WEIGHT_BITS)), "denominator_log2": PARTS.bit_length() - 1,
                   "denominator_m1": PARTS - 1, "columns.phase": phases[1], "columns.step": steps[1],
                   "rows.phase": phases[0], "rows.step": steps[0], "columns.stride": a.pixel, "rows.stride": a.pitch}
        start = source.address + a.offset(floor(first[0]), floor(first[1]))
        fields |= walk("in", start, [(NEIGHBOURS, a.pixel), (NEIGHBOURS, a.pitch), (len(columns), 0), (len(rows), 0),
                                     (1, a.size), (words, 4)], total_dims=8, mask=0b100011)
        fields |= walk("out", target.own_address(tile), [(1, 4), (len(columns), c.pixel), (len(rows), c.pitch), (1, c.size),
                                                         (words, 4)], total_dims=8)
        results = standing(len(columns), len(rows), words)
        return fields | walk("partial", 0, [(NEIGHBOURS**2, 0), *results], total_dims=8, level=1, slot=4)


def _border(source: Activation, tile: int, place: int, *, across: bool) -> Values:
    """Copy the column (or row) at the border of the image beyond it, where a tile reads there."""
    need, slab = source.needed[tile], source.slab(tile)
    if place not in range(need.columns.start, need.columns.stop) if across else place not in range(
            need.rows.start, need.rows.stop):
        return {}
    length = source.image.width if across else source.image.height
    nearest = min(max(place, 0), length - 1)
    if across:
        rows = need.rows.within(source.image.height)
        at = [source.address + slab.offset(rows.start, column) for column in (nearest, place)]
        counts = (slab.pixel // 4, 1, len(rows))
    else:
        at = [source.address + slab.offset(row, need.columns.start) for row in (nearest, place)]
        counts = (slab.pixel // 4, len(need.columns), 1)
    return copied_words(at[0], at[1], (4, slab.pixel, slab.pitch), counts)


def interpolations(op: Operator, source: Sequence[int], target: Sequence[int]) -> tuple[Interpolation, Interpolation]:
    """Return the places of rows and columns.

    Parameters
    ----------
    source, target:
        Rows and columns.
    """
    found = []
    for before, after in zip(source, target, strict=True):
        aligned = op.options.alignCorners and after > 1
        scale = Fraction(before - 1, after - 1) if aligned else Fraction(before, after)
        offset = (scale - 1) / 2 if op.options.halfPixelCenters else Fraction(0)
        found.append(Interpolation(scale=scale, offset=offset))
    return found[0], found[1]


def _parts(windows: tuple[Interpolation, Interpolation]) -> int:
    """Return the parts of a distance that all places are multiples of."""
    return lcm(*(n.denominator for w in windows for n in (w.scale, w.offset)))


def _read(context: Context, op: Operator) -> Layer | None:
    x, y = context.graph.tensors[op.inputs[0]], context.graph.output(op)
    if x.shape == y.shape:
        context.alias(y.index, x.index)
        return None
    windows = interpolations(op, x.shape[1:3], y.shape[1:3])
    return Resize(op.title, context.resolve(x.index), y.index, windows)


def _objection(graph: Graph, op: Operator) -> Verdict | None:
    """Batch size 1; scale and zero point stay. Places between pixels must be quarters of their distance."""
    x, y = graph.tensors[op.inputs[0]], graph.output(op)
    if not graph.tensors[op.inputs[1]].is_constant:
        return Verdict(Status.NOT_CONSTANT, f"{op.title}: the new size must be a constant.", "Freeze the model first.")
    if x.type is not y.type or x.quantization is None or y.quantization is None or not quantization(x).same_as(
            y.quantization):
        return refusal(op, f"its result {y.name} is quantized in another way than {x.name}.",
                       "Give both the same scale and zero point.")
    if len(x.shape) != 4 or x.shape[0] != 1:
        return refusal(op, f"its input {x.name} has shape {list(x.shape)}, four dimensions and batch size 1 are needed.")
    parts = _parts(interpolations(op, x.shape[1:3], y.shape[1:3]))
    if PARTS % parts:
        return refusal(op, f"turns {list(x.shape[1:3])} rows and columns of {x.name} into {list(y.shape[1:3])}: places "
                           f"between pixels are multiples of 1/{parts}, only quarters are generated.",
                       "Double the size, or multiply it by four without half_pixel_centers.")
    return None


RESIZE = Family(_objection, _read)
