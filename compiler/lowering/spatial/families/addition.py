"""ADD, SUB and SQUARED_DIFFERENCE: sums of two activations with 16-bit weights, in place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, NamedTuple

from compiler.beagle.isa.counters import TileCounter
from compiler.beagle.isa.tables import PiecewiseQuartic, square
from compiler.beagle.sums import weights_of_sum
from compiler.facts import TILES
from compiler.graph import Operator
from compiler.lowering.arithmetic import bits, clamp, quantization, sum_multiplier, sum_unit, zero_point
from compiler.lowering.builder import ALL_TILES, Values, signal, standing, walk, watch
from compiler.lowering.spatial.context import Context
from compiler.lowering.spatial.emission import Emission
from compiler.lowering.spatial.families.broadcast import read_alike
from compiler.lowering.spatial.families.constant import read_shifted, split_operands
from compiler.lowering.spatial.families.family import Family, binary_objection
from compiler.lowering.spatial.families.unary import NO_LIMITS
from compiler.lowering.spatial.geometry import Activation, by_part
from compiler.lowering.spatial.layer import Activations, Layer
from compiler.records import record

CONSTANT_WORDS = 16
WEIGHT_ROWS = 4


@record
class Addition(Layer):
    """A sum ready for code generation.

    Attributes
    ----------
    operands:
        Numbers of the activations.
    weights:
        16-bit weights of the operands; negative ones subtract.
    constant:
        What the accumulator starts with.
    multiplier, clamp_low, clamp_high:
        Bit patterns of float32 numbers.
    table:
        Applied to the sum; None for none.
    """

    name: str
    operands: tuple[int, int]
    target: int
    weights: tuple[int, int]
    constant: int
    out_zero_point: int
    multiplier: int
    clamp_low: int
    clamp_high: int
    table: PiecewiseQuartic | None = None

    aligned: ClassVar[bool] = True
    takes_over: ClassVar[bool] = True
    below_top: ClassVar[bool] = True
    follows_input: ClassVar[bool] = True

    @property
    def weights_zero_point(self) -> int:
        """What is added to the weights, which are unsigned: the negative one becomes zero."""
        return max(0, -min(self.weights))

    @property
    def sources(self) -> tuple[int, ...]:
        """Both operands."""
        return self.operands

    def lowest_row(self, scenes: Sequence[Activations], top: int) -> int:
        """Return the first row of the weights."""
        del scenes
        return top - WEIGHT_ROWS

    def constant_bytes(self, scenes: Sequence[Activations]) -> int:
        """Return the bytes in which the weights are built."""
        del scenes
        return 4 * CONSTANT_WORDS

    def emit(self, emission: Emission, activations: Activations) -> None:
        """Write the weights and the operation; the operand with the lower address comes first."""
        b = emission.b
        operands = sorted(zip(self.operands, self.weights, strict=True), key=lambda item: activations[item[0]].address)
        (first, low), (second, high) = operands
        sources = (activations[first], activations[second])
        target = activations[self.target]
        emission.reset()
        row = emission.tops[self.name] - WEIGHT_ROWS
        _build_weights(emission, (low, high), self.weights_zero_point, emission.constants[self.name] // 4, row)
        if self.table is not None:
            b.tile("table", ALL_TILES, self.table.fields(), constant1566=3)
        parts = {t: _part(sources, target, t) for t in range(TILES) if target.pixels(t)}
        for tiles, fields in by_part(parts, lambda part: _add(self, part, row),
                                     also=lambda part: (part.height > 1, part.width > 1)):
            b.tile("tensor_op", tiles, dict(fields))
        words = target.image.padded // 4
        emission.announce(self.target, words, at_end=words > 1)
        emission.finish(self.target, target)


def _build_weights(emission: Emission, weights: tuple[int, int], zero: int, word: int, row: int) -> None:
    """Four wide rows: two bytes of an operand's word each, on the diagonal; the mesh engines write in turn."""
    b, counts = emission.b, emission.books.counts
    sides = (("mesh_from_south", TileCounter.MESH_SOUTH_IN), ("mesh_from_west", TileCounter.MESH_WEST_IN),
             ("mesh_from_east", TileCounter.MESH_EAST_IN), ("mesh_from_north", TileCounter.MESH_NORTH_IN))
    turn = 0
    nothing = zero << 16 | zero
    for i, weight in enumerate(weights):
        low, high = zero << 16 | (weight + zero), (weight + zero) << 16 | zero
        for at, count, value in ((0, 1, low), (1, 1, high), (2, 4, nothing), (6, 1, low), (7, 1, high)):
            there = walk("dst", word + 8 * i + at, [(count, 1)], total_dims=4, mask=int(count > 1))
            side, received = sides[turn % 4]
            b.tile(side, ALL_TILES, there, signal("received", 1), fill=1, fill_value=value)
            for tile in range(TILES):
                counts.add(received, tile, 1)
            turn += 1
    b.tile("narrow_to_wide", ALL_TILES, walk("src", word, [(4, 1), (4, 4)], total_dims=6),
           walk("dst", row, [(WEIGHT_ROWS, 1)], total_dims=4),
           watch(0, TileCounter.MESH_NORTH_IN, 2, level=2), watch(1, TileCounter.MESH_SOUTH_IN, 3, level=2),
           watch(2, TileCounter.MESH_WEST_IN, 3, level=2), watch(3, TileCounter.MESH_EAST_IN, 2, level=2),
           signal("done", 1), flush_level=1)


