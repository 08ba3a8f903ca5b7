"""What a schedule says about layers and engines, as rows for a table and as a Chrome trace."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from compiler.beagle.assembly.sections import headings
from compiler.beagle.isa import Instruction
from compiler.beagle.timing.schedule import Schedule
from compiler.beagle.timing.trace import PARAMETER_INFEED, Step, Work
from compiler.facts import TILES

FRAME = "start, input"
"""Heading of everything before the first layer."""
_MOVES = (Work.RING_SEND, Work.RING_RECEIVE, Work.WIDE_TO_NARROW, Work.NARROW_TO_WIDE, Work.MESH)


@dataclass(frozen=True)
class PartTime:
    """A layer, or what comes before the first one.

    Attributes
    ----------
    begin_us, end_us:
        First and last moment at which one of its instructions ran.
    compute_us:
        Time that its compute engine was busy, on the busiest tile.
    moves_us:
        Time that engines moved data, on the busiest engine of one tile.
    streamed_bytes:
        Parameters that came from the host for it.
    """

    heading: str
    begin_us: float
    end_us: float
    compute_us: float
    moves_us: float
    streamed_bytes: int


@dataclass(frozen=True)
class EngineTime:
    """A kind of engine.

    Attributes
    ----------
    busy_us:
        Time at work, on the busiest one of its kind.
    share:
        Of the whole latency.
    """

    name: str
    busy_us: float
    share: float


def part_times(schedule: Schedule, parts: Sequence[tuple[int, str]] | None = None) -> list[PartTime]:
    """Return time per layer, in program order; layers that overlap do so here.

    Parameters
    ----------
    parts:
        Where parts of the program begin and how they are called; by default what the arithmetic of its instructions
        tells.
    """
    program = schedule.trace.program
    starts = [(0, FRAME), *(headings(program) if parts is None else parts)]
    part_of: dict[int, int] = {}
    for number, (start, _) in enumerate(starts):
        stop = starts[number + 1][0] if number + 1 < len(starts) else len(program)
        part_of.update((id(ins), number) for ins in program[start:stop])
    spans: list[list[float]] = [[float("inf"), 0.0] for _ in starts]
    busy: dict[tuple[int, int], float] = defaultdict(float)
    streamed = [0.0] * len(starts)
    for i, step in enumerate(schedule.trace.steps):
        if step.label is None or step.work in (Work.SCALAR, Work.FENCE):
            continue
        part = part_of[id(step.label)]
        begin, end = float(schedule.begin[i]), float(schedule.end[i])
        spans[part] = [min(spans[part][0], begin), max(spans[part][1], end)]
        busy[part, step.line] += _worked(schedule, step, i)
        if step.work is Work.INFEED and schedule.trace.lines[step.line] == PARAMETER_INFEED:
            streamed[part] += step.amount
    works = {step.line: step.work for step in schedule.trace.steps if step.work not in (Work.SCALAR, Work.FENCE)}

    def most(part: int, kinds: tuple[Work, ...]) -> float:
        return max((us for (p, line), us in busy.items() if p == part and works[line] in kinds), default=0.0)

    return [PartTime(heading, spans[n][0], spans[n][1], most(n, (Work.COMPUTE,)), most(n, _MOVES), int(streamed[n]))
            for n, (_, heading) in enumerate(starts) if spans[n][1] > 0]


def _worked(schedule: Schedule, step: Step, index: int) -> float:
    """Time at work: waiting for what it consumes does not count."""
    return min(float(schedule.work_us[index]), float(schedule.end[index] - schedule.begin[index]))


def engine_times(schedule: Schedule) -> list[EngineTime]:
    """Return how busy the engines were, kind by kind."""
    busy: dict[int, float] = defaultdict(float)
    for i, step in enumerate(schedule.trace.steps):
        busy[step.line] += _worked(schedule, step, i)
    kinds: dict[str, float] = {}
    for line, us in busy.items():
        name = _kind(schedule.trace.lines[line])
        kinds[name] = max(kinds.get(name, 0.0), us)
    return [EngineTime(name, us, us / schedule.total_us) for name, us in kinds.items()]


def _kind(line: str) -> str:
    return line.split(" ", 2)[2].replace("_", " ") if line.startswith("tile ") else line


def timeline(schedule: Schedule) -> dict[str, Any]:
    """Return layers and engines as plain data."""
    return {"total_us": schedule.total_us, "simulated": True, "layers": [asdict(p) for p in part_times(schedule)],
            "engines": [asdict(e) for e in engine_times(schedule)]}


def chrome_trace(schedule: Schedule) -> dict[str, Any]:
    """Return a trace in the Chrome format: a process per tile, a thread per engine."""
    events: list[dict[str, Any]] = []
    for number, line in enumerate(schedule.trace.lines):
        process, name = _place(line)
        events.append({"ph": "M", "name": "thread_name", "pid": process, "tid": number, "args": {"name": name}})
    for process in range(TILES + 1):
        name = "scalar core and host" if process == TILES else f"tile {process}"
        events.append({"ph": "M", "name": "process_name", "pid": process, "args": {"name": name}})
    for index, label, begin, end in _spans(schedule):
        process, _ = _place(schedule.trace.lines[index])
        name = "transfer" if label is None else label.name
        args = {} if label is None else {"offset": hex(label.offset), "trace": label.values.get("trace", 0)}
        events.append({"ph": "X", "name": name, "pid": process, "tid": index, "ts": begin, "dur": end - begin, "args": args})
    return {"displayTimeUnit": "ns", "traceEvents": events}


def _place(line: str) -> tuple[int, str]:
    if line.startswith("tile "):
        _, tile, name = line.split(" ", 2)
        return int(tile), name
    return TILES, line


def _spans(schedule: Schedule) -> Iterator[tuple[int, Instruction | None, float, float]]:
    """Yield the steps of each engine, those of one instruction joined."""
    open_spans: dict[int, tuple[Instruction | None, float, float]] = {}
    for i, step in enumerate(schedule.trace.steps):
        begin, end = float(schedule.begin[i]), float(schedule.end[i])
        if _kind(schedule.trace.lines[step.line]) == "dispatch":
            continue
        last = open_spans.get(step.line)
        if last is not None and last[0] is step.label and not step.first:
            open_spans[step.line] = (last[0], last[1], end)
            continue
        if last is not None:
            yield step.line, *last
        open_spans[step.line] = (step.label, begin, end)
    for line, last in open_spans.items():
        yield line, *last
