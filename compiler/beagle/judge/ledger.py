"""The ledger: who wrote what was read, and what nobody read.

Counters and clocks say nothing of an address that is one unit off: such a program gives the same
wrong result in every order. The ledger looks for the trace that it leaves. It knows, for every unit
of memory, which instruction wrote it last and whether anybody has read that since.

A reader and a writer are *displaced* when

- the reader takes a whole stretch of what was written but its first (or last) unit, and goes on by one
  unit beyond the other end, into contents older than everything else that it reads there; or
- a writer's first (or last) unit is never read, while one of its readers takes the unit beside the
  other end, whose contents are older than the writer.

A correct program has a use for what it computes and brings nothing in vain, so a reader that needs
one unit less at one end does not need an older one at the other. Halos are no exception: what
neighbours send is newer than a tile's own results, and borders are filled on some tiles only.
Contents that are older and still wanted lie beside newer ones in many programs; it is the missing
unit at the opposite end that makes the difference. This is experience, not proof: findings of the
ledger are marked as *suspicions*.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from compiler.beagle.judge.accesses import Access, Memory, accesses
from compiler.beagle.simulator.task import TileTask
from compiler.beagle.simulator.tensor import TensorOp
from compiler.facts import TILES

Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]
_EDGE = 2
"""Units beyond either end of a memory, so that neighbours always exist."""
_BEFORE = -1
"""Writer of what earlier executables left."""
_NOT_READ = -9
_MOST_UNITS = 1 << 25
"""Units that the books of writers may hold; longer programs are not followed, to bound memory."""
_UP, _DOWN = 1, -1
"""The reader is one unit above, or below, what it should read."""


@dataclass(frozen=True)
class Displacement:
    """A reader and a writer that seem to be one unit apart.

    Attributes
    ----------
    unit:
        The unit that is read and older than what lies beside it.
    """

    memory: Memory
    reader: TileTask
    writer: TileTask
    tile: int
    unit: int


@dataclass
class _Page:
    """One memory of all tiles: last writers, when they wrote, and whether anybody has read since."""

    writer: npt.NDArray[np.int32]
    time: npt.NDArray[np.int32]
    unread: Flags

    @classmethod
    def empty(cls, memory: Memory) -> _Page:
        shape = (TILES, memory.units + 2 * _EDGE)
        return cls(np.zeros(shape, np.int32), np.zeros(shape, np.int32), np.zeros(shape, bool))


@dataclass
class _Reading:
    """What one instruction read of one memory: the writers seen, and where stretches begin inside a writer's."""

    seen: npt.NDArray[np.int32]
    inside: dict[int, Flags]
    low: int = 1 << 30
    high: int = 0

    @classmethod
    def empty(cls, memory: Memory) -> _Reading:
        shape = (TILES, memory.units + 2 * _EDGE)
        return cls(np.full(shape, _NOT_READ, np.int32), {d: np.zeros(shape, bool) for d in (_UP, _DOWN)})


