"""Borders: every tile gets the rows and columns around its own that the next operator reads.

Rows come from the tiles above and below, then columns, corners included, from the tiles to the
left and right. Beyond the border of the image the mesh engines fill in the zero point.
"""

from __future__ import annotations

from functools import cached_property, lru_cache, partial
from typing import NamedTuple

from compiler.beagle.isa.counters import TileCounter
from compiler.facts import TILE_COLUMNS, TILE_ROWS, TILES
from compiler.lowering.builder import ProgramBuilder, Values, signal, walk, watch
from compiler.lowering.spatial.books import Books
from compiler.lowering.spatial.geometry import EMPTY, Activation, Dim, Layout, Region, Span, by_part, many
from compiler.records import record

BLOCK_WORDS = 16
"""Words (64 channels) that move as one block, so that the first can leave before the last is there."""


@record
class Readiness:
    """When the producer's results are there.

    Attributes
    ----------
    first:
        Per tile: value of AVDATA after the first block of 64 channels.
    step:
        By how much it grows per block.
    """

    first: tuple[int, ...]
    step: int


@record
class Side:
    """One of the four directions.

    Attributes
    ----------
    name:
        Instruction.
    across:
        True for columns.
    forward:
        True when the tile to the south or east is the sender.
    received:
        Counter of blocks received.
    """

    name: str
    across: bool
    forward: bool
    received: TileCounter

    @cached_property
    def senders(self) -> tuple[int | None, ...]:
        """Per tile: which one it receives from; None at the edge of the mesh."""
        return tuple(neighbour(tile, self) for tile in range(TILES))

    @cached_property
    def receivers(self) -> tuple[int | None, ...]:
        """Per tile: which one it sends to; None at the edge of the mesh."""
        return tuple(self.senders.index(tile) if tile in self.senders else None for tile in range(TILES))


SIDES = (
    Side("mesh_from_south", False, True, TileCounter.MESH_SOUTH_IN),
    Side("mesh_from_north", False, False, TileCounter.MESH_NORTH_IN),
    Side("mesh_from_east", True, True, TileCounter.MESH_EAST_IN),
    Side("mesh_from_west", True, False, TileCounter.MESH_WEST_IN),
)
"""In the order in which they run."""


@record
class Missing:
    """Rows (or columns) that a tile lacks on one side."""

    inside: Span
    """Those of the neighbour."""
    outside: Span
    """Those beyond the border."""

    def __bool__(self) -> bool:
        """Tell whether it lacks anything."""
        return len(self.inside) > 0 or len(self.outside) > 0


NOTHING = Missing(EMPTY, EMPTY)


def missing(layout: Layout, tile: int, side: Side) -> Missing:
    """Return what a tile lacks on one side."""
    own, need = _axis(layout, tile, side)
    if need.start >= need.stop or (need.stop <= own.stop if side.forward else need.start >= own.start):
        return NOTHING
    length = layout.width if side.across else layout.height
    if side.forward:
        start = max(own.stop, need.start)
        border = min(max(length, start), max(need.stop, start))
        return Missing(Span(start, border), Span(border, max(need.stop, border)))
    stop = min(own.start, need.stop)
    border = max(min(0, stop), min(need.start, stop))
    return Missing(Span(border, stop), Span(min(need.start, border), border))


def _axis(layout: Layout, tile: int, side: Side) -> tuple[Span, Span]:
    own, need = layout.own[tile], layout.needed[tile]
    return (own[1], need.columns) if side.across else (own[0], need.rows)


def neighbour(tile: int, side: Side) -> int | None:
    """Return the tile that a tile receives from; None at the edge of the mesh."""
    row, column = divmod(tile, TILE_COLUMNS)
    step = 1 if side.forward else -1
    row, column = (row, column + step) if side.across else (row + step, column)
    return row * TILE_COLUMNS + column if 0 <= row < TILE_ROWS and 0 <= column < TILE_COLUMNS else None


def too_far(activation: Activation) -> bool:
    """Tell whether a tile needs what no neighbouring tile holds."""
    return any(activation.needed) and _too_far(activation.layout)


@lru_cache(maxsize=4096)
def _too_far(layout: Layout) -> bool:
    for tile in range(TILES):
        rows, columns = layout.own[tile]
        need = layout.needed[tile]
        if rows.covers(need.rows) and columns.covers(need.columns):
            continue
        if need and not layout.pixels[tile]:
            return True
        for side in SIDES:
            lacks = missing(layout, tile, side).inside
            if not len(lacks):
                continue
            other = side.senders[tile]
            own = _axis(layout, other, side)[0] if other is not None else EMPTY
            if other is None or lacks.start < own.start or lacks.stop > own.stop or not _has_corners(
                    layout, other, _region(layout, tile, side, lacks)):
                return True
    return False


def _has_corners(layout: Layout, tile: int, region: Region) -> bool:
    slab = layout.slabs[tile]
    return slab.rows.start <= region.rows.start and region.rows.stop <= slab.rows.stop


def _region(layout: Layout, tile: int, side: Side, part: Span) -> Region:
    """Rows come with the tile's own columns; columns with all rows needed, corners included."""
    return Region(layout.needed[tile].rows, part) if side.across else Region(part, layout.own[tile][1])


class Patch(NamedTuple):
    """Pixels in the slab of a tile.

    Attributes
    ----------
    offset:
        Words in front of them.
    dims:
        Dimensions in words.
    level:
        How many of them make a block.
    """

    offset: int
    dims: tuple[Dim, ...]
    level: int


@record
class Exchange:
    """What the tiles exchange on one side.

    Attributes
    ----------
    sent, received, filled:
        Per tile: what it passes on, what it gets for that from its neighbour, what lies beyond the border.
    """

    side: Side
    sent: tuple[Patch | None, ...]
    received: tuple[Patch | None, ...]
    filled: tuple[Patch | None, ...]


