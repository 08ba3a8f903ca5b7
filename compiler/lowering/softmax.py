"""The instructions of a SOFTMAX, in the steps and the order of official programs.

The largest value is found, its difference to every class looked up in a table of the exponential
(16 bits), and the sum inverted by way of the reciprocal root. Vectors on several tiles stay there:
tile 0 collects them to find maximum and sum, and sends each of the others what it needs of those.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from compiler.beagle.isa.counters import TileCounter, TileEngine
from compiler.beagle.isa.tables import EXPONENTIAL, EXPONENTIAL_LOW, RECIPROCAL_ROOT, PiecewiseQuartic
from compiler.facts import WIDE_ROWS
from compiler.lowering.arithmetic import bits
from compiler.lowering.builder import (
    ALL_TILES,
    LAYER_COUNTERS,
    Dim,
    ProgramBuilder,
    Values,
    signal,
    walk,
    watch,
)
from compiler.lowering.pieces import ROWS, Route, Slice, await_transfers, send
from compiler.lowering.softmax_layer import Limits, SoftmaxLayer
from compiler.lowering.softmax_step import (
    SLOT_ROWS,
    block_of,
    emit_step,
    limited,
    nest,
    no_sums,
    paired,
    results,
    short_loop,
    short_walk,
    step_fields,
    used_dims,
)
from compiler.lowering.softmax_tables import IDENTITY_ROW, TAIL, Stream, TableSteps
from compiler.records import record

_IDENTITY = (0x1, 0x100, 0x10000, 0x1000000)
_FIRST_BYTES = (0x1, 0x100)
"""Columns that copy the first two bytes of a word, twice."""
_PAIRS = (("south", 0x10002, 1), ("west", 0x20001, 1), ("east", 0x10001, 4), ("north", 0x10002, 1), ("south", 0x20001, 1))
"""Two rows that take two bytes each, written from all sides; one is added because the zero point is one."""
_FREE: Values = {"clamp_low": bits(float("-inf")), "clamp_high": bits(float("inf"))}
_STEP = bits(np.float32(1 / 65535))
_SHARE = bits(np.float32(1.1921416e-7))
_LARGEST_INVERSE = bits(32768.0)
_PLAIN, _TABLE, _ROOT = 4, 5, 7
"""Modes of the output stage with 16 bits: no table, exponential, reciprocal root."""
_TILE = 1

@record
class Places:
    """Narrow byte addresses: whole operand, result on every tile, and all else by name."""

    operand: int
    result: int
    buffers: Mapping[str, int]


def lowest_row(layer: SoftmaxLayer) -> int:
    """Return the lowest wide row in use."""
    return IDENTITY_ROW - 2 * SLOT_ROWS - (ROWS if layer.spread else 0)


class SoftmaxProgram(TableSteps):
    """Writes one softmax.

    Parameters
    ----------
    places:
        Addresses.
    gathering_row:
        First of the rows through which the operand's slices reach tile 0.
    stream:
        Lets the host send a table.
    identity:
        The identity matrix is in its row already.
    aligned:
        The operand's slices begin at the same address on every tile, as those of a flattened image, which ends with
        bringing them to tile 0.
    """

    def __init__(self, b: ProgramBuilder, layer: SoftmaxLayer, places: Places, gathering_row: int, stream: Stream, *,
                 identity: bool, aligned: bool = False) -> None:
        super().__init__(b, layer, stream)
        self._at = places
        self._gathering_row, self._aligned = gathering_row, aligned
        # Rows below the identity matrix, once it is there for the rest of the softmax.
        self._built = identity
        self._top = IDENTITY_ROW if layer.masked or identity else WIDE_ROWS

    def emit(self) -> None:
        """Write all steps."""
        self._maximum()
        self._copy_maximum()
        self._subtract()
        self._exponentiate()
        self._sum()
        self._invert()
        self._copy_inverse()
        self._divide()

    # -- steps ------------------------------------------------------------------------------------------

    def _maximum(self) -> None:
        """Find the largest value; spare lanes of the last word are the least ones."""
        layer, at, operand = self._layer, self._at.buffers, self._at.operand
        if layer.masked:
            built, z = self._build_identity(), layer.zero_point
            self._mask(0, operand, at["masked"], z, layer.operands, built, whole=True)
            self._reset()
            self._reset()
            operand = at["masked"]
        if not layer.spread:
            self._largest_byte(operand, layer.words, at["largest"], self._top - 2, 0)
            return
        slices = [Slice(tile, (operand + self._start(tile)) // 4, words) for tile, words in enumerate(layer.slices)]
        self._gather(slices, operand, self._gathering_row)
        self._reset(1 + self._aligned)
        words, row, block = layer.words, self._top - 2 * SLOT_ROWS, block_of(layer.words)
        blocks = -(-words // block)
        self._b.tile("narrow_to_wide", _TILE, walk("src", operand // 4, [(words, 1)], total_dims=6),
                     walk("dst", row, [(block, 1), (blocks, 0)], total_dims=4, level=1, slot=block,
                          epilogue=short_walk(words, block)),
                     watch(0, TileCounter.PARAMETERS, -1, side=1), signal("done", 1), layout=1)
        self._maximum_op(at["fours"], {"loop0": block - 1, "loop1": blocks - 1, **short_loop(words, block)},
                         walk("weights", 4 * row, [(block, 4), (blocks, 0)], total_dims=8, level=1, slot=4 * block,
                              epilogue=short_walk(words, block, 4)), words, 1)
        self._b.tile_fence(engines=1 << TileEngine.OP)
        self._largest_byte(at["fours"], 1, at["largest"], row, blocks)

    def _largest_byte(self, source: int, words: int, target: int, row: int, before: int) -> None:
        """Find the largest byte of some words, after so many blocks of a maximum before."""
        single = words == 1
        level = int(single)
        self._b.tile("narrow_to_wide", _TILE, walk("src", source // 4, [(words, 1)], total_dims=6, mask=int(not single)),
                     walk("dst", row, [(1, 1)] if single else [(words, 0)], total_dims=4, mask=0, level=level, slot=1),
                     watch(0, TileCounter.PARAMETERS, before - 1 + (before > 0), level=level, side=1),
                     signal("done", level), flush_level=level)
        self._maximum_op(target, nest(4, words), walk("weights", 4 * row, used_dims((4, 1), (words, 0)), total_dims=8,
                                                        level=1, slot=4), 4 * words, before + 1)

    def _maximum_op(self, target: int, loops: Values, weights: Values, steps: int, arrived: int) -> None:
        z, limits = self._layer.zero_point, self._layer.operands
        emit_step(self._b, "tensor_max", _TILE, loops, results(target, 1, 4), weights,
                  walk("partial", 0, [(steps, 0)], total_dims=8, level=1, slot=4), limited(limits),
                  watch(0, TileCounter.NARROW_TO_WIDE, arrived), signal("parameters", 1), constant=-z, out_zero_point=z,
                  weights_zero_point=z, channel_group_level=1, reduction=3)

    def _copy_maximum(self) -> None:
        at, layer = self._at.buffers, self._layer
        self._reset()
        self._scatter(at["largest"], 1)
        self._reset()
        row = self._copying_row()
        self._fill(at["ones"], [(0, 1, 4, 1)], row, [(4, 1)], tiles=ALL_TILES)
        self._b.tile_fence()
        self._copies(at["largest"], at["copies"], layer.words, 4, row)

    def _subtract(self) -> None:
        """Subtract the maximum: negated it becomes a row of biases."""
        b, at, layer = self._b, self._at.buffers, self._layer
        pair, bias = self._top - 2, self._top - 5
        self._reset()
        self._fill(at["pair"], [(0, 0, 8, 1)], pair, [(4, 1), (2, 4)], tiles=self._tiles)
        b.tile_fence()
        stage = limited(layer.differences) | {"partial_from_zero": 1, "weights_16bit": 1, "slot2_off": 1, "slot3_off": 1,
                                              "weights_zero_point": 1, "lanes_m1": 3, "lanes_last_m1": 3,
                                              "out_zero_point": 255}
        self._on_tiles(lambda tile: (
            walk("in", at["copies"], [(1, 1), (1, 0), (1, 4 * layer.words)], total_dims=8, mask=5)
            | walk("out", at["bias"], [(1, 1), (1, 0), (1, 4 * layer.slices[tile])], total_dims=8, mask=4)
            | walk("weights", 4 * pair, [(1, 1)], total_dims=8, mask=0)
            | walk("partial", 4 * bias, [(1, 1)], total_dims=8, mask=0) | stage))
        b.tile_fence(reset=1 << TileCounter.PARAMETERS)
        b.tile_fence()
        word = at["pair"] // 4
        for side, value, count in _PAIRS:
            b.tile(f"mesh_from_{side}", ALL_TILES, walk("dst", word, [(count, 1)], total_dims=4, mask=int(count > 1)),
                   signal("received", 1), fill=1, fill_value=value)
            word += count
        b.tile("narrow_to_wide", self._tiles, walk("src", at["pair"] // 4, [(4, 1), (2, 4)], total_dims=6),
               walk("dst", pair, [(2, 1)], total_dims=4),
               watch(0, TileCounter.MESH_NORTH_IN, 1, level=2), watch(1, TileCounter.MESH_SOUTH_IN, 3, level=2),
               watch(2, TileCounter.MESH_WEST_IN, 1, level=2), watch(3, TileCounter.MESH_EAST_IN, 1, level=2),
               signal("done", 1), flush_level=1)
        b.tile("wide_to_narrow", self._tiles, walk("src", bias, [(1, 1), (2, 0), (1, 1)], total_dims=4),
               walk("dst", 64, [(32, 1), (2, 0)], total_dims=6, level=1, slot=32),
               watch(0, TileCounter.AVDATA, 0, level=2, side=1), signal("done", 2), to_scaling=1, drop_level=1)
        self._on_tiles(lambda tile: self._difference(tile, pair))
        if layer.masked:
            self._reset(3)
            self._mask(1, at["difference"], at["difference"], 255, layer.kept_differences)

    def _start(self, tile: int) -> int:
        """Byte where the slice of a tile begins in the operand."""
        return 0 if self._aligned else 4 * self._starts[tile]

    def _difference(self, tile: int, pair: int) -> Values:
        words, operand, size = self._layer.slices[tile], self._at.operand, 4 * self._layer.words
        if self._layer.masked or (self._aligned and tile):
            size = 4 * words
        if not self._layer.masked:
            operand += self._start(tile)
        return step_fields(nest(2, words),
                     walk("in", operand, [(2 * words, 2), (1, size), (1, size), (1, size)], total_dims=8),
                     results(self._at.buffers["difference"], words, 4 * words),
                     walk("weights", 4 * pair, used_dims((2, 4), (words, 0)), total_dims=8),
                     walk("partial", 0, used_dims((2, 0), (words, 0)), total_dims=8, level=1, slot=4),
                     limited(self._layer.differences), watch(0, TileCounter.NARROW_TO_WIDE, 1, level=2),
                     watch(1, TileCounter.WIDE_TO_SCALING, 1, level=2), signal("avdata", 3), weights_16bit=1,
                     weights_zero_point=1, out_zero_point=255, use_bias=1, channel_group_level=1, reduction=1)

    def _exponentiate(self) -> None:
        b, at, layer = self._b, self._at.buffers, self._layer
        self._reset(2 if layer.masked else 3)
        built = self._build_identity()
        self._load_table(EXPONENTIAL)
        stage = {"in_zero_point": 255, "nonlinear": _TABLE, "clamp_low": bits(EXPONENTIAL_LOW), "clamp_high": 0}
        if layer.masked:
            self._each_word(2, 0, at["difference"], at["powers"], 2, stage | {"use_multiplier": 1}, 0)
            self._reset()
            if layer.spread:
                return
            b.tile_fence()
            h = layer.summands
            emit_step(b, "tensor_op", _TILE, nest(1, h), paired(at["powers"], (h, 4), (1, 0), 8 * layer.words),
                results(at["packed"], h, 4 * h), walk("weights", 4 * IDENTITY_ROW, used_dims((1, 4), (h, 0)), total_dims=8),
                no_sums(h, 256), _FREE)
            return
        self._on_tiles(lambda tile: self._powers(tile, stage, built))
        self._packed = built

    def _powers(self, tile: int, stage: Values, built: int) -> Values:
        words = self._layer.slices[tile]
        return step_fields(nest(words),
                     walk("in", self._at.buffers["difference"], [(1, 4), (1, 4 * words), (words, 4)], total_dims=8),
                     walk("out", self._at.buffers["powers"] + 8 * self._starts[tile],
                          [(2, 4), (1, 8 * self._layer.words), (words, 8)], total_dims=8),
                     walk("weights", 4 * IDENTITY_ROW, [(1, 1)] if words == 1 else [(words, 0)], total_dims=8, mask=0),
                     no_sums(words, 4, level=0), watch(0, TileCounter.NARROW_TO_WIDE, built), signal("avdata", 2),
                     signal("parameters", int(words == 1)), stage, multiplier=bits(self._layer.range_scale))

    def _sum(self) -> None:
        """Sum up, and look up the reciprocal root of the sum."""
        b, at, layer = self._b, self._at.buffers, self._layer
        if layer.masked and layer.spread:
            self._gather_powers()
            self._reset()
        elif layer.masked:
            self._reset()
            b.tile_fence()
        elif layer.spread:
            powers = [Slice(tile, at["powers"] // 4 + 2 * self._starts[tile], 2 * words)
                      for tile, words in enumerate(layer.slices)]
            self._gather(powers, at["powers"], self._top - ROWS, packed=self._packed)
            self._reset()
        else:
            self._reset()
        self._reset()
        self._load_table(RECIPROCAL_ROOT)
        h, row = layer.summands, self._top - 2 * SLOT_ROWS
        source = at["packed" if layer.masked and not layer.spread else "powers"]
        block = block_of(h)
        blocks = -(-h // block)
        single = block == 1 < h
        dims = [(h, 0)] if single else used_dims((block, 1), (blocks, 0))
        level = int(not single)
        b.tile("narrow_to_wide", _TILE, walk("src", source // 4, [(h, 1)], total_dims=6, mask=int(h > 1)),
               walk("dst", row, dims, total_dims=4, mask=int(block > 1), level=level, slot=block,
                    epilogue=short_walk(h, block)),
               watch(0, TileCounter.PARAMETERS, -1, level=level, side=1), signal("done", level))
        reduced = {"reduction": 1} if single else {"reduction": 3, "channel_group_level": 1}
        loops = nest(h) if single else nest(block, blocks) | short_loop(h, block)
        emit_step(b, "tensor_sum", _TILE, loops, results(at["root"], 2, 8),
            walk("weights", 4 * row, [(h, 0)] if single else used_dims((block, 4), (blocks, 0)), total_dims=8, level=level,
                 slot=4 * block, epilogue=short_walk(h, block, 4)),
            walk("partial", 0, [(h, 0)], total_dims=8, level=1, slot=4), _FREE, reduced,
            watch(0, TileCounter.NARROW_TO_WIDE, 1, level=level), signal("parameters", level), weights_16bit=1,
            nonlinear=_ROOT, multiplier=_STEP)

    def _gather_powers(self) -> None:
        """Bring words of two exponentials to tile 0; the last of them may hold one too many, which becomes zero."""
        b, at, layer = self._b, self._at.buffers, self._layer
        words, last = at["powers"] // 4, len(layer.slices) - 1
        pieces = [Slice(tile, words, 2 * own) for tile, own in enumerate(layer.slices)]
        end = pieces[last] = Slice(last, words, layer.summands - 2 * self._starts[last] - int(layer.tail))
        b.tile_fence()
        route = Route(self._top - ROWS, _TILE)
        for piece in pieces[1:]:
            if piece.words:
                send(b, piece, route, words + 2 * self._starts[piece.tile])
        if layer.tail:
            send(b, Slice(last, words + end.words, 1), route, at["tail"] // 4, packed=end.rows, left=end.rows or -1)
        await_transfers(b)
        if not layer.tail:
            return
        self._reset()
        self._load_registers(TAIL, 0)
        emit_step(b, "tensor_op", _TILE, walk("in", at["tail"], [(1, 4), (1, 4), (1, 4)], total_dims=8),
                  walk("out", at["powers"] + 4 * (layer.summands - 1), [(1, 4), (1, 4 * layer.summands), (1, 4)],
                       total_dims=8),
                  walk("weights", 4 * IDENTITY_ROW, [(1, 1)], total_dims=8, mask=0),
                  walk("partial", 0, [(1, 1)], total_dims=8, mask=0), watch(0, TileCounter.WIDE_TO_SCALING, 1, level=1),
                  watch(1, TileCounter.NARROW_TO_WIDE, 0, level=2), signal("avdata", 2), signal("parameters", 1),
                  in_16bit=1, channel_group_level=1, lanes_m1=1, lanes_last_m1=1, nonlinear=_PLAIN, use_multiplier=1,
                  clamp_low=0, clamp_high=bits(65535.0))
        self._let_arrive(TAIL)

    def _invert(self) -> None:
        """Square the reciprocal root: 1 / sum."""
        b, at, row = self._b, self._at.buffers, self._top - 2 * SLOT_ROWS
        self._reset(3)
        emit_step(b, "tensor_op", _TILE, nest(2, 2),
                  walk("in", at["root"], [(4, 2), (1, 8), (1, 8), (1, 8)], total_dims=8),
                  walk("out", at["square"], [(2, 4), (4, 4), (1, 16), (1, 16), (1, 16)], total_dims=8),
                  walk("weights", 4 * row, [(2, 2), (2, 0)], total_dims=8, level=1, slot=4),
                  walk("partial", 0, [(1, 1), (4, 0)], total_dims=8, mask=1, level=1, slot=4),
                  watch(0, TileCounter.NARROW_TO_WIDE, 1), signal("parameters", 1), in_16bit=1, weights_16bit=1,
                  channel_group_level=4, nonlinear=_PLAIN, multiplier=_STEP, clamp_low=0, clamp_high=_LARGEST_INVERSE)
        b.tile("narrow_to_wide", _TILE, walk("src", at["root"] // 4, [(2, 1)], total_dims=6),
               walk("dst", row, [(2, 0)], total_dims=4, slot=1), watch(0, TileCounter.PARAMETERS, -1, level=0, side=1),
               signal("done", 0))
        b.tile_fence(engines=1 << TileEngine.NARROW_TO_WIDE)
        emit_step(b, "tensor_op", _TILE, nest(4),
                  walk("in", at["square"], [(4, 4), (1, 16), (1, 16), (1, 16)], total_dims=8), results(at["root"], 2, 8),
                  walk("weights", 4 * IDENTITY_ROW, [(4, 1)], total_dims=8, level=1),
                  walk("partial", 0, [(4, 0)], total_dims=8, level=1, slot=4), _FREE, in_16bit=1, slot2_off=1, slot3_off=1,
                  channel_group_level=2, nonlinear=_PLAIN)

    def _copy_inverse(self) -> None:
        at, row = self._at.buffers, self._copying_row()
        self._settle()
        self._scatter(at["root"], 2)
        self._reset()
        self._fill(at["bytes"], [(i, word, 2, 2) for i, word in enumerate(_FIRST_BYTES)], row, [(4, 1)], tiles=ALL_TILES)
        self._b.tile_fence()
        self._copies(at["root"], at["inverses"], 2 * self._layer.words, 8, row)

    def _divide(self) -> None:
        """Multiply every exponential with the inverse."""
        row = self._top - 2
        self._reset()
        self._on_tiles(lambda tile: self._exponentials_in_pairs(tile, row), "narrow_to_wide")
        self._on_tiles(lambda tile: self._shares(tile, row))
        self._settle()
        self._reset()

    def _exponentials_in_pairs(self, tile: int, row: int) -> Values:
        words = self._layer.slices[tile]
        rows = -(-words // 2)
        level = int(rows == 1)
        dims = [(2, 2), (2, 1), (rows, 4)] if rows > 1 or words == 1 else [(2, 2), (2, 1)]
        first = 0 if self._layer.masked else 2 * self._starts[tile]
        return (walk("src", self._at.buffers["powers"] // 4 + first, dims, total_dims=6,
                     epilogue=(2, 2, 0) if words % 2 else None)
                | walk("dst", row, [(1, 1)] if level else [(rows, 0)], total_dims=4, mask=0, level=level, slot=1)
                | watch(0, TileCounter.PARAMETERS, -1, level=level, side=1) | signal("done", level)
                | {"layout": 3, "flush_level": 2})

    def _shares(self, tile: int, row: int) -> Values:
        words, whole = self._layer.slices[tile], 8 * self._layer.words
        rows, pair = -(-words // 2), min(2, words)
        short = words % 2 == 1 and words > 1
        loops = nest(pair, rows) | ({"loop_epilogue_dim": 1, "loop_epilogue_limit": 0} if short else {})
        return step_fields(loops,
                     walk("in", self._at.buffers["inverses"],
                          [(1, 4), (words, 0), (1, whole), (1, whole), (1, whole)], total_dims=8),
                     results(self._at.result, words, 4 * words),
                     walk("weights", 4 * row, used_dims((pair, 2), (rows, 0)), total_dims=8, level=1, slot=4,
                          epilogue=(1, 1, 2) if short else None),
                     no_sums(words, 4, level=int(words == 1)), watch(0, TileCounter.NARROW_TO_WIDE, 1),
                     signal("parameters", 1), in_16bit=1, weights_16bit=1, channel_group_level=1, multiplier=_SHARE,
                     clamp_low=0, clamp_high=bits(255.0))

    # -- parts of steps ---------------------------------------------------------------------------------

    def _reset(self, count: int = 1) -> None:
        for _ in range(count):
            self._b.tile_fence(reset=LAYER_COUNTERS)

    def _settle(self) -> None:
        """Reset what a product leaves, one counter after the other."""
        self._b.tile_fence(reset=1 << TileCounter.NARROW_TO_WIDE)
        self._b.tile_fence(reset=1 << TileCounter.PARAMETERS)
        self._reset()

    def _copying_row(self) -> int:
        """Return the row of the matrix that copies, below those that a transfer before it uses."""
        return self._top - 1 - (ROWS if self._layer.spread else 0)

    def _fill(self, address: int, fills: Sequence[tuple[int, int, int, int]], row: int, dims: Sequence[Dim], *, tiles: int,
              ) -> None:
        """Write words (first word, value, count, stride) and make rows of four lanes of them."""
        for i, (offset, value, count, stride) in enumerate(fills):
            self._b.tile("mesh_from_south", ALL_TILES, walk("dst", address // 4 + offset, [(count, stride)], total_dims=4),
                         signal("received", 1) if i == len(fills) - 1 else {}, fill=1, fill_value=value)
        rows = 1 if len(dims) == 1 else dims[1][0]
        self._b.tile("narrow_to_wide", tiles, walk("src", address // 4, dims, total_dims=6),
                     walk("dst", row, [(rows, 1)], total_dims=4, mask=int(rows > 1)),
                     watch(0, TileCounter.MESH_SOUTH_IN, 1, step=0, level=rows), flush_level=1)

    def _build_identity(self) -> int:
        """Put the identity matrix into its row unless it is there, and return how many rows its first user waits for."""
        if self._built:
            return 0
        word = self._at.buffers["identity"] // 4
        for i, value in enumerate(_IDENTITY):
            self._b.tile("mesh_from_south", ALL_TILES, walk("dst", word + i, [(1, 1)], total_dims=4, mask=0),
                         signal("received", 1) if i == 3 else {}, fill=1, fill_value=value)
        self._b.tile("narrow_to_wide", ALL_TILES, walk("src", word, [(4, 1)], total_dims=6),
                     walk("dst", IDENTITY_ROW, [(1, 1)], total_dims=4, mask=0),
                     watch(0, TileCounter.MESH_SOUTH_IN, 1, step=0), signal("done", 1), flush_level=1)
        self._top, self._built = IDENTITY_ROW, True
        return 1

    def _load_table(self, table: PiecewiseQuartic) -> None:
        tiles = self._tiles if table is EXPONENTIAL else _TILE
        reset = 1 << TileCounter.AVDATA | 1 << TileCounter.PARAMETERS | 1 << TileCounter.PARTIAL_SUMS
        self._b.tile_fence(reset=reset, engines=1 << TileEngine.OP)
        self._b.tile("table", tiles, table.fields(), constant1566=3)

    def _mask(self, table: int, source: int, target: int, zero_point: int, limits: Limits, identity_rows: int = 0, *,
              whole: bool = False) -> None:
        """Add the bias of a table."""
        stage = limited(limits) | {"in_zero_point": zero_point, "out_zero_point": zero_point, "use_bias": 1}
        self._each_word(table, 64, source, target, 1, stage, identity_rows, whole=whole)

    def _copies(self, source: int, target: int, count: int, size: int, row: int) -> None:
        """Multiply one word with a matrix that copies its first bytes, so many times."""
        emit_step(self._b, "tensor_op", self._tiles, nest(1, count), paired(source, (1, 4), (count, 0), size),
                  results(target, count, 4 * count), walk("weights", 4 * row, used_dims((1, 4), (count, 0)), total_dims=8),
                  no_sums(count, 256), _FREE)

    def _gather(self, pieces: Sequence[Slice], address: int, row: int, packed: int = 0) -> None:
        """Bring slices to tile 0, one behind the other; so many rows have been packed on every tile."""
        self._b.tile_fence()
        route, word = Route(row, 1), address // 4
        for piece in pieces:
            if piece.tile:
                send(self._b, piece, route, word, packed=packed)
            word += piece.words
        await_transfers(self._b)

    def _scatter(self, address: int, words: int) -> None:
        """Send words of tile 0 to each of the others; on a single tile a fence stands in its place."""
        if not self._layer.spread:
            self._reset()
            return
        self._b.tile_fence()
        for number in range(1, len(self._layer.slices)):
            route = Route(self._top - 2 * SLOT_ROWS - ROWS, 1 << number)
            send(self._b, Slice(0, address // 4, words), route, address // 4, packed=number - 1, left=number - 2)
        await_transfers(self._b)
        self._reset()
