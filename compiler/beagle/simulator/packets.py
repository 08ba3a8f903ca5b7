"""Packets under way, for observers: not their bytes, but where on its sender's timeline each was sent."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Generic, TypeVar

Line = TypeVar("Line")


class SentPackets(Generic[Line]):
    """Packets to one receiver, in order, as positions of the timelines that sent them.

    Attributes
    ----------
    last:
        Timeline and position of the packet sent last.
    """

    def __init__(self) -> None:
        self._parts: deque[tuple[Line, Sequence[int]]] = deque()
        self.last: tuple[Line, int] | None = None

    def push(self, line: Line, positions: Sequence[int]) -> None:
        """Add packets that one timeline sent; positions rise."""
        if len(positions):
            self._parts.append((line, positions))
            self.last = (line, positions[-1])

    def pop(self, count: int) -> list[tuple[Line, Sequence[int]]]:
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