class Part(NamedTuple):
    """What distinguishes the work of a tile from that of others.

    Attributes
    ----------
    height, width:
        Rows and columns.
    first, second, result:
        Byte addresses of the first pixels.
    slab, out:
        Bytes of a pixel, of a row and of all rows: of the operands, of the result.
    """

    height: int
    width: int
    first: int
    second: int
    result: int
    slab: tuple[int, int, int]
    out: tuple[int, int, int]


def _part(sources: tuple[Activation, Activation], target: Activation, tile: int) -> Part:
    rows, columns = target.own(tile)
    slab, out = sources[0].slab(tile), target.slab(tile)
    first, second = (s.address + s.slab(tile).offset(rows.start, columns.start) for s in sources)
    return Part(len(rows), len(columns), first, second, target.own_address(tile), (slab.pixel, slab.pitch, slab.size),
                (out.pixel, out.pitch, out.size))


def _add(layer: Addition, part: Part, row: int) -> Values:
    words = part.slab[0] // 4
    results = standing(part.width, part.height, words)
    loops = [2, 2, *(n for n in (part.width, part.height) if n > 1), words]
    level = len(loops)
    fields: Values = {f"loop{i}": n - 1 for i, n in enumerate(loops)}
    fields |= {"partial_from_zero": 1, "no_partial_sums": 1, "weights_16bit": 1, "channel_group_level": level - 1,
               "reduction": 3, "lanes_m1": 3, "lanes_last_m1": 3, "multiplier": layer.multiplier,
               "clamp_low": layer.clamp_low, "clamp_high": layer.clamp_high, "constant": layer.constant,
               "out_zero_point": layer.out_zero_point, "weights_zero_point": layer.weights_zero_point}
    if layer.table is not None:
        fields["nonlinear"] = 1
    counts = (part.width, part.height, 1)
    pixels = [*zip(counts, part.slab, strict=True), (words, 4)]
    fields |= walk("in", part.first, [(2, 2), (2, part.second - part.first), *pixels], total_dims=8)
    fields |= walk("out", part.result, [(1, 4), *zip(counts, part.out, strict=True), (words, 4)], total_dims=8)
    fields |= walk("weights", 4 * row, [(4, 4), *results], total_dims=8)
    fields |= walk("partial", 0, [(4, 0), *results], total_dims=8, level=1, slot=4)
    return fields | watch(0, TileCounter.NARROW_TO_WIDE, 1, level=level) | signal("avdata", 4)


def _read(context: Context, op: Operator) -> Layer:
    constant, _ = split_operands(context.graph, op)
    if constant is not None and op.name != "SQUARED_DIFFERENCE":
        return read_shifted(context, op)
    a, b = (context.graph.tensors[t] for t in op.inputs)
    y = context.graph.output(op)
    weights = weights_of_sum(quantization(a).scale, quantization(b).scale)
    low, high = clamp(y, getattr(op.options, "fusedActivationFunction", 0))
    multiplier, table = sum_multiplier(a, b, y, weights), None
    if op.name == "SQUARED_DIFFERENCE":
        low, high = NO_LIMITS["clamp_low"], NO_LIMITS["clamp_high"]
        multiplier, table = sum_unit(a, b, weights), square(1 / quantization(y).scale)
    signed = weights if op.name == "ADD" else (weights[0], -weights[1])
    term = -(signed[0] * zero_point(a) + signed[1] * zero_point(b))
    return read_alike(context, op, lambda operands: Addition(
        op.title, (operands[1], operands[0]), y.index, (signed[1], signed[0]), term, zero_point(y), bits(multiplier), low,
        high, table))


ADDITION = Family(binary_objection, _read)
