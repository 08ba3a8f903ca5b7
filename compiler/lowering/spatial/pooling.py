"""Pools: pixels move into wide memory, four of a row side by side, and are maximised or summed.

A wide row holds the four bytes of neighbouring pixels for 64 channels, so that a byte address runs
through an image row. Sums multiply with a constant one.
"""

from __future__ import annotations

from dataclasses import dataclass

from compiler.beagle.isa.counters import TileCounter
from compiler.facts import LANES, TILES
from compiler.lowering.builder import ProgramBuilder, Values, signal, walk
from compiler.lowering.spatial.buffers import stack_wide
from compiler.lowering.spatial.geometry import Activation, Slab, Window, by_content, many, merge_dims
from compiler.lowering.spatial.state import Books

PIXELS_PER_ROW = 4
WORDS_PER_ROW = 16
"""Words of a pixel (64 channels) in one wide row."""
_TRANSPOSE_BYTES = 1


@dataclass(frozen=True)
class Pool:
    """A pool ready for code generation.

    Attributes
    ----------
    maximum:
        True for the largest value, False for the sum.
    multiplier, clamp_low, clamp_high:
        Bit patterns of float32 numbers.
    """

    name: str
    maximum: bool
    source: int
    target: int
    windows: tuple[Window, Window]
    in_zero_point: int
    out_zero_point: int
    multiplier: int
    clamp_low: int
    clamp_high: int


@dataclass(frozen=True)
class Region:
    """What one tile pools.

    Attributes
    ----------
    source_address, target_address:
        Narrow byte addresses of the first pixel read and of the first result.
    source, target:
        Slabs.
    rows, columns:
        Pixels read.
    out_rows, out_columns:
        Results.
    """

    source_address: int
    target_address: int
    source: Slab
    target: Slab
    rows: int
    columns: int
    out_rows: int
    out_columns: int


