"""Packets under way, for observers: not their bytes, but where on its sender's timeline each was sent."""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Line = TypeVar("Line")


class SentPackets(Generic[Line]):
    """Packets to one receiver, in order, as positions of the timelines that sent them.

    Attributes
    ----------
    last:
        Timeline and position of the packet sent last.
    """

    def __init__(self) -> None:
        self._parts: deque[tuple[Line, Ints]] = deque()
        self.last: tuple[Line, int] | None = None

    def push(self, line: Line, positions: Ints) -> None:
        """Add packets that one timeline sent; positions rise."""
        if len(positions):
            self._parts.append((line, positions))
            self.last = (line, int(positions[-1]))

    def pop(self, count: int) -> list[tuple[Line, Ints]]:
        """Take ``count`` packets, or as many as there are."""
        taken = []
        while count and self._parts:
            line, positions = self._parts.popleft()
            if len(positions) > count:
                self._parts.appendleft((line, positions[count:]))
                positions = positions[:count]
            taken.append((line, positions))
            count -= len(positions)
        return taken
