"""What the ledger writes down: pages of memory, what one instruction read, what one instruction wrote."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from compiler.beagle.judge.accesses import Memory
from compiler.facts import TILES

Units = npt.NDArray[np.int32]
Flags = npt.NDArray[np.bool_]
EDGE = 2
"""Units beyond either end of a memory, so that neighbours always exist."""
NOT_READ = -9
UP, DOWN = 1, -1
"""The reader is one unit above, or below, what it should read."""


def _shape(memory: Memory) -> tuple[int, int]:
    return TILES, memory.units + 2 * EDGE


@dataclass
class Page:
    """One memory of all tiles, shape (16, units).

    Attributes
    ----------
    writer, time:
        Last writer and when it wrote.
    reader, shared:
        Who read the contents first, and whether anybody else did, too.
    skipped:
        The contents are what a transfer skipped: words in front of its blocks, which mean nothing.
    watched:
        The ledger wants to know whether the contents will be shared.
    """

    writer: Units
    time: Units
    reader: Units
    shared: Flags
    skipped: Flags
    watched: Flags

    @classmethod
    def empty(cls, memory: Memory) -> Page:
        """Return a page that nobody has written."""
        shape = _shape(memory)
        writer, time, reader = (np.zeros(shape, np.int32) for _ in range(3))
        shared, skipped, watched = (np.zeros(shape, bool) for _ in range(3))
        return cls(writer, time, reader, shared, skipped, watched)


@dataclass
class Reading:
    """What one instruction read of one memory, shape (16, units).

    Attributes
    ----------
    seen:
        The writers of what it read.
    beside:
        Per direction: the unit before belongs to the same writer.
    inside:
        Per direction: it does, and the one before that does not.
    low, high:
        First and last unit read on any tile.
    """

    seen: Units
    beside: dict[int, Flags]
    inside: dict[int, Flags]
    low: int = 1 << 30
    high: int = 0

    @classmethod
    def empty(cls, memory: Memory) -> Reading:
        """Return one of an instruction that has read nothing yet."""
        shape = _shape(memory)
        beside, inside = ({d: np.zeros(shape, bool) for d in (UP, DOWN)} for _ in range(2))
        return cls(np.full(shape, NOT_READ, np.int32), beside, inside)


@dataclass
class Writing:
    """What one instruction wrote to one memory.

    Attributes
    ----------
    pieces:
        Tiles, and the units written on each of them.
    dead, shared:
        Tile and unit of what nobody read; of what was watched and several instructions read.
    beside:
        Per direction: reader, and tile and unit beside which it took older contents, and whether
        these had been read before.
    """

    pieces: list[tuple[Sequence[int], Units]] = field(default_factory=list)
    dead: list[tuple[Units, Units]] = field(default_factory=list)
    shared: list[tuple[Units, Units]] = field(default_factory=list)
    beside: dict[int, list[tuple[int, Units, Units, Flags]]] = field(default_factory=lambda: {UP: [], DOWN: []})
