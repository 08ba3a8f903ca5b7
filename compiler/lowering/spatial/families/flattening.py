"""RESHAPE of an image to a vector, or to an image of one row: its words, in its order, in slices on the tiles.

The first column of tiles collects the image rows of its row of tiles from the east, exchanges rows
with the tiles above and below until each has what its row of tiles gets, and hands the slices on to
the east.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import ClassVar

from compiler.beagle.isa.counters import TileCounter
from compiler.facts import TILE_COLUMNS, TILE_ROWS, TILES
from compiler.lowering.arithmetic import bits
from compiler.lowering.builder import LAYER_COUNTERS, Values, walk
from compiler.lowering.spatial.emission import Emission, Leaves
from compiler.lowering.spatial.families.unary import CONSTANT_WORDS, IDENTITY_ROW, NO_LIMITS, build_identity
from compiler.lowering.spatial.far_pixels import Stretch
from compiler.lowering.spatial.geometry import (
    NOWHERE,
    Activation,
    Dim,
    Image,
    Region,
    Slab,
    Span,
    Vector,
    by_content,
    many,
)
from compiler.lowering.spatial.layer import Activations, Layer
from compiler.lowering.spatial.mesh import FROM_EAST, FROM_NORTH, FROM_SOUTH, FROM_WEST, PASSING_WORDS, Hop, MeshMoves
from compiler.records import record


@record
class Flattening(Layer):
    """A flattening ready for code generation; padded channels stay in the vector."""

    name: str
    source: int
    target: int

    banded: ClassVar[bool] = False
    on_identity: ClassVar[bool] = True
    below_top: ClassVar[bool] = True
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
        if isinstance(plan.target, Vector) and plan.target.whole:
            emission.settled()
        else:
            emission.reset()

    def _hops(self, emission: Emission, moves: MeshMoves, hops: Sequence[Hop]) -> None:
        for hop in hops:
            moves.emit(hop)
        moves.settle()
        emission.b.tile_fence()


@record
class _Plan:
    """Who needs what.

    Attributes
    ----------
    words:
        Per tile: words of the result, in slices one behind the other.
    pixel:
        Words of a pixel of the result; 0 for a vector.
    base:
        Byte address of what a tile of the first column collects.
    """

    source: Activation
    target: Activation
    words: tuple[int, ...]
    pixel: int
    base: int

    @staticmethod
    def of(source: Activation, target: Activation, base: int = 0) -> _Plan:
        """Read the slices of a vector, or of an image of one row."""
        pixel = target.image.padded // 4
        words = target.words if isinstance(target, Vector) else tuple(pixel * target.pixels(t) for t in range(TILES))
        return _Plan(source, target, words, 0 if target.is_vector else pixel, base)

    @property
    def _image(self) -> Image:
        return self.source.image

    def _slices(self, row: int) -> Span:
        """Words that a row of tiles gets."""
        first = row * TILE_COLUMNS
        return Span(sum(self.words[:first]), sum(self.words[:first + TILE_COLUMNS]))

    def _own(self, row: int) -> Region:
        rows, width = self.source.own(row * TILE_COLUMNS)[0], self._image.width
        return Region(rows, Span(0, width)) if len(rows) else NOWHERE

    def _needed(self, row: int) -> Region:
        """Image rows that a row of tiles needs; of a single one only some columns."""
        words, pixel = self._slices(row), self._image.padded // 4
        if not len(words):
            return NOWHERE
        line = pixel * self._image.width
        rows = Span(words.start // line, -(-words.stop // line))
        if len(rows) > 1:
            return Region(rows, Span(0, self._image.width))
        return Region(rows, Span((words.start - rows.start * line) // pixel, -(-(words.stop - rows.start * line) // pixel)))

    @cached_property
    def kept(self) -> dict[int, Slab]:
        """What tiles of the first column have in the end: what their row of tiles owns and what it needs."""
        found = {}
        for row in range(TILE_ROWS):
            region = self._own(row).hull(self._needed(row))
            found[row * TILE_COLUMNS] = Slab(region.rows, region.columns, self._image.padded)
        return found

    @property
    def kinds(self) -> dict[int, int]:
        """Rows of it: tiles with as many have instructions in common."""
        return {tile: len(slab.rows) for tile, slab in self.kept.items()}

    @property
    def room(self) -> int:
        """Bytes of it on the tile with the most."""
        return max(slab.size for slab in self.kept.values())

    def first_columns(self, identity: int) -> dict[int, Values]:
        """Copy what the first column of tiles owns."""
        found = {}
        for tile, kept in self.kept.items():
            rows, columns = self.source.own(tile)
            if not len(rows):
                continue
            slab, place = self.source.slab(tile), self.base + kept.offset(rows.start, columns.start)
            found[tile] = _copy(self.source.own_address(tile), (slab.pixel, slab.pitch, slab.size), place,
                                (kept.pixel, kept.pitch, kept.size), (slab.pixel // 4, len(columns), len(rows)), identity)
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
            region = Region(*self.source.own(tile))
            sources[tile] = _stretch(self.source.address, self.source.slab(tile), region)
            targets[tile - column] = _stretch(self.base, self.kept[tile - column], region)
            passed |= {tile - i: sources[tile].words for i in range(1, column)}
        return Hop(FROM_EAST, sources, targets, passed, self.kinds)

    def exchanged(self) -> list[Hop]:
        """Bring rows down, then up."""
        down = [(s, r) for s in range(TILE_ROWS) for r in range(s + 1, TILE_ROWS)]
        up = [(s, r) for s in reversed(range(TILE_ROWS)) for r in reversed(range(s))]
        hops = [(self._lacking(s, r), s, r) for s, r in (*down, *up)]
        return [self._exchange(region, s, r) for region, s, r in hops if region]

    def _lacking(self, sender: int, receiver: int) -> Region:
        own, need = self._own(sender).rows, self._needed(receiver)
        start = max(own.start, need.rows.start)
        return Region(Span(start, max(start, min(own.stop, need.rows.stop))), need.columns)

    def _exchange(self, region: Region, sender: int, receiver: int) -> Hop:
        tiles = sender * TILE_COLUMNS, receiver * TILE_COLUMNS
        source, target = (_stretch(self.base, self.kept[t], region) for t in tiles)
        between = range(min(sender, receiver) + 1, max(sender, receiver))
        return Hop(FROM_NORTH if sender < receiver else FROM_SOUTH, {tiles[0]: source}, {tiles[1]: target},
                   {r * TILE_COLUMNS: source.words for r in between}, self.kinds)

    def first_slices(self, identity: int) -> dict[int, Values]:
        """Copy the slices of the first column of tiles."""
        found = {}
        for tile in self.kept:
            own, size = 4 * self.words[tile], 4 * len(self._slices(tile // TILE_COLUMNS))
            if own:
                pixel = 4 * self.pixel
                whole = self.target.size if isinstance(self.target, Vector) and self.target.whole and not tile else own
                read, written = (pixel or size, size, size), (pixel or whole, whole, whole)
                counts = (self.pixel or own // 4, own // pixel if pixel else 1, 1)
                found[tile] = _copy(self._slice(tile), read, self.target.own_address(tile), written, counts, identity)
        return found

    def _slice(self, tile: int) -> int:
        """Byte address of a slice in what its row of tiles has."""
        row = tile // TILE_COLUMNS
        need = self._needed(row)
        first = (need.rows.start * self._image.width + need.columns.start) * self._image.padded
        place = self.base + self.kept[row * TILE_COLUMNS].offset(need.rows.start, need.columns.start)
        return place + 4 * sum(self.words[:tile]) - first

    def handed_on(self) -> list[Hop]:
        """Send the slices of the other columns."""
        hops = []
        for column in range(1, TILE_COLUMNS):
            tiles = [t for t in range(column, TILES, TILE_COLUMNS) if self.words[t]]
            if tiles:
                hops.append(Hop(FROM_WEST, {t - column: self._words(self._slice(t), t) for t in tiles},
                                {t: self._words(self.target.own_address(t), t) for t in tiles},
                                {t - i: self.words[t] for t in tiles for i in range(1, column)}, self.kinds))
        return hops

    def _words(self, address: int, tile: int) -> Stretch:
        pixel = self.pixel or self.words[tile]
        return Stretch(address // 4, tuple(many([(pixel, 1), (self.words[tile] // pixel, pixel)]) or [(1, 1)]))


def _stretch(base: int, slab: Slab, region: Region) -> Stretch:
    """Words of a region of a slab."""
    words = slab.pixel // 4
    dims = many([(words, 1), (len(region.columns), words), (len(region.rows), slab.pitch // 4)]) or [(1, 1)]
    return Stretch((base + slab.offset(region.rows.start, region.columns.start)) // 4, tuple(dims))


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
