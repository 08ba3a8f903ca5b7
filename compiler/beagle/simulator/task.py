"""What an engine does with one instruction: positions, gates, signals.

Every engine instruction is a sequence of positions 0..size. Gates (watches) bound how far it may
run; running a range moves data; passing the end of a block raises counters (signals).
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from compiler.beagle.isa import Instruction
from compiler.beagle.isa.counters import TileCounter
from compiler.beagle.simulator.errors import SimulationError
from compiler.beagle.simulator.state import Chip
from compiler.beagle.simulator.walk import Nest

Ints = npt.NDArray[np.int64]


def s16(value: int) -> int:
    """Wrap to a signed 16-bit number: how the chip compares counters."""
    return ((value + 0x8000) & 0xFFFF) - 0x8000


def unwrap(counter: int, wanted: int) -> int:
    """Return the value that a comparison of a counter in 16 bits means."""
    return counter - s16(counter - wanted)


@dataclass(frozen=True)
class Gate:
    """A watch: block i may start when counter - (count + step * i) >= 0 in 16 bits.

    Attributes
    ----------
    starts:
        Position at which each block starts, and the size at the end.
    """

    counter: int
    count: int
    step: int
    starts: Ints

    @cached_property
    def bounds(self) -> list[int]:
        """``starts`` as a list: quicker to look up one by one."""
        bounds: list[int] = self.starts.tolist()
        return bounds

    def block(self, position: int) -> int:
        """Return the block in which a position lies."""
        return bisect_right(self.bounds, position) - 1

    def allowed(self, position: int, counter: int) -> int:
        """Return the position up to which the gate is open."""
        bounds = self.bounds
        blocks = len(bounds) - 1
        block = bisect_left(bounds, position)
        if block >= blocks:
            return bounds[-1]
        ahead = s16(counter - (self.count + self.step * block))
        if ahead < 0:
            return bounds[block]
        more = ahead // self.step + 1 if self.step > 0 else blocks
        return bounds[min(block + more, blocks)]


@dataclass(frozen=True)
class Signal:
    """Counters rise by one at each of ``ends`` (positions)."""

    counter: int
    ends: Ints
    everywhere: bool = False

    @cached_property
    def places(self) -> list[int]:
        """``ends`` as a list: quicker to look up one by one."""
        places: list[int] = self.ends.tolist()
        return places

    def events(self, before: int, after: int) -> tuple[int, int]:
        """First event behind ``before`` and first one behind ``after``."""
        return bisect_right(self.places, before), bisect_right(self.places, after)

    def count(self, before: int, after: int) -> int:
        """Events between two positions."""
        first, last = self.events(before, after)
        return last - first


class TileTask:
    """One tile instruction (or half of one) on the tiles of its mask.

    Attributes
    ----------
    engine:
        Queue it belongs to.
    size:
        Positions.
    done:
        Position reached on each tile, shape (16,).
    """

    engine: int
    size: int
    gates: tuple[Gate, ...] = ()
    signals: tuple[Signal, ...] = ()

    def __init__(self, ins: Instruction) -> None:
        self.ins = ins
        self.done = [0] * 16

    def opened(self, at: int, counters: Iterable[int]) -> int:
        """Position up to which the gates are open for a tile that stands at ``at``, given what each gate counts."""
        allowed = self.size
        for gate, counter in zip(self.gates, counters, strict=True):
            allowed = min(allowed, gate.allowed(at, counter))
            if allowed <= at:
                return at
        return allowed

    def limits(self, chip: Chip, tiles: Sequence[int]) -> list[int]:
        """Positions up to which tiles may run now; the gates of tiles that stand alike are looked at once."""
        columns = [chip.counters[:, gate.counter].tolist() for gate in self.gates]
        known: dict[tuple[int, ...], int] = {}
        limits = []
        for tile in tiles:
            at = self.done[tile]
            counters = [column[tile] for column in columns]
            key = (at, *counters)
            limit = known.get(key)
            if limit is None:
                limit = known[key] = self.opened(at, counters)
            limits.append(self.reach(chip, tile, limit) if limit > at else at)
        return limits

    def reach(self, chip: Chip, tile: int, limit: int) -> int:
        """Position up to which a tile may run for other reasons than gates, which allow ``limit``."""
        return limit

    def advance(self, chip: Chip, tiles: list[int]) -> bool:
        """Run every tile as far as it can; tiles that can run the same range run together."""
        tiles = sorted(tiles)
        ranges: dict[tuple[int, int], list[int]] = {}
        for tile, stop in zip(tiles, self.limits(chip, tiles), strict=True):
            if stop > self.done[tile]:
                ranges.setdefault((self.done[tile], stop), []).append(tile)
        for (start, stop), group in ranges.items():
            if chip.observer is not None:
                chip.observer.runs(self, group, start, stop)
            self.run(chip, group, start, stop)
            if chip.observer is not None:
                chip.observer.ran(self, group, start, stop)
            for tile in group:
                self.done[tile] = stop
            self.raise_signals(chip, group, start, stop)
        return bool(ranges)

    def raise_signals(self, chip: Chip, tiles: list[int], start: int, stop: int) -> None:
        """Raise the counters whose blocks ended in a range that ran on some tiles."""
        for signal in self.signals:
            events = signal.count(start, stop)
            if events and signal.everywhere:
                chip.count_everywhere(signal.counter, events * len(tiles))
            elif events:
                chip.counters[tiles, signal.counter] += events

    def run(self, chip: Chip, tiles: list[int], start: int, stop: int) -> None:
        """Move data for a range of positions."""
        raise NotImplementedError

    def finished(self, tile: int) -> bool:
        """Tell whether the tile is through."""
        return self.done[tile] >= self.size

    def waits(self, chip: Chip, tile: int) -> str:
        """Say what the tile waits for (for the report of a deadlock)."""
        at = self.done[tile]
        for gate in self.gates:
            if gate.allowed(at, int(chip.counters[tile, gate.counter])) <= at:
                block = int(np.searchsorted(gate.starts, at, "left"))
                return (f"counter {gate.counter} to reach {gate.count + gate.step * block}, it is at "
                        f"{int(chip.counters[tile, gate.counter])}")
        return "data"


def watch_gates(ins: Instruction, starts: Mapping[int, Levels], counters: int = len(TileCounter)) -> tuple[Gate, ...]:
    """Gates of all valid watches; ``starts[side][level]`` gives block starts.

    Raises
    ------
    SimulationError
        When a watch names one of more than ``counters`` counters.
    """
    gates = []
    for name in ins.form.watches:
        if ins[f"{name}.valid"]:
            side = ins[f"{name}.side"] if f"{name}.side" in ins.form.by_name else 0
            counter = ins[f"{name}.counter"]
            if counter >= counters:
                raise SimulationError(f"{ins.name} at {ins.offset:#x} watches counter {counter}, there are {counters}")
            gates.append(Gate(counter, ins[f"{name}.count"], ins[f"{name}.step"], starts[side][ins[f"{name}.level"]]))
    return tuple(gates)


class Levels(dict[int, "Ints"]):
    """Block starts of a nest per level, followed by its size; worked out on demand.

    Parameters
    ----------
    positions:
        Position in the instruction of every element of the nest, and of its end.
    """

    def __init__(self, nest: Nest, positions: Ints | None = None) -> None:
        super().__init__()
        self._nest = nest
        self._positions = positions

    def __missing__(self, level: int) -> Ints:
        ends = self._nest.block_ends(level)
        starts = np.concatenate((np.zeros(1, np.int64), ends[:-1], np.asarray([self._nest.size])))
        self[level] = starts if self._positions is None else self._positions[starts]
        return self[level]
