"""Engines that move data: ring bus, wide and narrow memory, mesh."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from compiler.beagle.isa import Instruction
from compiler.beagle.isa.counters import TileCounter, TileEngine
from compiler.beagle.simulator.errors import SimulationError, UnsupportedInstruction
from compiler.beagle.simulator.state import SCALING_ENTRIES, Chip, check
from compiler.beagle.simulator.task import Ints, Levels, Signal, TileTask, watch_gates
from compiler.beagle.simulator.walk import Walk, is_active, walk_of
from compiler.facts import NARROW_BYTES, TILE_COLUMNS, TILE_ROWS, TILES, WIDE_ROW_BYTES, WIDE_ROWS

WORDS_PER_ROW = WIDE_ROW_BYTES // 4
NARROW_WORDS = NARROW_BYTES // 4


def tiles_of(mask: int) -> list[int]:
    """Tiles of a mask."""
    return [t for t in range(TILES) if mask >> t & 1]


def _generator(ins: Instruction, prefix: str) -> Walk:
    generator = next(g for g in ins.form.generators if g.prefix == prefix)
    return walk_of(ins, generator)


def _with_prefix(ins: Instruction, walk: Walk) -> tuple[Ints, Ints]:
    """Addresses in stream order, prefix included.

    Returns
    -------
    addresses:
        One per element of the stream.
    main_at:
        Shape (elements of the walk, 2): where the gate of each element stands (before a prefix),
        and where the element is in the stream.
    """
    n = walk.size
    gate, place = np.arange(n), np.arange(n)
    if not ins["prefix.enable"]:
        return walk.addresses, np.stack((gate, place), 1)
    ends = walk.nest.block_ends(ins["prefix.level"] + 1)
    starts = np.concatenate((np.zeros(1, np.int64), ends[:-1]))
    count, pointer = ins["prefix.count_m1"] + 1, ins["prefix.start"]
    parts = []
    for block, (a, b) in enumerate(zip(starts.tolist(), ends.tolist(), strict=True)):
        parts += [np.arange(pointer, pointer + count), walk.addresses[a:b]]
        pointer += ins["prefix.step"]
        if pointer > ins["prefix.last"]:
            pointer = ins["prefix.start"]
        gate[a:b] += (block + 1) * count
        place[a:b] += (block + 1) * count
        gate[a] -= count
    return np.concatenate(parts), np.stack((gate, place), 1)


def _previous(rows: Ints) -> Ints:
    """Return for every row the place where it stood last before, -1 where it is new."""
    order = np.argsort(rows, kind="stable")
    previous = np.full(len(rows), -1, np.int64)
    again = np.flatnonzero(rows[order[1:]] == rows[order[:-1]])
    previous[order[again + 1]] = order[again]
    return previous


class RingSend(TileTask):
    """T10: wide rows onto the ring bus. Positions are rows."""

    engine = TileEngine.RING_SEND

    def __init__(self, ins: Instruction) -> None:
        super().__init__(ins)
        walk = _generator(ins, "src")
        self.rows = check(walk.addresses, WIDE_ROWS, "wide memory")
        self.size = walk.size
        self.receivers = tiles_of(ins["receivers"])
        self.gates = watch_gates(ins, {0: (levels := Levels(walk.nest)), 1: levels})
        signals = []
        if ins["write.valid"]:
            signals.append(Signal(TileCounter.RING_WRITE, walk.nest.block_ends(ins["write.level"])))
        if ins["producer.valid"]:
            counter = TileCounter.RING_PRODUCER_B if ins["ring"] else TileCounter.RING_PRODUCER_A
            signals.append(Signal(counter, walk.nest.block_ends(ins["producer.level"]), True))
        self.signals = tuple(signals)

    def run(self, chip: Chip, tiles: list[int], start: int, stop: int) -> None:
        """Send rows to every receiver."""
        for tile in tiles:
            packets = chip.wide[tile, self.rows[start:stop]]
            for receiver in self.receivers:
                chip.ring[self.ins["ring"]][receiver].push(packets)
            if self.ins["to_scalar"]:
                chip.to_scalar.push(packets)


class RingReceive(TileTask):
    """T11, T12: packets of ring A or B into wide rows. Positions are packets, prefix rows included."""

    def __init__(self, ins: Instruction, ring: int) -> None:
        super().__init__(ins)
        self.ring = ring
        self.engine = TileEngine.RING_A if ring == 0 else TileEngine.RING_B
        walk = _generator(ins, "dst")
        self.rows, main_at = _with_prefix(ins, walk)
        check(self.rows, WIDE_ROWS, "wide memory")
        self.size = len(self.rows)
        self.previous = _previous(self.rows)
        self.reuses = bool(self.size) and int(self.previous.max()) >= 0
        before = np.append(main_at[:, 0], self.size)
        self.gates = watch_gates(ins, {0: (levels := Levels(walk.nest, before)), 1: levels})
        if ins["read.valid"]:
            counter = TileCounter.RING_READ_A if ring == 0 else TileCounter.RING_READ_B
            ends = walk.nest.block_ends(ins["read.level"])
            self.signals = (Signal(counter, main_at[ends - 1, 1] + 1),)

    def reach(self, chip: Chip, tile: int, limit: int) -> int:
        """Bound by the packets that have arrived, and to rows that differ: staging rows are reused."""
        at = self.done[tile]
        arrived = min(limit, at + chip.ring[self.ring][tile].length)
        if self.reuses and arrived - at > 1:
            again = np.flatnonzero(self.previous[at:arrived] >= at)
            if len(again):
                arrived = at + int(again[0])
        return arrived

    def run(self, chip: Chip, tiles: list[int], start: int, stop: int) -> None:
        """Write packets; a short packet leaves the other lanes of its row alone."""
        for tile in tiles:
            at = start
            for part in chip.ring[self.ring][tile].pop(stop - start):
                chip.wide[tile, self.rows[at:at + len(part)], :part.shape[1]] = part
                at += len(part)


class NarrowToWide(TileTask):
    """T13: narrow words packed into wide rows. Positions are rows."""

    engine = TileEngine.NARROW_TO_WIDE

    def __init__(self, ins: Instruction) -> None:
        super().__init__(ins)
        src = walk_of(ins, ins.form.generators[0], epilogue_on_dim1=ins["layout"] != 0)
        dst = _generator(ins, "dst")
        self.words = check(src.addresses, NARROW_WORDS, "narrow memory word")
        row, column = _pack(src, ins["flush_level"])
        self.size = int(row[-1]) + 1
        if dst.size < self.size:
            raise SimulationError(f"narrow_to_wide at {ins.offset:#x} fills {self.size} rows but names {dst.size}")
        self.size = min(self.size, dst.size)
        self.rows = check(dst.addresses, WIDE_ROWS, "wide memory")
        self.previous = _previous(self.rows)
        self.row, self.column = row, column
        self.first = np.searchsorted(row, np.arange(self.size + 1), "left")
        row_of_start = np.append(row, self.size)
        self.gates = watch_gates(ins, {0: Levels(src.nest, row_of_start), 1: Levels(dst.nest)})
        if ins["done.valid"]:
            self.signals = (Signal(TileCounter.NARROW_TO_WIDE, dst.nest.block_ends(ins["done.level"])),)

    def run(self, chip: Chip, tiles: list[int], start: int, stop: int) -> None:
        """Pack whole rows."""
        a, b = self.first[start], self.first[stop]
        words = chip.narrow.view(np.uint32)
        distinct = not np.any(self.previous[start:stop] >= start)
        for tile in tiles:
            packed = np.zeros((stop - start, WORDS_PER_ROW), np.uint32)
            packed[self.row[a:b] - start, self.column[a:b]] = words[tile, self.words[a:b]]
            used = int(self.column[a:b].max()) + 1
            data = _transpose(packed.view(np.uint8), self.ins["layout"], used)
            if distinct and data.shape[1] == WIDE_ROW_BYTES:
                chip.wide[tile, self.rows[start:stop]] = data
            else:
                for i in range(stop - start):
                    chip.wide[tile, self.rows[start + i], :data.shape[1]] = data[i]

    def reach(self, chip: Chip, tile: int, limit: int) -> int:
        """Advance row by row where rows are reused."""
        at = self.done[tile]
        return at + 1 if np.any(self.previous[at:limit] >= at) else limit


def _pack(walk: Walk, flush_level: int) -> tuple[Ints, Ints]:
    """Row and word column of every source word: rows close after 64 words and after blocks."""
    n = walk.size
    if flush_level == 0:
        return np.arange(n), np.zeros(n, np.int64)
    ends = walk.nest.block_ends(flush_level)
    starts = np.concatenate((np.zeros(1, np.int64), ends[:-1]))
    within = np.arange(n) - np.repeat(starts, ends - starts)
    rows_before = np.concatenate((np.zeros(1, np.int64), np.cumsum(-(-(ends - starts) // WORDS_PER_ROW))[:-1]))
    return np.repeat(rows_before, ends - starts) + within // WORDS_PER_ROW, within % WORDS_PER_ROW


def _transpose(rows: npt.NDArray[np.uint8], layout: int, words: int) -> npt.NDArray[np.uint8]:
    """Apply the layout of narrow-to-wide to packed rows, shape (rows, 256)."""
    n = len(rows)
    if layout == 0:
        return rows
    if layout == 1:
        grouped = rows.reshape(n, 16, 4, 4)
        return np.ascontiguousarray(grouped.swapaxes(2, 3)).reshape(n, WIDE_ROW_BYTES)
    if layout == 3:
        pairs = rows.view(np.uint16).reshape(n, 32, 2, 2)
        return np.ascontiguousarray(pairs.swapaxes(2, 3)).reshape(n, 128).view(np.uint8)
    raise UnsupportedInstruction(f"narrow_to_wide layout {layout}")


class WideToNarrow(TileTask):
    """T14: wide rows unpacked into narrow words or scaling entries. Positions are destination elements."""

    engine = TileEngine.WIDE_TO_NARROW

    def __init__(self, ins: Instruction) -> None:
        super().__init__(ins)
        src, dst = _generator(ins, "src"), _generator(ins, "dst")
        self.unit = 8 if ins["to_scaling"] else 4
        limit = SCALING_ENTRIES if ins["to_scaling"] else NARROW_WORDS
        self.targets, main_at = _with_prefix(ins, dst)
        check(self.targets, limit, "scaling register" if ins["to_scaling"] else "narrow memory word")
        self.size = len(self.targets)
        self.skipped = np.ones(self.size, bool)
        self.skipped[main_at[:, 1]] = False
        self.row, self.column = self._unpack(dst, main_at)
        self.rows = check(src.addresses, WIDE_ROWS, "wide memory")
        if int(self.row[-1]) >= src.size:
            rows = int(self.row[-1]) + 1
            raise SimulationError(f"wide_to_narrow at {ins.offset:#x} reads {rows} rows but names {src.size}")
        first_of_row = np.searchsorted(self.row, np.arange(src.size + 1), "left")
        before = np.append(main_at[:, 0], self.size)
        self.gates = watch_gates(ins, {0: Levels(src.nest, first_of_row), 1: Levels(dst.nest, before)})
        counter = TileCounter.WIDE_TO_SCALING if ins["to_scaling"] else TileCounter.WIDE_TO_NARROW
        if ins["done.valid"]:
            if ins["done.level"] == 0:
                ends = main_at[:, 1] + 1
            else:
                ends = main_at[dst.nest.block_ends(ins["done.level"]) - 1, 1] + 1
            self.signals = (Signal(counter, ends),)

    def _unpack(self, dst: Walk, main_at: Ints) -> tuple[Ints, Ints]:
        """Row and column (in units) of every element of the stream."""
        level = self.ins["drop_level"]
        ends = main_at[dst.nest.block_ends(level) - 1, 1] + 1 if level else np.asarray([self.size])
        ends = np.append(ends[:-1], self.size)
        starts = np.concatenate((np.zeros(1, np.int64), ends[:-1]))
        per_row = WIDE_ROW_BYTES // self.unit
        within = np.arange(self.size) - np.repeat(starts, ends - starts)
        rows_before = np.concatenate((np.zeros(1, np.int64), np.cumsum(-(-(ends - starts) // per_row))[:-1]))
        return np.repeat(rows_before, ends - starts) + within // per_row, within % per_row

    def run(self, chip: Chip, tiles: list[int], start: int, stop: int) -> None:
        """Copy elements; later ones win where the prefix and the block overlap."""
        rows, columns, targets = self.rows[self.row[start:stop]], self.column[start:stop], self.targets[start:stop]
        for tile in tiles:
            if self.ins["to_scaling"]:
                chip.scaling[tile, targets] = chip.wide[tile].reshape(WIDE_ROWS, -1, 8)[rows, columns]
            else:
                chip.narrow[tile].view(np.uint32)[targets] = chip.wide[tile].view(np.uint32)[rows, columns]


MESH_STEP = {0: (1, 0), 1: (0, -1), 2: (-1, 0), 3: (0, 1)}
"""Bus (receive from north, east, south, west) -> step of rows and columns from sender to receiver."""
_MESH_OUT = (TileCounter.MESH_SOUTH_OUT, TileCounter.MESH_WEST_OUT, TileCounter.MESH_NORTH_OUT,
             TileCounter.MESH_EAST_OUT)


def neighbour(tile: int, bus: int) -> int | None:
    """Tile that receives what ``tile`` sends on a bus, None beyond the edge."""
    row, column = divmod(tile, TILE_COLUMNS)
    dy, dx = MESH_STEP[bus]
    row, column = row + dy, column + dx
    return row * TILE_COLUMNS + column if 0 <= row < TILE_ROWS and 0 <= column < TILE_COLUMNS else None


class MeshHalf(TileTask):
    """One half of T15..T18: words sent, or words received (or filled). Positions are words."""

    def __init__(self, ins: Instruction, bus: int, side: int) -> None:
        super().__init__(ins)
        self.bus, self.side = bus, side
        self.fills = bool(ins["fill"])
        self.engine = TileEngine.MESH_NORTH + bus
        prefix = "dst" if side else "src"
        walk = _generator(ins, prefix)
        self.words = check(walk.addresses, NARROW_WORDS, "narrow memory word")
        self.size = walk.size
        levels = Levels(walk.nest)
        sides = [ins[f"{w}.side"] for w in ins.form.watches if ins[f"{w}.valid"]]
        gates = watch_gates(ins, {0: levels, 1: levels})
        self.gates = tuple(gate for gate, on in zip(gates, sides, strict=True) if on == side)
        name = "received" if side else "sent"
        counter = TileCounter.MESH_NORTH_IN + bus if side else _MESH_OUT[bus]
        if ins[f"{name}.valid"]:
            self.signals = (Signal(counter, walk.nest.block_ends(ins[f"{name}.level"])),)

    def reach(self, chip: Chip, tile: int, limit: int) -> int:
        """Receiving is bound by what has arrived."""
        if self.side and not self.fills:
            return min(limit, self.done[tile] + chip.links[self.bus][tile].length)
        return limit

    def run(self, chip: Chip, tiles: list[int], start: int, stop: int) -> None:
        """Move words."""
        memory = chip.narrow.view(np.uint32)
        at = self.words[start:stop]
        for tile in tiles:
            if not self.side:
                target = neighbour(tile, self.bus)
                if target is None:
                    raise SimulationError(f"{self.ins.name} at {self.ins.offset:#x}: tile {tile} sends beyond the edge")
                chip.links[self.bus][target].push(memory[tile, at].reshape(-1, 1).view(np.uint8))
            elif self.fills:
                memory[tile, at] = self.ins["fill_value"]
            else:
                parts = chip.links[self.bus][tile].pop(stop - start)
                memory[tile, at] = np.concatenate(parts).view(np.uint32).reshape(-1)


class Mesh(TileTask):
    """T15..T18: the active halves run side by side; the instruction ends with both."""

    def __init__(self, ins: Instruction, bus: int) -> None:
        super().__init__(ins)
        self.engine = TileEngine.MESH_NORTH + bus
        self.halves = [MeshHalf(ins, bus, side) for side, prefix in enumerate(("src", "dst")) if is_active(ins, prefix)]
        self.size = sum(half.size for half in self.halves)

    def advance(self, chip: Chip, tiles: list[int]) -> bool:
        """Advance both halves."""
        moved = [half.advance(chip, [t for t in tiles if not half.finished(t)]) for half in self.halves]
        return any(moved)

    def finished(self, tile: int) -> bool:
        """Tell whether both halves are through."""
        return all(half.finished(tile) for half in self.halves)

    def waits(self, chip: Chip, tile: int) -> str:
        """Say what the first unfinished half waits for."""
        return next((half.waits(chip, tile) for half in self.halves if not half.finished(tile)), "nothing")
