"""Last readers and writers of every unit of memory, and what conflicts with them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from compiler.beagle.judge.accesses import Access, Memory
from compiler.facts import TILES

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Conflict:
    """Two accesses that the counters do not order.

    Attributes
    ----------
    engine:
        Timeline (inside the tile) of the earlier access.
    earlier_writes:
        It was a write.
    units, positions:
        Units concerned and the position of the earlier access to each.
    """

    tile: int
    engine: int
    earlier_writes: bool
    units: Ints
    positions: Ints


class Book:
    """One memory of all tiles."""

    def __init__(self, memory: Memory) -> None:
        self.memory = memory
        self._rows: dict[tuple[int, bool], int] = {}
        self._engines: Ints = np.zeros(0, np.int64)
        self._wrote: npt.NDArray[np.bool_] = np.zeros(0, bool)
        self._last = np.zeros((0, TILES, memory.units), np.int32)

    def conflicts(self, access: Access, engine: int, tiles: Sequence[int], known: Ints) -> list[Conflict]:
        """Return earlier accesses of other engines that this one does not know of.

        Parameters
        ----------
        known:
            Positions known to have happened, shape (tiles, engines).
        """
        others = self._engines != engine
        rows = np.flatnonzero(others if access.writes else others & self._wrote)
        if not rows.size:
            return []
        units = access.distinct
        positions = self._last[rows[:, None, None], np.asarray(tiles)[:, None], units]
        late = positions > known.T[self._engines[rows], :, None]
        if not late.any():
            return []
        return [Conflict(tiles[i], int(self._engines[rows[r]]), bool(self._wrote[rows[r]]), units[late[r, i]],
                         positions[r, i][late[r, i]].astype(np.int64))
                for r, i in np.argwhere(late.any(2)).tolist()]

    def enter(self, access: Access, engine: int, tiles: Sequence[int], bases: Ints) -> None:
        """Write down an access; ``bases`` are the positions at which the instruction began, per tile."""
        row = self._rows.get((engine, access.writes))
        if row is None:
            row = self._open(engine, access.writes)
        # Positions rise, so the last one wins where a unit is touched several times.
        self._last[row, np.asarray(tiles)[:, None], access.units] = bases[:, None] + access.after

    def _open(self, engine: int, writes: bool) -> int:
        """Begin to write down the reads, or the writes, of an engine."""
        row = self._rows[engine, writes] = len(self._rows)
        self._engines = np.append(self._engines, engine)
        self._wrote = np.append(self._wrote, writes)
        self._last = np.concatenate((self._last, np.zeros((1, *self._last.shape[1:]), np.int32)))
        return row
