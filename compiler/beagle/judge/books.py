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
        self._last: dict[tuple[int, bool], npt.NDArray[np.int32]] = {}

    def conflicts(self, access: Access, engine: int, tiles: Sequence[int], known: Ints) -> list[Conflict]:
        """Return earlier accesses of other engines that this one does not know of.

        Parameters
        ----------
        known:
            Positions known to have happened, shape (tiles, engines).
        """
        found = []
        units = np.unique(access.units)
        for (other, wrote), last in self._last.items():
            if other == engine or not (wrote or access.writes):
                continue
            positions = last[np.asarray(tiles)[:, None], units]
            late = positions > known[:, other, None]
            if late.any():
                for i in np.flatnonzero(late.any(1)).tolist():
                    found.append(Conflict(tiles[i], other, wrote, units[late[i]], positions[i][late[i]].astype(np.int64)))
        return found

    def enter(self, access: Access, engine: int, tiles: Sequence[int], bases: Ints) -> None:
        """Write down an access; ``bases`` are the positions at which the instruction began, per tile."""
        last = self._last.get((engine, access.writes))
        if last is None:
            last = self._last[engine, access.writes] = np.zeros((TILES, self.memory.units), np.int32)
        # Positions rise, so the last one wins where a unit is touched several times.
        last[np.asarray(tiles)[:, None], access.units] = bases[:, None] + access.after
