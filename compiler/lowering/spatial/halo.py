"""Borders: every tile gets the rows and columns around its own that the next operator reads.

Rows come from the tiles above and below, then columns, corners included, from the tiles to the
left and right. Beyond the border of the image the mesh engines fill in the zero point.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property, lru_cache

from compiler.beagle.isa.counters import TileCounter
from compiler.facts import TILE_COLUMNS, TILE_ROWS, TILES
from compiler.lowering.builder import ProgramBuilder, Values, signal, walk, watch
from compiler.lowering.spatial.books import Books
from compiler.lowering.spatial.geometry import EMPTY, Activation, Dim, Region, Span, by_content, many
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


def missing(activation: Activation, tile: int, side: Side) -> Missing:
    """Return what a tile lacks on one side."""
    own, need = _axis(activation, tile, side)
    if need.start >= need.stop or (need.stop <= own.stop if side.forward else need.start >= own.start):
        return NOTHING
    length = activation.image.width if side.across else activation.image.height
    if side.forward:
        start = max(own.stop, need.start)
        border = min(max(length, start), max(need.stop, start))
        return Missing(Span(start, border), Span(border, max(need.stop, border)))
    stop = min(own.start, need.stop)
    border = max(min(0, stop), min(need.start, stop))
    return Missing(Span(border, stop), Span(min(need.start, border), border))


def _axis(activation: Activation, tile: int, side: Side) -> tuple[Span, Span]:
    own, need = activation.own(tile), activation.needed[tile]
    return (own[1], need.columns) if side.across else (own[0], need.rows)


def neighbour(tile: int, side: Side) -> int | None:
    """Return the tile that a tile receives from; None at the edge of the mesh."""
    row, column = divmod(tile, TILE_COLUMNS)
    step = 1 if side.forward else -1
    row, column = (row, column + step) if side.across else (row + step, column)
    return row * TILE_COLUMNS + column if 0 <= row < TILE_ROWS and 0 <= column < TILE_COLUMNS else None


def too_far(activation: Activation) -> bool:
    """Tell whether a tile needs what no neighbouring tile holds."""
    for tile in range(TILES):
        rows, columns = activation.own(tile)
        need = activation.needed[tile]
        if rows.covers(need.rows) and columns.covers(need.columns):
            continue
        if need and not activation.pixels(tile):
            return True
        for side in SIDES:
            lacks = missing(activation, tile, side).inside
            if not len(lacks):
                continue
            other = side.senders[tile]
            own = _axis(activation, other, side)[0] if other is not None else EMPTY
            if other is None or lacks.start < own.start or lacks.stop > own.stop or not _has_corners(
                    activation, other, _region(activation, tile, side, lacks)):
                return True
    return False


def _has_corners(activation: Activation, tile: int, region: Region) -> bool:
    slab = activation.slab(tile)
    return slab.rows.start <= region.rows.start and region.rows.stop <= slab.rows.stop


def emit_halo(b: ProgramBuilder, books: Books, activation: Activation, ready: Readiness | None) -> None:
    """Exchange borders.

    Parameters
    ----------
    ready:
        When the producer is done; None for what is already there.
    """
    if not any(activation.needed):
        return
    lacking = [(side, [missing(activation, tile, side) for tile in range(TILES)]) for side in SIDES]
    lacking = [(side, lacks) for side, lacks in lacking if any(map(bool, lacks))]
    if not lacking:
        return
    before = {side.received: [books.counts.get(side.received, tile) for tile in range(TILES)] for side in SIDES}
    for side, lacks in lacking:
        transfers: dict[int, Values] = {}
        fills: dict[int, Values] = {}
        for tile in range(TILES):
            _one_tile(books, activation, ready, side, tile, lacks, before, transfers, fills)
        for values in (transfers, fills):
            for tiles, fields in by_content(values):
                b.tile(side.name, tiles, dict(fields))


def _one_tile(books: Books, activation: Activation, ready: Readiness | None, side: Side, tile: int,
              lacks: Sequence[Missing], before: dict[TileCounter, list[int]], transfers: dict[int, Values],
              fills: dict[int, Values]) -> None:
    """Fields for one tile: what it sends, what it receives, what it fills."""
    values: Values = {}
    receiver = side.receivers[tile]
    if receiver is not None and len(lacks[receiver].inside):
        region = _region(activation, receiver, side, lacks[receiver].inside)
        values |= _walk("src", activation, tile, region)
        values |= _watches(books, activation, ready, side, tile, _nest_of(activation, tile, region)[1], before)
    own = lacks[tile]
    border = _fill(activation, tile, side, own.outside) if len(own.outside) else {}
    if len(own.inside):
        region = _region(activation, tile, side, own.inside)
        transfers[tile] = values | _walk("dst", activation, tile, region) | _received(activation, region)
        if border:
            fills[tile] = border
    elif values or border:
        transfers[tile] = values | border
    for part in (own.inside, own.outside):
        if len(part):
            books.counts.add(side.received, tile, _blocks(activation))


def _region(activation: Activation, tile: int, side: Side, part: Span) -> Region:
    """Rows come with the tile's own columns; columns with all rows needed, corners included."""
    _, columns = activation.own(tile)
    return Region(activation.needed[tile].rows, part) if side.across else Region(part, columns)


