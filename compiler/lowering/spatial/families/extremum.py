"""MAXIMUM and MINIMUM of two activations, or of an activation and one value.

Maxima are pools of two: the pixels of both operands move into wide memory, one operand behind the
other. Minima are maxima of what remains to 255, negated. One value is a clamp.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from compiler.facts import LANES, TILES
from compiler.graph import Graph, Operator, Tensor
from compiler.lowering.arithmetic import bits, clamp, quantization, unary_multiplier, zero_point
from compiler.lowering.builder import LAYER_COUNTERS, Values, signal, standing, walk
from compiler.lowering.lowered import refusal
from compiler.lowering.spatial.context import Context
from compiler.lowering.spatial.emission import Emission
from compiler.lowering.spatial.families.broadcast import read_alike, read_spread
from compiler.lowering.spatial.families.composite import FIRST, SECOND, Composite
from compiler.lowering.spatial.families.constant import split_operands
from compiler.lowering.spatial.families.family import Family, binary_objection
from compiler.lowering.spatial.families.pool import PIXELS_PER_ROW, TRANSPOSE_BYTES, WORDS_PER_ROW, groups_of
from compiler.lowering.spatial.families.unary import HIGHEST, IDENTITY_ROW, Unary, complement
from compiler.lowering.spatial.geometry import Activation, Span, by_content, many
from compiler.lowering.spatial.layer import Activations, Effort, Layer
from compiler.mapping import Verdict
from compiler.records import record

_ONE = bits(1.0)
_MINUS_ONE = bits(-1.0)
_OPERANDS = 2


@record
class Extremum(Layer):
    """A maximum ready for code generation.

    Attributes
    ----------
    negated:
        The operands are what values lack to 255, the result is not.
    zero_point, clamp_low, clamp_high:
        Of the operands and of the result alike; bounds are bit patterns of float32 numbers.
    """

    name: str
    operands: tuple[int, int]
    target: int
    zero_point: int
    clamp_low: int
    clamp_high: int
    negated: bool = False

    aligned: ClassVar[bool] = True

    @property
    def sources(self) -> tuple[int, ...]:
        """Both operands."""
        return self.operands

    def effort(self, target: Activation) -> Effort:
        """Return the steps of a pixel; both operands lie in wide memory."""
        groups = groups_of(target.image.padded)
        return Effort(_OPERANDS * groups, 0, PIXELS_PER_ROW * IDENTITY_ROW // (_OPERANDS * groups))

    def lowest_row(self, scenes: Sequence[Activations], top: int) -> int:
        """Return the first row of the pixels."""
        del top
        return min(self._first_row(scene[self.target]) for scene in scenes)

    def _first_row(self, target: Activation) -> int:
        return IDENTITY_ROW - max(_wide_rows(target, t) for t in range(TILES))

    def emit(self, emission: Emission, activations: Activations) -> None:
        """Collect pixels and take the larger of two."""
        b, target = emission.b, activations[self.target]
        operands = [activations[t] for t in self.operands]
        tiles = [t for t in range(TILES) if target.pixels(t)]
        wide = self._first_row(target)
        b.tile_fence(reset=LAYER_COUNTERS)
        for mask, fields in by_content({t: _collect(operands, target, t, wide) for t in tiles}):
            b.tile("narrow_to_wide", mask, dict(fields))
        b.tile_fence()
        for mask, fields in by_content({t: self._reduce(target, t, wide) for t in tiles}):
            b.tile("tensor_max", mask, dict(fields))
        emission.reset()

    def _reduce(self, target: Activation, tile: int, wide: int) -> Values:
        rows, columns = target.own(tile)
        slab = target.slab(tile)
        groups, blocks = groups_of(slab.pixel), _blocks(columns)
        last = slab.pixel - (groups - 1) * LANES
        lanes = LANES if groups > 1 else last
        loops = (_OPERANDS, len(columns), len(rows), groups)
        fields: Values = {f"loop{i}": n - 1 for i, n in enumerate(loops)}
        fields |= {"partial_from_zero": 1, "no_partial_sums": 1, "slot1_off": 1, "slot2_off": 1, "slot3_off": 1,
                   "channel_group_level": 3, "reduction": 1, "lanes_m1": lanes - 1, "lanes_last_m1": last - 1,
                   "clamp_low": self.clamp_low, "clamp_high": self.clamp_high, "out_zero_point": self.zero_point}
        if self.negated:
            fields |= {"multiplier": _MINUS_ONE, "constant": self.zero_point - HIGHEST}
        else:
            fields |= {"multiplier": _ONE, "constant": -self.zero_point}
        outputs = [(lanes // 4, 4), (len(columns), slab.pixel), (len(rows), slab.pitch), (groups, lanes), (1, slab.size)]
        fields |= walk("out", target.own_address(tile), outputs, total_dims=8,
                       epilogue=(3, last // 4, lanes - last) if last != lanes else None) | signal("avdata", 3)
        operand = PIXELS_PER_ROW * blocks * len(rows)
        fields |= walk("weights", 4 * wide, [(_OPERANDS, operand), (len(columns), 1), (len(rows), PIXELS_PER_ROW * blocks),
                                             (groups, _OPERANDS * operand)], total_dims=8)
        steps = [(_OPERANDS, 0), *standing(len(columns), len(rows), groups)]
        return fields | walk("partial", 0, steps, total_dims=8, level=1, slot=4)


def _blocks(columns: Span) -> int:
    return -(-len(columns) // PIXELS_PER_ROW)


def _wide_rows(target: Activation, tile: int) -> int:
    rows, columns = target.own(tile)
    return _OPERANDS * _blocks(columns) * len(rows) * groups_of(target.image.padded)


def _collect(operands: Sequence[Activation], target: Activation, tile: int, wide: int) -> Values:
    """Move the pixels of both operands, four of a row side by side, into wide rows."""
    rows, columns = target.own(tile)
    first, second = (o.address + o.slab(tile).offset(rows.start, columns.start) for o in operands)
    slab = operands[0].slab(tile)
    words, groups = slab.pixel // 4, groups_of(slab.pixel)
    rest = words % WORDS_PER_ROW
    dims = [(PIXELS_PER_ROW, words), (min(words, WORDS_PER_ROW), 1),
            *many([(_blocks(columns), PIXELS_PER_ROW * words), (len(rows), slab.pitch // 4)]),
            (_OPERANDS, (second - first) // 4)]
    epilogue = (len(dims), rest, WORDS_PER_ROW - rest) if rest and groups > 1 else None
    dims += many([(groups, WORDS_PER_ROW)])
    total = _OPERANDS * _blocks(columns) * len(rows)
    return (walk("src", first // 4, dims, total_dims=6, epilogue=epilogue)
            | walk("dst", wide, many([(total, 1), (groups, total)]), total_dims=4)
            | signal("done", 1) | {"layout": TRANSPOSE_BYTES, "flush_level": 2})


def _read(context: Context, op: Operator) -> Layer:
    constant, x = split_operands(context.graph, op)
    y = context.graph.output(op)
    low, high = clamp(y, 0)
    if constant is None or constant.elements > 1:
        return read_alike(context, op, lambda operands: _largest(op, operands, y) if op.name == "MAXIMUM" else
                          _smallest(op, operands, y))
    value = bits(np.float32(int(constant.array().reshape(-1)[0]) - quantization(constant).zero_point))
    low, high = (value, high) if op.name == "MAXIMUM" else (low, value)
    return read_spread(context, op, x, lambda source: Unary(
        op.title, source, y.index, zero_point(x), zero_point(y), bits(unary_multiplier(x, y)), low, high))


def _largest(op: Operator, operands: tuple[int, int], y: Tensor) -> Extremum:
    return Extremum(op.title, operands, y.index, zero_point(y), *clamp(y, 0))


def _smallest(op: Operator, operands: tuple[int, int], y: Tensor) -> Composite:
    negated = [complement(op.title, t, number) for t, number in zip(operands, (FIRST, SECOND), strict=True)]
    largest = Extremum(op.title, (FIRST, SECOND), y.index, zero_point(y), *clamp(y, 0), negated=True)
    return Composite(op.title, (*negated, largest), y.index)


def _objection(graph: Graph, op: Operator) -> Verdict | None:
    """Operands and result of one scale and zero point.

    One operand may be a constant, or have a single row, column or channel.
    """
    objection = binary_objection(graph, op)
    if objection is not None:
        return objection
    y = graph.output(op)
    other = next((t for i in op.inputs if not quantization(y).same_as((t := graph.tensors[i]).quantization)), None)
    if other is not None:
        return refusal(op, f"its operand {other.name} and its result {y.name} have different scales or zero points.",
                       "Convert with one scale for both operands and the result.")
    return None


EXTREMUM = Family(_objection, _read)
