"""The judge: watches one run and says what could go wrong in another order of engines.

Everything that the chip does in order (instructions of one engine, dispatch of one tile) and
everything that counters, packets and fences enforce is recorded in vector clocks. Two accesses to
one place that no clock orders are a race: some order of engines that the chip may take lets them
happen the other way round. One run therefore speaks for all orders.

The one timing rule that official programs need beside the counters, and this judge grants: a
wide-to-narrow transfer that may run has taken its rows before the next ring packet is written over
them. Where a program relies on it, that is counted, not reported as a race.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count, pairwise
from operator import itemgetter
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

from compiler.beagle.isa import Instruction
from compiler.beagle.isa.counters import ScalarCounter, TileCounter, TileEngine
from compiler.beagle.judge.accesses import ENGINES, Access, Memory, accesses, engine_of
from compiler.beagle.judge.books import Book, Conflict
from compiler.beagle.judge.clocks import Clock, Contribution, CounterHistory, Timeline
from compiler.beagle.judge.ledger import Displacement, Ledger
from compiler.beagle.judge.pages import Flags
from compiler.beagle.simulator.moves import MeshHalf, NarrowToWide, RingReceive, RingSend, WideToNarrow, neighbour, tiles_of
from compiler.beagle.simulator.observer import Observer
from compiler.beagle.simulator.packets import SentPackets
from compiler.beagle.simulator.state import Chip
from compiler.beagle.simulator.streams import (
    FIFO_BYTES,
    SCALAR_FIFO_WORDS,
    Infeed,
    Outfeed,
    Pop,
    ScalarTask,
)
from compiler.beagle.simulator.task import TileTask, unwrap
from compiler.facts import (
    ACTIVATION_FIFO_WORDS,
    PARAMETER_FIFO_LINES,
    TILES,
    WIDE_ROW_BYTES,
)

Ints = npt.NDArray[np.int64]
_TILE_TIMELINES = ENGINES + 1
_DISPATCH = ENGINES
_SCALAR_QUEUES = ("infeed0", "infeed1", "pop", "outfeed")
_CORE = TILES * _TILE_TIMELINES
SIZE = _CORE + 1 + len(_SCALAR_QUEUES)
_PRODUCERS = {TileCounter.RING_PRODUCER_A: ScalarCounter.PRODUCER_A,
              TileCounter.RING_PRODUCER_B: ScalarCounter.PRODUCER_B}
FIFO_ENTRIES = (PARAMETER_FIFO_LINES, ACTIVATION_FIFO_WORDS, SCALAR_FIFO_WORDS)
RELAY_SLACK = 1
"""Events that a relay over the scalar core may be early: in official programs the row that it sends
on waits for all rows of ring A but the last, which is under way then; it returns later than that."""
MAX_FINDINGS = 20
_Arrival = tuple[int, Timeline, Sequence[int]]
"""First position of a receiver that takes packets of one sender, and the sender's positions."""


@dataclass(frozen=True)
class Finding:
    """Something that some order of engines lets go wrong.

    Attributes
    ----------
    kind:
        ``race``, ``packet order``, ``counter``, ``fifo`` or ``displaced``.
    instructions:
        Offsets of the instructions concerned.
    """

    kind: str
    message: str
    instructions: tuple[int, ...]

    @property
    def certain(self) -> bool:
        """False for what the ledger suspects: no rule of the chip is broken, but no known program does so."""
        return self.kind != "displaced"

    def __str__(self) -> str:
        return f"{self.kind}: {self.message}"


@dataclass
class Verdict:
    """What a judge found.

    Attributes
    ----------
    prompt_drains:
        Times the program relied on the timing rule: a transfer out of a staging row that waits for
        nothing any more empties the row before the next transfer has filled it again. Wide-to-narrow
        transfers are seen to rely on it, and ring senders in one official program.
    same_bytes:
        Rows or words written, without waiting, with the bytes that they held already: official
        programs send one vector several times through one row, and spread one pixel over an image
        by copies that overlap.
    host_latency:
        Times a pop of parameters without a turn followed a ring sender, and only the time that the
        host takes to deliver parameters asked for after the sender began keeps them apart - or the
        sender itself, where it takes the first packets and the ring holds fewer than these. Two early
        official programs rely on the first, two on the second.
    """

    findings: list[Finding] = field(default_factory=list)
    prompt_drains: int = 0
    same_bytes: int = 0
    host_latency: int = 0