def _blocks(activation: Activation) -> int:
    return -(-activation.image.padded // (4 * BLOCK_WORDS))


def _nest_of(activation: Activation, tile: int, region: Region) -> tuple[Sequence[Dim], int]:
    """Dimensions in words, and how many make a block."""
    return _nest(activation.image.padded // 4, len(region.rows), len(region.columns), activation.slab(tile).pitch // 4)


@lru_cache(maxsize=4096)
def _nest(words: int, rows: int, columns: int, pitch: int) -> tuple[Sequence[Dim], int]:
    inner = many([(min(words, BLOCK_WORDS), 1), (columns, words), (rows, pitch)]) or [(1, 1)]
    return (*inner, *many([(-(-words // BLOCK_WORDS), BLOCK_WORDS)])), len(inner)


def _walk(prefix: str, activation: Activation, tile: int, region: Region) -> Values:
    dims, level = _nest_of(activation, tile, region)
    start = (activation.address + activation.slab(tile).offset(region.rows.start, region.columns.start)) // 4
    return _walk_from(prefix, start, activation.image.padded // 4, dims, level)


@lru_cache(maxsize=4096)
def _walk_from(prefix: str, start: int, words: int, dims: Sequence[Dim], level: int) -> Values:
    """Return fields that are the same for many tiles, not to be changed."""
    rest = words % BLOCK_WORDS
    epilogue = (level, rest, BLOCK_WORDS - rest) if rest and words > BLOCK_WORDS else None
    return walk(prefix, start, dims, total_dims=4, mask=0 if dims == ((1, 1),) else None, epilogue=epilogue)


def _received(activation: Activation, region: Region) -> Values:
    level = len(_nest_of(activation, 0, region)[0]) - int(_blocks(activation) > 1)
    return signal("received", level)


def _fill(activation: Activation, tile: int, side: Side, part: Span) -> Values:
    region = _region(activation, tile, side, part)
    word = activation.zero_point * 0x01010101
    return {"fill": 1, "fill_value": word} | _walk("dst", activation, tile, region) | _received(activation, region)


def _watches(books: Books, activation: Activation, ready: Readiness | None, side: Side, tile: int,
             level: int, before: dict[TileCounter, list[int]]) -> Values:
    """A sender waits for the results, and for rows that it passes on as corners."""
    waits: list[tuple[TileCounter, int, int]] = []
    if ready is not None:
        waits.append((TileCounter.AVDATA, ready.first[tile], ready.step))
    if side.across:
        for counter in (TileCounter.MESH_NORTH_IN, TileCounter.MESH_SOUTH_IN):
            new = books.counts.get(counter, tile) - before[counter][tile]
            if new:
                # With border and neighbour on one side two instructions raise the counter: wait for both.
                double = new > _blocks(activation)
                waits.append((counter, before[counter][tile] + (new if double else 1), 0 if double else 1))
    fields: Values = {}
    for i, (counter, count, step) in enumerate(waits):
        fields |= watch(i, counter, count, step=step, level=level)
    return fields
