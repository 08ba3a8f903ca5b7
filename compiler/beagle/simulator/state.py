"""The memories, counters and queues of one chip."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from compiler.beagle.isa.counters import ScalarCounter, TileCounter
from compiler.beagle.simulator.errors import MemoryBoundsError
from compiler.beagle.simulator.observer import Observer
from compiler.facts import NARROW_BYTES, TILES, WIDE_ROW_BYTES, WIDE_ROWS

Bytes = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int64]
Element = TypeVar("Element", bound=np.generic)
SCALING_ENTRIES = 128


class PacketQueue:
    """Packets under way to one receiver, in order; each packet is a row of bytes."""

    def __init__(self) -> None:
        self._parts: deque[Bytes] = deque()
        self.length = 0

    def push(self, packets: Bytes) -> None:
        """Add packets, shape (packets, bytes)."""
        if len(packets):
            self._parts.append(packets)
            self.length += len(packets)

    def pop(self, count: int) -> list[Bytes]:
        """Take ``count`` packets as blocks of equal width, in order."""
        taken = []
        self.length -= count
        while count:
            part = self._parts[0]
            if len(part) <= count:
                taken.append(self._parts.popleft())
                count -= len(part)
            else:
                taken.append(part[:count])
                self._parts[0] = part[count:]
                count = 0
        return taken


class Chip:
    """State of the chip. Wide memory survives from one executable to the next.

    Attributes
    ----------
    narrow:
        uint8, shape (16, 196608).
    wide:
        uint8, shape (16, 2080, 256).
    scaling:
        Scaling registers, uint8, shape (16, 128, 8).
    counters, scalar_counters:
        Sync counters, shape (16, 19) and (9,).
    observer:
        Is told every step of every engine.
    computes:
        False: compute engines go through their steps without working out values. What waits for what does not
        depend on values, so a run that is only timed needs none.

    Parameters
    ----------
    noise:
        Memories begin with random bytes instead of zeros: what they hold on a real chip.
    """

    def __init__(self, noise: np.random.Generator | None = None) -> None:
        self._noise = noise
        self.wide = self._fresh(TILES, WIDE_ROWS, WIDE_ROW_BYTES)
        self.observer: Observer | None = None
        self.computes = True
        self.reset()

    def _fresh(self, *shape: int) -> Bytes:
        if self._noise is None:
            return np.zeros(shape, np.uint8)
        return self._noise.integers(0, 256, shape, np.uint8)

    def reset(self) -> None:
        """Forget everything but wide memory: what happens between executables."""
        self.narrow = self._fresh(TILES, NARROW_BYTES)
        self.scaling = self._fresh(TILES, SCALING_ENTRIES, 8)
        self.tables: list[npt.NDArray[np.float32] | None] = [None] * TILES
        self.counters: Ints = np.zeros((TILES, len(TileCounter)), np.int64)
        self.scalar_counters: Ints = np.zeros(len(ScalarCounter), np.int64)
        self.ring = [[PacketQueue() for _ in range(TILES)] for _ in range(2)]
        self.to_scalar = PacketQueue()
        self.links = [[PacketQueue() for _ in range(TILES)] for _ in range(4)]

    def count_everywhere(self, counter: int, events: int) -> None:
        """Raise RING_PRODUCER_A or B on all tiles and its twin in the scalar core."""
        self.counters[:, counter] += events
        twin = ScalarCounter.PRODUCER_A if counter == TileCounter.RING_PRODUCER_A else ScalarCounter.PRODUCER_B
        self.scalar_counters[twin] += events


def check(addresses: Ints, limit: int, what: str) -> Ints:
    """Return the addresses if they lie in a memory of ``limit`` units.

    Raises
    ------
    MemoryBoundsError
        When one lies outside.
    """
    if len(addresses) and (addresses.min() < 0 or addresses.max() >= limit):
        bad = int(addresses.min() if addresses.min() < 0 else addresses.max())
        raise MemoryBoundsError(f"{what} address {bad:#x} lies outside 0..{limit - 1:#x}")
    return addresses


def picked(memory: npt.NDArray[Element], tiles: Sequence[int], *index: Ints) -> npt.NDArray[Element]:
    """Return elements of some tiles' memories, without copying the memories.

    Parameters
    ----------
    memory:
        Tiles on the first axis.
    index:
        Indices into the axes behind, as of ``memory[tile, *index]``; they are broadcast against each other.

    Returns
    -------
    elements:
        Shape (tiles, *index, *rest of memory).
    """
    dims = max(i.ndim for i in index)
    taken: npt.NDArray[Element] = memory[(np.asarray(tiles).reshape(-1, *[1] * dims), *index)]
    return taken
