"""Which memory an instruction reads and writes, and at which of its positions."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from compiler.beagle.isa.counters import TileEngine
from compiler.beagle.simulator.moves import MeshHalf, NarrowToWide, RingReceive, RingSend, WideToNarrow
from compiler.beagle.simulator.state import SCALING_ENTRIES
from compiler.beagle.simulator.task import TileTask
from compiler.beagle.simulator.tensor import TensorOp
from compiler.facts import NARROW_BYTES, WIDE_ROWS

Ints = npt.NDArray[np.int64]
MESH_SIDES = 4
ENGINES = len(TileEngine) + MESH_SIDES
"""Timelines of a tile: its engines, the receiving half of each mesh bus apart."""


class Memory(Enum):
    """A memory of a tile, with the number of its units (words, rows, entries)."""

    NARROW = ("narrow memory word", NARROW_BYTES // 4)
    WIDE = ("wide memory row", WIDE_ROWS)
    SCALING = ("scaling register", SCALING_ENTRIES)

    @property
    def label(self) -> str:
        """What a unit is called."""
        return self.value[0]

    @property
    def units(self) -> int:
        """Units per tile."""
        return self.value[1]


@dataclass(frozen=True)
class Access:
    """Units that a range of positions touches.

    Attributes
    ----------
    units:
        Unit numbers.
    after:
        For each: positions of the instruction that are complete once it has been touched; rising.
    """

    memory: Memory
    writes: bool
    units: Ints
    after: Ints

    @cached_property
    def distinct(self) -> Ints:
        """Units, each once, rising."""
        return distinct(self.units)


def distinct(values: npt.NDArray[np.signedinteger[Any]]) -> Ints:
    """Return each value once, rising; quicker than sorting, as units and numbers of instructions are dense."""
    if not values.size:
        return np.zeros(0, np.int64)
    low = int(values.min())
    seen = np.zeros(int(values.max()) - low + 1, bool)
    seen[values - low] = True
    return np.flatnonzero(seen) + low


def engine_of(task: TileTask) -> int:
    """Timeline of an instruction inside its tile."""
    if isinstance(task, MeshHalf) and task.side:
        return len(TileEngine) + task.bus
    return task.engine


def accesses(task: TileTask, start: int, stop: int) -> list[Access]:
    """Return what positions start..stop of an instruction touch.

    Partial sums come in the order in which they are touched: written, and then read again.
    """
    after = np.arange(start + 1, stop + 1)
    if isinstance(task, RingSend):
        return [Access(Memory.WIDE, False, task.rows[start:stop], after)]
    if isinstance(task, RingReceive):
        return [Access(Memory.WIDE, True, task.rows[start:stop], after)]
    if isinstance(task, NarrowToWide):
        a, b = task.first[start], task.first[stop]
        return [Access(Memory.NARROW, False, task.words[a:b], task.row[a:b] + 1),
                Access(Memory.WIDE, True, task.rows[start:stop], after)]
    if isinstance(task, WideToNarrow):
        memory = Memory.SCALING if task.ins["to_scaling"] else Memory.NARROW
        return [Access(Memory.WIDE, False, task.rows[task.row[start:stop]], after),
                Access(memory, True, task.targets[start:stop], after)]
    if isinstance(task, MeshHalf):
        return [Access(Memory.NARROW, bool(task.side), task.words[start:stop], after)]
    if isinstance(task, TensorOp):
        return _tensor_accesses(task, start, stop)
    return []


def _tensor_accesses(task: TensorOp, start: int, stop: int) -> list[Access]:
    after = np.arange(start + 1, stop + 1)
    found = []
    if task.uses_in:
        found += _bytes(task.a[start:stop], task.products * task.wide_in, after, writes=False)
    if task.reads_wide:
        found.append(Access(Memory.WIDE, False, task.c[start:stop] >> 2, after))
    first = int(np.searchsorted(task.run_ends, start, "right"))
    last = int(np.searchsorted(task.run_ends, stop, "right"))
    begun = int(np.searchsorted(task.run_starts, stop, "left"))
    visited = slice(first, begun)
    ends = np.minimum(task.run_ends[visited], stop)
    if task.partial:
        rows = task.d[task.run_starts[visited]] >> 2
        old = ~task.first_visit[visited]
        found += [Access(Memory.WIDE, True, rows, ends), Access(Memory.WIDE, False, rows[old], ends[old])]
    group = task.group[visited]
    if task.ins.values.get("zero_points_per_channel"):
        found.append(Access(Memory.WIDE, False, task.zero_point_rows(group), ends))
    done = slice(first, last)
    words = int(task.words_end[first - 1]) if first else 0
    counts = task.words[done]
    if last > first:
        at = np.repeat(task.run_ends[done], counts)
        found += _bytes(task.out[words:words + len(at)], 4, at, writes=True)
        found += _scaling(task, task.group[done][counts > 0], task.run_ends[done][counts > 0])
    return found


def _scaling(task: TensorOp, group: Ints, ends: Ints) -> list[Access]:
    """Scaling registers: 32 entries of two float32 multipliers or int32 biases per channel group."""
    ins = task.ins
    slot = (group & 1) * 32
    entries = -(-task.lanes // 2)
    found = []
    for used, base in (("use_multiplier", 0), ("use_bias", 64)):
        if ins.values.get(used):
            units = (base + slot[:, None] + np.arange(entries)).reshape(-1)
            found.append(Access(Memory.SCALING, False, units, np.repeat(ends, entries)))
    return found


def _bytes(at: Ints, width: int, after: Ints, *, writes: bool) -> list[Access]:
    """Words that hold bytes at..at+width."""
    first, last = at >> 2, (at + width - 1) >> 2
    found = [Access(Memory.NARROW, writes, first, after)]
    if np.any(last != first):
        found.append(Access(Memory.NARROW, writes, last, after))
    return found
