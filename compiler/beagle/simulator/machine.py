"""The whole chip: the scalar core issues, tiles dispatch, engines run."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from compiler.beagle.isa import Instruction, decode_stream
from compiler.beagle.isa.counters import TileEngine
from compiler.beagle.simulator.adversary import Adversary
from compiler.beagle.simulator.errors import (
    BudgetError,
    DeadlockError,
    SimulationError,
    UnsupportedInstruction,
)
from compiler.beagle.simulator.host import HostMemory
from compiler.beagle.simulator.moves import Mesh, NarrowToWide, RingReceive, RingSend, WideToNarrow, tiles_of
from compiler.beagle.simulator.observer import Observer
from compiler.beagle.simulator.resize import TensorResize
from compiler.beagle.simulator.scalar import ScalarCore, ScalarStep, scalar_step
from compiler.beagle.simulator.state import Chip
from compiler.beagle.simulator.streams import HostPort, Infeed, Outfeed, Pop, ScalarTask
from compiler.beagle.simulator.task import TileTask
from compiler.beagle.simulator.tensor import LoadTable, TensorOp
from compiler.facts import TILES
from compiler.package.model import Executable

MAX_SCALAR_STEPS = 5_000_000
"""Instructions that the scalar core may execute in one run."""
MAX_WORK = 1 << 32
"""Positions, summed over instructions and tiles, that may run; official programs stay below 2**27."""
_STEP_WORK = 16
"""Positions that one step of the scalar core counts as in a budget of work."""
_MESH = {"mesh_from_north": 0, "mesh_from_east": 1, "mesh_from_south": 2, "mesh_from_west": 3}
_RECEIVERS = (TileEngine.RING_A, TileEngine.RING_B)


@dataclass(frozen=True)
class RunResult:
    """What a run gave.

    Attributes
    ----------
    outputs:
        Output buffers by layer name, as the host sees them (tiled layout).
    interrupts:
        Interrupts raised.
    instructions:
        Instructions executed by the scalar core, loops counted.
    """

    outputs: dict[str, bytes]
    interrupts: tuple[int, ...]
    instructions: int
    findings: tuple[str, ...] = field(default=())


class Machine:
    """One Edge TPU chip.

    Parameter memory survives from run to run, as on the chip.

    Parameters
    ----------
    schedule_seed:
        None: engines advance in a fixed order, each as far as it can. A number: an adversary
        chooses who advances. Whatever the counters allow may happen on the chip, so a correct
        program gives the same outputs for every seed. The timing rule of wide-to-narrow transfers
        (docs/isa.md) holds in all of them.
    observer:
        Is told every step.
    noise_seed:
        A number: memories begin with random bytes instead of zeros.
    computes:
        False: nothing is computed, only what waits for what is found out.
    work:
        Budget of one run: positions of instructions, summed over tiles.
    """

    def __init__(self, schedule_seed: int | None = None, observer: Observer | None = None,
                 noise_seed: int | None = None, *, computes: bool = True, work: int = MAX_WORK) -> None:
        self.chip = Chip(None if noise_seed is None else np.random.default_rng(noise_seed))
        self.chip.observer = observer
        self.chip.computes = computes
        self.schedule_seed = schedule_seed
        self.work = work

    def run(self, executable: Executable, inputs: Mapping[str, bytes] | None = None) -> RunResult:
        """Run an executable to its end.

        Parameters
        ----------
        executable:
            Any executable of a package.
        inputs:
            Input buffers by layer name, in the layout of the host.

        Raises
        ------
        SimulationError
            When the program breaks a rule: deadlock, address out of bounds, malformed stream.
        """
        self.chip.reset()
        host = HostMemory(executable, inputs or {})
        program: list[Instruction] = []
        for chunk in executable.chunks:
            program += decode_stream(host.patch(chunk))
        if self.chip.observer is not None:
            self.chip.observer.loaded(program)
        run = _Run(self.chip, host, program, self.schedule_seed, self.work)
        run.go()
        return RunResult(host.outputs(), tuple(run.core.interrupts), run.steps, tuple(run.leftovers()))


class _Run:
    """One program on its way through the chip."""

    def __init__(self, chip: Chip, host: HostMemory, program: Sequence[Instruction], schedule_seed: int | None,
                 work: int) -> None:
        self.chip = chip
        self.work_left = self.work = work
        self.max_steps = min(MAX_SCALAR_STEPS, work // _STEP_WORK)
        self.observer = chip.observer
        self.adversary = None if schedule_seed is None else Adversary(schedule_seed)
        self.host = host
        self.program = program
        self.port = HostPort()
        self.positions = _positions(program)
        self.places = {word: index for index, word in enumerate(self.positions)}
        self.pc = 0
        self.steps = 0
        self.halted = False
        self.core = ScalarCore(host, self.port, chip.observer)
        self.scalar_steps: dict[int, ScalarStep] = {}
        self.loops: list[list[int]] = []
        self.pending: list[deque[Instruction | TileTask]] = [deque() for _ in range(TILES)]
        self.queues: list[list[deque[TileTask]]] = [[deque() for _ in TileEngine] for _ in range(TILES)]
        self.active: list[dict[TileTask, list[int]]] = [{} for _ in TileEngine]
        self.scalar_queues: dict[str, deque[ScalarTask]] = {"infeed0": deque(), "infeed1": deque(), "pop": deque(),
                                                            "outfeed": deque()}
        self.notified: set[int] = set()

    # -- main loop --------------------------------------------------------------------------------

    def go(self) -> None:
        """Run until the program has ended and everything is idle."""
        quiet = False
        while True:
            moved = self.run_scalar(quiet)
            moved = (self.adversary is not None and self.run_some(self.adversary)) or self.run_engines() or moved
            if moved:
                quiet = False
                continue
            if self.halted and self.idle():
                return
            if quiet:
                raise DeadlockError(self.describe())
            quiet = True

    def run_engines(self) -> bool:
        """One round: everything that can move does; packets are received last."""
        moved = False
        for name in self.scalar_queues:
            while self.run_scalar_queue(name):
                moved = True
        moved = self.drain() or moved
        for engine in (TileEngine.OP, TileEngine.NARROW_TO_WIDE, TileEngine.MESH_NORTH, TileEngine.MESH_EAST,
                       TileEngine.MESH_SOUTH, TileEngine.MESH_WEST, TileEngine.RING_SEND, TileEngine.RING_A,
                       TileEngine.RING_B):
            moved = self.run_engine(engine) or moved
        return moved

    def run_scalar_queue(self, name: str) -> bool:
        """Advance one engine of the scalar core."""
        queue = self.scalar_queues[name]
        if not queue or not queue[0].advance(self.chip, self.port):
            return False
        if queue[0].finished:
            queue.popleft()
        return True

    def drain(self) -> bool:
        """Finish what wide-to-narrow transfers can: the one timing rule that official programs need.

        It holds in every schedule and stands nowhere else: before packets are received, transfers that
        are ready have taken theirs out of the staging rows.
        """
        moved = False
        while self.run_engine(TileEngine.WIDE_TO_NARROW):
            moved = True
        return moved

    def run_some(self, adversary: Adversary) -> bool:
        """Let the adversary choose what moves, until it finds nothing."""
        moved = False
        for _ in range(adversary.random.randint(1, 6)):
            for engine in adversary.order():
                moved = self.run_engine(engine, adversary) or moved
            for queue in adversary.random.sample(list(self.scalar_queues), 2):
                moved = self.run_scalar_queue(queue) or moved
        return moved

    def run_engine(self, engine: int, adversary: Adversary | None = None) -> bool:
        """Advance the instructions at the head of one engine's queues, on all tiles or on some."""
        moved = False
        for task, waiting in list(self.active[engine].items()):
            if engine in _RECEIVERS:
                moved = self.drain() or moved
            tiles = list(waiting) if adversary is None else adversary.choose(engine, waiting)
            if tiles and task.advance(self.chip, tiles):
                moved = True
                done = [t for t in tiles if task.finished(t)]
                if done:
                    self.retire(engine, task, done)
        return moved

    def retire(self, engine: int, task: TileTask, tiles: list[int]) -> None:
        """Take a finished instruction off the queues; the next becomes active."""
        rest = [t for t in self.active[engine][task] if t not in tiles]
        if rest:
            self.active[engine][task] = rest
        else:
            del self.active[engine][task]
        for tile in tiles:
            queue = self.queues[tile][engine]
            queue.popleft()
            if queue:
                self.active[engine].setdefault(queue[0], []).append(tile)
            self.dispatch(tile)

    def dispatch(self, tile: int) -> None:
        """Move a tile's instructions into the queues of its engines, up to a fence that must wait."""
        pending = self.pending[tile]
        while pending:
            item = pending[0]
            if isinstance(item, Instruction):
                if not self.pass_fence(tile, item):
                    return
                pending.popleft()
                continue
            pending.popleft()
            if self.observer is not None:
                self.observer.dispatched(item, tile)
            queue = self.queues[tile][item.engine]
            queue.append(item)
            if len(queue) == 1:
                self.active[item.engine].setdefault(item, []).append(tile)

    def pass_fence(self, tile: int, ins: Instruction) -> bool:
        """Execute a tile fence if the engines it names are idle."""
        engines = ins["engines"]
        if any(self.queues[tile][e] for e in TileEngine if engines >> e & 1):
            return False
        if self.observer is not None:
            self.observer.fenced(ins, tile)
        for counter in range(19):
            if ins["reset"] >> counter & 1:
                self.chip.counters[tile, counter] = ins["value"]
        if ins["notify"]:
            self.notified.add(tile)
        return True

    def idle(self) -> bool:
        """Tell whether no instruction is waiting or running anywhere."""
        return not (any(self.pending) or any(self.active) or any(self.scalar_queues.values()))

    # -- scalar core --------------------------------------------------------------------------------

    def run_scalar(self, quiet: bool) -> bool:
        """Issue instructions until one must wait; ``quiet``: nothing else can move."""
        moved = False
        while not self.halted and self.pc < len(self.program):
            ins = self.program[self.pc]
            if not self.issue(ins, quiet):
                return moved
            moved = True
            quiet = False
            self.steps += 1
            if self.observer is not None:
                self.observer.stepped()
            if self.steps > self.max_steps:
                raise BudgetError(f"the scalar core has executed {self.max_steps} instructions and is not done")
            self.next()
        if self.pc >= len(self.program):
            self.halted = True
        return moved

    def halt(self) -> None:
        """End the chunk of the stream; the host hands the chunks over one after the other."""
        self.loops.clear()
        following = next((i for i in range(self.pc + 1, len(self.program)) if self.program[i].name == "begin"), None)
        if following is None:
            self.halted = True
        else:
            self.pc = following - 1

    def next(self) -> None:
        """Step to the next instruction, or back to the head of a loop."""
        self.pc += 1
        while self.loops and self.pc == self.loops[-1][1]:
            self.loops[-1][2] -= 1
            if self.loops[-1][2] > 0:
                self.pc = self.loops[-1][0]
                return
            self.loops.pop()

    def issue(self, ins: Instruction, quiet: bool) -> bool:
        """Execute or hand out one instruction; False when it has to wait."""
        if not ins.form.scalar:
            self.issue_tile(ins)
            return True
        name = ins.name
        if name == "scalar":
            return self.execute(ins)
        if ins["predicated"] and self.core.predicates[ins["predicate"]] != ins["sense"]:
            return True
        if name in ("begin", "end"):
            return True
        if name == "halt":
            self.halt()
            return True
        if name == "loop":
            if ins["iterations"] == 0:
                self.pc += ins["body"]
            else:
                self.loops.append([self.pc + 1, self.pc + 1 + ins["body"], ins["iterations"]])
            return True
        if name == "branch":
            self.branch(ins)
            return True
        if name == "scalar_fence":
            return self.fence(ins)
        if name == "infeed":
            self.start(f"infeed{ins['stream']}", Infeed(ins))
            return True
        if name == "pop":
            # In official programs packets of one pop are never mixed with those of earlier senders.
            if not quiet:
                return False
            self.start("pop", Pop(ins))
            return True
        if name == "outfeed":
            self.start("outfeed", Outfeed(ins))
            return True
        raise UnsupportedInstruction(f"{name} at {ins.offset:#x} is not decoded")

    def spend(self, ins: Instruction, work: int) -> None:
        """Take work from the budget.

        Raises
        ------
        BudgetError
            When it is used up.
        """
        self.work_left -= work
        if self.work_left < 0:
            raise BudgetError(f"{ins.name} at {ins.offset:#x} takes the program over its budget of {self.work} positions")

    def start(self, queue: str, task: ScalarTask) -> None:
        """Hand an instruction to one of the scalar core's engines."""
        self.spend(task.ins, task.size)
        self.scalar_queues[queue].append(task)
        if self.observer is not None:
            self.observer.queued(task, queue)

    def branch(self, ins: Instruction) -> None:
        """Jump, unless the condition does not hold."""
        if ins["conditional"] and self.core.predicates[ins["condition"]] != ins["condition_sense"]:
            return
        target = self.positions[self.pc] + ins["offset"]
        if target not in self.places:
            raise SimulationError(f"branch at {ins.offset:#x} jumps to {target:#x}, where no instruction begins")
        # next() steps over the branch itself.
        self.pc = self.places[target] - 1

    def issue_tile(self, ins: Instruction) -> None:
        """Hand a tile instruction to its tiles."""
        ins = self.resolved(ins)
        tiles = tiles_of(ins["tiles"])
        if ins.name == "tile_fence":
            if self.observer is not None:
                self.observer.issued(ins, tiles)
            for tile in tiles:
                self.pending[tile].append(ins)
                self.dispatch(tile)
            return
        for task in make_tasks(ins):
            self.spend(ins, task.size * len(tiles))
            if self.observer is not None:
                self.observer.issued(task, tiles)
            for tile in tiles:
                self.pending[tile].append(task)
        for tile in tiles:
            self.dispatch(tile)

    def resolved(self, ins: Instruction) -> Instruction:
        """Put the scalar registers that an instruction names into its fields."""
        values = {}
        if ins.values.get("tiles_from_register"):
            values["tiles"] = self.core.registers[ins["tiles_register"]] & (1 << TILES) - 1
        if ins.values.get("source_from_register"):
            values["src.start"] = self.core.registers[ins["source_register"]]
        return ins.with_values(values) if values else ins

    def fence(self, ins: Instruction) -> bool:
        """Execute a scalar fence if what it waits for has happened."""
        if ins["wait_tiles"] and not all(t in self.notified for t in tiles_of(ins["notified"])):
            return False
        for i in range(9):
            if ins[f"wait{i}.enable"] and self.chip.scalar_counters[i] & 0xFFFF != ins[f"wait{i}.value"]:
                return False
        engines = ins["engines"]
        if engines >> 2 & 1 and (self.scalar_queues["infeed0"] or self.scalar_queues["infeed1"]):
            return False
        # Which bits mean the two pops is not certain; official programs reset the pops' counters in
        # fences with bits 2 and 3 while packets are still to be sent, so these must wait for them.
        if engines and self.scalar_queues["pop"]:
            return False
        if engines >> 3 & 3 and self.scalar_queues["outfeed"]:
            return False
        if self.observer is not None:
            self.observer.scalar_fenced(ins)
        if ins["wait_tiles"]:
            self.notified -= set(tiles_of(ins["notified"]))
        for i in range(9):
            if ins["reset"] >> i & 1:
                self.chip.scalar_counters[i] = ins["value"]
        return True

    def execute(self, ins: Instruction) -> bool:
        """Execute a scalar instruction; False when it loads what an outfeed is still to bring."""
        step = self.scalar_steps.get(self.pc)
        if step is None:
            step = self.scalar_steps[self.pc] = scalar_step(ins)
        if step.predicate >= 0 and self.core.predicates[step.predicate] != step.sense:
            return True
        if step.port and self.scalar_queues["outfeed"] and not self.scalar_queues["outfeed"][-1].to_host:
            return False
        self.core.execute(step)
        return True

    # -- reports --------------------------------------------------------------------------------------

    def describe(self) -> str:
        """Say where everything stands (for the report of a deadlock)."""
        waits = []
        for engine in TileEngine:
            for task, tiles in self.active[engine].items():
                waits.append(f"{task.ins.name} at {task.ins.offset:#x} (trace {task.ins['trace']}) on tile {tiles[0]} "
                             f"waits for {task.waits(self.chip, tiles[0])}")
        for queue in self.scalar_queues.values():
            if queue:
                waits.append(f"{queue[0].ins.name} at {queue[0].ins.offset:#x} stands at {queue[0].done} of {queue[0].size}")
        if not self.halted and self.pc < len(self.program):
            ins = self.program[self.pc]
            waits.append(f"the scalar core waits in {ins.name} at {ins.offset:#x}, counters "
                         f"{self.chip.scalar_counters.tolist()}")
        return "deadlock: " + "; ".join(waits[:6])

    def leftovers(self) -> list[str]:
        """Data that nobody took."""
        found = []
        for ring, queues in zip("AB", self.chip.ring, strict=True):
            for tile, queue in enumerate(queues):
                if queue.length:
                    found.append(f"{queue.length} packets of ring {ring} were never received by tile {tile}")
        for bus, queues in enumerate(self.chip.links):
            for tile, queue in enumerate(queues):
                if queue.length:
                    found.append(f"{queue.length} words of mesh bus {bus} were never received by tile {tile}")
        for stream, arriving in zip(("parameters", "input"), self.port.arriving, strict=True):
            if arriving.length >= 8:
                found.append(f"{arriving.length} bytes of {stream} were never fed in")
        if self.port.outputs:
            found.append(f"{sum(map(len, self.port.outputs))} bytes of output were never written")
        return found


def make_tasks(ins: Instruction) -> list[TileTask]:
    """Turn a tile instruction into the tasks of its engines."""
    name = ins.name
    if name in _MESH:
        return [Mesh(ins, _MESH[name])]
    if name == "ring_send":
        return [RingSend(ins)]
    if name in ("ring_receive_a", "ring_receive_b"):
        return [RingReceive(ins, int(name.endswith("b")))]
    if name == "narrow_to_wide":
        return [NarrowToWide(ins)]
    if name == "wide_to_narrow":
        return [WideToNarrow(ins)]
    if name == "table":
        return [LoadTable(ins)]
    if name == "tensor_resize":
        return [TensorResize(ins)]
    return [TensorOp(ins)]


def _positions(program: Sequence[Instruction]) -> list[int]:
    """Word position of every instruction, counted over all streams."""
    positions, at = [], 0
    for ins in program:
        positions.append(at)
        at += ins.form.words
    return positions
