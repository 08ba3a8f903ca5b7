"""FULLY_CONNECTED with computed weights: rows of one activation times rows of another.

The second activation comes together on every tile that computes. Its rows become the lanes of wide
memory, a word of each to a wide row, and the first is convolved with them pixel by pixel, as official
programs do for the products of an attention layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from compiler.facts import LANES, TILES, WIDE_ROWS
from compiler.graph import Operator
from compiler.lowering.arithmetic import bits, clamp, product_multiplier, zero_point
from compiler.lowering.builder import Values, signal, walk
from compiler.lowering.spatial.context import Context, extent_of
from compiler.lowering.spatial.emission import Emission
from compiler.lowering.spatial.families.selection import fill_words
from compiler.lowering.spatial.geometry import Activation, by_content, many
from compiler.lowering.spatial.layer import Activations, Layer
from compiler.records import record


@record
class MatrixProduct(Layer):
    """A product of two activations ready for code generation.

    Attributes
    ----------
    source, other:
        Pixels that are multiplied, and the gathered rows that they are multiplied with.
    outputs, words:
        Rows of the other, and words of each.
    zero_points:
        Of source, other and result.
    multiplier, clamp_low, clamp_high:
        Bit patterns of float32 numbers.
    """

    name: str
    source: int
    other: int
    target: int
    outputs: int
    words: int
    zero_points: tuple[int, int, int]
    multiplier: int
    clamp_low: int
    clamp_high: int

    banded: ClassVar[bool] = False

    @property
    def sources(self) -> tuple[int, ...]:
        """Both operands."""
        return self.source, self.other

    @property
    def _groups(self) -> int:
        return -(-self.outputs // LANES)

    def lowest_row(self, scenes: Sequence[Activations], top: int) -> int:
        """Return the first row of the other operand."""
        del scenes, top
        return WIDE_ROWS - self.words * self._groups

    def emit(self, emission: Emission, activations: Activations) -> None:
        """Bring rows into wide memory, and multiply."""
        emission.begin_vector()
        b, source, target = emission.b, activations[self.source], activations[self.target]
        tiles = [t for t in range(TILES) if target.pixels(t)]
        row = self.lowest_row([activations], 0)
        lanes, level = min(self.outputs, LANES), self._groups > 1
        b.tile("narrow_to_wide", sum(1 << t for t in tiles),
               walk("src", activations[self.other].own_address(0) // 4,
                    [(lanes, self.words), (self.words, 1), *many([(self._groups, LANES * self.words)])], total_dims=6),
               walk("dst", row, [(self.words, 1), *([(self._groups, self.words)] if level else [])], total_dims=4),
               signal("done", 0), flush_level=1)
        b.tile_fence()
        for mask, fields in by_content({t: self._multiply(source, target, t, row) for t in tiles}):
            b.tile("tensor_op", mask, dict(fields))
        emission.reset()

    def _multiply(self, source: Activation, target: Activation, tile: int, row: int) -> Values:
        rows, columns = target.own(tile)
        a, c, lanes = source.slab(tile), target.slab(tile), min(self.outputs, LANES)
        counts = (self.words, len(columns), len(rows), self._groups)
        fields: Values = {f"loop{i}": n - 1 for i, n in enumerate(counts)}
        fields |= {"partial_from_zero": 1, "no_partial_sums": 1, "channel_group_level": 3, "reduction": 1,
                   "in_zero_point": self.zero_points[0], "weights_zero_point": self.zero_points[1],
                   "out_zero_point": self.zero_points[2], "lanes_m1": lanes - 1, "lanes_last_m1": lanes - 1,
                   "multiplier": self.multiplier, "clamp_low": self.clamp_low, "clamp_high": self.clamp_high}
        fields |= walk("in", source.address + a.offset(rows.start, columns.start),
                       [(counts[0], 4), (counts[1], a.pixel), (counts[2], a.pitch), (counts[3], 0)], total_dims=8)
        fields |= walk("out", target.own_address(tile), [(-(-lanes // 4), 4), (counts[1], c.pixel), (counts[2], c.pitch),
                                                         (counts[3], lanes)], total_dims=8)
        fields |= walk("weights", 4 * row, [(counts[0], 4), (counts[1], 0), (counts[2], 0), (counts[3], 4 * self.words)],
                       total_dims=8)
        stay = [(n, 0) for n in counts]
        return fields | walk("partial", 0, stay, total_dims=8, level=1, slot=4) | signal("avdata", 3)


def read_matrix_product(context: Context, op: Operator) -> Layer:
    """Read a FULLY_CONNECTED with computed weights."""
    x, w = (context.graph.tensors[t] for t in op.inputs[:2])
    y = context.graph.output(op)
    image = context.image(y.index)
    tiles = 1 + max(t for t in range(TILES) if image.pixels(t))
    source = fill_words(context, op.title, x)
    other = context.gather((context.origin(w.index),), tiles, in_order=True)
    low, high = clamp(y, op.options.fusedActivationFunction if op.options is not None else 0)
    return MatrixProduct(op.title, source, other, y.index, w.shape[0], -(-extent_of(w)[2] // 4),
                         (zero_point(x), zero_point(w), zero_point(y)), bits(product_multiplier(x, w, y)), low, high)