@dataclass
class _Writing:
    """What one instruction wrote to one memory.

    Attributes
    ----------
    pieces:
        Tiles, and the units written on each of them.
    dead:
        Tile and unit of what nobody read.
    beside:
        Per direction: reader, and tile and unit beside which it took older contents, and whether
        these had been read before.
    """

    pieces: list[tuple[Sequence[int], Ints]] = field(default_factory=list)
    dead: list[tuple[Ints, Ints]] = field(default_factory=list)
    beside: dict[int, list[tuple[int, Ints, Ints, Flags]]] = field(default_factory=lambda: {_UP: [], _DOWN: []})


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
        self._pages = {memory: _Page.empty(memory) for memory in Memory}
        if before is not None:
            self._pages[Memory.WIDE].writer[:, _EDGE:-_EDGE][before] = _BEFORE
        self._writes = 0
        self._tasks: list[TileTask] = []
        self._numbers: dict[int, int] = {}
        self._readings: dict[tuple[int, Memory], _Reading] = {}
        self._spare: dict[Memory, list[_Reading]] = {memory: [] for memory in Memory}
        self._writings: dict[tuple[int, Memory], _Writing] = defaultdict(_Writing)
        self._readers: dict[tuple[int, Memory], set[int]] = defaultdict(set)
        self._tiles_of: dict[tuple[int, Memory], int] = defaultdict(int)
        self._shifted: dict[tuple[int, Memory, int], list[Displacement]] = defaultdict(list)

    @property
    def wide_rows_written(self) -> Flags:
        """Wide rows written by this run or before it, shape (16, rows)."""
        return np.asarray(self._pages[Memory.WIDE].writer[:, _EDGE:-_EDGE] != 0)

    def enter(self, task: TileTask, tiles: Sequence[int], touched: Sequence[Access], *, ends: bool) -> None:
        """Write down what a range of positions touched; ``ends``: the last one of these tiles."""
        if isinstance(task, TensorOp) and np.any(task.out & 3):
            self.unwritten = True
        if self._kept > _MOST_UNITS:
            self._stop_following()
        if not self.followed:
            self._only_written(tiles, touched)
            return
        number = self._numbers.get(id(task))
        if number is None:
            self._tasks.append(task)
            number = self._numbers[id(task)] = len(self._tasks)
        for access in sorted(touched, key=lambda access: access.writes):
            if access.units.size:
                (self._write if access.writes else self._read)(number, tiles, access)
        if ends:
            for memory in Memory:
                self._close(number, memory, tiles)

    def _stop_following(self) -> None:
        """Forget who wrote and read; from here on only what was written counts."""
        self.followed, self._kept = False, 0
        for books in (self._numbers, self._readings, self._writings, self._readers, self._tiles_of, self._shifted):
            books.clear()
        self._tasks.clear()

    def _only_written(self, tiles: Sequence[int], touched: Sequence[Access]) -> None:
        rows = np.asarray(tiles)[:, None]
        for access in sorted(touched, key=lambda access: access.writes):
            units = access.units + _EDGE
            if access.writes:
                self._pages[access.memory].writer[rows, units] = 1
            else:
                self.unwritten = self.unwritten or not self._pages[access.memory].writer[rows, units].all()

    def displacements(self) -> list[Displacement]:
        """Return what seems to be one unit off, at the end of a run; nothing when it was not followed."""
        if not self.followed:
            return []
        self._bury()
        found = [group[0] for (number, memory, _), group in self._shifted.items()
                 if len(group) == self._tiles_of[number, memory]]
        for (number, memory), writing in self._writings.items():
            if writing.dead and any(writing.beside.values()):
                found += self._unused_edges(number, memory, writing)
        return found

    # -- entries ------------------------------------------------------------------------------------

    def _read(self, number: int, tiles: Sequence[int], access: Access) -> None:
        page = self._pages[access.memory]
        units = np.unique(access.units) + _EDGE
        rows = np.asarray(tiles)[:, None]
        writers = page.writer[rows, units]
        self.unwritten = self.unwritten or not writers.all()
        for writer in np.unique(writers[writers > 0]).tolist():
            self._readers[writer, access.memory].add(number)
        reading = self._reading(number, access.memory)
        reading.low, reading.high = min(reading.low, int(units[0])), max(reading.high, int(units[-1]))
        reading.seen[rows, units] = writers
        consumed = (writers <= 0) | ~page.unread[rows, units]
        for direction in (_UP, _DOWN):
            near, far = page.writer[rows, units - direction], page.writer[rows, units - 2 * direction]
            reading.inside[direction][rows, units] = (near == writers) & (far != writers)
            # Of two instructions the later one in the program is the newer; rows of a staging area are
            # written while earlier transfers still go on, so there it must have written later, too.
            newer = (near > writers) & (near != number)
            if access.memory is Memory.WIDE:
                newer &= page.time[rows, units - direction] > page.time[rows, units]
            at = np.nonzero(newer)
            owners = near[at]
            for owner in np.unique(owners).tolist():
                i, j = (index[owners == owner] for index in at)
                self._kept += 3 * i.size
                self._writings[owner, access.memory].beside[direction].append(
                    (number, rows[i, 0], units[j] - direction, consumed[i, j]))
        page.unread[rows, units] = False

    def _write(self, number: int, tiles: Sequence[int], access: Access) -> None:
        page = self._pages[access.memory]
        units = np.unique(access.units) + _EDGE
        rows = np.asarray(tiles)[:, None]
        writers = page.writer[rows, units]
        self._lose(access.memory, writers, page.unread[rows, units] & (writers != number), np.asarray(tiles), units)
        self._writes += 1
        page.writer[rows, units] = number
        page.time[rows, units] = self._writes
        page.unread[rows, units] = True
        self._writings[number, access.memory].pieces.append((tiles, units))
        self._kept += units.size

    def _lose(self, memory: Memory, writers: npt.NDArray[np.int32], lost: Flags, tiles: Ints, units: Ints) -> None:
        """Note units that end unread."""
        at = np.nonzero(lost & (writers > 0))
        owners = writers[at]
        for owner in np.unique(owners).tolist():
            mine = owners == owner
            self._writings[owner, memory].dead.append((tiles[at[0][mine]], units[at[1][mine]]))

    def _bury(self) -> None:
        """What nobody has read by the end is lost."""
        for memory, page in self._pages.items():
            self._lose(memory, page.writer, page.unread, np.arange(TILES), np.arange(page.writer.shape[1]))

    def _reading(self, number: int, memory: Memory) -> _Reading:
        reading = self._readings.get((number, memory))
        if reading is None:
            spare = self._spare[memory]
            reading = self._readings[number, memory] = spare.pop() if spare else _Reading.empty(memory)
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
            for direction in (_UP, _DOWN):
                stray = self._displaced(seen, reading.inside[direction][tile, window], direction)
                if stray is not None:
                    place, writer = stray
                    self._shifted[number, memory, direction].append(Displacement(
                        memory, self._tasks[number - 1], self._tasks[writer - 1], tile, place + reading.low - _EDGE))
            seen[:] = _NOT_READ
        if not np.any(reading.seen[:, window] != _NOT_READ):
            del self._readings[number, memory]
            reading.low, reading.high = 1 << 30, 0
            self._spare[memory].append(reading)

    def _displaced(self, seen: npt.NDArray[np.int32], inside: Flags, direction: int) -> tuple[int, int] | None:
        """Return the older unit at the far end of the stretches read, and the writer of the one before it."""
        found = None
        for first, last in _stretches(seen != _NOT_READ, direction):
            before = last - direction
            if (first == last or not inside[first] or seen[first] <= 0 or seen[last] >= seen[before]
                    or seen[last] >= np.min(seen[min(first, before):max(first, before) + 1])):
                return None
            found = found or (last, int(seen[before]))
        return found

    # -- writers whose edge nobody reads ------------------------------------------------------------------

    def _unused_edges(self, number: int, memory: Memory, writing: _Writing) -> list[Displacement]:
        tiles, units = (np.concatenate(parts) for parts in zip(*writing.dead, strict=True))
        concerned = {int(t) for entries in writing.beside.values() for _, at, _, _ in entries for t in at}
        for tile in sorted(concerned):
            mine = [u for t, u in writing.pieces if tile in t]
            low, high = min(int(u[0]) for u in mine) - 1, max(int(u[-1]) for u in mine) + 1
            written, dead = np.zeros(high - low + 1, bool), np.zeros(high - low + 1, bool)
            for u in mine:
                written[u - low] = True
            dead[units[tiles == tile] - low] = True
            if np.array_equal(dead, written) and np.count_nonzero(written) > 1:
                continue
            for direction in (_UP, _DOWN):
                strangers = self._strangers(writing, self._readers[number, memory], memory, tile, direction)
                found = _unused_ends(written, dead, {u - low: reader for u, reader in strangers.items()}, direction)
                if found is not None:
                    unit, reader = found
                    return [Displacement(memory, self._tasks[reader - 1], self._tasks[number - 1], tile,
                                         unit + low - _EDGE)]
        return []

    def _strangers(self, writing: _Writing, readers: set[int], memory: Memory, tile: int, direction: int) -> dict[int, int]:
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
                # Who reads the neighbour too, sooner or later, is not beside what it should read.
                lone &= ~np.isin(units[here], self._units_read(reader, memory))
            for unit in units[here][lone | (~alone & (reader in readers))].tolist():
                found[unit] = reader
        return found

    def _units_read(self, reader: int, memory: Memory) -> Ints:
        task = self._tasks[reader - 1]
        return np.concatenate([access.units + _EDGE for access in accesses(task, 0, task.size)
                               if access.memory is memory and not access.writes])


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
        yield (a, b - 1) if direction == _UP else (b - 1, a)
