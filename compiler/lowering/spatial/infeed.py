"""The image from the host: every tile row receives its rows, every tile keeps its columns.

Two slots of narrow memory take a row of the image each, or so many rows that they end at a word.
The words left of a tile's columns are written to the front of a slot first and then overwritten, so
that every slot starts with what the tile owns. The tensor unit copies it into the slab, multiplying
with an identity matrix.

Of an image that comes in bands every row of tiles gets the rows that it needs by a transfer of its own,
which begins at a multiple of eight bytes, as the second transfer of an official DeepLab v3 does.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import gcd

from compiler.beagle.isa.counters import DmaTag, ScalarCounter, TileCounter
from compiler.facts import TILE_COLUMNS, TILE_ROWS, TILES, WIDE_ROW_BYTES
from compiler.lowering.builder import (
    ALL_TILES,
    LAYER_COUNTERS,
    ProgramBuilder,
    Values,
    address_pair,
    linear,
    signal,
    walk,
    watch,
)
from compiler.lowering.dense import ACTIVATION_CREDITS, HALF_ACTIVATION_FIFO, start_transfer
from compiler.lowering.spatial.buffers import Lifetime, NarrowMemory, stack_wide
from compiler.lowering.spatial.geometry import Activation, Image, Slab, Span, by_content, many
from compiler.package.model import BaseAddress
from compiler.records import record

ROW_WORDS = WIDE_ROW_BYTES // 4
FLOAT_ONE = 0x3F800000
INFINITY, MINUS_INFINITY = 0x7F800000, 0xFF800000
_IDENTITY_WORDS = (0x1, 0x100, 0x10000, 0x1000000)


@record
class Infeed:
    """Buffers of the input.

    Attributes
    ----------
    slots:
        Byte address of the two row slots in narrow memory.
    slot_words:
        Words of a slot.
    constants:
        Byte address of the identity matrix while it is built.
    identity, staging:
        First wide rows of the identity matrix and of the lines that arrive.
    """

    image: Image
    slots: int
    slot_words: int
    constants: int
    identity: int
    staging: int

    @property
    def row_bytes(self) -> int:
        """Bytes of an image row."""
        return self.image.width * self.image.channels

    @property
    def together(self) -> int:
        """Image rows of a slot."""
        return rows_together(self.image)

    @property
    def row_words(self) -> int:
        """Words of the image rows of a slot."""
        return self.row_bytes * self.together // 4

    @property
    def lines(self) -> int:
        """Wide rows of the image rows of a slot."""
        return lines_of(self.image)

    @property
    def by_byte(self) -> bool:
        """Pixels are gathered byte by byte: channels are no multiple of four."""
        return self.image.channels % 4 != 0

    @property
    def lowest(self) -> int:
        """Lowest wide row in use."""
        return min(self.identity, self.staging)


def rows_together(image: Image) -> int:
    """Image rows that end at a word together: 1, 2 or 4."""
    return 4 // gcd(4, image.width * image.channels)


def lines_of(image: Image) -> int:
    """Wide rows of the image rows of a slot."""
    return -(-image.width * image.channels * rows_together(image) // WIDE_ROW_BYTES)


def straddles(image: Image, parts: Activation | None = None) -> bool:
    """Tell whether what a tile takes of narrow rows goes beyond the words of a slot, as it begins within a word.

    Parameters
    ----------
    parts:
        What every tile takes, where that is not what it owns.
    """
    row, limit = image.width * image.channels, image.width * image.channels * rows_together(image)
    for tile in range(TILES):
        rows, columns = image.own(tile) if parts is None else parts.own(tile)
        if not len(rows) or not len(columns):
            continue
        skew = (rows.start * row % 8 + columns.start * image.channels) % 4
        together = min(len(rows), rows_together(image))
        if skew + (together - 1) * row + len(columns) * image.channels > limit:
            return True
    return False


def wide_rows(image: Image) -> tuple[int, int]:
    """First wide rows of identity matrix and staging lines."""
    identity, staging = stack_wide([2 if image.channels % 4 else 1, 2 * lines_of(image)])
    return identity, staging


def slots_bytes(image: Image) -> int:
    """Bytes of the two slots."""
    return 8 * max(ROW_WORDS, image.width * image.channels * rows_together(image) // 4)


def identity_bytes(image: Image) -> int:
    """Bytes in which the identity matrix is built."""
    return 4 * (ROW_WORDS + 4 if image.channels % 4 else 4)


def infeed_at(image: Image, slots: int, constants: int) -> Infeed:
    """Return the buffers of an input for two places in narrow memory."""
    return Infeed(image, slots, slots_bytes(image) // 8, constants, *wide_rows(image))


def place_infeed(image: Image, memory: NarrowMemory) -> Infeed:
    """Find room for the slots and the constants."""
    slots = memory.place(Lifetime(slots_bytes(image), 0, 0))
    return infeed_at(image, slots, memory.place(Lifetime(identity_bytes(image), 0, 0)))


@record
class Feed:
    """What the host sends to a row of tiles, in entries of 8 bytes.

    Attributes
    ----------
    first:
        First entry, counted from the start of the image.
    place:
        Entries that come before it.
    """

    first: int
    count: int
    place: int


def _feeds(f: Infeed, target: Activation) -> dict[int, Feed]:
    """Return what every row of tiles gets: parts of one transfer, or transfers of its own."""
    found, at = {}, 0
    for row in range(TILE_ROWS):
        rows = _rows(target, row)
        if len(rows):
            first = rows.start * f.row_bytes // 8
            count = -(-rows.stop * f.row_bytes // 8) - first
            found[row] = Feed(first, count, first if target.parts is None else at)
            at += count
    return found


def emit_infeed(b: ProgramBuilder, f: Infeed, target: Activation, name: str, size: int) -> None:
    """Bring the image, or the parts of it that tiles need, into the slabs of its activation."""
    _build_identity(b, f)
    _copy_rows(b, f, target, last=False)
    low, high = address_pair(BaseAddress.INPUT, name)
    b.load(10, address=high)
    b.load(11, address=low)
    b.scalar_fence(reset=1 << ScalarCounter.AVDATA_INFEED, value=ACTIVATION_CREDITS, tiles=False)
    b.scalar_fence(reset=1 << ScalarCounter.AVDATA_POP, tiles=False)
    feeds = _feeds(f, target)
    for feed in [Feed(0, size // 8, 0)] if target.parts is None else feeds.values():
        b.emit("infeed", linear("fifo", feed.place % (2 * HALF_ACTIVATION_FIFO), feed.count, HALF_ACTIVATION_FIFO),
               signal("filled", 0), watch(0, ScalarCounter.AVDATA_INFEED, feed.place, level=0), stream=1)
        start_transfer(b, BaseAddress.INPUT, name, 8 * feed.count, DmaTag.INPUT, 8 * feed.first)
    wrapping = sum(_tile_row_mask(target, row) for row in feeds if _slots(f, target, row) > 2)
    if wrapping:
        b.tile("tile_fence", wrapping, reset=1 << TileCounter.WIDE_TO_NARROW, engines=0)
    _distribute(b, f, target, feeds)
    for row, feed in feeds.items():
        _pop(b, f, _tile_row_mask(target, row), feed)
    b.tile_fence()
    _copy_rows(b, f, target, last=True)
    b.tile_fence(reset=LAYER_COUNTERS)


def _rows(target: Activation, row: int) -> Span:
    """Rows of the image that a row of tiles takes."""
    tiles = range(row * TILE_COLUMNS, (row + 1) * TILE_COLUMNS)
    return next((target.own(t)[0] for t in tiles if target.pixels(t)), Span(0, 0))


def _slots(f: Infeed, target: Activation, row: int) -> int:
    """Slots that a row of tiles fills."""
    return -(-len(_rows(target, row)) // f.together)


def _tile_row_mask(target: Activation, row: int) -> int:
    """Tiles of a row of tiles that take something."""
    tiles = range(row * TILE_COLUMNS, (row + 1) * TILE_COLUMNS)
    return sum(1 << t for t in tiles if target.pixels(t))


def _build_identity(b: ProgramBuilder, f: Infeed) -> None:
    word = f.constants // 4
    count = ROW_WORDS + 4 if f.by_byte else 4
    for i, value in enumerate(_IDENTITY_WORDS):
        done = signal("received", 1) if i == 3 and not f.by_byte else {}
        b.tile("mesh_from_south", ALL_TILES, walk("dst", word + i, [(1, 1)], total_dims=4, mask=0), done, fill=1,
               fill_value=value)
    if f.by_byte:
        b.tile("mesh_from_south", ALL_TILES, walk("dst", word + 4, [(ROW_WORDS, 1)], total_dims=4), fill=1)
        b.tile_fence()
        b.tile("narrow_to_wide", ALL_TILES, walk("src", word, [(count, 1)], total_dims=6),
               walk("dst", f.identity, [(2, 1)], total_dims=4), flush_level=1)
    else:
        b.tile("narrow_to_wide", ALL_TILES, walk("src", word, [(count, 1)], total_dims=6),
               walk("dst", f.identity, [(1, 1)], total_dims=4, mask=0),
               watch(0, TileCounter.MESH_SOUTH_IN, 1, step=0), signal("done", 1), flush_level=1)
    b.tile_fence(engines=1 << 5)


def _copy_rows(b: ProgramBuilder, f: Infeed, target: Activation, *, last: bool) -> None:
    """Copy the first rows of every tile, or its last one, from the slots into the slab."""
    values: dict[int, Values] = {}
    shapes: dict[int, object] = {}
    for tile in range(TILES):
        rows, columns = target.own(tile)
        if not target.pixels(tile) or _slots(f, target, tile // TILE_COLUMNS) < (1 if last else 2):
            continue
        values[tile] = _copy(f, target, tile, last=last)
        shapes[tile] = (len(rows) > 1, len(columns) > 1)
    for tiles, fields in by_content(values, also=shapes):
        b.tile("tensor_op", tiles, dict(fields))


def _copy(f: Infeed, target: Activation, tile: int, *, last: bool) -> Values:
    rows, columns = target.own(tile)
    slots = _slots(f, target, tile // TILE_COLUMNS)
    count, before = slots - 1, (slots - 1) * f.together
    slab, c = target.slab(tile), f.image.channels
    skew = _first_byte(f, target, tile) % 4
    height = len(rows) - before if last else f.together
    own = -(-(skew + (height - 1) * f.row_bytes + len(columns) * c) // 4)
    ready = count * f.row_words + own if last else f.row_words
    slot = 4 * f.slot_words
    source = f.slots + skew + (count % 2 * slot if last else 0)
    address = target.own_address(tile) + (before * slab.pitch if last else 0)
    fields: Values = {
        "partial_from_zero": 1, "no_partial_sums": 1, "lanes_m1": 3, "lanes_last_m1": 3, "multiplier": FLOAT_ONE,
        "clamp_low": MINUS_INFINITY, "clamp_high": INFINITY,
    }
    inner = 4 if f.by_byte and c > 4 else 3
    fields |= watch(0, TileCounter.WIDE_TO_NARROW, ready, step=f.row_words, level=inner)
    if f.by_byte:
        repeat = [] if last else [(count, 0)]
        return fields | pick_bytes(c, f.identity, slab, (height, len(columns)), repeat, (source, f.row_bytes), address,
                                   slot=4 * f.slot_words)
    count = 1 if last else count
    words = c // 4
    loops = _trimmed([1, words, len(columns), count])
    counts = _trimmed([words, 1, len(columns), count])
    fields |= {f"loop{i}": n - 1 for i, n in enumerate(loops)} | {"channel_group_level": 4}
    fields |= walk("in", source, [(words, 4), (len(columns), c), *many([(count, 0)])], total_dims=8, level=2, slot=slot)
    fields |= walk("out", address, [(words, 4), (len(columns), c), (count, slab.pitch), (1, slab.size)], total_dims=8)
    fields |= walk("weights", 4 * f.identity, [(n, 0) for n in counts], total_dims=8)
    fields |= walk("partial", 0, [(n, 0) for n in counts], total_dims=8, slot=4)
    return fields | signal("avdata", 2)


def _first_byte(f: Infeed, target: Activation, tile: int) -> int:
    """Bytes of a tile row's stream in front of what a tile takes."""
    rows, columns = target.own(tile)
    return rows.start * f.row_bytes % 8 + columns.start * f.image.channels