def wide_rows_of(slab: Slab) -> int:
    """Wide rows that a slab takes."""
    return -(-len(slab.columns) // PIXELS_PER_ROW) * len(slab.rows) * groups_of(slab.pixel)


def groups_of(pixel: int) -> int:
    """Groups of 64 channels."""
    return -(-pixel // LANES)


def first_wide_row(source: Activation) -> int:
    """First wide row that a pool of an image uses."""
    return stack_wide([max(wide_rows_of(source.slab(t)) for t in range(TILES))])[0]


def regions(layer: Pool, source: Activation, target: Activation) -> dict[int, Region]:
    """Return what every tile with results pools."""
    found = {}
    for tile in range(TILES):
        rows, columns = target.own(tile)
        if len(rows) and len(columns):
            need = layer.windows[0].needed(rows), layer.windows[1].needed(columns)
            slab = source.slab(tile)
            found[tile] = Region(source.address + slab.offset(need[0].start, need[1].start), target.own_address(tile), slab,
                                 target.slab(tile), len(need[0]), len(need[1]), len(rows), len(columns))
    return found


def emit_pool(b: ProgramBuilder, books: Books, layer: Pool, tiles: dict[int, Region], wide: int, ones: int) -> None:
    """Emit a pool.

    Parameters
    ----------
    tiles:
        What each tile pools.
    wide:
        First wide row that may be used.
    ones:
        Byte address of constants, a word per result of a tile (sums only).
    """
    mask = sum(1 << t for t in tiles)
    if not layer.maximum:
        count = max(r.out_rows * r.out_columns for r in tiles.values())
        b.tile("mesh_from_south", mask, walk("dst", ones // 4, [(count, 1)], total_dims=4, mask=int(count > 1)), fill=1,
               fill_value=1)
    b.tile_fence()
    for part, fields in by_content({t: _collect(r, wide) for t, r in tiles.items()}):
        b.tile("narrow_to_wide", part, dict(fields))
    b.tile_fence()
    name = "tensor_max" if layer.maximum else "tensor_op"
    for part, fields in by_content({t: _reduce(layer, r, wide, ones) for t, r in tiles.items()}):
        b.tile(name, part, dict(fields))
    for tile, r in tiles.items():
        books.counts.add(TileCounter.AVDATA, tile, groups_of(r.source.pixel))
        books.counts.add(TileCounter.NARROW_TO_WIDE, tile, 1)
        books.counts.add(TileCounter.PARAMETERS, tile, groups_of(r.source.pixel))


def _collect(r: Region, wide: int) -> Values:
    words, groups = r.source.pixel // 4, groups_of(r.source.pixel)
    blocks = -(-r.columns // PIXELS_PER_ROW)
    rest = words % WORDS_PER_ROW
    dims = [(PIXELS_PER_ROW, words), (min(words, WORDS_PER_ROW), 1),
            *many([(blocks, PIXELS_PER_ROW * words), (r.rows, r.source.pitch // 4)])]
    level = len(dims)
    dims += many([(groups, WORDS_PER_ROW)])
    epilogue = (level, rest, WORDS_PER_ROW - rest) if rest and groups > 1 else None
    rows = blocks * r.rows
    return (walk("src", r.source_address // 4, dims, total_dims=6, epilogue=epilogue)
            | walk("dst", wide, many([(rows, 1), (groups, rows)]) or [(1, 1)], total_dims=4)
            | signal("done", 1) | {"layout": _TRANSPOSE_BYTES, "flush_level": 2})


def _reduce(layer: Pool, r: Region, wide: int, ones: int) -> Values:
    rows, columns = layer.windows
    groups, pixel = groups_of(r.source.pixel), r.source.pixel
    pitch = PIXELS_PER_ROW * -(-r.columns // PIXELS_PER_ROW)
    loops = [columns.size, rows.size, r.out_columns, r.out_rows, groups]
    last = pixel - (groups - 1) * LANES
    lanes = LANES if groups > 1 else last
    fields: Values = {f"loop{i}": n - 1 for i, n in enumerate(loops)}
    fields |= {"partial_from_zero": 1, "no_partial_sums": 1, "slot2_off": 1, "slot3_off": 1, "channel_group_level": 4,
               "reduction": 3, "lanes_m1": lanes - 1, "lanes_last_m1": last - 1, "multiplier": layer.multiplier,
               "clamp_low": layer.clamp_low, "clamp_high": layer.clamp_high, "out_zero_point": layer.out_zero_point}
    if layer.maximum:
        fields |= {"slot1_off": 1, "constant": -layer.in_zero_point}
    else:
        fields |= {"in_16bit": 1, "weights_zero_point": layer.in_zero_point}
        fields |= _ones_walk(columns.size, rows.size, r, groups, ones)
    outputs = [(lanes // 4, 4), (r.out_columns, r.target.pixel), (r.out_rows, r.target.pitch), (groups, lanes),
               (1, r.target.size)]
    fields |= walk("out", r.target_address, outputs, total_dims=8,
                   epilogue=(3, last // 4, lanes - last) if last != lanes else None) | signal("avdata", 3)
    weights = [(columns.size, 1), (rows.size, pitch), (r.out_columns, columns.stride), (r.out_rows, rows.stride * pitch),
               (groups, r.rows * pitch), (1, r.rows * pitch * groups)]
    fields |= walk("weights", 4 * wide, weights, total_dims=8) | signal("parameters", 4)
    steps, results = columns.size * rows.size, r.out_columns * r.out_rows * groups
    return fields | walk("partial", 0, [(steps, 0), (results, 0)], total_dims=8, level=1, slot=4)


def _ones_walk(columns: int, rows: int, r: Region, groups: int, ones: int) -> Values:
    count = r.out_columns * r.out_rows
    results = merge_dims(many([(r.out_columns, 4), (r.out_rows, 4 * r.out_columns)])) or [(1, 4), (1, 4)]
    return walk("in", ones, [(columns, 0), (rows, 0), *results, (groups, 0 if groups > 1 else 4 * count)], total_dims=8)
