"""SOFTMAX over the channels of every pixel: the steps of a vector's softmax, on all tiles at once.

Every tile has whole pixels, so that nothing travels between tiles, and spare channels are taken out by the tables
of a vector's, which come with every inference. The official compiler does so with the attention of a transformer,
4 x 49 vectors of 49 classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from compiler.beagle.isa.counters import TileCounter, TileEngine
from compiler.beagle.isa.tables import EXPONENTIAL, EXPONENTIAL_LOW, RECIPROCAL_ROOT, PiecewiseQuartic
from compiler.facts import PARAMETER_LINE_BYTES, TILES
from compiler.graph import Operator
from compiler.lowering.arithmetic import bits
from compiler.lowering.builder import LAYER_COUNTERS, ProgramBuilder, Values, signal, standing, walk, watch
from compiler.lowering.softmax_layer import Limits, SoftmaxLayer
from compiler.lowering.softmax_step import block_of, nest, no_sums, short_loop, short_walk, step_fields
from compiler.lowering.spatial.emission import Emission
from compiler.lowering.spatial.families.addition import Addition
from compiler.lowering.spatial.families.channel_maximum import SpreadMaximum, on_tiles
from compiler.lowering.spatial.families.composite import FIRST, SECOND, Composite
from compiler.lowering.spatial.families.constant import PerChannel
from compiler.lowering.spatial.families.multiplication import OPERAND_ROW
from compiler.lowering.spatial.families.unary import (
    CONSTANT_WORDS,
    IDENTITY_ROW,
    NO_LIMITS,
    TABLE_COUNTERS,
    Unary,
    apply_to_words,
    build_identity,
)
from compiler.lowering.spatial.geometry import Activation, many
from compiler.lowering.spatial.layer import Activations, Effort, Layer, most_pixels
from compiler.lowering.spatial.streaming import stream_lines
from compiler.records import record

_FIRST_BYTES = (0x1, 0x100, 0x1, 0x100)
"""A matrix that copies the first two bytes of a word."""
_ROOT_BYTES, _SQUARE_BYTES, _INVERSE_BYTES = 8, 16, 4
_HIGHEST = 255
_STEP = bits(np.float32(1 / 65535))
_SHARE = bits(np.float32(1.1921416e-7))
_PLAIN, _TABLE, _ROOT = 4, 5, 7
"""Modes of the output stage with 16 bits: no table, exponential, reciprocal root."""
_COPY = Unary("", 0, 0, 0, 0, bits(1.0), NO_LIMITS["clamp_low"], NO_LIMITS["clamp_high"])


@record
class PixelShares(Layer):
    """From the differences to the largest channel to the probabilities, all with 16 bits in between.

    Attributes
    ----------
    softmax:
        Its numbers.
    factors:
        Loads the scales of differences, infinite ones for spare channels; None where there are none.
    """

    name: str
    source: int
    target: int
    softmax: SoftmaxLayer
    factors: PerChannel | None

    @property
    def sources(self) -> tuple[int, ...]:
        """The differences."""
        return (self.source,)

    @property
    def streamed(self) -> bytes:
        """Factors."""
        return self.factors.streamed if self.factors is not None else b""

    def effort(self, target: Activation) -> Effort:
        """Return four steps per word: exponential, packing, sum and share."""
        return Effort(target.image.padded, scratch=self._pixel_bytes)

    def lowest_row(self, scenes: Sequence[Activations], top: int) -> int:
        """Return the first row that words pass through."""
        del scenes, top
        return OPERAND_ROW

    def constant_bytes(self, scenes: Sequence[Activations]) -> int:
        """Return the bytes in which matrices are built."""
        del scenes
        return 4 * CONSTANT_WORDS

    def room_bytes(self, scenes: Sequence[Activations]) -> int:
        """Return the bytes of exponentials, sums and inverses."""
        return self._pixel_bytes * most_pixels(self, scenes) + _ROOT_BYTES

    @property
    def _power_bytes(self) -> int:
        return 8 * self.softmax.words

    @property
    def _pixel_bytes(self) -> int:
        packed = 4 * self.softmax.summands if self.softmax.masked else 0
        return self._power_bytes + _ROOT_BYTES + max(packed, _SQUARE_BYTES + _INVERSE_BYTES)

    def emit(self, emission: Emission, activations: Activations) -> None:
        """Exponentiate, sum up, invert and multiply."""
        b, constants = emission.b, emission.constants[self.name]
        source, target = activations[self.source], activations[self.target]
        tiles = [t for t in range(TILES) if target.pixels(t)]
        n = max(target.pixels(t) for t in tiles)
        powers = emission.rooms[self.name]
        root = powers + self._power_bytes * n + _ROOT_BYTES
        square = packed = root + _ROOT_BYTES * n
        inverse = square + _SQUARE_BYTES * n
        self._exponentiate(emission, source, target, powers)
        if self.softmax.masked:
            h, size = self.softmax.summands, self._power_bytes
            on_tiles(b, tiles, "tensor_op", lambda tile: _moved(
                powers, (4, size), packed, (4, 4 * h), (h, target.pixels(tile))))
            b.tile_fence(reset=LAYER_COUNTERS)
        summed = packed if self.softmax.masked else powers
        self._sum(b, {t: target.pixels(t) for t in tiles}, summed, root)
        _invert(b, {t: target.pixels(t) for t in tiles}, root, square)
        build_identity(b, constants, OPERAND_ROW, matrix=_FIRST_BYTES)
        on_tiles(b, tiles, "tensor_op", lambda tile: _moved(
            root, (4, _ROOT_BYTES), inverse, (4, _INVERSE_BYTES), (1, target.pixels(tile)), OPERAND_ROW))
        b.tile_fence(reset=LAYER_COUNTERS)
        on_tiles(b, tiles, "narrow_to_wide", lambda tile: self._in_pairs(target.pixels(tile), powers))
        on_tiles(b, tiles, "tensor_op", lambda tile: self._shares(target, tile, inverse))
        b.tile_fence(reset=1 << TileCounter.NARROW_TO_WIDE)
        b.tile_fence(reset=1 << TileCounter.PARAMETERS)
        emission.reset()

    def _exponentiate(self, emission: Emission, source: Activation, target: Activation, powers: int) -> None:
        b, factors = emission.b, self.factors
        tiles = [t for t in range(TILES) if target.pixels(t)]
        active = sum(1 << t for t in tiles)
        b.tile_fence(reset=LAYER_COUNTERS)
        build_identity(b, emission.constants[self.name])
        b.tile_fence(reset=LAYER_COUNTERS)
        _load_table(b, active, EXPONENTIAL)
        if factors is not None:
            factors.load(b, active)
        on_tiles(b, tiles, "tensor_op", lambda tile: self._powers(source, target, tile, powers))
        if factors is not None:
            stream_lines(b, emission.books, factors.stream, self.softmax.words, receivers=active,
                         lanes=PARAMETER_LINE_BYTES // 4)
        b.tile_fence(reset=LAYER_COUNTERS)

    def _powers(self, source: Activation, target: Activation, tile: int, powers: int) -> Values:
        """Two words of exponentials for a word of differences; with factors, word after word of all pixels."""
        rows, columns = target.own(tile)
        slab, words, size = source.slab(tile), self.softmax.words, self._power_bytes
        first = source.address + slab.offset(rows.start, columns.start)
        pixels, places = [(len(columns), slab.pixel), (len(rows), slab.pitch)], [(len(columns), size),
                                                                                  (len(rows), size * len(columns))]
        if self.factors is None:
            dims, out = [(words, 4), *pixels], [(words, 8), *places]
        else:
            dims, out = [*pixels, (words, 4)], [*places, (words, 8)]
        counts = [n for n, _ in dims]
        stage: Values = {"in_zero_point": _HIGHEST, "nonlinear": _TABLE, "clamp_low": bits(EXPONENTIAL_LOW), "clamp_high": 0}
        if self.factors is None:
            stage |= {"multiplier": bits(self.softmax.range_scale), "channel_group_level": 4} | signal("avdata", 4)
        else:
            stage |= {"use_multiplier": 1, "channel_group_level": 3} | signal("avdata", 3)
            stage |= watch(0, TileCounter.WIDE_TO_SCALING, 1, level=3)
        stay = standing(*counts) if self.factors is None else [(n, 0) for n in counts]
        return step_fields(nest(1, *counts), walk("in", first, dims, total_dims=8),
                           walk("out", powers, [(2, 4), *out], total_dims=8),
                           walk("weights", 4 * IDENTITY_ROW, stay, total_dims=8),
                           walk("partial", 0, stay, total_dims=8, slot=4), stage)

    def _sum(self, b: ProgramBuilder, pixels: dict[int, int], source: int, root: int) -> None:
        """Sum up words of two exponentials, and look up the reciprocal root of the sum."""
        h, size = self.softmax.summands, 4 * self.softmax.summands
        block = block_of(h)
        blocks, level = -(-h // block), int(block > 1)
        _load_table(b, sum(1 << t for t in pixels), RECIPROCAL_ROOT)

        def pack(tile: int) -> Values:
            n = pixels[tile]
            places = [(block, 1), (blocks, 0), (n, 0)] if block > 1 else [(h, 0), (n, 0)]
            return (walk("src", source // 4, [(h, 1), (n, size // 4)], total_dims=6)
                    | walk("dst", OPERAND_ROW, places, total_dims=4, level=level, slot=block, epilogue=short_walk(h, block))
                    | watch(0, TileCounter.PARAMETERS, -1, level=level, side=1) | signal("done", level))

        def add(tile: int) -> Values:
            n = pixels[tile]
            return step_fields(nest(block, blocks, n) | short_loop(h, block),
                               walk("out", root, [(2, 4), (n, _ROOT_BYTES)], total_dims=8),
                               walk("weights", 4 * OPERAND_ROW, [(block, 4), (blocks, 0), (n, 0)], total_dims=8, level=1,
                                    slot=4 * block, epilogue=short_walk(h, block, 4)),
                               walk("partial", 0, [(h, 0), (n, 0)], total_dims=8, level=1, slot=4), NO_LIMITS,
                               watch(0, TileCounter.NARROW_TO_WIDE, 1), signal("parameters", 1), weights_16bit=1,
                               nonlinear=_ROOT, multiplier=_STEP, reduction=3, channel_group_level=1)

        on_tiles(b, list(pixels), "narrow_to_wide", pack)
        on_tiles(b, list(pixels), "tensor_sum", add)
        b.tile_fence(reset=LAYER_COUNTERS)

    def _in_pairs(self, pixels: int, powers: int) -> Values:
        """Move the exponentials of two words into a row."""
        words = self.softmax.words
        rows = -(-words // 2)
        dims = [(2, 2), (2, 1), (rows, 4), (pixels, 2 * words)]
        return (walk("src", powers // 4, dims, total_dims=6, epilogue=(2, 2, 0) if words % 2 else None)
                | walk("dst", OPERAND_ROW, many([(rows, 0), (pixels, 0)]) or [(1, 0)], total_dims=4, slot=1)
                | watch(0, TileCounter.PARAMETERS, -1, level=0, side=1) | signal("done", 0)
                | {"layout": 3, "flush_level": 2})

    def _shares(self, target: Activation, tile: int, inverse: int) -> Values:
        """Multiply every exponential with the inverse."""
        rows, columns = target.own(tile)
        words, slab, n = self.softmax.words, target.slab(tile), target.pixels(tile)
        pairs, pair = -(-words // 2), min(2, words)
        short = words % 2 == 1 and words > 1
        loops = nest(pair, pairs, n) | ({"loop_epilogue_dim": 1, "loop_epilogue_limit": 0} if short else {})
        return step_fields(loops, walk("in", inverse, [(1, 4), (words, 0), (n, _INVERSE_BYTES)], total_dims=8),
                           walk("out", target.own_address(tile), [(words, 4), (len(columns), slab.pixel),
                                                                  (len(rows), slab.pitch)], total_dims=8),
                           walk("weights", 4 * OPERAND_ROW, [(pair, 2), (pairs, 0), (n, 0)], total_dims=8, level=1, slot=4,
                                epilogue=(1, 1, 2) if short else None),
                           no_sums(words, 4) if n == 1 else walk("partial", 0, standing(words, n), total_dims=8, slot=4),
                           watch(0, TileCounter.NARROW_TO_WIDE, 1), signal("parameters", 1), in_16bit=1, weights_16bit=1,
                           channel_group_level=1, multiplier=_SHARE, clamp_low=0, clamp_high=bits(255.0))


def _invert(b: ProgramBuilder, pixels: dict[int, int], root: int, square: int) -> None:
    """Square the reciprocal roots: 1 / sum, where the roots were."""
    def multiply(tile: int) -> Values:
        n = pixels[tile]
        return step_fields(nest(2, 2, n), walk("in", root, [(4, 2), (n, _ROOT_BYTES)], total_dims=8),
                           walk("out", square, [(2, 4), (4, 4), (n, _SQUARE_BYTES)], total_dims=8),
                           walk("weights", 4 * OPERAND_ROW, [(2, 2), (2, 0), (n, 0)], total_dims=8, level=1, slot=4),
                           walk("partial", 0, [(1, 1), (4, 0), (n, 0)], total_dims=8, mask=1, level=1, slot=4),
                           watch(0, TileCounter.NARROW_TO_WIDE, 1), signal("parameters", 1), in_16bit=1, weights_16bit=1,
                           channel_group_level=4, nonlinear=_PLAIN, multiplier=_STEP, clamp_low=0,
                           clamp_high=bits(32768.0))

    def pass_through(tile: int) -> Values:
        n = pixels[tile]
        return (walk("src", root // 4, [(2, 1), (n, _ROOT_BYTES // 4)], total_dims=6)
                | walk("dst", OPERAND_ROW, [(2, 0), (n, 0)], total_dims=4, slot=1)
                | watch(0, TileCounter.PARAMETERS, -1, level=0, side=1) | signal("done", 0))

    def gather(tile: int) -> Values:
        n = pixels[tile]
        return step_fields(nest(4, 1, n), walk("in", square, [(4, 4), (n, _SQUARE_BYTES)], total_dims=8),
                           walk("out", root, [(2, 4), (n, _ROOT_BYTES)], total_dims=8),
                           walk("weights", 4 * IDENTITY_ROW, [(4, 1), (1, 0), (n, 0)], total_dims=8, level=1),
                           walk("partial", 0, [(4, 0), (1, 0), (n, 0)], total_dims=8, level=1, slot=4), NO_LIMITS,
                           in_16bit=1, slot2_off=1, slot3_off=1, channel_group_level=2, nonlinear=_PLAIN)

    tiles = list(pixels)
    on_tiles(b, tiles, "tensor_op", multiply)
    on_tiles(b, tiles, "narrow_to_wide", pass_through)
    b.tile_fence(engines=1 << TileEngine.NARROW_TO_WIDE)
    on_tiles(b, tiles, "tensor_op", gather)
    b.tile_fence(reset=1 << TileCounter.NARROW_TO_WIDE)
    b.tile_fence(reset=1 << TileCounter.PARAMETERS)
    b.tile_fence(reset=LAYER_COUNTERS)


def _load_table(b: ProgramBuilder, tiles: int, table: PiecewiseQuartic) -> None:
    b.tile_fence(reset=TABLE_COUNTERS, engines=1 << TileEngine.OP)
    b.tile("table", tiles, table.fields(), constant1566=3)


def _moved(source: int, source_strides: tuple[int, int], target: int, target_strides: tuple[int, int],
           counts: tuple[int, int], row: int = IDENTITY_ROW) -> Values:
    """Fields that multiply words of pixels with a matrix; strides of words and pixels in bytes."""
    return apply_to_words(_COPY, source, (*source_strides, 0), target, (*target_strides, 0), (*counts, 1), row)


def pixel_softmax(op: Operator, layer: SoftmaxLayer, source: int, target: int) -> Composite:
    """Return the softmax of every pixel of an image."""
    name, z, parts = op.title, layer.zero_point, list[Layer]()
    factors = None
    if layer.masked:
        before, after, scales = (_words_of(table) for table in layer.tables[:3])
        parts.append(_mask(name, "before", (source, FIRST), z, layer.operands, before))
        factors = PerChannel(name, FIRST, target, 0, 0, 0, 0, 0, constants=scales, part="factors")
    parts.append(SpreadMaximum(name, FIRST if layer.masked else source, SECOND, z, layer.operands))
    d = layer.differences
    parts.append(Addition(name, (source, SECOND), FIRST, (1, -1), 0, _HIGHEST, d.multiplier, d.low, d.high))
    if layer.masked:
        parts.append(_mask(name, "after", (FIRST, FIRST), _HIGHEST, layer.kept_differences, after))
    return Composite(name, (*parts, PixelShares(name, FIRST, target, layer, factors)), target)


def _mask(name: str, part: str, numbers: tuple[int, int], zero_point: int, limits: Limits, biases: bytes) -> PerChannel:
    return PerChannel(name, *numbers, zero_point, zero_point, limits.multiplier, limits.low, limits.high, constants=biases,
                      added=True, part=part)


def _words_of(table: bytes) -> bytes:
    """Return the four values of every line of a table."""
    return np.frombuffer(table, np.uint32).reshape(-1, PARAMETER_LINE_BYTES // 4)[:, :4].tobytes()


__all__ = ["pixel_softmax"]
