"""Who knows what: timelines of engines, vector clocks, and histories of sync counters.

A *timeline* is everything that one engine does, one position after the other. A *clock* says, for
every timeline, how many of its positions have certainly happened; it grows when an engine waits
for a counter, a packet or a fence. One thing happens before another in every order of engines that
the counters allow exactly if the clock of the second covers the position of the first.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from compiler.beagle.isa import Instruction

Ints = npt.NDArray[np.int64]
Clock = npt.NDArray[np.int64]


class Timeline:
    """Positions of one engine, and what was known at each of them.

    Attributes
    ----------
    end:
        Positions so far.
    carried:
        Clock that the next segment starts from.
    """

    def __init__(self, index: int, size: int) -> None:
        self.index = index
        self.end = 0
        self.carried: Clock = np.zeros(size, np.int64)
        self._starts: list[int] = []
        self._clocks: list[Clock] = []
        self._instructions: list[tuple[int, Instruction]] = []

    def extend(self, clock: Clock, start: int, end: int, ins: Instruction) -> None:
        """Add positions start..end that ran under one clock."""
        if not self._instructions or self._instructions[-1][1] is not ins:
            self._instructions.append((start, ins))
        self._starts.append(start)
        # A clock's own entry is not read from here, so segments that learnt nothing share one.
        if self._clocks and self._is_known(clock):
            clock = self._clocks[-1]
        self._clocks.append(clock)
        self.end = end

    def _is_known(self, clock: Clock) -> bool:
        last = self._clocks[-1]
        own, last_own = clock[self.index], last[self.index]
        last[self.index] = own
        same = bool(np.array_equal(clock, last))
        last[self.index] = last_own
        return same

    def instruction_at(self, position: int) -> Instruction:
        """Return the instruction whose element number ``position`` (counted from 1) this is."""
        return self._instructions[bisect_right(self._instructions, position - 1, key=lambda entry: entry[0]) - 1][1]

    def clock_after(self, position: int) -> Clock:
        """Return what is known once ``position`` elements have happened."""
        if position <= 0 or not self._starts:
            return np.zeros_like(self.carried)
        clock = self._clocks[bisect_left(self._starts, position) - 1].copy()
        clock[self.index] = max(clock[self.index], position)
        return clock

    def clock_at_end(self) -> Clock:
        """Return what is known once everything so far has happened."""
        clock = self.carried.copy()
        clock[self.index] = self.end
        return clock


@dataclass(frozen=True)
class Contribution:
    """Events that one engine added to a counter: positions of its timeline, rising."""

    timeline: Timeline
    positions: Ints


@dataclass
class CounterHistory:
    """How a counter got where it is since it was last set.

    Attributes
    ----------
    value:
        What it was set to.
    set_by:
        What was known when it was set.
    """

    value: int = 0
    set_by: Clock | None = None
    totals: list[int] = field(default_factory=list)
    parts: list[Contribution] = field(default_factory=list)

    @property
    def current(self) -> int:
        """Value now."""
        return self.totals[-1] if self.totals else self.value

    def add(self, part: Contribution) -> None:
        """Raise the counter."""
        self.totals.append(self.current + len(part.positions))
        self.parts.append(part)

    def event(self, value: int) -> tuple[Timeline, int] | None:
        """Return the event that brought the counter to a value; None if it was set there."""
        if value <= self.value:
            return None
        at = bisect_left(self.totals, value)
        before = self.totals[at - 1] if at else self.value
        part = self.parts[at]
        return part.timeline, int(part.positions[value - before - 1])

    def positions_of(self, values: Ints, timeline: Timeline) -> Ints:
        """Positions on one timeline that counter values prove; 0 where they prove none."""
        result = np.zeros(len(values), np.int64)
        if not len(values) or values[-1] <= self.value:
            return result
        first = bisect_left(self.totals, max(int(values.min()), self.value + 1))
        last = min(bisect_left(self.totals, int(values.max())), len(self.parts) - 1)
        for at in range(first, last + 1):
            before = self.totals[at - 1] if at else self.value
            inside = (values > before) & (values <= self.totals[at])
            if self.parts[at].timeline is timeline:
                result[inside] = self.parts[at].positions[values[inside] - before - 1]
        return result


def covers(clock: Clock, timeline: Timeline, position: int) -> bool:
    """Tell whether a clock knows of a position."""
    return bool(clock[timeline.index] >= position)
