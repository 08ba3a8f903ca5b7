"""Times a trace: when does every step begin and end, given costs and a bus."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from compiler.beagle.timing.costs import Bus, Costs
from compiler.beagle.timing.trace import Trace, Work

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Schedule:
    """Times of all steps of a trace.

    Attributes
    ----------
    begin, end:
        Microseconds since the chip was started, by step.
    work_us:
        Microseconds of work in each step, waiting not counted.
    total_us:
        Latency that the host sees.
    """

    trace: Trace
    begin: Floats
    end: Floats
    work_us: Floats
    total_us: float


def schedule(trace: Trace, costs: Costs, bus: Bus) -> Schedule:
    """Time a trace.

    Steps of one engine follow each other; each begins when all points that it waits for are
    reached, and ends when its work is done and the last of what it consumes has arrived.
    """
    begin: list[float] = []
    end: list[float] = []
    work: list[float] = []
    free = [0.0] * len(trace.lines)
    per, start = _microseconds(costs, bus)
    for step in trace.steps:
        begins = free[step.line]
        for other, part in step.begins_after:
            at = begin[other] + part * (end[other] - begin[other])
            if at > begins:
                begins = at
        took = per[step.work] * step.amount
        if step.first or step.work is Work.TO_CHIP:
            took += start[step.work]
        work.append(took)
        ends = begins + took
        for other, part in step.ends_after:
            at = begin[other] + part * (end[other] - begin[other])
            if at > ends:
                ends = at
        begin.append(begins)
        end.append(ends)
        free[step.line] = ends
    total = max(end, default=0.0) + bus.overhead_us
    return Schedule(trace, np.asarray(begin), np.asarray(end), np.asarray(work), total)


def _microseconds(costs: Costs, bus: Bus) -> tuple[list[float], list[float]]:
    """Microseconds per element, and at the start of an instruction or transfer, by kind of work."""
    per = [costs.per_element.get(work, 0.0) / costs.megahertz for work in Work]
    start = [costs.start.get(work, 0.0) / costs.megahertz for work in Work]
    per[Work.TO_CHIP], per[Work.TO_HOST] = 1 / bus.to_chip, 1 / bus.to_host
    start[Work.TO_CHIP] = start[Work.TO_HOST] = bus.transfer_us
    return per, start
