"""The largest channel of every pixel: its words pass through wide memory, one to a row, and are compared byte by byte."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from compiler.beagle.isa.counters import TileCounter
from compiler.facts import TILES
from compiler.lowering.arithmetic import bits
from compiler.lowering.builder import LAYER_COUNTERS, Dim, ProgramBuilder, Values, signal, walk, watch
from compiler.lowering.softmax_layer import Limits
from compiler.lowering.softmax_step import limited, nest, step_fields
from compiler.lowering.spatial.emission import Emission
from compiler.lowering.spatial.families.multiplication import OPERAND_ROW, words_of_pixels
from compiler.lowering.spatial.families.unary import (
    CONSTANT_WORDS,
    HIGHEST,
    NO_LIMITS,
    Unary,
    apply_to_words,
    build_identity,
)
from compiler.lowering.spatial.geometry import Activation, by_content
from compiler.lowering.spatial.layer import Activations, Effort, Layer, most_pixels
from compiler.records import record

_USUAL_STEPS = 64
_ONES = (1, 1, 1, 1)
_COPY = Unary("", 0, 0, 0, 0, bits(1.0), NO_LIMITS["clamp_low"], NO_LIMITS["clamp_high"])


@record
class OverChannels(Layer):
    """What makes one value of the channels of every pixel."""

    name: str
    source: int
    target: int

    @property
    def sources(self) -> tuple[int, ...]:
        """The image."""
        return (self.source,)

    def effort(self, target: Activation) -> Effort:
        """Return an estimate: how many channels there are is not known here."""
        del target
        return Effort(_USUAL_STEPS)

    def lowest_row(self, scenes: Sequence[Activations], top: int) -> int:
        """Return the first row that words pass through."""
        del scenes, top
        return OPERAND_ROW


@record
class ChannelMaximum(OverChannels):
    """The largest channel of every pixel, an image of one channel.

    Attributes
    ----------
    limits:
        Output stage of what has the operand's scale and zero point.
    negated:
        The operand is what values lack to 255, the result is not.
    """

    zero_point: int
    limits: Limits
    negated: bool = False

    def emit(self, emission: Emission, activations: Activations) -> None:
        """Find the largest byte of every pixel."""
        target = activations[self.target]

        def places(tile: int) -> list[Dim]:
            rows, columns = target.own(tile)
            slab = target.slab(tile)
            return [(len(columns), slab.pixel), (len(rows), slab.pitch)]

        self._find(emission.b, activations, target.own_address, places)
        emission.reset()

    def _find(self, b: ProgramBuilder, activations: Activations, address: Callable[[int], int],
              places: Callable[[int], list[Dim]]) -> None:
        source, target = activations[self.source], activations[self.target]
        tiles = [t for t in range(TILES) if target.pixels(t)]
        words = source.image.padded // 4
        b.tile_fence(reset=LAYER_COUNTERS)
        on_tiles(b, tiles, "narrow_to_wide", lambda tile: _words_singly(source, target, tile))
        on_tiles(b, tiles, "tensor_max", lambda tile: self._largest(
            words, target.pixels(tile), walk("out", address(tile), [(1, 4), *places(tile)], total_dims=8)))

    def _largest(self, words: int, pixels: int, out: Values) -> Values:
        z = self.zero_point
        stage: Values = {"constant": z - HIGHEST, "multiplier": bits(-1.0)} if self.negated else {
            "constant": -z, "weights_zero_point": z}
        return step_fields(nest(4, words, pixels), out,
                           walk("weights", 4 * OPERAND_ROW, [(4, 1), (words, 0), (pixels, 0)], total_dims=8, level=1,
                                slot=4), walk("partial", 0, [(4 * words, 0), (pixels, 0)], total_dims=8, level=1, slot=4),
                           limited(self.limits), stage, watch(0, TileCounter.NARROW_TO_WIDE, 1), signal("parameters", 1),
                           out_zero_point=z, channel_group_level=1, reduction=3)


@record
class SpreadMaximum(ChannelMaximum):
    """The largest channel of every pixel, in all channels."""

    def effort(self, target: Activation) -> Effort:
        """Return a step per byte and one per copied word; a word for the maximum."""
        return Effort(target.image.padded + target.image.padded // 4, scratch=4)

    def constant_bytes(self, scenes: Sequence[Activations]) -> int:
        """Return the bytes in which the copying matrix is built."""
        del scenes
        return 4 * CONSTANT_WORDS

    def room_bytes(self, scenes: Sequence[Activations]) -> int:
        """Return the bytes of the maxima."""
        return 4 * most_pixels(self, scenes)

    def emit(self, emission: Emission, activations: Activations) -> None:
        """Find the largest byte of every pixel, and copy it."""
        b, largest, target = emission.b, emission.rooms[self.name], activations[self.target]
        self._find(b, activations, lambda _: largest, lambda tile: [(target.pixels(tile), 4)])
        b.tile_fence(reset=LAYER_COUNTERS)
        build_identity(b, emission.constants[self.name], matrix=_ONES)
        on_tiles(b, [t for t in range(TILES) if target.pixels(t)], "tensor_op", lambda tile: _copies(target, tile, largest))
        emission.reset()


def on_tiles(b: ProgramBuilder, tiles: Sequence[int], name: str, fields: Callable[[int], Values]) -> None:
    """Emit an instruction for some tiles, one for those that do the same."""
    for mask, values in by_content({t: fields(t) for t in tiles}):
        b.tile(name, mask, dict(values))


def _words_singly(source: Activation, target: Activation, tile: int) -> Values:
    """Fields that move the words of pixels into wide rows, one to a row, in two rows that take turns."""
    words = source.slab(tile).pixel // 4
    return (words_of_pixels(source, target, tile)
            | walk("dst", OPERAND_ROW, [(words, 0), (target.pixels(tile), 0)], total_dims=4, slot=1)
            | watch(0, TileCounter.PARAMETERS, -1, level=0, side=1) | signal("done", 0))


def _copies(target: Activation, tile: int, largest: int) -> Values:
    """Fields that copy a word of every pixel into all its words."""
    rows, columns = target.own(tile)
    slab = target.slab(tile)
    counts = slab.pixel // 4, len(columns), len(rows)
    return apply_to_words(_COPY, largest, (0, 4, 4 * len(columns)), target.own_address(tile),
                          (4, slab.pixel, slab.pitch), counts)