@lru_cache(maxsize=4096)
def _exchanges(layout: Layout, words: int) -> tuple[Exchange, ...]:
    """Return the exchanges of all sides on which a tile lacks something.

    Parameters
    ----------
    words:
        Of a pixel.
    """
    found = []
    for side in SIDES:
        lacks = [missing(layout, tile, side) for tile in range(TILES)]
        if any(map(bool, lacks)):
            sent: list[Patch | None] = [None] * TILES
            received: list[Patch | None] = [None] * TILES
            filled: list[Patch | None] = [None] * TILES
            for tile, lack in enumerate(lacks):
                if len(lack.inside):
                    region = _region(layout, tile, side, lack.inside)
                    received[tile] = _patch(layout, tile, region, words)
                    sender = side.senders[tile]
                    assert sender is not None, "what is too far is gathered"
                    sent[sender] = _patch(layout, sender, region, words)
                if len(lack.outside):
                    filled[tile] = _patch(layout, tile, _region(layout, tile, side, lack.outside), words)
            found.append(Exchange(side, tuple(sent), tuple(received), tuple(filled)))
    return tuple(found)


def _patch(layout: Layout, tile: int, region: Region, words: int) -> Patch:
    slab = layout.slabs[tile]
    block = [(min(words, BLOCK_WORDS), 1), (len(region.columns), words), (len(region.rows), slab.pitch // 4)]
    inner = many(block) or [(1, 1)]
    dims = (*inner, *many([(-(-words // BLOCK_WORDS), BLOCK_WORDS)]))
    return Patch(slab.offset(region.rows.start, region.columns.start) // 4, dims, len(inner))


Wait = tuple[TileCounter, int, int]
"""Counter, value that the first block waits for, and by how much it grows per block."""


class _Part(NamedTuple):
    """What distinguishes the instruction of a tile from those of others: what it reads, waits for and writes."""

    source: Patch | None
    waits: tuple[Wait, ...]
    target: Patch | None
    fills: bool = False


def emit_halo(b: ProgramBuilder, books: Books, activation: Activation, ready: Readiness | None) -> None:
    """Exchange borders.

    Parameters
    ----------
    ready:
        When the producer is done; None for what is already there.
    """
    if not any(activation.needed):
        return
    words = activation.image.padded // 4
    blocks = -(-words // BLOCK_WORDS)
    before = {side.received: [books.counts.get(side.received, tile) for tile in range(TILES)] for side in SIDES}
    for exchange in _exchanges(activation.layout, words):
        for parts in _parts(books, exchange, ready, blocks, before):
            for tiles, fields in by_part(parts, partial(_fields, activation, blocks)):
                b.tile(exchange.side.name, tiles, dict(fields))


def _parts(books: Books, exchange: Exchange, ready: Readiness | None, blocks: int,
           before: dict[TileCounter, list[int]]) -> tuple[dict[int, _Part], dict[int, _Part]]:
    """Return the parts of the tiles in an exchange, and of those that fill in what lies beyond the border after it."""
    transfers: dict[int, _Part] = {}
    fills: dict[int, _Part] = {}
    for tile, (source, target, border) in enumerate(zip(exchange.sent, exchange.received, exchange.filled, strict=True)):
        waits = _waits(books, ready, exchange.side, tile, blocks, before) if source is not None else ()
        if target is not None:
            transfers[tile] = _Part(source, waits, target)
            if border is not None:
                fills[tile] = _Part(None, (), border, fills=True)
        elif source is not None or border is not None:
            transfers[tile] = _Part(source, waits, border, fills=border is not None)
        arriving = (target is not None) + (border is not None)
        if arriving:
            books.counts.add(exchange.side.received, tile, arriving * blocks)
    return transfers, fills


def _fields(activation: Activation, blocks: int, part: _Part) -> Values:
    """Return the fields of an instruction."""
    values: Values = {}
    if part.source is not None:
        values |= _walk("src", activation, part.source)
        for i, (counter, count, step) in enumerate(part.waits):
            values |= watch(i, counter, count, step=step, level=part.source.level)
    if part.fills:
        values |= {"fill": 1, "fill_value": activation.zero_point * 0x01010101}
    if part.target is not None:
        level = len(part.target.dims) - int(blocks > 1)
        values |= _walk("dst", activation, part.target) | signal("received", level)
    return values


def _walk(prefix: str, activation: Activation, patch: Patch) -> Values:
    words = activation.image.padded // 4
    rest = words % BLOCK_WORDS
    epilogue = (patch.level, rest, BLOCK_WORDS - rest) if rest and words > BLOCK_WORDS else None
    return walk(prefix, activation.address // 4 + patch.offset, patch.dims, total_dims=4,
                mask=0 if patch.dims == ((1, 1),) else None, epilogue=epilogue)


def _waits(books: Books, ready: Readiness | None, side: Side, tile: int, blocks: int,
           before: dict[TileCounter, list[int]]) -> tuple[Wait, ...]:
    """A sender waits for the results, and for rows that it passes on as corners."""
    waits: list[Wait] = []
    if ready is not None:
        waits.append((TileCounter.AVDATA, ready.first[tile], ready.step))
    if side.across:
        for counter in (TileCounter.MESH_NORTH_IN, TileCounter.MESH_SOUTH_IN):
            new = books.counts.get(counter, tile) - before[counter][tile]
            if new:
                # With border and neighbour on one side two instructions raise the counter: wait for both.
                double = new > blocks
                waits.append((counter, before[counter][tile] + (new if double else 1), 0 if double else 1))
    return tuple(waits)
