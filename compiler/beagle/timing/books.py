"""What engines and counters have done so far, while a run is recorded."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field

from compiler.beagle.timing.trace import Point


class Line:
    """What one engine has done so far: steps and the elements that they cover."""

    def __init__(self, index: int) -> None:
        self.index = index
        self.end = 0
        self._ends: list[int] = []
        self._steps: list[int] = []
        self._begins: list[int] = []

    def add(self, step: int, amount: int) -> None:
        """Add a step that covers so many elements."""
        self._begins.append(self.end)
        self.end += amount
        self._ends.append(self.end)
        self._steps.append(step)

    def point(self, position: int) -> Point:
        """Return where element number ``position`` (from 1) is complete."""
        at = bisect_left(self._ends, position)
        begin, end = self._begins[at], self._ends[at]
        return self._steps[at], (position - begin) / (end - begin)

    @property
    def last(self) -> Point | None:
        """End of the last step."""
        return (self._steps[-1], 1.0) if self._steps else None


@dataclass(frozen=True)
class Events:
    """Events of one engine: ``places[first:last]`` behind ``base``."""

    line: Line
    base: int
    places: Sequence[int]
    first: int
    last: int

    def point(self, number: int) -> Point:
        """Return when event ``number`` (from 1) happens; later ones than the last happen with it."""
        return self.line.point(self.base + self.places[min(self.first + number, self.last) - 1])


@dataclass
class History:
    """Events of a counter since it was last set."""

    value: int = 0
    set_by: Point | None = None
    totals: list[int] = field(default_factory=list)
    parts: list[Events] = field(default_factory=list)

    @property
    def current(self) -> int:
        """Value of the counter."""
        return self.totals[-1] if self.totals else self.value

    def add(self, events: Events) -> None:
        """Count events."""
        self.totals.append(self.current + events.last - events.first)
        self.parts.append(events)

    def point(self, value: int) -> Point | None:
        """Return when the counter reaches a value."""
        if value <= self.value or not self.totals:
            return self.set_by
        at = min(bisect_left(self.totals, value), len(self.totals) - 1)
        before = self.totals[at - 1] if at else self.value
        return self.parts[at].point(value - before)
