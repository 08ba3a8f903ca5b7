"""Joins images channel by channel: each operand is copied to its place, rescaled on the way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from compiler.facts import TILES
from compiler.lowering.builder import LAYER_COUNTERS, ProgramBuilder
from compiler.lowering.spatial.geometry import Activation, by_content
from compiler.lowering.spatial.state import Books
from compiler.lowering.spatial.unary import Unary, apply_to_words, build_identity


@dataclass(frozen=True)
class Concatenation:
    """A concatenation ready for code generation.

    Attributes
    ----------
    parts:
        Copy of each operand; all have the same target.
    """

    name: str
    parts: tuple[Unary, ...]
    target: int

    @property
    def sources(self) -> tuple[int, ...]:
        """The operands."""
        return tuple(p.source for p in self.parts)


def emit_concatenation(b: ProgramBuilder, books: Books, layer: Concatenation, sources: Sequence[Activation],
                       target: Activation, constants: int) -> None:
    """Emit a concatenation; ``constants`` is the byte address of four words."""
    b.tile_fence(reset=LAYER_COUNTERS)
    build_identity(b, constants)
    channel = 0
    for part, source in zip(layer.parts, sources, strict=True):
        values = {}
        for tile in range(TILES):
            rows, columns = target.own(tile)
            if len(rows) and len(columns):
                a, c = source.slab(tile), target.slab(tile)
                first = source.address + a.offset(rows.start, columns.start)
                values[tile] = apply_to_words(part, first, (4, a.pixel, a.pitch),
                                              target.own_address(tile) + channel, (4, c.pixel, c.pitch),
                                              (a.pixel // 4, len(columns), len(rows)))
        for tiles, fields in by_content(values):
            b.tile("tensor_op", tiles, dict(fields))
        channel += source.image.padded
    b.tile_fence(reset=LAYER_COUNTERS)
    books.counts.reset()
