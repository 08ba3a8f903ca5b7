"""L2_NORMALIZATION: the reciprocal root of the sum of squares in 16 bits, times every channel.

Words of a pixel pass through wide memory twice, one to a row: to be multiplied with themselves, and,
a byte to a lane, with the root. Up to three channels are copied first, so that what fills up their
word counts as zero: the official program adds the square of whatever lies there. More channels are filled up
by a convolution.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from compiler.beagle.isa.counters import TileCounter
from compiler.beagle.isa.tables import RECIPROCAL_ROOT, PiecewiseQuartic
from compiler.facts import TILES
from compiler.graph import Graph, Operator
from compiler.lowering.arithmetic import bits, quantization, zero_point
from compiler.lowering.builder import ALL_TILES, LAYER_COUNTERS, Values, signal, standing, walk, watch
from compiler.lowering.lowered import refusal
from compiler.lowering.spatial.context import Context
from compiler.lowering.spatial.emission import Emission
from compiler.lowering.spatial.families.composite import FIRST, Composite
from compiler.lowering.spatial.families.family import Family
from compiler.lowering.spatial.families.multiplication import OPERAND_ROW, words_of_pixels
from compiler.lowering.spatial.families.pool import TRANSPOSE_BYTES
from compiler.lowering.spatial.families.selection import fill_words
from compiler.lowering.spatial.families.unary import IDENTITY_WORDS, NO_LIMITS, Unary
from compiler.lowering.spatial.geometry import Activation, by_content
from compiler.lowering.spatial.layer import Activations, Effort, Layer, most_pixels
from compiler.mapping import Verdict
from compiler.records import record

_WORD = 65535
_SCALE = 1 / 128
_ROOT_BYTES = 8
"""Two words per pixel: four lanes of 16 bits, the root in the first."""
_ROOT_OF_TABLE_16_BIT = 7
_GREATEST = bits(np.finfo(np.float32).max)


@record
class Normalization(Layer):
    """A normalization ready for code generation.

    Attributes
    ----------
    square:
        Bit pattern of the square of the input's scale.
    table:
        Of the reciprocal root; the smallest norm but zero gives the largest word.
    """

    name: str
    source: int
    target: int
    in_zero_point: int
    out_zero_point: int
    square: int
    table: PiecewiseQuartic

    @property
    def sources(self) -> tuple[int, ...]:
        """The image."""
        return (self.source,)

    def effort(self, target: Activation) -> Effort:
        """Return two steps per word, and the bytes of a root."""
        return Effort(target.image.padded // 2, scratch=_ROOT_BYTES)

    def lowest_row(self, scenes: Sequence[Activations], top: int) -> int:
        """Return the first row that words pass through."""
        del scenes, top
        return OPERAND_ROW

    def constant_bytes(self, scenes: Sequence[Activations]) -> int:
        """Return the bytes of the roots."""
        return _ROOT_BYTES * most_pixels(self, scenes)

    def emit(self, emission: Emission, activations: Activations) -> None:
        """Sum up squares, and multiply with the root."""
        b, roots = emission.b, emission.constants[self.name]
        source, target = activations[self.source], activations[self.target]
        tiles = [t for t in range(TILES) if target.pixels(t)]
        b.tile_fence(reset=LAYER_COUNTERS)
        b.tile("table", ALL_TILES, self.table.fields(), constant1566=3)
        for layout, operation in ((0, self._root), (TRANSPOSE_BYTES, self._scale)):
            for mask, fields in by_content({t: _pass_through(source, target, t) for t in tiles}):
                b.tile("narrow_to_wide", mask, dict(fields), layout=layout)
            for mask, fields in by_content({t: operation(source, target, t, roots) for t in tiles}):
                b.tile("tensor_op", mask, dict(fields))
            b.tile_fence(reset=LAYER_COUNTERS)
        emission.settled()

    def _root(self, source: Activation, target: Activation, tile: int, roots: int) -> Values:
        rows, columns = target.own(tile)
        slab = source.slab(tile)
        loops = (1, slab.pixel // 4, len(columns), len(rows))
        fields = self._fields(loops) | {"flag1843": 1, "in_zero_point": self.in_zero_point, "reduction": 3,
                                        "nonlinear": _ROOT_OF_TABLE_16_BIT, "multiplier": self.square,
                                        "clamp_high": _GREATEST, "clamp_low": self.square}
        fields |= walk("in", source.address + slab.offset(rows.start, columns.start),
                       [(loops[1], 4), (loops[2], slab.pixel), (loops[3], slab.pitch)], total_dims=8)
        fields |= walk("out", roots, [(2, 4), (loops[2], _ROOT_BYTES), (loops[3], _ROOT_BYTES * loops[2])], total_dims=8)
        return fields | walk("partial", 0, [(1, 1), (loops[1], 0), (loops[2], 0), (loops[3], 0)], total_dims=8, level=2,
                             slot=4)

    def _scale(self, source: Activation, target: Activation, tile: int, roots: int) -> Values:
        del source
        rows, columns = target.own(tile)
        slab = target.slab(tile)
        loops = (1, slab.pixel // 4, len(columns), len(rows))
        fields = self._fields(loops) | NO_LIMITS | {
            "in_16bit": 1, "slot2_off": 1, "slot3_off": 1, "multiplier": bits(np.float32(1 / (_SCALE * _WORD))),
            "out_zero_point": self.out_zero_point}
        fields |= walk("in", roots, [(1, 2), (loops[1], 0), (loops[2], _ROOT_BYTES), (loops[3], _ROOT_BYTES * loops[2])],
                       total_dims=8)
        fields |= walk("out", target.own_address(tile), [(loops[1], 4), (loops[2], slab.pixel), (loops[3], slab.pitch)],
                       total_dims=8) | signal("avdata", 3)
        return fields | walk("partial", 0, [(1, 4), *standing(*loops[1:])], total_dims=8, level=1, slot=4)

    def _fields(self, loops: tuple[int, int, int, int]) -> Values:
        fields: Values = {f"loop{i}": n - 1 for i, n in enumerate(loops)}
        fields |= {"partial_from_zero": 1, "no_partial_sums": 1, "weights_zero_point": self.in_zero_point,
                   "channel_group_level": 1, "lanes_m1": 3, "lanes_last_m1": 3}
        fields |= walk("weights", 4 * OPERAND_ROW, [(1, 4), (loops[1] * loops[2] * loops[3], 0)], total_dims=8, level=1,
                       slot=4)
        return fields | watch(0, TileCounter.NARROW_TO_WIDE, 1) | signal("parameters", 1)


def _pass_through(source: Activation, target: Activation, tile: int) -> Values:
    """Words of pixels, one to a row, in two rows that take turns."""
    count = source.slab(tile).pixel // 4 * target.pixels(tile)
    return (words_of_pixels(source, target, tile)
            | walk("dst", OPERAND_ROW, [(1, 1), (count, 0)], total_dims=4, level=1, slot=1)
            | watch(0, TileCounter.PARAMETERS, -1, side=1) | signal("done", 0))


@record
class Clearing(Unary):
    """A copy of up to three channels whose fourth is zero.

    Attributes
    ----------
    channels:
        How many there are.
    """

    channels: int = 0

    takes_over: ClassVar[bool] = False
    on_identity: ClassVar[bool] = False

    @property
    def matrix(self) -> tuple[int, ...]:  # type: ignore[override]
        """The identity matrix without the channels that there are not."""
        return tuple(word if i < self.channels else 0 for i, word in enumerate(IDENTITY_WORDS))


def _read(context: Context, op: Operator) -> Layer:
    x, y = context.graph.tensors[op.inputs[0]], context.graph.output(op)
    scale, zero = quantization(x).scales[0], zero_point(x)
    channels, table = x.shape[-1], RECIPROCAL_ROOT.scaled(_WORD * float(scale))
    alone = channels < 4
    source = context.resolve(x.index) if alone else fill_words(context, op.title, x)
    layer = Normalization(op.title, FIRST if alone else source, y.index, zero, zero_point(y), bits(scale * scale), table)
    if not alone:
        return layer
    copy = Clearing(op.title, source, FIRST, zero, zero, bits(1.0), NO_LIMITS["clamp_low"], NO_LIMITS["clamp_high"],
                    channels=channels)
    return Composite(op.title, (copy, layer), y.index)


def _objection(graph: Graph, op: Operator) -> Verdict | None:
    """Results in steps of 1/128."""
    x, y = graph.tensors[op.inputs[0]], graph.output(op)
    if x.quantization is None or y.quantization is None or x.type is not y.type:
        return refusal(op, f"turns {x.type.name} into {y.type.name}, or carries no quantization.")
    if quantization(y).scale != _SCALE:
        return refusal(op, f"its result {y.name} has scale {quantization(y).scale}; the chip gives steps of 1/128.",
                       "Convert with the fixed output range of L2_NORMALIZATION.")
    return None


NORMALIZATION = Family(_objection, _read)
