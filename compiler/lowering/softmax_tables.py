"""Steps of a softmax in which every word of a vector has numbers of its own: lines of its tables."""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate

from compiler.beagle.isa.counters import TileCounter
from compiler.facts import WIDE_ROWS
from compiler.lowering.builder import ProgramBuilder, Values, signal, walk, watch
from compiler.lowering.softmax_layer import SoftmaxLayer
from compiler.lowering.softmax_step import nest, step_fields, used_dims

IDENTITY_ROW = WIDE_ROWS - 1
ARRIVAL_ROW = IDENTITY_ROW - 34
"""Row through which the lines of streamed tables pass, one after the other."""
TAIL = 3
"""Number of the table for the last word of two exponentials."""

Stream = Callable[[int], None]
"""Lets the host send the table of a number."""


class TableSteps:
    """Applies the tables of a softmax, tile by tile.

    Parameters
    ----------
    stream:
        Lets the host send a table.
    """

    def __init__(self, b: ProgramBuilder, layer: SoftmaxLayer, stream: Stream) -> None:
        self._b, self._layer, self._stream = b, layer, stream
        self._tiles = (1 << len(layer.slices)) - 1
        self._starts = (0, *accumulate(layer.slices))

    def _on_tiles(self, fields: Callable[[int], Values], name: str = "tensor_op", count: int | None = None) -> None:
        """Emit an instruction for every tile, or the first few, one for those that do the same."""
        masks: list[tuple[Values, int]] = []
        for tile in range(len(self._layer.slices) if count is None else count):
            values = fields(tile)
            same = next((i for i, (v, _) in enumerate(masks) if v == values), None)
            if same is None:
                masks.append((values, 1 << tile))
            else:
                masks[same] = values, masks[same][1] | 1 << tile
        for values, mask in masks:
            self._b.tile(name, mask, values)

    def _each_word(self, table: int, bank: int, source: int, target: int, size: int, stage: Values, identity_rows: int, *,
                   whole: bool = False) -> None:
        """Word after word through the identity with numbers of its own; the second loop repeats, as in official programs.

        Parameters
        ----------
        whole:
            Results lie where they do in the whole vector.
        """
        self._load_registers(table, bank)
        self._on_tiles(lambda tile: self._word_by_word(tile, source, target, size, whole=whole) | stage
                       | watch(1, TileCounter.NARROW_TO_WIDE, identity_rows, level=3))
        self._let_arrive(table)

    def _load_registers(self, table: int, bank: int) -> None:
        """Bring the lines of a table into the scaling registers: from where they lie, or as they arrive."""
        lines, arriving = self._layer.lines(table), not self._layer.rows[table]
        for tile, n in enumerate(lines if arriving else ()):
            level, dims = int(n == 1), [(1, 1)] if n == 1 else [(n, 0)]
            self._b.tile("ring_receive_a", 1 << tile,
                         walk("dst", ARRIVAL_ROW, dims, total_dims=4, mask=0, level=level, slot=1),
                         watch(0, TileCounter.WIDE_TO_SCALING, -1, level=level, side=1), signal("read", level))
        lanes = 1 if table == TAIL else 2

        def fields(tile: int) -> Values:
            n = lines[tile]
            target = walk("dst", bank, used_dims((lanes, 1), (1, 64), (n, 0)), total_dims=6, level=2, slot=32)
            free = watch(int(arriving), TileCounter.AVDATA, -1, level=2, side=1)
            if arriving:
                source = walk("src", ARRIVAL_ROW, used_dims((1, 1), (n, 0)), total_dims=4, mask=1, level=1, slot=1)
                source |= watch(0, TileCounter.RING_READ_A, 1)
            else:
                source = walk("src", self._layer.rows[table][tile], used_dims((1, 1), (n, 1)), total_dims=4)
            return source | target | free | signal("done", 2) | {"to_scaling": 1, "drop_level": 1}

        self._on_tiles(fields, "wide_to_narrow", len(lines))

    def _let_arrive(self, table: int) -> None:
        if not self._layer.rows[table]:
            self._stream(table)

    def _word_by_word(self, tile: int, source: int, target: int, size: int, *, whole: bool) -> Values:
        n = self._layer.slices[tile]
        extent = 4 * size * (self._layer.words if whole else n)
        place = target + 4 * size * self._starts[tile] * int(whole)
        return step_fields(nest(1, 2, n), walk("in", source, [(1, 4), (2, 0), (1, 4 * n), (n, 4)], total_dims=8),
                           walk("out", place, [(size, 4), (1, extent), (2, 0), (n, 4 * size)], total_dims=8),
                           walk("weights", 4 * IDENTITY_ROW, used_dims((2, 0), (n, 0)), total_dims=8, level=1),
                           walk("partial", 0, used_dims((2, 0), (n, 0)), total_dims=8, slot=4),
                           watch(0, TileCounter.WIDE_TO_SCALING, 1, level=2), signal("avdata", 3), signal("parameters", 1),
                           channel_group_level=2)
