"""The image from the host: every tile row receives its rows, every tile keeps its columns.

Two slots of narrow memory take a row of the image each, or so many rows that they end at a word.
The words left of a tile's columns are written to the front of a slot first and then overwritten, so
that every slot starts with what the tile owns. The tensor unit copies it into the slab, multiplying
with an identity matrix.
"""

from __future__ import annotations

from dataclasses import dataclass
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
from compiler.lowering.spatial.geometry import Activation, Image, Slab, by_content, many
from compiler.package.model import BaseAddress

ROW_WORDS = WIDE_ROW_BYTES // 4
FLOAT_ONE = 0x3F800000
INFINITY, MINUS_INFINITY = 0x7F800000, 0xFF800000
_IDENTITY_WORDS = (0x1, 0x100, 0x10000, 0x1000000)


@dataclass(frozen=True)
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


def straddles(image: Image) -> bool:
    """Tell whether what a tile owns of narrow rows goes beyond the words of a slot, as it begins within a word."""
    row, limit = image.width * image.channels, image.width * image.channels * rows_together(image)
    for tile in range(TILES):
        rows, columns = image.own(tile)
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


def place_infeed(image: Image, memory: NarrowMemory) -> Infeed:
    """Find room for the slots and the constants."""
    slot_words = max(ROW_WORDS, image.width * image.channels * rows_together(image) // 4)
    slots = memory.place(Lifetime(8 * slot_words, 0, 0))
    constants = memory.place(Lifetime(4 * (ROW_WORDS + 4 if image.channels % 4 else 4), 0, 0))
    identity, staging = wide_rows(image)
    return Infeed(image, slots, slot_words, constants, identity, staging)


def emit_infeed(b: ProgramBuilder, f: Infeed, target: Activation, name: str, size: int) -> None:
    """Bring the image into the slabs of its activation."""
    _build_identity(b, f)
    _copy_rows(b, f, target, last=False)
    low, high = address_pair(BaseAddress.INPUT, name)
    b.load(10, address=high)
    b.load(11, address=low)
    b.scalar_fence(reset=1 << ScalarCounter.AVDATA_INFEED, value=ACTIVATION_CREDITS, tiles=False)
    b.scalar_fence(reset=1 << ScalarCounter.AVDATA_POP, tiles=False)
    b.emit("infeed", linear("fifo", 0, size // 8, HALF_ACTIVATION_FIFO), signal("filled", 0),
           watch(0, ScalarCounter.AVDATA_INFEED, 0, level=0), stream=1)
    start_transfer(b, BaseAddress.INPUT, name, size, DmaTag.INPUT)
    wrapping = sum(_tile_row_mask(f, row) for row in range(TILE_ROWS) if _slots(f, row) > 2)
    if wrapping:
        b.tile("tile_fence", wrapping, reset=1 << TileCounter.WIDE_TO_NARROW, engines=0)
    _distribute(b, f)
    for row in range(TILE_ROWS):
        if _height(f, row):
            _pop(b, f, row)
    b.tile_fence()
    _copy_rows(b, f, target, last=True)
    b.tile_fence(reset=LAYER_COUNTERS)


def _height(f: Infeed, row: int) -> int:
    return len(f.image.own(row * TILE_COLUMNS)[0])


def _slots(f: Infeed, row: int) -> int:
    """Slots that a row of tiles fills."""
    return -(-_height(f, row) // f.together)


def _tile_row_mask(f: Infeed, row: int) -> int:
    """Tiles of a row of tiles that own something."""
    tiles = range(row * TILE_COLUMNS, (row + 1) * TILE_COLUMNS)
    return sum(1 << t for t in tiles if f.image.pixels(t))


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
        rows, columns = f.image.own(tile)
        if not len(columns) or _slots(f, tile // TILE_COLUMNS) < (1 if last else 2):
            continue
        values[tile] = _copy(f, target, tile, last=last)
        shapes[tile] = (len(rows) > 1, len(columns) > 1)
    for tiles, fields in by_content(values, also=shapes):
        b.tile("tensor_op", tiles, dict(fields))


def _copy(f: Infeed, target: Activation, tile: int, *, last: bool) -> Values:
    rows, columns = f.image.own(tile)
    slots = _slots(f, tile // TILE_COLUMNS)
    count, before = slots - 1, (slots - 1) * f.together
    slab, c = target.slab(tile), f.image.channels
    skew = _first_byte(f, tile) % 4
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


def _first_byte(f: Infeed, tile: int) -> int:
    """Bytes of a tile row's stream in front of what a tile owns."""
    rows, columns = f.image.own(tile)
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


def _entries(f: Infeed, row: int) -> tuple[int, int]:
    """First 8-byte entry of a tile row's data, and entries."""
    rows, _ = f.image.own(row * TILE_COLUMNS)
    start, stop = rows.start * f.row_bytes, rows.stop * f.row_bytes
    return start // 8, -(-stop // 8) - start // 8


def _total_lines(f: Infeed, row: int) -> int:
    return -(-_entries(f, row)[1] * 2 // ROW_WORDS)


def _distribute(b: ProgramBuilder, f: Infeed) -> None:
    """Each tile writes row after row into the slots; tiles that use slots again come last."""
    order = sorted((row for row in range(TILE_ROWS) if _height(f, row)), key=lambda row: (_slots(f, row) > 2, row))
    classes: dict[frozenset[tuple[str, int]], int] = {}
    for row in order:
        for column in range(TILE_COLUMNS):
            tile = row * TILE_COLUMNS + column
            if f.image.pixels(tile):
                key = frozenset(_slots_of(f, row, column).items())
                classes[key] = classes.get(key, 0) | 1 << tile
    for fields, tiles in classes.items():
        b.tile("wide_to_narrow", tiles, dict(fields))


def _slots_of(f: Infeed, row: int, column: int) -> Values:
    total = _total_lines(f, row)
    skip = _first_byte(f, row * TILE_COLUMNS + column) // 4
    words = ROW_WORDS * total - skip
    level = int(f.lines > 1)
    fields = _lines_walk("src", f, total)
    # What is left of the last line goes behind the last row; at most one slot beyond it.
    blocks = min(-(-words // f.row_words), _slots(f, row) + 1)
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


def _pop(b: ProgramBuilder, f: Infeed, row: int) -> None:
    """Send one row of tiles its rows of the image."""
    mask = _tile_row_mask(f, row)
    first, count = _entries(f, row)
    level, words = int(f.lines > 1), ROW_WORDS * f.lines
    b.tile("ring_receive_a", mask, _lines_walk("dst", f, _total_lines(f, row)),
           watch(0, TileCounter.WIDE_TO_NARROW, -words, step=words, level=level, side=1), signal("read", level))
    start = first % (2 * HALF_ACTIVATION_FIFO)
    b.emit("pop", linear("fifo", start, count, HALF_ACTIVATION_FIFO), signal("credit", 0),
           watch(0, ScalarCounter.AVDATA_POP, first + 1, level=0), source=1, constant392=1, receivers=mask,
           lanes_m1=ROW_WORDS - 1)
