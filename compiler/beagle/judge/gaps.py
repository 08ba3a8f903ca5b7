"""Readers inside valid data that leave a unit to nobody and take one that another has use for.

Such a reader finds nothing old. Where it should be the only one, the unit that it leaves out is never read
by anybody, and the one that it takes instead is read by its true reader as well, or is older than the rest.
Where the unit beyond the one left out is read by nobody either, more was brought than there is a use for:
transfers between tiles move whole rows of an image.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from compiler.beagle.judge.accesses import Memory
from compiler.beagle.judge.pages import DOWN, NOT_READ, UP, Page, Reading, Units, Writing

Ints = npt.NDArray[np.int64]
Key = tuple[int, Memory, int]
"""Reader, memory, direction."""
_TILE = 1 << 20


@dataclass(frozen=True)
class Gap:
    """What a reader left out before each of its stretches on one tile, and what it took at their ends.

    Attributes
    ----------
    left_out, owner:
        Units left out, and who wrote them.
    taken, giver:
        Last units of stretches, where these are not older than the first ones, and who wrote them.
    """

    tile: int
    left_out: Ints
    owner: Units
    taken: Ints
    giver: Units


class GapBook:
    """What readers left out; whether anybody else reads it is known at the end of a run."""

    def __init__(self) -> None:
        self._found: dict[Key, list[Gap]] = defaultdict(list)

    def close(self, number: int, memory: Memory, tile: int, page: Page, reading: Reading) -> None:
        """Look at what an instruction read on a tile where it has ended."""
        window = slice(reading.low, reading.high + 1)
        seen = reading.seen[tile, window]
        edges = np.flatnonzero(np.diff(np.concatenate(([False], seen != NOT_READ, [False])).astype(np.int8)))
        low, high = edges[::2], edges[1::2] - 1
        for direction, near, far in ((UP, low, high), (DOWN, high, low)):
            # Contents are padded at their end: that a single unit is read there and not the next means nothing.
            if not low.size or not reading.beside[direction][tile, window][near].all() or (
                    direction == DOWN and np.any(near == far)):
                continue
            left_out, owner = near + reading.low - direction, seen[near]
            if np.any((page.writer[tile, left_out] == owner) & (page.reader[tile, left_out] != 0)):
                continue
            # One unit off, a reader finds contents older than the first ones in the last unit only. Where it is the
            # first ones that are older, it may read on beyond what it needs.
            older = seen[far] < owner
            if np.any(seen[far] > owner) or np.any(older & (seen[far] >= seen[np.where(older, far - direction, far)])):
                continue
            taken, giver = far[~older] + reading.low, seen[far[~older]]
            page.watched[tile, taken] |= page.writer[tile, taken] == giver
            self._found[number, memory, direction].append(Gap(tile, left_out, owner, taken, giver))

    def displaced(self, tiles_of: Mapping[tuple[int, Memory], int],
                  writings: Mapping[tuple[int, Memory], Writing]) -> Iterator[tuple[Key, Gap]]:
        """Yield readers that, on each tile and in front of each stretch, left out what nobody read.

        Parameters
        ----------
        tiles_of:
            Tiles on which each instruction has read.
        """
        holders = {kind: _Holders(kind, writings) for kind in ("dead", "shared")}
        for key, gaps in self._found.items():
            if len(gaps) == tiles_of[key[0], key[1]] and all(
                    holders["dead"].hold(key[1], g.tile, g.left_out, g.owner)
                    and not holders["dead"].hold(key[1], g.tile, g.left_out - key[2], g.owner)
                    and holders["shared"].hold(key[1], g.tile, g.taken, g.giver) for g in gaps):
                yield key, gaps[0]

    def clear(self) -> None:
        """Forget everything."""
        self._found.clear()


class _Holders:
    """Looks up in what became of the units of all writers."""

    def __init__(self, kind: str, writings: Mapping[tuple[int, Memory], Writing]) -> None:
        self._kind = kind
        self._writings = writings
        self._known: dict[tuple[int, Memory], set[int]] = {}

    def hold(self, memory: Memory, tile: int, units: Ints, writers: Units) -> bool:
        """Tell whether all units of a tile met this end."""
        return all(tile * _TILE + unit in self._of(writer, memory)
                   for unit, writer in zip(units.tolist(), writers.tolist(), strict=True))

    def _of(self, writer: int, memory: Memory) -> set[int]:
        known = self._known.get((writer, memory))
        if known is None:
            writing = self._writings.get((writer, memory), Writing())
            pieces: list[tuple[Units, Units]] = getattr(writing, self._kind)
            known = self._known[writer, memory] = {n for tiles, units in pieces for n in (tiles * _TILE + units).tolist()}
        return known

