"""RESHAPE of an image to a vector: the words of the image, in its order, in slices on the tiles.

The first column of tiles collects the image rows of its row of tiles from the east, exchanges rows
with the tiles above and below until each has what its row of tiles gets, and hands the slices on to
the east.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

from compiler.beagle.isa.counters import TileCounter
from compiler.facts import TILE_COLUMNS, TILE_ROWS, TILES
from compiler.lowering.arithmetic import bits
from compiler.lowering.builder import LAYER_COUNTERS, Values, walk
from compiler.lowering.spatial.emission import Emission, Leaves
from compiler.lowering.spatial.families.unary import CONSTANT_WORDS, IDENTITY_ROW, NO_LIMITS, build_identity
from compiler.lowering.spatial.far_pixels import Stretch
from compiler.lowering.spatial.geometry import Activation, Dim, Image, Span, Vector, by_content, many
from compiler.lowering.spatial.layer import Activations, Layer
from compiler.lowering.spatial.mesh import FROM_EAST, FROM_NORTH, FROM_SOUTH, FROM_WEST, PASSING_WORDS, Hop, MeshMoves


@dataclass(frozen=True)
class Flattening(Layer):
    """A flattening ready for code generation; padded channels stay in the vector."""

    name: str
    source: int
    target: int

    banded: ClassVar[bool] = False
    on_identity: ClassVar[bool] = True
    leaves: ClassVar[Leaves] = Leaves.VECTOR

    @property
    def sources(self) -> tuple[int, ...]:
        """The image."""
        return (self.source,)

    def lowest_row(self, scenes: Sequence[Activations], top: int) -> int:
        """Return ``top``: only the identity matrix lies in wide memory."""
        del scenes
        return top

    def constant_bytes(self, scenes: Sequence[Activations]) -> int:
        """Return the bytes for words that are passed on, and of the identity matrix."""
        del scenes
        return 4 * (PASSING_WORDS + CONSTANT_WORDS)

    def room_bytes(self, scenes: Sequence[Activations]) -> int:
        """Return the bytes of the image rows that a tile collects."""
        return _Plan.of(scenes[0][self.source], scenes[0][self.target]).room

    def emit(self, emission: Emission, activations: Activations) -> None:
        """Collect, exchange and hand on."""
        plan = _Plan.of(activations[self.source], activations[self.target], emission.rooms[self.name])
        constants, row = emission.constants[self.name], emission.identities.get(self.name, IDENTITY_ROW)
        b, missing = emission.b, emission.missing_identity(self.name)
        moves = MeshMoves(b, constants // 4)

        def copy(values: Mapping[int, Values]) -> None:
            if missing:
                received = moves.add(TileCounter.MESH_SOUTH_IN)
                build_identity(b, constants + 4 * PASSING_WORDS, row, received=received, announced=False)
            for tiles, fields in by_content(values, also=plan.kinds):
                b.tile("tensor_op", tiles, dict(fields))

        b.tile_fence(reset=LAYER_COUNTERS)
        if not missing:
            b.tile_fence(reset=LAYER_COUNTERS)
        copy(plan.first_columns(row))
        self._hops(emission, moves, plan.collected())
        self._hops(emission, moves, plan.exchanged())
        copy(plan.first_slices(row))
        for hop in plan.handed_on():
            moves.emit(hop)
        moves.settle()
        b.tile_fence(reset=LAYER_COUNTERS)
        emission.reset()

    def _hops(self, emission: Emission, moves: MeshMoves, hops: Sequence[Hop]) -> None:
        for hop in hops:
            moves.emit(hop)
        moves.settle()
        emission.b.tile_fence()


@dataclass(frozen=True)
class _Plan:
    """Who needs what.

    Attributes
    ----------
    base:
        Byte address of the rows that a tile collects.
    """

    source: Activation
    words: tuple[int, ...]
    target: Activation
    base: int

    @staticmethod
    def of(source: Activation, target: Activation, base: int = 0) -> _Plan:
        """Read the slices of a vector, which may lie on tile 0 as a whole."""
        words = target.words if isinstance(target, Vector) else (target.image.padded // 4,) + (0,) * (TILES - 1)
        return _Plan(source, words, target, base)

    @property
    def _image(self) -> Image:
        return self.source.image

    @property
    def _row_words(self) -> int:
        return self._image.width * self._image.padded // 4

    def _slices(self, row: int) -> Span:
        """Words that a row of tiles gets."""
        first = row * TILE_COLUMNS
        return Span(sum(self.words[:first]), sum(self.words[:first + TILE_COLUMNS]))

    def _own(self, row: int) -> Span:
        return self.source.own(row * TILE_COLUMNS)[0]

    def _needed(self, row: int) -> Span:
        words = self._slices(row)
        return Span(words.start // self._row_words, -(-words.stop // self._row_words)) if len(words) else Span(0, 0)

    @cached_property
    def kept(self) -> dict[int, Span]:
        """Image rows that tiles of the first column have in the end: their own and those that they need."""
        return {r * TILE_COLUMNS: self._own(r).hull(self._needed(r)) for r in range(TILE_ROWS)}

    @property
    def kinds(self) -> dict[int, int]:
        """Count of those rows: tiles with as many have instructions in common."""
        return {tile: len(rows) for tile, rows in self.kept.items()}

    @property
    def room(self) -> int:
        """Bytes of those rows on the tile with the most."""
        return 4 * self._row_words * max(map(len, self.kept.values()))

    def _place(self, row: int, image_row: int) -> int:
        """Byte address of an image row on the first tile of a row of tiles."""
        return self.base + 4 * self._row_words * (image_row - self.kept[row * TILE_COLUMNS].start)

    def first_columns(self, identity: int) -> dict[int, Values]:
        """Copy what the first column of tiles owns into the rows."""
        found = {}
        for tile, kept in self.kept.items():
            rows, columns = self.source.own(tile)
            if not len(rows):
                continue
            slab, pitch = self.source.slab(tile), 4 * self._row_words
            place = self._place(tile // TILE_COLUMNS, rows.start)
            found[tile] = _copy(self.source.own_address(tile), (slab.pixel, slab.pitch, slab.size), place,
                                (slab.pixel, pitch, len(kept) * pitch), (slab.pixel // 4, len(columns), len(rows)), identity)
        return found

    def collected(self) -> list[Hop]:
        """Bring the other columns to the first."""
        hops = []
        for column in range(1, TILE_COLUMNS):
            rows = [r for r in range(TILE_ROWS) if self.source.pixels(r * TILE_COLUMNS + column)]
            if rows:
                hops.append(self._hop(column, rows))
        return hops

    def _hop(self, column: int, rows: Sequence[int]) -> Hop:
        sources: dict[int, Stretch] = {}
        targets: dict[int, Stretch] = {}
        passed: dict[int, int] = {}
        for r in rows:
            tile = r * TILE_COLUMNS + column
            own, columns = self.source.own(tile)
            slab, words = self.source.slab(tile), self._image.padded // 4
            counts = words, len(columns), len(own)
            sources[tile] = _stretch(self.source.own_address(tile) // 4, counts, words, slab.pitch // 4)
            place = self._place(r, own.start) // 4 + columns.start * words
            targets[tile - column] = _stretch(place, counts, words, self._row_words)
            passed |= {tile - i: sources[tile].words for i in range(1, column)}
        return Hop(FROM_EAST, sources, targets, passed, self.kinds)

    def exchanged(self) -> list[Hop]:
        """Bring rows down, then up."""
        down = [(s, r) for s in range(TILE_ROWS) for r in range(s + 1, TILE_ROWS)]
        up = [(s, r) for s in reversed(range(TILE_ROWS)) for r in reversed(range(s))]
        hops = [(self._lacking(s, r), s, r) for s, r in (*down, *up)]
        return [self._exchange(rows, s, r) for rows, s, r in hops if len(rows)]

    def _lacking(self, sender: int, receiver: int) -> Span:
        own, need = self._own(sender), self._needed(receiver)
        start = max(own.start, need.start)
        return Span(start, max(start, min(own.stop, need.stop)))

    def _exchange(self, rows: Span, sender: int, receiver: int) -> Hop:
        words = self._image.padded // 4
        counts = words, self._image.width, len(rows)
        source, target = (_stretch(self._place(r, rows.start) // 4, counts, words, self._row_words)
                          for r in (sender, receiver))
        between = range(min(sender, receiver) + 1, max(sender, receiver))
        return Hop(FROM_NORTH if sender < receiver else FROM_SOUTH, {sender * TILE_COLUMNS: source},
                   {receiver * TILE_COLUMNS: target}, {r * TILE_COLUMNS: source.words for r in between}, self.kinds)

    def first_slices(self, identity: int) -> dict[int, Values]:
        """Copy the slices of the first column of tiles."""
        found = {}
        for tile in self.kept:
            own, size = self.words[tile], 4 * len(self._slices(tile // TILE_COLUMNS))
            if own:
                found[tile] = _copy(self._slice(tile), (size,) * 3, self.target.own_address(tile), (4 * own,) * 3,
                                    (own, 1, 1), identity)
        return found

    def _slice(self, tile: int) -> int:
        """Byte address of a slice among the rows that its row of tiles has."""
        row = tile // TILE_COLUMNS
        first = self._needed(row).start
        return self._place(row, first) + 4 * (sum(self.words[:tile]) - first * self._row_words)

    def handed_on(self) -> list[Hop]:
        """Send the slices of the other columns."""
        hops = []
        for column in range(1, TILE_COLUMNS):
            tiles = [t for t in range(column, TILES, TILE_COLUMNS) if self.words[t]]
            if tiles:
                hops.append(Hop(
                    FROM_WEST, {t - column: Stretch(self._slice(t) // 4, ((self.words[t], 1),)) for t in tiles},
                    {t: Stretch(self.target.own_address(t) // 4, ((self.words[t], 1),)) for t in tiles},
                    {t - i: self.words[t] for t in tiles for i in range(1, column)}, dict.fromkeys(tiles)))
        return hops


def _stretch(start: int, counts: tuple[int, int, int], pixel: int, pitch: int) -> Stretch:
    words, columns, rows = counts
    return Stretch(start, tuple(many([(words, 1), (columns, pixel), (rows, pitch)]) or [(1, 1)]))


def _copy(source: int, source_strides: tuple[int, int, int], target: int, target_strides: tuple[int, int, int],
          counts: tuple[int, int, int], identity: int) -> Values:
    """Fields of a copy of words, columns and rows; strides in bytes of a pixel, of a row and of all."""
    steps = counts[0] * counts[1] * counts[2]
    stay: list[Dim] = [(steps, 0)] if steps > 1 else []
    read: list[Dim] = [(counts[0], 4)]
    for count, stride in zip((*counts[1:], 1), source_strides, strict=True):
        read += [(1, 0), (count, stride)]
    return ({"partial_from_zero": 1, "no_partial_sums": 1, "lanes_m1": 3, "lanes_last_m1": 3, "multiplier": bits(1.0),
             "loop1": steps - 1} | NO_LIMITS
            | walk("in", source, read, total_dims=8)
            | walk("out", target, [(counts[0], 4), *zip((*counts[1:], 1), target_strides, strict=True)], total_dims=8)
            | walk("weights", 4 * identity, [(1, 4), *stay], total_dims=8)
            | walk("partial", 0, stay or [(1, 1)], total_dims=8, mask=0, level=int(not stay), slot=256))


__all__ = ["Flattening"]
