"""MUL of two activations: byte by byte, then the products are gathered.

The words of the second operand pass through wide memory, one to a row. Each step multiplies one byte
of the first operand with the same byte of the second and leaves a word whose first byte is the
product; four of them are then put together.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import ClassVar

from compiler.beagle.isa.counters import TileCounter, TileEngine
from compiler.facts import TILES, WIDE_ROWS
from compiler.graph import Operator
from compiler.lowering.arithmetic import bits, clamp, product_multiplier, zero_point
from compiler.lowering.builder import LAYER_COUNTERS, Values, signal, walk, watch
from compiler.lowering.spatial.context import Context
from compiler.lowering.spatial.emission import Emission
from compiler.lowering.spatial.families.broadcast import read_alike
from compiler.lowering.spatial.families.constant import read_scaled, split_operands
from compiler.lowering.spatial.families.family import Family, binary_objection
from compiler.lowering.spatial.families.unary import CONSTANT_WORDS, IDENTITY_ROW, NO_LIMITS, build_identity
from compiler.lowering.spatial.geometry import Activation, by_content, many
from compiler.lowering.spatial.layer import Activations, Effort, Layer, most_pixels
from compiler.records import record

BLOCK_WORDS = 4
"""Words of the second operand that wide memory takes at a time, twice."""
OPERAND_ROWS = 2 * BLOCK_WORDS
OPERAND_ROW = IDENTITY_ROW - OPERAND_ROWS
"""First of them below an identity matrix."""
_GAP = 4
"""Bytes that official programs leave free behind the products."""
_ONE = bits(1.0)
_ONE_BYTE: Values = {"partial_from_zero": 1, "no_partial_sums": 1, "slot1_off": 1, "slot2_off": 1, "slot3_off": 1,
                     "lanes_m1": 3, "lanes_last_m1": 3}


@record
class Product(Layer):
    """A product ready for code generation.

    Attributes
    ----------
    operands:
        Numbers of the activations; the result may take over the memory of the first.
    zero_points:
        Those of the operands.
    multiplier, clamp_low, clamp_high:
        Bit patterns of float32 numbers.
    """

    name: str
    operands: tuple[int, int]
    target: int
    zero_points: tuple[int, int]
    out_zero_point: int
    multiplier: int
    clamp_low: int
    clamp_high: int

    takes_over: ClassVar[bool] = True
    on_identity: ClassVar[bool] = True
    below_top: ClassVar[bool] = True
    follows_input: ClassVar[bool] = True

    @property
    def sources(self) -> tuple[int, ...]:
        """Both operands."""
        return self.operands

    def effort(self, target: Activation) -> Effort:
        """Return two steps per byte, and a word for each product."""
        return Effort(2 * target.image.padded, scratch=4 * target.image.padded)

    def lowest_row(self, scenes: Sequence[Activations], top: int) -> int:
        """Return the first row of the second operand."""
        del scenes
        return top - OPERAND_ROWS

    def constant_bytes(self, scenes: Sequence[Activations]) -> int:
        """Return the bytes of the identity matrix."""
        del scenes
        return 4 * CONSTANT_WORDS

    def room_bytes(self, scenes: Sequence[Activations]) -> int:
        """Return the bytes of the products, a word each."""
        return 4 * most_pixels(self, scenes) * scenes[0][self.target].image.padded + _GAP

    def emit(self, emission: Emission, activations: Activations) -> None:
        """Multiply and gather."""
        b = emission.b
        a, c = (activations[t] for t in self.operands)
        target, products = activations[self.target], emission.rooms[self.name]
        tiles = [t for t in range(TILES) if target.pixels(t)]
        identity = emission.identities.get(self.name, IDENTITY_ROW)
        row = min(emission.tops[self.name], WIDE_ROWS if self.name in emission.identities else IDENTITY_ROW) - OPERAND_ROWS
        missing = emission.missing_identity(self.name)
        b.tile_fence(reset=LAYER_COUNTERS)
        for mask, fields in by_content({t: _multiply(self, a, target, t, products, row) for t in tiles}):
            b.tile("tensor_op", mask, dict(fields))
        for mask, fields in by_content({t: pass_through(c, target, t, row) for t in tiles}):
            b.tile("narrow_to_wide", mask, dict(fields))
        if missing:
            build_identity(b, emission.constants[self.name], identity, fenced=False)
        b.tile_fence(engines=1 << TileEngine.NARROW_TO_WIDE)
        for mask, fields in by_content({t: _gather(target, t, products, identity) for t in tiles}):
            b.tile("tensor_op", mask, dict(fields))
        b.tile_fence(reset=1 << TileCounter.NARROW_TO_WIDE, value=int(missing))
        b.tile_fence(reset=1 << TileCounter.PARAMETERS)
        b.tile_fence(reset=LAYER_COUNTERS)
        emission.reset()


def blocks_of(image: Activation) -> tuple[int, int]:
    """Words of a block, and blocks of a pixel."""
    words = image.image.padded // 4
    block = BLOCK_WORDS if words % BLOCK_WORDS == 0 else 1
    return block, words // block


def _multiply(layer: Product, a: Activation, target: Activation, tile: int, products: int, operand: int) -> Values:
    """Multiply every byte of one operand with a byte of the other."""
    rows, columns = target.own(tile)
    slab = a.slab(tile)
    return _multiplied(layer, len(rows), len(columns), (slab.pixel, slab.pitch, slab.size),
                       a.address + slab.offset(rows.start, columns.start), blocks_of(target), products, operand)


@lru_cache(maxsize=4096)
def _multiplied(layer: Product, high: int, wide: int, slab: tuple[int, int, int], first: int, parts: tuple[int, int],
                products: int, operand: int) -> Values:
    """Many tiles have the same part of an image; pixel, pitch and size of the slab in bytes."""
    (block, blocks), channels = parts, slab[0]
    fields: Values = _ONE_BYTE | {f"loop{i}": n - 1 for i, n in enumerate((4 * block, blocks, wide, high))}
    fields |= {"in_zero_point": layer.zero_points[0], "weights_zero_point": layer.zero_points[1], "channel_group_level": 4,
               "multiplier": layer.multiplier, "clamp_low": layer.clamp_low, "clamp_high": layer.clamp_high,
               "out_zero_point": layer.out_zero_point}
    fields |= walk("in", first, [(channels, 1), *zip((wide, high, 1), slab, strict=True)], total_dims=8)
    fields |= walk("out", products, [(1, 4), *_product_dims(channels, wide, high)], total_dims=8)
    fields |= walk("weights", 4 * operand, [(4 * block, 1), (blocks, 0), (wide, 0), (high, 0)], total_dims=8, level=1,
                   slot=4 * block)
    fields |= walk("partial", 0, [(1, 1), (channels, 0), (wide, 0), (high, 0)], total_dims=8, level=1, slot=4)
    return fields | watch(0, TileCounter.NARROW_TO_WIDE, 1) | signal("parameters", 1)


def _product_dims(channels: int, wide: int, high: int) -> list[tuple[int, int]]:
    """Products lie one to a word."""
    return [(channels, 4), (wide, 4 * channels), (high, 4 * channels * wide), (1, 4 * channels * wide * high)]


def words_of_pixels(source: Activation, target: Activation, tile: int) -> Values:
    """Return the walk over the words of the pixels from which a tile makes its results."""
    rows, columns = target.own(tile)
    slab = source.slab(tile)
    words = slab.pixel // 4
    first = (source.address + slab.offset(rows.start, columns.start)) // 4
    dims = many([(words, 1), (len(columns), words), (len(rows), slab.pitch // 4)]) or [(1, 1)]
    return walk("src", first, dims, total_dims=6)


def pass_through(operand: Activation, target: Activation, tile: int, row: int = OPERAND_ROW) -> Values:
    """Fields that move the words of the pixels of a result on a tile into wide rows, one to a row."""
    block, blocks = blocks_of(operand)
    words, pixels = operand.slab(tile).pixel // 4, target.pixels(tile)
    places = [(block, 1), *many([(blocks, 0), (pixels, 0)])] if block > 1 else [(words * pixels, 0)]
    level = int(block > 1)
    return (words_of_pixels(operand, target, tile) | walk("dst", row, places, total_dims=4, level=level, slot=block)
            | watch(0, TileCounter.PARAMETERS, -1, level=level, side=1) | signal("done", level))


def _gather(target: Activation, tile: int, products: int, identity: int) -> Values:
    """Put the first bytes of four words together."""
    rows, columns = target.own(tile)
    slab = target.slab(tile)
    return _gathered(len(rows), len(columns), (slab.pixel, slab.pitch, slab.size), target.own_address(tile), products,
                     identity)


@lru_cache(maxsize=4096)
def _gathered(high: int, wide: int, slab: tuple[int, int, int], first: int, products: int, identity: int) -> Values:
    """Many tiles have the same part of an image; pixel, pitch and size of the slab in bytes."""
    channels = slab[0]
    loops = (4, channels // 4, wide, high)
    fields: Values = _ONE_BYTE | {f"loop{i}": n - 1 for i, n in enumerate(loops)}
    fields |= NO_LIMITS | {"channel_group_level": 2, "multiplier": _ONE}
    fields |= walk("in", products, _product_dims(channels, wide, high), total_dims=8)
    fields |= walk("out", first, [(channels // 4, 4), *zip((wide, high, 1), slab, strict=True)], total_dims=8)
    stay = [(n, 0) for n in loops[1:]]
    fields |= walk("weights", 4 * identity, [(4, 1), *stay], total_dims=8, level=1)
    return fields | walk("partial", 0, [(4, 0), *stay], total_dims=8, level=1, slot=4)


def _read(context: Context, op: Operator) -> Layer:
    constant, _ = split_operands(context.graph, op)
    if constant is not None:
        return read_scaled(context, op)
    a, b = (context.graph.tensors[t] for t in op.inputs)
    y = context.graph.output(op)
    low, high = clamp(y, op.options.fusedActivationFunction)
    return read_alike(context, op, lambda operands: Product(
        op.title, operands, y.index, (zero_point(a), zero_point(b)), zero_point(y), bits(product_multiplier(a, b, y)), low,
        high))


MULTIPLICATION = Family(binary_objection, _read)
