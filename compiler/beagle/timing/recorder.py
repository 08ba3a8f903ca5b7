"""Records what a run did and what each step had to wait for."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Mapping, Sequence
from itertools import pairwise

from compiler.beagle.isa import Instruction
from compiler.beagle.isa.counters import DmaTag, ScalarCounter, TileCounter, TileEngine
from compiler.beagle.simulator.machine import Machine
from compiler.beagle.simulator.moves import MeshHalf, RingReceive, RingSend, WideToNarrow, neighbour, tiles_of
from compiler.beagle.simulator.observer import Observer
from compiler.beagle.simulator.packets import SentPackets
from compiler.beagle.simulator.streams import FIFO_BYTES, Infeed, Outfeed, Pop, ScalarTask
from compiler.beagle.simulator.task import Gate, Signal, TileTask, unwrap
from compiler.beagle.simulator.tensor import TensorOp
from compiler.beagle.timing.books import Events, History, Line
from compiler.beagle.timing.trace import PARAMETER_INFEED, Point, Step, Trace, Work
from compiler.facts import ACTIVATION_WORD_BYTES, PARAMETER_LINE_BYTES, TILES, WIDE_ROW_BYTES
from compiler.package.model import Executable

_ENGINES = len(TileEngine) + 4
_SCALAR_LINES = ("scalar core", PARAMETER_INFEED, "infeed of activations", "pop", "outfeed", "to chip", "to host")
_QUEUE_LINE = {"infeed0": 1, "infeed1": 2, "pop": 3, "outfeed": 4}
_TO_CHIP, _TO_HOST = 5, 6
_FIRST_SCALAR = TILES * (_ENGINES + 1)
_WORK = {TileEngine.OP: Work.COMPUTE, TileEngine.RING_A: Work.RING_RECEIVE, TileEngine.RING_B: Work.RING_RECEIVE,
         TileEngine.RING_SEND: Work.RING_SEND, TileEngine.WIDE_TO_NARROW: Work.WIDE_TO_NARROW,
         TileEngine.NARROW_TO_WIDE: Work.NARROW_TO_WIDE}
Arrival = tuple[int, Line, Sequence[int]]
"""First position of a receiver that takes packets of one sender, and the sender's positions."""


