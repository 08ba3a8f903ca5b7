"""Pools over whole images as compiler 16.0 makes averages: every tile gets some channels of all pixels and pools these.

The tiles of a column exchange first, so that each row of tiles has the channels of its tiles; then those of a row.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import ClassVar

from compiler.beagle.isa.counters import TileCounter
from compiler.facts import LANES, TILE_COLUMNS, TILE_ROWS, TILES
from compiler.lowering.builder import LAYER_COUNTERS
from compiler.lowering.parameters import round_up
from compiler.lowering.spatial.all_to_all import COPY_ROWS, SLOT_WORDS, AllToAll, Block, Parcel
from compiler.lowering.spatial.buffers import Lifetime
from compiler.lowering.spatial.emission import Emission, Leaves
from compiler.lowering.spatial.families.pool import (
    PIXELS_PER_ROW,
    PoolStep,
    Region,
    emit_pool,
    groups_of,
    wide_rows_of,
)
from compiler.lowering.spatial.families.unary import CONSTANT_WORDS, IDENTITY_ROW, build_identity
from compiler.lowering.spatial.far_pixels import Stretch
from compiler.lowering.spatial.geometry import Activation, Image, Slab, Span, many, merge_dims
from compiler.lowering.spatial.layer import Activations
from compiler.lowering.spatial.mesh import FROM_EAST, FROM_NORTH, FROM_SOUTH, FROM_WEST
from compiler.records import record

_GROUP_WORDS = LANES // 4
_MOST_ROWS = 64
"""Wide rows that the pixels of a tile take at most. Official programs show up to 28, and 297 in a DeepLab; for larger
images it is quicker that every tile sums its own pixels."""
_BY_ROWS, _BY_CHANNELS = "by rows", "by channels"


@record
class ChannelPool(PoolStep):
    """A pool whose pixels come together on as many tiles as there are groups of channels: two steps.

    Attributes
    ----------
    image:
        What is pooled.
    """

    image: Image

    on_identity: ClassVar[bool] = True
    below_top: ClassVar[bool] = True
    leaves: ClassVar[Leaves] = Leaves.VECTOR

    @property
    def name(self) -> str:  # type: ignore[override]
        """Title of the operator."""
        return self.pool.name

    @property
    def steps(self) -> int:
        """The exchange, and the pool."""
        return 2

    def reads_until(self, source: int) -> int:
        """The image is not needed behind the exchange."""
        del source
        return 0

    @property
    def writes_from(self) -> int:
        """The pool writes."""
        return 1

    @cached_property
    def words(self) -> tuple[int, ...]:
        """Per tile: words of the channels that it pools."""
        return channel_words(self.image)

    def _row_words(self, row: int) -> Span:
        """Words of the channels of a row of tiles."""
        first = row * TILE_COLUMNS
        return Span(sum(self.words[:first]), sum(self.words[:first + TILE_COLUMNS]))

    @cached_property
    def buffers(self) -> Mapping[str, Lifetime]:
        """Memory for the channels of a row of tiles, and for those of a tile."""
        most = max(len(self._row_words(t // TILE_COLUMNS)) * len(self.image.own(t)[1]) for t in range(TILES))
        over = round_up(self.image.width, PIXELS_PER_ROW) - self.image.width
        pixels = self.image.height * self.image.width + over
        return {_BY_ROWS: Lifetime(4 * self.image.height * most, 0, 0),
                _BY_CHANNELS: Lifetime(4 * pixels * max(self.words), 0, 1)}

    def constant_bytes(self, scenes: object) -> int:
        """Return the bytes for words that are passed on, a constant one, and the identity matrix."""
        del scenes
        return 4 * (SLOT_WORDS + 1 + CONSTANT_WORDS)

    def lowest_row(self, scenes: object, top: int) -> int:
        """Return the first of the rows for copies, below those of the pixels."""
        del scenes
        return top - wide_rows_of(self._slab(0)) - COPY_ROWS

    def _slab(self, tile: int) -> Slab:
        """All pixels of a tile's channels."""
        return Slab(Span(0, self.image.height), Span(0, self.image.width), 4 * self.words[tile])

    def emit(self, emission: Emission, activations: Activations) -> None:
        """Exchange along the columns of tiles, then along their rows, and pool."""
        b, places = emission.b, emission.buffers[self.name]
        source, target = activations[self.pool.source], activations[self.target]
        row, slots = self.lowest_row((), emission.tops[self.name]), emission.constants[self.name] // 4
        by_rows, by_channels = places[_BY_ROWS] // 4, places[_BY_CHANNELS] // 4
        b.tile_fence(reset=LAYER_COUNTERS)
        built = emission.missing_identity(self.name)
        if built:
            build_identity(b, 4 * (slots + SLOT_WORDS + 1), emission.identities.get(self.name, IDENTITY_ROW))
        counted = {TileCounter.MESH_SOUTH_IN: 1, TileCounter.NARROW_TO_WIDE: 1} if built else {}
        columns = AllToAll(slots, row, counted)
        self._along_columns(columns, source, by_rows)
        columns.emit(b)
        b.tile_fence(reset=LAYER_COUNTERS)
        rows = AllToAll(slots, row, {})
        self._along_rows(rows, by_rows, by_channels)
        rows.emit(b)
        emission.reset()
        regions = {t: Region(4 * by_channels, target.own_address(t), self._slab(t), Slab(Span(0, 1), Span(0, 1), 4 * words),
                             self.image.height, self.image.width, 1, 1) for t, words in enumerate(self.words) if words}
        emit_pool(b, emission.books, self.pool, regions, row + COPY_ROWS, 4 * (slots + SLOT_WORDS),
                  ready=1 - groups_of(self.image.padded))
        emission.reset()

    def _along_columns(self, plan: AllToAll, source: Activation, base: int) -> None:
        """Let every row of tiles have all rows of the image, and the channels of its tiles."""
        def sent(tile: int, channels: Span) -> Stretch:
            block = self._own(source, tile, channels)
            rows, columns = source.own(tile)
            return Stretch(block.start, tuple(merge_dims([(len(channels), 1), *many([(len(columns), block.pixel),
                                                                                     (len(rows), block.pitch)])])))

        for tile in self._needing(source):
            rows, columns = source.own(tile)
            channels = self._row_words(tile // TILE_COLUMNS)
            if len(rows):
                place = self._by_rows(tile, base, rows.start)
                plan.copy(tile % TILE_COLUMNS, tile, self._own(source, tile, channels), place,
                          (len(channels), len(columns), len(rows)))
        for course, side in ((FROM_NORTH, -1), (FROM_SOUTH, 1)):
            for tile in self._needing(source):
                at, column = divmod(tile, TILE_COLUMNS)
                channels = self._row_words(at)
                parcels = []
                for other in range(at + side, TILE_ROWS if side > 0 else -1, side):
                    far = other * TILE_COLUMNS + column
                    rows, columns = source.own(far)
                    if len(rows) and len(columns):
                        words = len(rows) * len(columns) * len(channels)
                        there = Stretch(self._by_rows(tile, base, rows.start).start, ((words, 1),))
                        parcels.append(Parcel(tuple(range(far, tile - side * TILE_COLUMNS, -side * TILE_COLUMNS)),
                                              sent(far, channels), there))
                plan.bring(course, column, parcels)

    def _along_rows(self, plan: AllToAll, base: int, target: int) -> None:
        """Let every tile have all pixels of its own channels."""
        height, width = self.image.height, self.image.width
        owning = [t for t in range(TILES) if self.words[t]]

        def own(tile: int, words: Span) -> Block:
            block = self._by_rows(tile, base, 0)
            before = words.start - self._row_words(tile // TILE_COLUMNS).start
            return Block(block.start + before, block.pixel, block.pitch)

        def channels(tile: int) -> Span:
            first = sum(self.words[:tile])
            return Span(first, first + self.words[tile])

        for course, side in ((FROM_WEST, -1), (FROM_EAST, 1)):
            for tile in owning:
                columns, mine, words = self.image.own(tile)[1], channels(tile), self.words[tile]
                line, at = divmod(tile, TILE_COLUMNS)
                if side < 0 and len(columns):
                    there = Block(target + columns.start * words, words, width * words)
                    plan.copy(line, tile, own(tile, mine), there, (words, len(columns), height))
                parcels = []
                for other in range(at + side, TILE_COLUMNS if side > 0 else -1, side):
                    far = tile - at + other
                    theirs = self.image.own(far)[1]
                    if not len(theirs):
                        continue
                    block = own(far, mine)
                    into = merge_dims([(len(theirs) * words, 1), *many([(height, width * words)])])
                    away = merge_dims([(words, 1), *many([(height * len(theirs), block.pixel)])])
                    parcels.append(Parcel(tuple(range(far, tile - side, -side)), Stretch(block.start, tuple(away)),
                                          Stretch(target + theirs.start * words, tuple(into))))
                plan.bring(course, line, parcels)

    def _needing(self, source: Activation) -> list[int]:
        """Tiles in rows of tiles with channels, and in columns with pixels."""
        return [t for t in range(TILES) if len(self._row_words(t // TILE_COLUMNS)) and len(self.image.own(t)[1])]

    def _own(self, source: Activation, tile: int, channels: Span) -> Block:
        """Own pixels of a tile, from the first of some channels on."""
        slab = source.slab(tile)
        return Block(source.own_address(tile) // 4 + channels.start, slab.pixel // 4, slab.pitch // 4)

    def _by_rows(self, tile: int, base: int, row: int) -> Block:
        """The channels of its row of tiles, from a row of the image on."""
        words = len(self._row_words(tile // TILE_COLUMNS))
        pitch = words * len(self.image.own(tile)[1])
        return Block(base + row * pitch, words, pitch)


def channel_words(image: Image) -> tuple[int, ...]:
    """Return the words of channels that each tile pools: whole groups of 64 channels, as many on every tile.

    Examples
    --------
    >>> channel_words(Image(7, 7, 1280))[:11]
    (32, 32, 32, 32, 32, 32, 32, 32, 32, 32, 0)
    """
    share = -(-groups_of(image.padded) // TILES) * _GROUP_WORDS
    return tuple(max(0, min(share, image.padded // 4 - t * share)) for t in range(TILES))


def by_channels(image: Image) -> bool:
    """Tell whether there are few pixels, but more than one; up to 64 channels are all on tile 0."""
    line = Slab(Span(0, image.height), Span(0, image.width), 4 * channel_words(image)[0])
    return image.height * image.width > 1 and wide_rows_of(line) <= _MOST_ROWS
