"""The ledger: who wrote what was read, and what nobody read.

Counters and clocks say nothing of an address that is one unit off: such a program gives the same
wrong result in every order. The ledger looks for the trace that it leaves. It knows, for every unit
of memory, which instruction wrote it last and whether anybody has read that since.

A reader and a writer are *displaced* when

- the reader takes what a transfer skipped: words in front of its blocks, which mean nothing;
- the reader takes a whole stretch of what was written but its first (or last) unit, and goes on by one
  unit beyond the other end, into contents older than everything else that it reads there; or
- a writer's first (or last) unit is never read, while one of its readers takes the unit beside the
  other end, whose contents are older than the writer; or
- a reader leaves out a unit that nobody reads, and takes one that another has use for (:mod:`~compiler.beagle.judge.gaps`).

A correct program has a use for what it computes and brings nothing in vain (but a single unit beside the partial
sums that an operation leaves in wide memory, as a SOFTMAX of up to four classes does), so a reader that needs
one unit less at one end does not need an older one at the other. Halos are no exception: what
neighbours send is newer than a tile's own results, and borders are filled on some tiles only.
Contents that are older and still wanted lie beside newer ones in many programs; it is the missing
unit at the opposite end that makes the difference. This is experience, not proof: findings of the
ledger are marked as *suspicions*.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

from compiler.beagle.isa import Instruction
from compiler.beagle.judge.accesses import Access, Memory, accesses, distinct
from compiler.beagle.judge.gaps import GapBook
from compiler.beagle.judge.pages import DOWN, EDGE, NOT_READ, UP, Flags, Page, Reading, Writing
from compiler.beagle.simulator.machine import make_tasks
from compiler.beagle.simulator.moves import WideToNarrow
from compiler.beagle.simulator.task import TileTask
from compiler.beagle.simulator.tensor import TensorOp
from compiler.facts import TILES

Ints = npt.NDArray[np.int64]
_BEFORE = -1
"""Writer of what earlier executables left."""
_OLDER = "reads {unit}, which is older than what {writer} wrote beside it, and leaves out a unit at the other end"
_SKIPPED = "reads {unit}, which {writer} skipped"
_LEFT_OUT = "leaves out {unit}, which {writer} wrote for nobody else, and takes what is another's at the other end"
_MOST_UNITS = 1 << 25
"""Units that the books of writers may hold; longer programs are not followed, to bound memory."""


@dataclass(frozen=True)
class Displacement:
    """A reader and a writer that seem to be one unit apart.

    Attributes
    ----------
    clue:
        What gives them away; ``{unit}`` and ``{writer}`` stand for the unit concerned and the writer.
    """

    clue: str
    memory: Memory
    reader: Instruction
    writer: Instruction
    tile: int
    unit: int


class Ledger:
    """Books of one run.

    Parameters
    ----------
    before:
        Wide rows that earlier executables wrote, shape (16, rows).

    Attributes
    ----------
    unwritten:
        Something was read that nothing wrote, or only part of some unit was written: that is not followed.
    followed:
        False when the program was too long: then no displacements are found.
    """

    def __init__(self, before: Flags | None = None) -> None:
        self.unwritten = False
        self.followed = True
        self._kept = 0
        self._pages = {memory: Page.empty(memory) for memory in Memory}
        if before is not None:
            self._pages[Memory.WIDE].writer[:, EDGE:-EDGE][before] = _BEFORE
        self._writes = 0
        # Tasks hold all their addresses, so that they are not kept once they have ended.
        self._instructions: list[Instruction] = []
        self._numbers: WeakKeyDictionary[TileTask, int] = WeakKeyDictionary()
        self._readings: dict[tuple[int, Memory], Reading] = {}
        self._spare: dict[Memory, list[Reading]] = {memory: [] for memory in Memory}
        self._writings: dict[tuple[int, Memory], Writing] = defaultdict(Writing)
        self._readers: dict[tuple[int, Memory], set[int]] = defaultdict(set)
        self._tiles_of: dict[tuple[int, Memory], int] = defaultdict(int)
        self._shifted: dict[tuple[int, Memory, int], list[Displacement]] = defaultdict(list)
        self._gaps = GapBook()
        self._rubbish: dict[tuple[int, int], Displacement] = {}

    @property
    def wide_rows_written(self) -> Flags:
        """Wide rows written by this run or before it, shape (16, rows)."""
        return np.asarray(self._pages[Memory.WIDE].writer[:, EDGE:-EDGE] != 0)

    def enter(self, task: TileTask, tiles: Sequence[int], touched: Sequence[Access], *, ends: bool) -> None:
        """Write down what a range of positions touched; ``ends``: the last one of these tiles."""
        if isinstance(task, TensorOp) and np.any(task.out & 3):
            self.unwritten = True
        if self._kept > _MOST_UNITS:
            self._stop_following()
        if not self.followed:
            self._only_written(task, tiles, touched)
            return
        number = self._numbers.get(task)
        if number is None:
            self._instructions.append(task.ins)
            number = self._numbers[task] = len(self._instructions)
        for access in _in_order(task, touched):
            if access.units.size:
                (self._write if access.writes else self._read)(number, tiles, access)
        if isinstance(task, WideToNarrow) and task.ins["prefix.enable"]:
            self._skip(task, tiles, touched[1])
        if ends:
            for memory in Memory:
                self._close(number, memory, tiles)

    def _stop_following(self) -> None:
        """Forget who wrote and read; from here on only what was written counts."""
        self.followed, self._kept = False, 0
        for books in (self._numbers, self._readings, self._writings, self._readers, self._tiles_of, self._shifted):
            books.clear()
        self._instructions.clear()
        self._gaps.clear()

    def _only_written(self, task: TileTask, tiles: Sequence[int], touched: Sequence[Access]) -> None:
        rows = np.asarray(tiles)[:, None]
        for access in _in_order(task, touched):
            units = access.units + EDGE
            if access.writes:
                self._pages[access.memory].writer[rows, units] = 1
            else:
                self.unwritten = self.unwritten or not self._pages[access.memory].writer[rows, units].all()

    def displacements(self) -> list[Displacement]:
        """Return what seems to be one unit off, at the end of a run; nothing when it was not followed."""
        if not self.followed:
            return []
        self._bury()
        found = list(self._rubbish.values())
        found += [group[0] for (number, memory, _), group in self._shifted.items()
                 if len(group) == self._tiles_of[number, memory]]
        for (number, memory), writing in self._writings.items():
            if number > 0 and writing.dead and any(writing.beside.values()):
                found += self._unused_edges(number, memory, writing)
        for (number, memory, _), gap in self._gaps.displaced(self._tiles_of, self._writings):
            found.append(self._between(_LEFT_OUT, memory, number, int(gap.owner[0]), gap.tile, int(gap.left_out[0])))
        return found

    # -- entries ------------------------------------------------------------------------------------

    def _read(self, number: int, tiles: Sequence[int], access: Access) -> None:
        page = self._pages[access.memory]
        units = access.distinct + EDGE
        rows = np.asarray(tiles)[:, None]
        writers = page.writer[rows, units]
        self.unwritten = self.unwritten or not writers.all()
        for writer in distinct(writers[writers > 0]).tolist():
            self._readers[writer, access.memory].add(number)
        reading = self._reading(number, access.memory)
        reading.low, reading.high = min(reading.low, int(units[0])), max(reading.high, int(units[-1]))
        at = np.nonzero(writers != number)
        reading.seen[rows[at[0], 0], units[at[1]]] = writers[at]
        first = page.reader[rows, units]
        consumed = (writers <= 0) | (first != 0)
        if page.skipped[rows, units].any():
            self._read_rubbish(number, access.memory, tiles, units)
        for direction in (UP, DOWN):
            near, far = page.writer[rows, units - direction], page.writer[rows, units - 2 * direction]
            same = near == writers
            reading.beside[direction][rows, units] = same & (writers != 0) & ~page.skipped[rows, units - direction]
            reading.inside[direction][rows, units] = same & (far != writers)
            # Of two instructions the later one in the program is the newer; rows of a staging area are
            # written while earlier transfers still go on, so there it must have written later, too.
            newer = (near > writers) & (near != number)
            if access.memory is Memory.WIDE:
                newer &= page.time[rows, units - direction] > page.time[rows, units]
            at = np.nonzero(newer)
            owners = near[at]
            for owner in distinct(owners).tolist():
                i, j = (index[owners == owner] for index in at)
                self._kept += 3 * i.size
                self._writings[owner, access.memory].beside[direction].append(
                    (number, rows[i, 0].astype(np.int32), (units[j] - direction).astype(np.int32), consumed[i, j]))
        page.shared[rows, units] |= (first != 0) & (first != number)
        page.reader[rows, units] = np.where(first == 0, number, first)

    def _write(self, number: int, tiles: Sequence[int], access: Access) -> None:
        page = self._pages[access.memory]
        units = access.distinct + EDGE
        rows = np.asarray(tiles)[:, None]
        self._lose(access.memory, np.asarray(tiles), units, number)
        self._writes += 1
        page.writer[rows, units] = number
        page.time[rows, units] = self._writes
        page.reader[rows, units] = 0
        page.shared[rows, units] = page.watched[rows, units] = page.skipped[rows, units] = False
        self._writings[number, access.memory].pieces.append((tiles, units.astype(np.int32)))
        self._kept += units.size

    def _skip(self, task: WideToNarrow, tiles: Sequence[int], access: Access) -> None:
        """Note what a transfer skipped, and did not write behind that."""
        units, last = np.unique(access.units[::-1], return_index=True)
        skipped = task.skipped[access.after[::-1][last] - 1]
        self._pages[access.memory].skipped[np.asarray(tiles)[:, None], units + EDGE] = skipped

    def _read_rubbish(self, number: int, memory: Memory, tiles: Sequence[int], units: Ints) -> None:
        page = self._pages[memory]
        for tile in tiles:
            for unit in units[page.skipped[tile, units]].tolist():
                writer = int(page.writer[tile, unit])
                self._rubbish.setdefault((number, writer), self._between(_SKIPPED, memory, number, writer, tile, unit))

    def _between(self, clue: str, memory: Memory, reader: int, writer: int, tile: int, unit: int) -> Displacement:
        """Contents of earlier executables have no instruction that could be named beside their reader."""
        wrote = self._instructions[(writer if writer > 0 else reader) - 1]
        return Displacement(clue, memory, self._instructions[reader - 1], wrote, tile, unit - EDGE)

    def _lose(self, memory: Memory, tiles: Ints, units: Ints, newcomer: int) -> None:
        """Note how the contents of units end that are written again: unread, or shared by several readers."""
        page, rows = self._pages[memory], tiles[:, None]
        writers = page.writer[rows, units]
        old = (writers != newcomer) & (writers != 0)
        ends = {"dead": old & (page.reader[rows, units] == 0),
                "shared": old & page.watched[rows, units] & page.shared[rows, units]}
        for kind, concerned in ends.items():
            at = np.nonzero(concerned)
            owners = writers[at]
            for owner in distinct(owners).tolist():
                mine = owners == owner
                getattr(self._writings[owner, memory], kind).append(
                    (tiles[at[0][mine]].astype(np.int32), units[at[1][mine]].astype(np.int32)))

    def _bury(self) -> None:
        """What nobody has read by the end is lost."""
        for memory, page in self._pages.items():
            self._lose(memory, np.arange(TILES), np.arange(page.writer.shape[1]), 0)

    def _reading(self, number: int, memory: Memory) -> Reading:
        reading = self._readings.get((number, memory))
        if reading is None:
            spare = self._spare[memory]
            reading = self._readings[number, memory] = spare.pop() if spare else Reading.empty(memory)
        return reading

    # -- readers that are one unit off ------------------------------------------------------------------

    def _close(self, number: int, memory: Memory, tiles: Sequence[int]) -> None:
        """Look at all that an instruction read on tiles where it has ended."""
        reading = self._readings.get((number, memory))
        if reading is None:
            return
        window = slice(reading.low, reading.high + 1)
        for tile in tiles:
            seen = reading.seen[tile, window]
            self._tiles_of[number, memory] += 1
            for direction in (UP, DOWN):
                stray = self._displaced(seen, reading.inside[direction][tile, window], direction)
                if stray is not None:
                    place, writer = stray
                    self._shifted[number, memory, direction].append(
                        self._between(_OLDER, memory, number, writer, tile, place + reading.low))
            self._gaps.close(number, memory, tile, self._pages[memory], reading)
            seen[:] = NOT_READ
        if not np.any(reading.seen[:, window] != NOT_READ):
            del self._readings[number, memory]
            reading.low, reading.high = 1 << 30, 0
            self._spare[memory].append(reading)

    def _displaced(self, seen: npt.NDArray[np.int32], inside: Flags, direction: int) -> tuple[int, int] | None:
        """Return the older unit at the far end of the stretches read, and the writer of the one before it."""
        found = None
        for first, last in _stretches(seen != NOT_READ, direction):
            before = last - direction
            if (first == last or not inside[first] or seen[first] <= 0 or seen[last] >= seen[before]
                    or seen[last] >= np.min(seen[min(first, before):max(first, before) + 1])):
                return None
            found = found or (last, int(seen[before]))
        return found

    # -- writers whose edge nobody reads ------------------------------------------------------------------

    def _unused_edges(self, number: int, memory: Memory, writing: Writing) -> list[Displacement]:
        tiles, units = (np.concatenate(parts) for parts in zip(*writing.dead, strict=True))
        concerned = {int(t) for entries in writing.beside.values() for _, at, _, _ in entries for t in at}
        for tile in sorted(concerned):
            mine = [u for t, u in writing.pieces if tile in t]
            low, high = min(int(u[0]) for u in mine) - 1, max(int(u[-1]) for u in mine) + 1
            written, dead = np.zeros(high - low + 1, bool), np.zeros(high - low + 1, bool)
            for u in mine:
                written[u - low] = True
            dead[units[tiles == tile] - low] = True
            if np.array_equal(dead, written) and (np.count_nonzero(written) > 1 or self._keeps_sums(number)):
                continue
            for direction in (UP, DOWN):
                strangers = self._strangers(writing, self._readers[number, memory], memory, tile, direction)
                found = _unused_ends(written, dead, {u - low: reader for u, reader in strangers.items()}, direction)
                if found is not None:
                    unit, reader = found
                    return [self._between(_OLDER, memory, reader, number, tile, unit + low)]
        return []

    def _keeps_sums(self, number: int) -> bool:
        """Tell whether an operation leaves partial sums in wide memory: these may be all that others want of it."""
        ins = self._instructions[number - 1]
        return ins.name.startswith("tensor_") and not ins["no_partial_sums"]

    def _strangers(self, writing: Writing, readers: set[int], memory: Memory, tile: int, direction: int) -> dict[int, int]:
        """Units beside which a reader of a writer took older contents, and the reader.

        Of single units there is no reader that shows what the neighbour is for; the row of a staging
        area stands for itself, a word only if its older contents had been read before.
        """
        found = {}
        for reader, at, units, consumed in writing.beside[direction]:
            here = at == tile
            if not here.any():
                continue
            written = np.concatenate([u for t, u in writing.pieces if tile in t])
            alone = ~np.isin(units[here] - direction, written)
            lone = alone & ((memory is Memory.WIDE) | consumed[here])
            if lone.any():
                # Who reads the neighbour too, sooner or later, is not beside what it should read; nor is who reads
                # on behind it: in place of a single unit stands a single one.
                read = self._units_read(reader, memory)
                lone &= ~np.isin(units[here], read) & ~np.isin(units[here] + 2 * direction, read)
            for unit in units[here][lone | (~alone & (reader in readers))].tolist():
                found[unit] = reader
        return found

    def _units_read(self, reader: int, memory: Memory) -> Ints:
        tasks = [half for task in make_tasks(self._instructions[reader - 1]) for half in getattr(task, "halves", (task,))]
        return np.concatenate([access.units + EDGE for task in tasks for access in accesses(task, 0, task.size)
                               if access.memory is memory and not access.writes])


def _in_order(task: TileTask, touched: Sequence[Access]) -> list[Access]:
    """Reads come before writes; only partial sums are read by the operation that wrote them, and behind that."""
    held = Memory.WIDE if isinstance(task, TensorOp) else None
    return sorted(touched, key=lambda access: access.writes and access.memory is not held)


def _unused_ends(written: Flags, dead: Flags, strangers: dict[int, int], direction: int) -> tuple[int, int] | None:
    """Return the unit beyond the far end and its reader if that of every stretch is read and no near end is."""
    found = None
    for near, far in _stretches(written, direction):
        if far not in strangers or not dead[near] or (near != far and (dead[near + direction] or dead[far])):
            return None
        found = found or (far + direction, strangers[far])
    return found


def _stretches(used: Flags, direction: int) -> Iterator[tuple[int, int]]:
    """Yield the near and the far end of every run of neighbours."""
    edges = np.flatnonzero(np.diff(np.concatenate(([False], used, [False])).astype(np.int8)))
    for a, b in edges.reshape(-1, 2).tolist():
        yield (a, b - 1) if direction == UP else (b - 1, a)