def _trimmed(counts: list[int]) -> list[int]:
    """Drop loops of one step at the end."""
    while len(counts) > 1 and counts[-1] == 1:
        counts = counts[:-1]
    return counts


def pick_bytes(channels: int, identity: int, slab: Slab, extent: tuple[int, int], repeat: list[tuple[int, int]],
               source: tuple[int, int], address: int, *, slot: int = 0) -> Values:
    """Pixels of a channel count that is no multiple of four: one byte per step.

    Parameters
    ----------
    identity:
        Wide row of the identity matrix.
    slab, address:
        Where the pixels go.
    extent:
        Rows and columns.
    source:
        Byte address and bytes of a row of the pixels, which follow each other there.
    repeat, slot:
        All of it so many times, from two slots in turn.
    """
    height, columns = extent
    c, words = channels, -(-channels // 4)
    first, row_bytes = source
    rows = [(n, height * slab.pitch) for n, _ in repeat]
    steps, rest = min(c, 4), c % 4
    blocks = many([(words, 4)])
    loops = _trimmed([steps, *[n for n, _ in blocks], columns, height, *[n for n, _ in repeat]])
    stay = [(steps, 0 if steps > 1 else 1), *[(n, 0) for n, _ in blocks], (columns, 0), *many([(height, 0)]), *repeat]
    fields: Values = {f"loop{i}": n - 1 for i, n in enumerate(loops)}
    fields |= {"slot1_off": 1, "slot2_off": 1, "slot3_off": 1, "channel_group_level": 3 + len(blocks), "reduction": 1}
    inputs = [(steps, 1), *blocks, (columns, c), (height, row_bytes), *repeat]
    outputs = [(words, 4), (columns, 4 * words), (height, slab.pitch), *rows, (1, slab.size)]
    short = (1, rest, 4 - rest) if blocks else None
    if short is not None:
        fields |= {"loop_epilogue_dim": 1, "loop_epilogue_limit": rest - 1}
    fields |= walk("in", first, inputs, total_dims=8, level=3 + len(blocks), slot=slot, epilogue=short)
    fields |= walk("out", address, outputs, total_dims=8)
    fields |= walk("weights", 4 * identity, [(steps, 1), *stay[1:]], total_dims=8, mask=1, epilogue=short)
    fields |= walk("partial", 0, stay, total_dims=8, mask=0, level=1, slot=4,
                   epilogue=(1, rest, 0) if blocks else None)
    return fields | signal("avdata", 3)


def _lines_in(feed: Feed) -> int:
    """Wide rows that what a row of tiles gets takes."""
    return -(-feed.count * 2 // ROW_WORDS)


def _distribute(b: ProgramBuilder, f: Infeed, target: Activation, feeds: Mapping[int, Feed]) -> None:
    """Each tile writes row after row into the slots; tiles that use slots again come last."""
    classes: dict[frozenset[tuple[str, int]], int] = {}
    for row in sorted(feeds, key=lambda row: (_slots(f, target, row) > 2, row)):
        for tile in range(row * TILE_COLUMNS, (row + 1) * TILE_COLUMNS):
            if target.pixels(tile):
                key = frozenset(_slots_of(f, target, tile, _lines_in(feeds[row])).items())
                classes[key] = classes.get(key, 0) | 1 << tile
    for fields, tiles in classes.items():
        b.tile("wide_to_narrow", tiles, dict(fields))


def _slots_of(f: Infeed, target: Activation, tile: int, total: int) -> Values:
    skip = _first_byte(f, target, tile) // 4
    words = ROW_WORDS * total - skip
    level = int(f.lines > 1)
    fields = _lines_walk("src", f, total)
    # What is left of the last line goes behind the last row; at most one slot beyond it.
    blocks = min(-(-words // f.row_words), _slots(f, target, tile // TILE_COLUMNS) + 1)
    rest = words - (blocks - 1) * f.row_words
    fields |= walk("dst", f.slots // 4, _slot_dims(f, words, blocks), total_dims=6, level=1,
                   slot=min(f.slot_words, words) if blocks == 1 else f.slot_words,
                   epilogue=(1, rest, (f.row_words - rest) % (1 << 16)) if blocks > 1 and rest != f.row_words else None)
    if skip:
        fields |= {"prefix.enable": 1, "prefix.level": 1, "prefix.start": f.slots // 4, "prefix.count_m1": skip - 1,
                   "prefix.last": f.slots // 4 + skip - 1}
    return fields | watch(0, TileCounter.RING_READ_A, 1, level=level) | watch(
        1, TileCounter.AVDATA, -1, side=1) | signal("done", 0) | {"drop_level": 2}


def _slot_dims(f: Infeed, words: int, blocks: int) -> list[tuple[int, int]]:
    return [(words, 1)] if blocks == 1 else [(f.row_words, 1), (blocks, 0)]


def _lines_walk(prefix: str, f: Infeed, total: int) -> Values:
    """Two slots of lines, an image row each."""
    q = f.lines
    if q == 1:
        return walk(prefix, f.staging, [(total, 0)], total_dims=4, slot=1)
    if total <= q:
        return walk(prefix, f.staging, [(total, 1)], total_dims=4, level=1, slot=q)
    rest = total % q
    return walk(prefix, f.staging, [(q, 1), (-(-total // q), 0)], total_dims=4, level=1, slot=q,
                epilogue=(1, rest, q - rest) if rest else None)


def _pop(b: ProgramBuilder, f: Infeed, tiles: int, feed: Feed) -> None:
    """Send one row of tiles its rows of the image."""
    level, words = int(f.lines > 1), ROW_WORDS * f.lines
    b.tile("ring_receive_a", tiles, _lines_walk("dst", f, _lines_in(feed)),
           watch(0, TileCounter.WIDE_TO_NARROW, -words, step=words, level=level, side=1), signal("read", level))
    b.emit("pop", linear("fifo", feed.place % (2 * HALF_ACTIVATION_FIFO), feed.count, HALF_ACTIVATION_FIFO),
           signal("credit", 0), watch(0, ScalarCounter.AVDATA_POP, feed.place + 1, level=0), source=1, constant392=1,
           receivers=tiles, lanes_m1=ROW_WORDS - 1)
