"""Pools: pixels move into wide memory, four of a row side by side, and are maximised or summed.

A wide row holds the four bytes of neighbouring pixels for 64 channels, so that a byte address runs
through an image row. Sums multiply with a constant one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import accumulate, groupby
from math import lcm
from typing import ClassVar

from compiler.beagle.isa.counters import TileCounter
from compiler.facts import LANES, TILES, WIDE_ROWS
from compiler.lowering.builder import ProgramBuilder, Values, signal, walk, watch
from compiler.lowering.parameters import round_up
from compiler.lowering.spatial.bands import Windows
from compiler.lowering.spatial.books import Books
from compiler.lowering.spatial.buffers import stack_wide
from compiler.lowering.spatial.emission import Emission
from compiler.lowering.spatial.geometry import Activation, Slab, by_content, many, merge_dims
from compiler.lowering.spatial.layer import Activations, Effort, Layer, most_pixels
from compiler.records import record

PIXELS_PER_ROW = 4
WORDS_PER_ROW = 16
"""Words of a pixel (64 channels) in one wide row."""
TRANSPOSE_BYTES = 1
_TRANSPOSE_HALVES = 3
_RESULT_16_BIT = 4
_BRINGING = (TileCounter.AVDATA, TileCounter.MESH_EAST_IN, TileCounter.MESH_WEST_IN, TileCounter.MESH_SOUTH_IN,
             TileCounter.MESH_NORTH_IN)
"""Counters of what may have brought the pixels."""
_LARGEST_FACTOR = 65535
_LARGEST_COUNT = (1 << 31) // 256


@record
class Pool(Layer):
    """A pool ready for code generation.

    Attributes
    ----------
    maximum:
        True for the largest value, False for the sum.
    multiplier, clamp_low, clamp_high:
        Bit patterns of float32 numbers.
    inside:
        Rows (and columns) inside the image under each row (and column) of results; None where all windows
        are full.
    wide_operand, wide_result:
        Pixels read and results are numbers of 16 bits, sums of other pixels (sums only).
    constant:
        Added to sums.
    """

    name: str
    maximum: bool
    source: int
    target: int
    windows: Windows
    in_zero_point: int
    out_zero_point: int
    multiplier: int
    clamp_low: int
    clamp_high: int
    inside: tuple[tuple[int, ...], tuple[int, ...]] | None = None
    wide_operand: bool = False
    wide_result: bool = False
    constant: int = 0

    early_constants: ClassVar[bool] = True
    follows_input: ClassVar[bool] = True

    @property
    def sources(self) -> tuple[int, ...]:
        """The image."""
        return (self.source,)

    def windows_of(self, source: int) -> Windows:
        """Return the window of the pool."""
        del source
        return self.windows

    def with_windows(self, windows: Windows) -> Pool:
        """Return the same pool with another window."""
        return replace(self, windows=windows)

    @property
    def operand_bytes(self) -> int:
        """Bytes of a number that is read."""
        return 2 if self.wide_operand else 1

    def fill(self, source: int) -> int | None:
        """Padding must not win a maximum."""
        del source
        return 0 if self.maximum else self.in_zero_point

    def objection(self, activations: Activations) -> tuple[str, str] | None:
        """Factors of the pixels at the border must fit 16 bits, the sums 32."""
        del activations
        if self.inside is None:
            return None
        whole, least = common_count(self.inside), min(self.inside[0]) * min(self.inside[1])
        if whole // least <= _LARGEST_FACTOR and whole <= _LARGEST_COUNT:
            return None
        return (f"averages over windows of different numbers of pixels at the border; their least common multiple {whole} "
                f"is too large: factors up to {_LARGEST_FACTOR} and sums of 32 bits are possible.",
                "Use a smaller window or padding VALID.")

    def factors(self, rows: Iterable[int], columns: Sequence[int]) -> list[int]:
        """Return the factor of the sum of each pixel, row by row: sums of fewer pixels count more."""
        if self.inside is None:
            return [1 for _ in rows for _ in columns]
        heights, widths = self.inside
        whole = common_count(self.inside)
        return [whole // (heights[r] * widths[c]) for r in rows for c in columns]

    def effort(self, target: Activation) -> Effort:
        """Return the steps of a pixel; the pixels read lie in wide memory."""
        rows, columns = self.windows
        groups = groups_of(target.image.padded)
        return Effort(rows.size * columns.size * groups, 0,
                      PIXELS_PER_ROW * WIDE_ROWS // (groups * rows.stride * columns.stride), 0 if self.maximum else 4)

    def lowest_row(self, scenes: Sequence[Activations], top: int) -> int:
        """Return the first row of the pixels."""
        del top
        return min(first_wide_row(scene[self.source]) for scene in scenes)

    def first_row_early(self, activations: Activations) -> int:
        """Pixels are collected while the layer before still computes."""
        return first_wide_row(activations[self.source])

    def reach(self, activations: Activations, source: int) -> int:
        """Return the bytes up to the end of the last four pixels that a tile collects."""
        image = activations[source]
        ends = [r.source_address - image.address + (r.rows - 1) * r.source.pitch
                + round_up(r.columns, PIXELS_PER_ROW) * r.source.pixel
                for r in regions(self, image, activations[self.target]).values()]
        return max(image.size, *ends)

    def constant_bytes(self, scenes: Sequence[Activations]) -> int:
        """Return the bytes of the constant ones of a sum."""
        return 0 if self.maximum else 4 * most_pixels(self, scenes)

    def emit(self, emission: Emission, activations: Activations) -> None:
        """Exchange borders, collect pixels and reduce them."""
        source, target = activations[self.source], activations[self.target]
        self.exchange(emission, activations, self.source)
        emission.announce(self.target, groups_of(target.image.padded), at_end=False)
        emit_pool(emission.b, emission.books, self, regions(self, source, target), first_wide_row(source),
                  emission.constants.get(self.name, 0), self._factors(target))
        emission.finish(self.target, target)

    def _factors(self, target: Activation) -> dict[int, list[int]] | None:
        if self.inside is None:
            return None
        spans = {t: target.own(t) for t in range(TILES) if target.pixels(t)}
        return {t: self.factors(range(r.start, r.stop), range(c.start, c.stop)) for t, (r, c) in spans.items()}


@record
class PoolStep(Layer):
    """A step of a pool over a whole image.

    Attributes
    ----------
    pool:
        What is done with the pixels.
    """

    pool: Pool

    banded: ClassVar[bool] = False

    @property
    def target(self) -> int:  # type: ignore[override]
        """Number of the result."""
        return self.pool.target

    @property
    def sources(self) -> tuple[int, ...]:
        """The pixels."""
        return (self.pool.source,)


@record
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
    taken:
        Bytes of a pixel that are pooled; all of them by default.
    """

    source_address: int
    target_address: int
    source: Slab
    target: Slab
    rows: int
    columns: int
    out_rows: int
    out_columns: int
    taken: int = 0

    @property
    def bytes(self) -> int:
        """Bytes of a pixel that are pooled."""
        return self.taken or self.source.pixel