class Recorder(Observer):
    """Watches one run of a machine and writes down its trace.

    Parameters
    ----------
    instruction_bytes:
        Length of the streams: they are the first transfer to the chip.
    """

    def __init__(self, instruction_bytes: int) -> None:
        names = [f"tile {t} {e.name.lower()}" for t in range(TILES)
                 for e in [*TileEngine, *(TileEngine(i) for i in range(6, 10))]]
        tiles = [[*names[t * _ENGINES:(t + 1) * _ENGINES], f"tile {t} dispatch"] for t in range(TILES)]
        self.trace = Trace(lines=[n for tile in tiles for n in tile] + list(_SCALAR_LINES))
        self._lines = [Line(i) for i in range(len(self.trace.lines))]
        self._core_steps = 0
        self._core = self._lines[_FIRST_SCALAR]
        self._issue: list[deque[Point | None]] = [deque() for _ in range(TILES)]
        self._ready: dict[tuple[int, int], deque[Point | None]] = {}
        self._queued: dict[int, tuple[Line, Point | None]] = {}
        self._notified: dict[int, Point] = {}
        self._tile_counters = [[History() for _ in TileCounter] for _ in range(TILES)]
        self._scalar_counters = [History() for _ in ScalarCounter]
        self._base: dict[tuple[int, TileTask], int] = {}
        self._ring = [[SentPackets[Line]() for _ in range(TILES)] for _ in range(2)]
        self._mesh = [[SentPackets[Line]() for _ in range(TILES)] for _ in range(4)]
        self._to_scalar = SentPackets[Line]()
        self._arrived = [0, 0]
        self._arrivals: list[Line] = [Line(-1), Line(-1)]
        self._instruction_bytes = instruction_bytes
        self._sending = self._transfer(_TO_CHIP, instruction_bytes)

    # -- steps ------------------------------------------------------------------------------------

    def _line(self, tile: int, engine: int) -> Line:
        return self._lines[tile * (_ENGINES + 1) + engine]

    def _add(self, line: Line, work: Work, amount: float, label: Instruction | None, begins: Sequence[Point | None],
             ends: Sequence[Point | None] = (), *, covers: int | None = None, first: bool = False) -> Point:
        step = Step(line.index, work, amount, label, [p for p in begins if p is not None],
                    [p for p in ends if p is not None], first)
        self.trace.steps.append(step)
        number = len(self.trace.steps) - 1
        line.add(number, int(amount) if covers is None else covers)
        return number, 1.0

    def _transfer(self, line: int, size: int) -> Point:
        work = Work.TO_CHIP if line == _TO_CHIP else Work.TO_HOST
        return self._add(self._lines[_FIRST_SCALAR + line], work, size, None, [self._core.last], covers=max(size, 1))

    # -- scalar core --------------------------------------------------------------------------------

    def loaded(self, program: Sequence[Instruction]) -> None:
        """Remember the program."""
        self.trace.program = tuple(program)

    def stepped(self) -> None:
        """Count instructions."""
        self._core_steps += 1

    def _core_point(self, *waits: Point | None, label: Instruction | None = None, fence: bool = False) -> Point:
        """Close the instructions counted so far into a step."""
        steps, self._core_steps = max(self._core_steps, 1), 0
        # The streams arrive while the core runs; it cannot be ahead of them.
        begins = [*waits, (self._sending[0], 0.0)]
        point = self._add(self._core, Work.SCALAR, steps, label, begins, covers=steps)
        return self._add(self._core, Work.FENCE, 1, label, ()) if fence else point

    def transferred(self, tag: int, size: int) -> None:
        """A host transfer: to the chip in the order of descriptors."""
        self._core_point()
        if tag in (DmaTag.INPUT, DmaTag.PARAMETERS):
            step = self._transfer(_TO_CHIP, size)
            self._arrivals[tag == DmaTag.INPUT].add(step[0], max(size, 1))

    def issued(self, item: Instruction | TileTask, tiles: Sequence[int]) -> None:
        """Remember when the scalar core handed it out."""
        point = self._core_point(label=item if isinstance(item, Instruction) else item.ins)
        for tile in tiles:
            self._issue[tile].append(point)

    def scalar_fenced(self, ins: Instruction) -> None:
        """The scalar core waits for tiles, counters and its engines."""
        waits: list[Point | None] = []
        if ins["wait_tiles"]:
            waits += [self._notified.pop(t) for t in tiles_of(ins["notified"]) if t in self._notified]
        for i in range(len(ScalarCounter)):
            if ins[f"wait{i}.enable"]:
                waits.append(self._scalar_counters[i].point(self._scalar_counters[i].current))
        if ins["engines"]:
            waits += [self._lines[_FIRST_SCALAR + i].last for i in range(1, 5)]
        point = self._core_point(*waits, label=ins, fence=True)
        for i in range(len(ScalarCounter)):
            if ins["reset"] >> i & 1:
                self._scalar_counters[i] = History(ins["value"], point)

    def queued(self, task: ScalarTask, queue: str) -> None:
        """Remember when the scalar core started one of its engines."""
        self._queued[id(task)] = (self._lines[_FIRST_SCALAR + _QUEUE_LINE[queue]], self._core_point(label=task.ins))

    def ran_scalar(self, task: ScalarTask, start: int, stop: int) -> None:
        """A piece of infeed, pop or outfeed."""
        line, asked = self._queued[id(task)]
        begins: list[Point | None] = [asked] if start == 0 else []
        ends: list[Point | None] = []
        for gate in task.gates:
            history = self._scalar_counters[gate.counter]
            begins.append(self._gate_point(gate, history, start))
            ends.append(self._gate_point(gate, history, stop - 1))
        for first, last in self._taken(task, start, stop):
            begins.append(first)
            ends.append(last)
        base = line.end
        work, amount = self._scalar_work(task, stop - start)
        self._add(line, work, amount, task.ins, begins, ends, covers=stop - start, first=start == 0)
        if isinstance(task, Pop):
            self._send_popped(task, line, base - start, start, stop)
        elif isinstance(task, Outfeed) and task.to_host:
            self._add(self._lines[_FIRST_SCALAR + _TO_HOST], Work.TO_HOST, amount, task.ins,
                      [(len(self.trace.steps) - 1, 0.0)], [(len(self.trace.steps) - 1, 1.0)])
        for signal in task.signals:
            i, j = signal.events(start, stop)
            if j > i:
                self._scalar_counters[signal.counter].add(Events(line, base - start, signal.places, i, j))

    def _scalar_work(self, task: ScalarTask, count: int) -> tuple[Work, float]:
        """Return kind of work and bytes."""
        if isinstance(task, Infeed):
            return Work.INFEED, count * (ACTIVATION_WORD_BYTES if task.stream else PARAMETER_LINE_BYTES)
        if isinstance(task, Pop):
            return Work.POP, count * FIFO_BYTES[task.source]
        assert isinstance(task, Outfeed)
        return Work.OUTFEED, count * task.unit

    def _taken(self, task: ScalarTask, start: int, stop: int) -> list[tuple[Point | None, Point | None]]:
        """Return when the first and the last of what a piece consumes have arrived."""
        if isinstance(task, Infeed):
            unit = ACTIVATION_WORD_BYTES if task.stream else PARAMETER_LINE_BYTES
            first = self._arrived[task.stream]
            self._arrived[task.stream] = last = first + (stop - start) * unit
            arrivals = self._arrivals[task.stream]
            return [(arrivals.point(min(first + unit, arrivals.end)), arrivals.point(min(last, arrivals.end)))]
        if isinstance(task, Outfeed):
            packets = -(-stop * task.unit // WIDE_ROW_BYTES) - -(-start * task.unit // WIDE_ROW_BYTES)
            return [(line.point(p[0]), line.point(p[-1])) for line, p in self._to_scalar.pop(packets)]
        return []

    def _send_popped(self, task: Pop, line: Line, base: int, start: int, stop: int) -> None:
        sent = (base + task.packets(start, stop)).tolist()
        for receiver in task.receivers:
            self._ring[task.ins["ring"]][receiver].push(line, sent)
        if task.producer is not None:
            self._count(task.producer, line, base, start, stop, 0)

    # -- tiles --------------------------------------------------------------------------------------

    def dispatched(self, task: TileTask, tile: int) -> None:
        """Remember when a tile could start an instruction."""
        line = self._line(tile, _ENGINES)
        point = self._add(line, Work.SCALAR, 1, None, [self._issue[tile].popleft()])
        for half in getattr(task, "halves", (task,)):
            self._ready.setdefault((tile, id(half)), deque()).append(point)

    def fenced(self, ins: Instruction, tile: int) -> None:
        """A tile waits for its engines."""
        waits: list[Point | None] = [self._issue[tile].popleft()]
        for engine in TileEngine:
            if ins["engines"] >> engine & 1:
                waits.append(self._line(tile, engine).last)
                if engine >= TileEngine.MESH_NORTH:
                    waits.append(self._line(tile, len(TileEngine) + engine - TileEngine.MESH_NORTH).last)
        point = self._add(self._line(tile, _ENGINES), Work.FENCE, 1, ins, waits)
        for counter in range(len(TileCounter)):
            if ins["reset"] >> counter & 1:
                self._tile_counters[tile][counter] = History(ins["value"], point)
        if ins["notify"]:
            self._notified[tile] = point

    def ran(self, task: TileTask, tiles: Sequence[int], start: int, stop: int) -> None:
        """A range of positions, cut where gates open or senders change."""
        bounds = {start, stop}
        for gate in task.gates:
            bounds.update(gate.bounds[bisect_right(gate.bounds, start):bisect_left(gate.bounds, stop)])
        for tile in tiles:
            arrivals = self._arriving(task, tile, start, stop)
            order = sorted(bounds | {at for at, _, _ in arrivals})
            for a, b in pairwise(order):
                self._piece(task, tile, a, b, arrivals)

    def _arriving(self, task: TileTask, tile: int, start: int, stop: int) -> list[Arrival]:
        if isinstance(task, RingReceive):
            queue = self._ring[task.ring][tile]
        elif isinstance(task, MeshHalf) and task.side and not task.ins["fill"]:
            queue = self._mesh[task.bus][tile]
        else:
            return []
        arrivals, at = [], start
        for line, positions in queue.pop(stop - start):
            arrivals.append((at, line, positions))
            at += len(positions)
        return arrivals

    def _piece(self, task: TileTask, tile: int, a: int, b: int, arrivals: Sequence[Arrival]) -> None:
        engine = len(TileEngine) + task.bus if isinstance(task, MeshHalf) and task.side else task.engine
        line = self._line(tile, engine)
        begins: list[Point | None] = []
        ends: list[Point | None] = []
        if a == 0:
            self._base[tile, task] = line.end
            begins.append(self._ready[tile, id(task)].popleft())
        for gate in task.gates:
            if a < gate.bounds[-1]:
                begins.append(self._gate_point(gate, self._tile_counters[tile][gate.counter], a))
        for at, sender, positions in arrivals:
            if at < b and at + len(positions) > a:
                begins.append(sender.point(positions[max(a, at) - at]))
                ends.append(sender.point(positions[min(b, at + len(positions)) - at - 1]))
        work, amount = self._tile_work(task, b - a)
        self._add(line, work, amount, task.ins, begins, ends, covers=b - a, first=a == 0)
        base = self._base[tile, task]
        positions = range(base + a + 1, base + b + 1)
        if isinstance(task, RingSend):
            for receiver in task.receivers:
                self._ring[task.ins["ring"]][receiver].push(line, positions)
            if task.ins["to_scalar"]:
                self._to_scalar.push(line, positions)
        elif isinstance(task, MeshHalf) and not task.side:
            target = neighbour(tile, task.bus)
            if target is not None:
                self._mesh[task.bus][target].push(line, positions)
        for signal in task.signals:
            self._count(signal, line, base, a, b, tile)

    def _tile_work(self, task: TileTask, count: int) -> tuple[Work, float]:
        """Return kind of work and elements: rows of the ring, beats of the compute engine, words elsewhere."""
        if isinstance(task, TensorOp):
            return Work.COMPUTE, count * task.beats / task.size
        if isinstance(task, MeshHalf):
            return Work.MESH, count
        if isinstance(task, WideToNarrow) and task.ins["to_scaling"]:
            return Work.WIDE_TO_NARROW, 2 * count
        return _WORK[TileEngine(task.engine)], count

    def _count(self, signal: Signal, line: Line, base: int, a: int, b: int, tile: int) -> None:
        i, j = signal.events(a, b)
        if j <= i:
            return
        events = Events(line, base, signal.places, i, j)
        if not signal.everywhere:
            self._tile_counters[tile][signal.counter].add(events)
            return
        for counters in self._tile_counters:
            counters[signal.counter].add(events)
        twin = ScalarCounter.PRODUCER_A if signal.counter == TileCounter.RING_PRODUCER_A else ScalarCounter.PRODUCER_B
        self._scalar_counters[twin].add(events)

    def _gate_point(self, gate: Gate, history: History, position: int) -> Point | None:
        block = min(gate.block(position), len(gate.bounds) - 2)
        wanted = gate.count + gate.step * max(block, 0)
        return history.point(unwrap(history.current, wanted))


def record(machine: Machine, executable: Executable, inputs: Mapping[str, bytes] | None = None) -> Trace:
    """Run an executable on a machine and return its trace.

    Parameters
    ----------
    machine:
        A chip on which the parameters are cached, if any are.
    inputs:
        Input buffers by layer name, in the layout of the host.
    """
    recorder = Recorder(sum(len(chunk.data) for chunk in executable.chunks))
    before, machine.chip.observer = machine.chip.observer, recorder
    try:
        machine.run(executable, inputs)
    finally:
        machine.chip.observer = before
    return recorder.trace