class Judge(Observer):
    """Watches one run of a machine.

    Parameters
    ----------
    chip:
        The machine's chip.
    rows_before:
        Wide rows that earlier executables wrote, shape (16, rows).
    """

    def __init__(self, chip: Chip, rows_before: Flags | None = None) -> None:
        self.verdict = Verdict()
        self.ledger = Ledger(rows_before)
        self._chip = chip
        self._wide_before = chip.wide.copy()
        self._narrow_before: dict[int, npt.NDArray[np.uint32]] = {}
        self._taken_by = np.ones(chip.wide.shape[:2], np.int64)
        self._stale = np.zeros(chip.wide.shape[:2], bool)
        self._lines = [Timeline(i, SIZE) for i in range(SIZE)]
        self._core = self._lines[_CORE]
        self._tile_counters = [[CounterHistory() for _ in TileCounter] for _ in range(TILES)]
        self._scalar_counters = [CounterHistory() for _ in ScalarCounter]
        self._books = {memory: Book(memory) for memory in Memory}
        self._issue: list[deque[Clock]] = [deque() for _ in range(TILES)]
        self._dispatched: dict[tuple[int, int], deque[Clock]] = {}
        self._queued: dict[int, Clock] = {}
        # Tasks hold all their addresses, so that all but halves of mesh instructions are forgotten when they end.
        self._base: dict[tuple[int, TileTask], int] = {}
        self._halves: dict[TileTask, Sequence[TileTask]] = {}
        self._transfers: WeakKeyDictionary[TileTask, int] = WeakKeyDictionary()
        self._next_transfer = count(2)
        self._notified: dict[int, Clock] = {}
        self._ring = [[SentPackets[Timeline]() for _ in range(TILES)] for _ in range(2)]
        self._to_scalar = SentPackets[Timeline]()
        self._mesh = [[SentPackets[Timeline]() for _ in range(TILES)] for _ in range(4)]
        self._turns: list[tuple[Timeline, int] | None] = [None, None]
        self._parameters_asked: list[int] = []
        self._queue_of: dict[int, Timeline] = {}
        self._fifo_writes: dict[int, Ints] = {}
        self._fifo_reads: dict[int, Ints] = {}
        self._seen: set[tuple[str, tuple[int, ...]]] = set()

    def finish(self) -> None:
        """Close the ledger, after the run."""
        for found in self.ledger.displacements():
            self._report("displaced", _describe(found), found.reader, found.writer)

    # -- names ------------------------------------------------------------------------------------

    def _line(self, tile: int, engine: int) -> Timeline:
        return self._lines[tile * _TILE_TIMELINES + engine]

    def _scalar_line(self, queue: str) -> Timeline:
        return self._lines[_CORE + 1 + _SCALAR_QUEUES.index(queue)]

    def _report(self, kind: str, message: str, *instructions: Instruction) -> None:
        key = (kind, tuple(ins.offset for ins in instructions))
        if key not in self._seen and len(self.verdict.findings) < MAX_FINDINGS:
            self._seen.add(key)
            self.verdict.findings.append(Finding(kind, message, key[1]))

    # -- issue, dispatch, fences --------------------------------------------------------------------

    def issued(self, item: Instruction | TileTask, tiles: Sequence[int]) -> None:
        """Remember what the scalar core knew."""
        clock = self._step_core()
        for tile in tiles:
            self._issue[tile].append(clock)

    def _step_core(self) -> Clock:
        self._core.end += 1
        return self._core.clock_at_end()

    def dispatched(self, task: TileTask, tile: int) -> None:
        """Remember what the tile knew."""
        clock = self._step_dispatch(tile)
        halves: Sequence[TileTask] = getattr(task, "halves", (task,))
        for half in halves:
            if isinstance(half, MeshHalf):
                self._halves[half] = halves
            self._dispatched.setdefault((tile, id(half)), deque()).append(clock)

    def _step_dispatch(self, tile: int) -> Clock:
        line = self._line(tile, _DISPATCH)
        np.maximum(line.carried, self._issue[tile].popleft(), out=line.carried)
        line.end += 1
        return line.clock_at_end()

    def fenced(self, ins: Instruction, tile: int) -> None:
        """The tile now knows of everything that the named engines did."""
        self._step_dispatch(tile)
        line = self._line(tile, _DISPATCH)
        for engine in TileEngine:
            if ins["engines"] >> engine & 1:
                self._join(line.carried, self._line(tile, engine))
                if engine >= TileEngine.MESH_NORTH:
                    self._join(line.carried, self._line(tile, len(TileEngine) + engine - TileEngine.MESH_NORTH))
        clock = line.clock_at_end()
        for counter in range(len(TileCounter)):
            if ins["reset"] >> counter & 1:
                history = self._tile_counters[tile][counter]
                self._check_reset(history, clock, f"counter {TileCounter(counter).name} of tile {tile}", ins)
                self._tile_counters[tile][counter] = CounterHistory(ins["value"], clock)
        if ins["notify"]:
            self._notified[tile] = clock

    def _join(self, clock: Clock, line: Timeline) -> None:
        np.maximum(clock, line.carried, out=clock)
        clock[line.index] = max(clock[line.index], line.end)

    def _check_reset(self, history: CounterHistory, clock: Clock, name: str, ins: Instruction) -> None:
        """Every event that was counted must be certain before the counter is set."""
        lasts = {part.timeline.index: part for part in history.parts}
        for part in lasts.values():
            if clock[part.timeline.index] < part.positions[-1]:
                self._report("counter", f"{ins.name} at {ins.offset:#x} sets {name} while events may still come", ins)

    def scalar_fenced(self, ins: Instruction) -> None:
        """The scalar core now knows of the tiles that notified it, of counters and of its engines."""
        core = self._core
        known = core.carried
        if ins["wait_tiles"]:
            for tile in tiles_of(ins["notified"]):
                if tile in self._notified:
                    np.maximum(known, self._notified.pop(tile), out=known)
        for i in range(len(ScalarCounter)):
            if ins[f"wait{i}.enable"]:
                history = self._scalar_counters[i]
                self._learn(known, history, history.current)
        engines = ins["engines"]
        waited = ([*_SCALAR_QUEUES[:2]] if engines >> 2 & 1 else []) + (["pop"] if engines else [])
        for queue in waited + (["outfeed"] if engines >> 3 & 3 else []):
            self._join(known, self._scalar_line(queue))
        clock = self._step_core()
        for i in range(len(ScalarCounter)):
            if ins["reset"] >> i & 1:
                self._check_reset(self._scalar_counters[i], clock, f"scalar counter {ScalarCounter(i).name}", ins)
                self._scalar_counters[i] = CounterHistory(ins["value"], clock)

    def _learn(self, clock: Clock, history: CounterHistory, value: int) -> None:
        """Add what a counter value proves to a clock."""
        event = history.event(value)
        if event is None:
            if history.set_by is not None:
                np.maximum(clock, history.set_by, out=clock)
            return
        line, position = event
        np.maximum(clock, line.clock_after(position), out=clock)

    # -- engines of the tiles -----------------------------------------------------------------------

    def runs(self, task: TileTask, tiles: Sequence[int], start: int, stop: int) -> None:
        """Remember what lies where words from neighbours will be written."""
        self._narrow_before.clear()
        if isinstance(task, MeshHalf) and task.side:
            for tile in tiles:
                self._narrow_before[tile] = self._chip.narrow[tile].view(np.uint32)[task.words]

    def ran(self, task: TileTask, tiles: Sequence[int], start: int, stop: int) -> None:
        """Work through a range, piece by piece between the starts of blocks."""
        engine = engine_of(task)
        for tile in tiles:
            if start == 0:
                line = self._line(tile, engine)
                self._base[tile, task] = line.end
                waiting = self._dispatched[tile, id(task)]
                if isinstance(task, MeshHalf):
                    self._know_other_half(task, tile, line)
                np.maximum(line.carried, waiting.popleft(), out=line.carried)
        bounds = {start, stop}
        for gate in task.gates:
            bounds.update(gate.starts[(gate.starts > start) & (gate.starts < stop)].tolist())
        arrivals = self._arrivals(task, tiles, start, stop, bounds)
        order = sorted(bounds)
        for a, b in pairwise(order):
            self._segment(task, engine, tiles, a, b, arrivals)
        self.ledger.enter(task, tiles, accesses(task, start, stop), ends=stop == task.size)
        if stop == task.size and not isinstance(task, MeshHalf):
            for tile in tiles:
                del self._base[tile, task]

    def _know_other_half(self, task: MeshHalf, tile: int, line: Timeline) -> None:
        """A mesh instruction begins when both halves of the one before have ended."""
        other = self._line(tile, TileEngine.MESH_NORTH + task.bus if task.side else len(TileEngine) + task.bus)
        partner = next((half for half in self._halves[task] if half is not task), None)
        end = other.end if partner is None else self._base.get((tile, partner), other.end)
        np.maximum(line.carried, other.clock_after(end), out=line.carried)

    def _arrivals(self, task: TileTask, tiles: Sequence[int], start: int, stop: int,
                  bounds: set[int]) -> dict[int, list[_Arrival]]:
        """Take the packets of a range; segments also end where the sender changes."""
        arrivals: dict[int, list[_Arrival]] = {}
        for tile in tiles:
            if isinstance(task, RingReceive):
                queue = self._ring[task.ring][tile]
            elif isinstance(task, MeshHalf) and task.side and not task.ins["fill"]:
                queue = self._mesh[task.bus][tile]
            else:
                continue
            at = start
            arrivals[tile] = []
            for line, positions in queue.pop(stop - start):
                arrivals[tile].append((at, line, positions))
                bounds.add(at)
                at += len(positions)
        return arrivals

    def _segment(self, task: TileTask, engine: int, tiles: Sequence[int], a: int, b: int,
                 arrivals: dict[int, list[_Arrival]]) -> None:
        clocks = []
        for tile in tiles:
            line = self._line(tile, engine)
            clock = line.carried
            for gate in task.gates:
                block = gate.block(a)
                if a < gate.bounds[-1]:
                    history = self._tile_counters[tile][gate.counter]
                    wanted = unwrap(history.current, gate.count + gate.step * block)
                    self._learn(clock, history, wanted)
            arrival = _arrival_of(arrivals.get(tile), a)
            if arrival is not None:
                at, sender, positions = arrival
                np.maximum(clock, sender.clock_after(positions[a - at]), out=clock)
            clock[line.index] = line.end
            clock = clock.copy()
            clocks.append(clock)
            base = self._base[tile, task]
            line.extend(clock, base + a, base + b, task.ins)
            self._departures(task, tile, line, base, a, b)
            if arrival is not None:
                np.maximum(line.carried, sender.clock_after(int(positions[b - at - 1])), out=line.carried)
        self._check_memory(task, engine, tiles, a, b, clocks)
        for tile in tiles:
            self._count(task, tile, self._line(tile, engine), self._base[tile, task], a, b)

    def _check_memory(self, task: TileTask, engine: int, tiles: Sequence[int], a: int, b: int,
                      clocks: list[Clock]) -> None:
        known = np.stack([clock[t * _TILE_TIMELINES:t * _TILE_TIMELINES + ENGINES]
                          for t, clock in zip(tiles, clocks, strict=True)])
        touched = accesses(task, a, b)
        if isinstance(task, NarrowToWide):
            touched[1] = self._changing(touched[1], tiles)
        bases = np.asarray([self._base[tile, task] for tile in tiles])
        for access in touched:
            for conflict in self._books[access.memory].conflicts(access, engine, tiles, known):
                self._conflict(task, access, conflict, clocks[list(tiles).index(conflict.tile)])
        for access in touched:
            self._books[access.memory].enter(access, engine, tiles, bases)
            if access.memory is Memory.WIDE:
                self._note_freshness(task, access, tiles)
            if access.writes and access.memory is Memory.WIDE:
                at = np.asarray(tiles)[:, None], access.units
                self._wide_before[at] = self._chip.wide[at]

    def _note_freshness(self, task: TileTask, access: Access, tiles: Sequence[int]) -> None:
        """A transfer that takes the same packet a second time has run too early, not promptly."""
        at = np.asarray(tiles)[:, None], access.distinct
        if access.writes:
            self._taken_by[at], self._stale[at] = 0, False
        elif isinstance(task, WideToNarrow):
            if task not in self._transfers:
                self._transfers[task] = next(self._next_transfer)
            taker = self._transfers[task]
            self._stale[at] |= (self._taken_by[at] != 0) & (self._taken_by[at] != taker)
            self._taken_by[at] = taker

    def _changing(self, access: Access, tiles: Sequence[int]) -> Access:
        """Leave out rows that keep their bytes: whoever reads them early or late reads the same."""
        at = np.asarray(tiles)[:, None], access.units
        changed = np.any(self._wide_before[at] != self._chip.wide[at], axis=(0, 2))
        self.verdict.same_bytes += int((~changed).sum())
        return Access(access.memory, True, access.units[changed], access.after[changed])

    def _conflict(self, task: TileTask, access: Access, conflict: Conflict, clock: Clock) -> None:
        line = self._line(conflict.tile, conflict.engine)
        if (self._refills_staging(task, conflict, line, clock)
                and all(self._may_have_run(line, int(p), clock) for p in np.unique(conflict.positions))):
            self.verdict.prompt_drains += 1
            return
        if isinstance(task, MeshHalf) and conflict.earlier_writes and self._writes_the_same(task, conflict):
            self.verdict.same_bytes += len(conflict.units)
            return
        earlier = line.instruction_at(int(conflict.positions[0]))
        kind = {(True, False): "reads", (True, True): "writes", (False, True): "overwrites"}[
            conflict.earlier_writes, access.writes]
        other = "writes" if conflict.earlier_writes else "reads"
        self._report("race", f"{task.ins.name} at {task.ins.offset:#x} (trace {task.ins['trace']}) {kind} "
                     f"{access.memory.label} {int(conflict.units[0]):#x} of tile {conflict.tile} and nothing makes it wait "
                     f"for {earlier.name} at {earlier.offset:#x} (trace {earlier['trace']}), which {other} it",
                     task.ins, earlier)

    def _refills_staging(self, task: TileTask, conflict: Conflict, line: Timeline, clock: Clock) -> bool:
        """Tell whether a row is overwritten that a transfer empties; a ring sender must be one row behind at most."""
        if isinstance(task, RingReceive):
            return (conflict.engine == TileEngine.WIDE_TO_NARROW
                    and not self._stale[conflict.tile, conflict.units].any())
        return (isinstance(task, NarrowToWide) and conflict.engine == TileEngine.RING_SEND
                and any(gate.counter == TileCounter.RING_WRITE for gate in task.gates)
                and int(conflict.positions.max()) <= int(clock[line.index]) + 1)

    def _writes_the_same(self, task: MeshHalf, conflict: Conflict) -> bool:
        """Tell whether words arrive where the same words lie: the order of their writers makes no difference."""
        before = self._narrow_before.get(conflict.tile)
        if before is None:
            return False
        now = self._chip.narrow[conflict.tile].view(np.uint32)
        concerned = np.isin(task.words, conflict.units)
        return bool(np.all(before[concerned] == now[task.words[concerned]]))

    def _may_have_run(self, line: Timeline, position: int, clock: Clock) -> bool:
        """Tell whether what a transfer waits for is certain, so that the timing rule applies."""
        needs = line.clock_after(position)
        needs[line.index] = 0
        return bool(np.all(needs <= clock))

    def _departures(self, task: TileTask, tile: int, line: Timeline, base: int, a: int, b: int) -> None:
        positions = range(base + a + 1, base + b + 1)
        if isinstance(task, RingSend):
            for receiver in task.receivers:
                self._send(self._ring[task.ins["ring"]][receiver], line, positions, task.ins)
            if task.ins["to_scalar"]:
                self._send(self._to_scalar, line, positions, task.ins)
        elif isinstance(task, MeshHalf) and not task.side:
            target = neighbour(tile, task.bus)
            if target is not None:
                self._mesh[task.bus][target].push(line, positions)

    def _send(self, queue: SentPackets[Timeline], line: Timeline, positions: Sequence[int], ins: Instruction) -> None:
        """Put packets on a queue; their order among senders must be certain."""
        last = queue.last
        if last is not None and last[0] is not line and not self._follows(line, positions[0], last, ins):
            earlier = last[0].instruction_at(last[1])
            self._report("packet order", f"packets of {ins.name} at {ins.offset:#x} may come before those of "
                         f"{earlier.name} at {earlier.offset:#x}", ins, earlier)
        queue.push(line, positions)

    def _follows(self, line: Timeline, position: int, last: tuple[Timeline, int], ins: Instruction) -> bool:
        """Tell whether a sender certainly comes after the one before."""
        clock = line.clock_after(position)
        sender, sent = last
        if ins.name != "pop":
            return bool(clock[sender.index] >= sent)
        if clock[sender.index] >= sent - RELAY_SLACK:
            return True
        asked = bisect_right(self._parameters_asked, int(clock[_CORE]))
        if asked and sender.clock_after(sent)[_CORE] < self._parameters_asked[asked - 1]:
            self.verdict.host_latency += 1
            return True
        return False

    def _count(self, task: TileTask, tile: int, line: Timeline, base: int, a: int, b: int) -> None:
        """Raise counters."""
        for signal in task.signals:
            i, j = signal.events(a, b)
            if j > i:
                part = Contribution(line, base + signal.ends[i:j])
                if signal.everywhere:
                    self._count_everywhere(signal.counter, part, task.ins)
                else:
                    self._tile_counters[tile][signal.counter].add(part)

    def _count_everywhere(self, counter: int, part: Contribution, ins: Instruction) -> None:
        """Raise a counter of ring producers, whose events must have a certain order."""
        ring = int(counter == TileCounter.RING_PRODUCER_B)
        clock = part.timeline.clock_after(int(part.positions[0]))
        last = self._turns[ring]
        if (last is not None and last[0] is not part.timeline
                and not self._follows(part.timeline, int(part.positions[0]), last, ins)):
            self._report("counter", f"{ins.name} at {ins.offset:#x} does not wait for its turn on the ring", ins)
        self._turns[ring] = (part.timeline, int(part.positions[-1]))
        twin = self._scalar_counters[_PRODUCERS[TileCounter(counter)]]
        for tile in range(TILES):
            history = self._tile_counters[tile][counter]
            self._check_set_before(history, clock, ins)
            history.add(part)
        self._check_set_before(twin, clock, ins)
        twin.add(part)

    def _check_set_before(self, history: CounterHistory, clock: Clock, ins: Instruction) -> None:
        if history.set_by is not None and np.any(clock < history.set_by):
            self._report("counter", f"{ins.name} at {ins.offset:#x} may raise a ring producer counter before it is set", ins)

    # -- engines of the scalar core -----------------------------------------------------------------

    def queued(self, task: ScalarTask, queue: str) -> None:
        """Remember what the scalar core knew."""
        self._queued[id(task)] = self._step_core()
        self._queue_of[id(task)] = self._scalar_line(queue)
        if queue == "infeed0":
            self._parameters_asked.append(self._core.end)

    def ran_scalar(self, task: ScalarTask, start: int, stop: int) -> None:
        """Work through a range as one segment; FIFO entries are checked one by one."""
        line = self._queue_of[id(task)]
        if start == 0:
            np.maximum(line.carried, self._queued.pop(id(task)), out=line.carried)
        base = line.end - start
        clock = line.carried
        if isinstance(task, Outfeed):
            self._take(task, line, start, stop)
        for gate in task.gates:
            block = gate.block(start)
            history = self._scalar_counters[gate.counter]
            self._learn(clock, history, unwrap(history.current, gate.count + gate.step * block))
        clock[line.index] = line.end
        clock = clock.copy()
        line.extend(clock, base + start, base + stop, task.ins)
        self._check_fifo(task, line, clock, base, start, stop)
        if isinstance(task, Pop):
            if task.packet != WIDE_ROW_BYTES or task.size * FIFO_BYTES[task.source] % task.packet:
                self.ledger.unwritten = True
            self._packets_of(task, line, base, start, stop)
        for signal in task.signals:
            i, j = signal.events(start, stop)
            if j > i:
                self._scalar_counters[signal.counter].add(Contribution(line, base + signal.ends[i:j]))

    def _packets_of(self, task: Pop, line: Timeline, base: int, start: int, stop: int) -> None:
        """Send what the machine sent: whole packets, and the short last one."""
        sent = (base + task.packets(start, stop)).tolist()
        if sent:
            for receiver in task.receivers:
                self._send(self._ring[task.ins["ring"]][receiver], line, sent, task.ins)
        if task.producer is not None:
            i, j = task.producer.events(start, stop)
            if j > i:
                self._count_everywhere(task.producer.counter, Contribution(line, base + task.producer.ends[i:j]), task.ins)

    def _take(self, task: Outfeed, line: Timeline, start: int, stop: int) -> None:
        """Outfeed: what it takes was sent."""
        packets = -(-stop * task.unit // WIDE_ROW_BYTES) - -(-start * task.unit // WIDE_ROW_BYTES)
        for sender, positions in self._to_scalar.pop(packets):
            np.maximum(line.carried, sender.clock_after(positions[-1]), out=line.carried)

    def _check_fifo(self, task: ScalarTask, line: Timeline, clock: Clock, base: int, start: int, stop: int) -> None:
        """No entry is read before it is filled, or filled before it is read."""
        if isinstance(task, Infeed):
            fifo, writes = 0 if task.stream == 0 else 1, True
        elif isinstance(task, Pop):
            fifo, writes = task.source, False
        elif isinstance(task, Outfeed) and task.to_fifo:
            fifo, writes = 2, True
        else:
            return
        entries = FIFO_ENTRIES[fifo]
        books = self._fifo_reads if writes else self._fifo_writes
        other = books.setdefault(fifo, np.zeros(entries, np.int64))
        mine = (self._fifo_writes if writes else self._fifo_reads).setdefault(fifo, np.zeros(entries, np.int64))
        partner = self._scalar_line("pop" if writes else ("infeed0", "infeed1", "outfeed")[fifo])
        at = task.addresses[start:stop] % entries
        known = np.full(stop - start, clock[partner.index])
        for gate in task.gates:
            history = self._scalar_counters[gate.counter]
            blocks = np.searchsorted(gate.starts, np.arange(start, stop), "right") - 1
            first = unwrap(history.current, gate.count + gate.step * int(blocks[-1]))
            wanted = first - gate.step * (blocks[-1] - blocks)
            known = np.maximum(known, history.positions_of(wanted, partner))
        # Of several touches of one entry in a range the engine's own order takes care.
        if np.any(other[at] > known):
            what = "fills an entry that may not be read yet" if writes else "reads an entry that may not be filled yet"
            self._report("fifo", f"{task.ins.name} at {task.ins.offset:#x} {what}", task.ins)
        mine[at] = np.arange(base + start + 1, base + stop + 1)


def _describe(found: Displacement) -> str:
    reader, writer = (f"{ins.name} at {ins.offset:#x} (trace {ins['trace']})" for ins in (found.reader, found.writer))
    unit = f"{found.memory.label} {found.unit:#x} of tile {found.tile}"
    return f"{reader} {found.clue.format(unit=unit, writer=writer)}: one of them is one unit off"


def _arrival_of(arrivals: list[_Arrival] | None, position: int) -> _Arrival | None:
    """Return what arrives at a position; segments end where the sender changes."""
    return arrivals[bisect_right(arrivals, position, key=itemgetter(0)) - 1] if arrivals else None