def wide_rows_of(slab: Slab, size: int = 1) -> int:
    """Wide rows that a slab of numbers of so many bytes takes."""
    return -(-len(slab.columns) * size // PIXELS_PER_ROW) * len(slab.rows) * groups_of(slab.pixel // size)


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


def common_count(inside: tuple[tuple[int, ...], tuple[int, ...]]) -> int:
    """Return the least common multiple of the numbers of pixels that are averaged."""
    heights, widths = (set(axis) for axis in inside)
    return lcm(*(h * w for h in heights for w in widths))


def emit_pool(b: ProgramBuilder, books: Books, layer: Pool, tiles: dict[int, Region], wide: int, ones: int,
              factors: Mapping[int, Sequence[int]] | None = None, *, again: bool = False, ready: int | None = None) -> None:
    """Emit a pool.

    Parameters
    ----------
    tiles:
        What each tile pools.
    wide:
        First wide row that may be used.
    ones:
        Byte address of constants, a word per result of a tile (sums only).
    factors:
        Those constants, where they are not one.
    again:
        The constants are there from a part before.
    ready:
        Value of the counters of results, and of those of the mesh, at which the first 64 channels are there; None: they
        are there.
    """
    mask = sum(1 << t for t in tiles)
    if factors is not None:
        _fill_factors(b, factors, ones // 4)
    elif not layer.maximum and not again:
        count = max(r.out_rows * r.out_columns for r in tiles.values())
        b.tile("mesh_from_south", mask, walk("dst", ones // 4, [(count, 1)], total_dims=4, mask=int(count > 1)), fill=1,
               fill_value=1)
    b.tile_fence()
    for part, fields in by_content({t: collect_pixels(layer, r, wide, ready) for t, r in tiles.items()}):
        b.tile("narrow_to_wide", part, dict(fields))
    b.tile_fence()
    name = "tensor_max" if layer.maximum else "tensor_op"
    for part, fields in by_content({t: reduce_pixels(layer, r, wide, ones) for t, r in tiles.items()}):
        b.tile(name, part, dict(fields))
    for tile, r in tiles.items():
        books.counts.add(TileCounter.AVDATA, tile, groups_of(r.bytes))
        books.counts.add(TileCounter.NARROW_TO_WIDE, tile, 1)
        books.counts.add(TileCounter.PARAMETERS, tile, groups_of(r.bytes))


def _fill_factors(b: ProgramBuilder, factors: Mapping[int, Sequence[int]], word: int) -> None:
    """Write runs of equal factors: the first of every tile, then the second, and so on."""
    runs = {t: [(value, len(list(group))) for value, group in groupby(values)] for t, values in factors.items()}
    starts = {t: list(accumulate((n for _, n in found), initial=word)) for t, found in runs.items()}
    for i in range(max(len(found) for found in runs.values())):
        fills = {t: walk("dst", starts[t][i], [(found[i][1], 1)], total_dims=4, mask=int(found[i][1] > 1))
                 | {"fill": 1, "fill_value": found[i][0]} for t, found in runs.items() if i < len(found)}
        for mask, fields in by_content(fills):
            b.tile("mesh_from_south", mask, dict(fields))


def collect_pixels(layer: Pool, r: Region, wide: int, ready: int | None = None) -> Values:
    """Return the fields with which pixels move into wide memory, neighbours of a row side by side in a lane."""
    size = layer.operand_bytes
    words, groups, pitch = r.bytes // 4, groups_of(r.bytes // size), r.source.pixel // 4
    side_by_side, most = PIXELS_PER_ROW // size, WORDS_PER_ROW * size
    blocks = -(-r.columns // side_by_side)
    rest = words % most
    inner = [(side_by_side, pitch), *many([(min(words, most), 1)])]
    dims = [*inner, *many([(blocks, side_by_side * pitch), (r.rows, r.source.pitch // 4)])]
    level = len(dims)
    dims += many([(groups, most)])
    epilogue = (level, rest, most - rest) if rest and groups > 1 else None
    rows = blocks * r.rows
    waits: Values = {}
    for i, counter in enumerate(_BRINGING if ready is not None else ()):
        waits |= watch(i, counter, ready or 0, level=level)
    return (walk("src", r.source_address // 4, dims, total_dims=6, epilogue=epilogue)
            | walk("dst", wide, many([(rows, 1), (groups, rows)]) or [(1, 1)], total_dims=4)
            | waits | signal("done", 1) | {"layout": _TRANSPOSE_HALVES if layer.wide_operand else TRANSPOSE_BYTES,
                                   "flush_level": len(inner)})


def reduce_pixels(layer: Pool, r: Region, wide: int, ones: int) -> Values:
    """Return the fields with which pixels in wide memory are maximised or summed."""
    rows, columns = layer.windows
    size = layer.operand_bytes
    groups, pixel = groups_of(r.bytes // size), r.bytes // size
    pitch = PIXELS_PER_ROW * -(-r.columns * size // PIXELS_PER_ROW)
    loops = [columns.size, rows.size, r.out_columns, r.out_rows, groups]
    last = pixel - (groups - 1) * LANES
    lanes = LANES if groups > 1 else last
    fields: Values = {f"loop{i}": n - 1 for i, n in enumerate(loops)}
    fields |= {"partial_from_zero": 1, "no_partial_sums": 1, "channel_group_level": 4, "reduction": 3,
               "lanes_m1": lanes - 1, "lanes_last_m1": last - 1, "multiplier": layer.multiplier,
               "clamp_low": layer.clamp_low, "clamp_high": layer.clamp_high, "out_zero_point": layer.out_zero_point}
    fields |= {"weights_16bit": 1} if layer.wide_operand else {"slot2_off": 1, "slot3_off": 1}
    fields |= {"nonlinear": _RESULT_16_BIT} if layer.wide_result else {}
    if layer.maximum:
        fields |= {"slot1_off": 1, "constant": -layer.in_zero_point}
    else:
        fields |= {"in_16bit": 1, "weights_zero_point": layer.in_zero_point, "constant": layer.constant}
        fields |= _ones_walk(columns.size, rows.size, r, groups, ones)
    result = 2 if layer.wide_result else 1
    outputs = [(lanes * result // 4, 4), (r.out_columns, r.target.pixel), (r.out_rows, r.target.pitch),
               (groups, lanes * result), (1, r.target.size)]
    epilogue = (3, last * result // 4, (lanes - last) * result) if last != lanes else None
    fields |= walk("out", r.target_address, outputs, total_dims=8, epilogue=epilogue) | signal("avdata", 3)
    weights = [(columns.size, size), (rows.size, pitch), (r.out_columns, columns.stride * size),
               (r.out_rows, rows.stride * pitch), (groups, r.rows * pitch), (1, r.rows * pitch * groups)]
    fields |= walk("weights", 4 * wide, weights, total_dims=8) | signal("parameters", 4)
    steps, results = columns.size * rows.size, r.out_columns * r.out_rows * groups
    return fields | walk("partial", 0, [(steps, 0), (results, 0)], total_dims=8, level=1, slot=4)


def _ones_walk(columns: int, rows: int, r: Region, groups: int, ones: int) -> Values:
    count = r.out_columns * r.out_rows
    results = merge_dims(many([(r.out_columns, 4), (r.out_rows, 4 * r.out_columns)])) or [(1, 4)]
    return walk("in", ones, [(columns, 0), (rows, 0), *results, (1, 4 * count), *many([(groups, 0)])], total_dims=8)
