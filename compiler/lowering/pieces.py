"""Parts of vectors on their way from the narrow memory of one tile to that of others, over ring A."""

from __future__ import annotations

from dataclasses import dataclass

from compiler.beagle.isa.counters import TileCounter, TileEngine
from compiler.facts import WIDE_ROW_BYTES
from compiler.lowering.builder import ProgramBuilder, signal, walk, watch
from compiler.records import record

ROW_WORDS = WIDE_ROW_BYTES // 4
ROWS = 6
"""Wide rows set aside for a transfer."""
_TRANSFERS = sum(1 << e for e in (TileEngine.RING_A, TileEngine.RING_B, TileEngine.MESH_NORTH, TileEngine.MESH_EAST,
                                  TileEngine.MESH_SOUTH, TileEngine.MESH_WEST))
"""Engines that receive."""
_RECEIVING = 4
"""The row in which packets arrive, counted from the one that an owner sends from; each with a second one."""


@record
class Slice:
    """A part of a vector in the narrow memory of one tile, in words."""

    tile: int
    word: int
    words: int

    @property
    def rows(self) -> int:
        """Wide rows that it passes through."""
        return -(-self.words // ROW_WORDS)


@dataclass
class Route:
    """Where pieces pass, and what has passed.

    Attributes
    ----------
    row:
        First of the wide rows.
    receivers:
        Tiles, as a mask.
    rows, words:
        That have arrived.
    """

    row: int
    receivers: int
    rows: int = 0
    words: int = 0


def send(b: ProgramBuilder, piece: Slice, route: Route, place: int, *, packed: int = 0, left: int = -1) -> None:
    """Send a piece from its owner to the receivers, who write it to narrow word ``place``.

    Parameters
    ----------
    packed:
        Rows that the owner has packed before, since its counters were reset.
    left:
        Sent rows that must have left the owner before it packs the first one.
    """
    words, rows = piece.words, piece.rows
    # Several rows are loops of instructions, whose counters then count rows; a single one is a block.
    level = int(rows == 1)
    passed = [(1, 1)] if rows == 1 else [(rows, 0)]
    receive = route.row + _RECEIVING
    walked = int(words > 1)
    b.tile("wide_to_narrow", route.receivers, walk("src", receive, passed, total_dims=4, mask=0, level=level, slot=1),
           walk("dst", place, [(words, 1)], total_dims=6, mask=walked),
           watch(0, TileCounter.RING_READ_A, route.rows + 1, level=level), signal("done", 1 - walked), drop_level=1)
    b.tile("ring_receive_a", route.receivers, walk("dst", receive, passed, total_dims=4, mask=0, level=level, slot=1),
           watch(0, TileCounter.WIDE_TO_NARROW, route.words - ROW_WORDS, step=ROW_WORDS, level=level, side=1),
           signal("read", level))
    sent = [(1, 1)] if rows == 1 else [(1, 1), (rows, 0)]
    b.tile("ring_send", 1 << piece.tile, walk("src", route.row, sent, total_dims=4, mask=1, level=1, slot=1), ring_turn(b),
           watch(1, TileCounter.NARROW_TO_WIDE, packed + 1), signal("write", 1), signal("producer", 2),
           receivers=route.receivers)
    b.tile("narrow_to_wide", 1 << piece.tile, walk("src", piece.word, [(words, 1)], total_dims=6, mask=walked),
           walk("dst", route.row, passed, total_dims=4, mask=0, level=level, slot=1),
           watch(0, TileCounter.RING_WRITE, left, level=level, side=1), signal("done", level), flush_level=1)
    route.rows += rows
    route.words += words


def await_transfers(b: ProgramBuilder) -> None:
    """No tile goes on before all have received what is sent to them."""
    b.tile_fence(engines=_TRANSFERS, notify=True)
    b.scalar_fence(wait_tiles=True, engines=0)


def ring_turn(b: ProgramBuilder) -> dict[str, int]:
    """Watch for this sender's turn on ring A."""
    turn = watch(0, TileCounter.RING_PRODUCER_A, b.producer_turns, level=2)
    b.producer_turns += 1
    return turn
