"""Words that every tile of a row (or column) of tiles brings every other, over the mesh.

Instructions are made target by target and, for each, source by source. Those that several rows (or columns) of tiles have
in common become one, as in programs of compiler 16.0: where both ends of a hop are instructions of their own, and where the
instructions of each row (or column) stay in their order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

from compiler.beagle.isa.counters import TileCounter
from compiler.facts import TILES
from compiler.lowering.builder import ProgramBuilder, Values, signal, walk, watch
from compiler.lowering.pieces import ROW_WORDS
from compiler.lowering.spatial.far_pixels import Stretch
from compiler.lowering.spatial.geometry import Dim, many, merge_dims
from compiler.lowering.spatial.mesh import FROM_EAST, FROM_NORTH, FROM_SOUTH, FROM_WEST, Course
from compiler.records import record

SLOT_WORDS = 8
"""Narrow memory of a tile that passes words on: two slots of a word in each direction."""
_SLOTS = {course.name: 2 * i for i, course in enumerate((FROM_SOUTH, FROM_NORTH, FROM_EAST, FROM_WEST))}
_BOTH_ENDS = 2
COPY_ROWS = 2
"""Wide rows through which a tile copies what it has itself."""


@record
class Parcel:
    """What a source brings a target.

    Attributes
    ----------
    path:
        Tiles from the source to the target, both included.
    sent, received:
        The words in the memory of both.
    """

    path: tuple[int, ...]
    sent: Stretch
    received: Stretch


@record
class Block:
    """Pixels in the narrow memory of a tile, in words.

    Attributes
    ----------
    pixel, pitch:
        From pixel to pixel, and from row to row.
    """

    start: int
    pixel: int
    pitch: int


@dataclass
class _Instruction:
    """An instruction in the making, on the tiles that have it in common."""

    name: str
    tiles: int
    fields: Values

    @property
    def content(self) -> tuple[str, frozenset[tuple[str, int]]]:
        """What it does, whoever does it."""
        return self.name, frozenset(self.fields.items())


class AllToAll:
    """Collects the instructions of an exchange.

    Parameters
    ----------
    slots:
        Narrow word address of the slots for what is passed on.
    row:
        First of the wide rows for copies.
    counted:
        Events since the counters were reset, the same on all tiles.
    """

    def __init__(self, slots: int, row: int, counted: Mapping[TileCounter, int]) -> None:
        self._slots, self._row = slots, row
        self._counts = {(tile, counter): n for counter, n in counted.items() for tile in range(TILES)}
        self._entries: list[tuple[tuple[str, int], list[list[_Instruction]]]] = []
        self._last: dict[tuple[str, int], _Instruction] = {}

    def copy(self, line: int, tile: int, source: Block, target: Block, size: tuple[int, int, int]) -> None:
        """Let a tile copy words of its own pixels, by way of wide rows that hold as many of them as fit.

        Parameters
        ----------
        line:
            Row (or column) of tiles that exchange.
        size:
            Words of a pixel, columns, rows.
        """
        words, columns, rows = size
        rest = 0
        if all(block.pixel == words and block.pitch == words * columns for block in (source, target)):
            packed, more, rest = _stretch(words * columns * rows)
            unpacked, further = packed, more
        else:
            together = _together(words, columns, rows)
            (packed, more), (unpacked, further) = (_dims(block, words, (columns, rows), together)
                                                   for block in (source, target))
        count = prod(n for n, _ in more)
        short = (1, rest, ROW_WORDS - rest) if rest else None
        pack = (walk("src", source.start, packed + more, total_dims=6, epilogue=short) | self._wide("dst", count)
                | signal("done", 0) | {"flush_level": len(packed)})
        if count > 1:
            pack |= watch(0, TileCounter.WIDE_TO_NARROW, self._count(tile, TileCounter.WIDE_TO_NARROW) - 1, level=0, side=1)
        into = unpacked + further
        unpack = (self._wide("src", count) | walk("dst", target.start, into, total_dims=6, epilogue=short)
                  | watch(0, TileCounter.NARROW_TO_WIDE, self._count(tile, TileCounter.NARROW_TO_WIDE) + 1, level=0)
                  | signal("done", len(unpacked) if count > 1 else len(into) - 1) | {"drop_level": len(unpacked)})
        self._add(tile, TileCounter.NARROW_TO_WIDE, count)
        self._add(tile, TileCounter.WIDE_TO_NARROW, count if count > 1 else into[-1][0])
        self._entries.append((("copy", line), [[_Instruction("narrow_to_wide", 1 << tile, pack),
                                                _Instruction("wide_to_narrow", 1 << tile, unpack)]]))

    def bring(self, course: Course, line: int, parcels: Sequence[Parcel]) -> None:
        """Bring a target its parcels from one side, the nearest source first."""
        hops: list[list[_Instruction]] = []
        for parcel in parcels:
            sender = self._send(course, parcel.path[0], parcel.sent)
            for tile in parcel.path[1:-1]:
                hops.append([*sender, self._pass(course, tile, parcel.sent.words)])
                sender = []
            hops.append([*sender, self._receive(course, parcel.path[-1], parcel.received)])
        self._entries.append(((course.name, line), hops))

    def emit(self, b: ProgramBuilder) -> None:
        """Write the instructions, equal ones of several lines as one."""
        program: list[_Instruction] = []
        known: dict[object, list[int]] = {}
        last: dict[tuple[str, int], int] = {}
        for (kind, line), hops in self._entries:
            for number, hop in enumerate(hops):
                alike = known.setdefault((kind, number, *(i.content for i in hop)), [])
                behind = [at for at in alike if at > last.get((kind, line), -1)]
                if len(hop) == _BOTH_ENDS and behind:
                    at = behind[0]
                    for common, own in zip(program[at:], hop, strict=False):
                        common.tiles |= own.tiles
                else:
                    at = len(program)
                    alike.append(at)
                    program += hop
                last[kind, line] = at
        for instruction in program:
            b.tile(instruction.name, instruction.tiles, instruction.fields)

    # -- instructions of one tile -----------------------------------------------------------------

    def _send(self, course: Course, tile: int, words: Stretch) -> list[_Instruction]:
        """Return the instruction that sends, unless one that only receives can do so, too."""
        level = min(1, len(words.dims) - 1)
        fields = walk("src", words.start, words.dims, total_dims=4) | signal("sent", level)
        self._add(tile, course.sent, _blocks(words))
        last = self._last.get((course.name, tile))
        if last is not None and "sent.valid" not in last.fields:
            last.fields |= fields
            return []
        return [self._note(course, tile, fields)]

    def _receive(self, course: Course, tile: int, words: Stretch) -> _Instruction:
        level = min(1, len(words.dims) - 1)
        self._add(tile, course.received, _blocks(words))
        return self._note(course, tile, walk("dst", words.start, words.dims, total_dims=4) | signal("received", level))

    def _pass(self, course: Course, tile: int, words: int) -> _Instruction:
        slot = self._slots + _SLOTS[course.name]
        fields = (walk("src", slot, [(words, 0)], total_dims=4, mask=0, slot=1)
                  | walk("dst", slot, [(words, 0)], total_dims=4, mask=0, slot=1)
                  | watch(0, course.received, self._count(tile, course.received) + 1, level=0)
                  | watch(1, course.sent, self._count(tile, course.sent) - 1, level=0, side=1)
                  | signal("sent", 0) | signal("received", 0))
        self._add(tile, course.received, words)
        self._add(tile, course.sent, words)
        return self._note(course, tile, fields)

    def _wide(self, prefix: str, count: int) -> Values:
        """Return the walk over so many wide rows, two in turn."""
        if count == 1:
            return walk(prefix, self._row, [(1, 1)], total_dims=4)
        return walk(prefix, self._row, [(count, 0)], total_dims=4, slot=1)

    def _note(self, course: Course, tile: int, fields: Values) -> _Instruction:
        self._last[course.name, tile] = _Instruction(course.name, 1 << tile, fields)
        return self._last[course.name, tile]

    def _count(self, tile: int, counter: TileCounter) -> int:
        return self._counts.get((tile, counter), 0)

    def _add(self, tile: int, counter: TileCounter, events: int) -> None:
        self._counts[tile, counter] = self._count(tile, counter) + events


def _blocks(words: Stretch) -> int:
    """Events that a walk over words raises."""
    return words.words if len(words.dims) == 1 else words.words // words.dims[0][0]


def _stretch(words: int) -> tuple[list[Dim], list[Dim], int]:
    """Return the dimensions of words in one stretch: within a wide row, over rows, and words of the last row if fewer.

    Examples
    --------
    >>> _stretch(40), _stretch(3240)
    (([(40, 1)], [], 0), ([(64, 1)], [(51, 64)], 40))
    """
    within = min(words, ROW_WORDS)
    return [(within, 1)], many([(-(-words // within), within)]), words % within


def _together(words: int, columns: int, rows: int) -> tuple[int, int]:
    """Return how many columns and rows of pixels go side by side into a wide row."""
    whole = [n for n in range(1, rows + 1) if rows % n == 0 and n * columns * words <= ROW_WORDS]
    if whole:
        return columns, max(whole)
    return max([n for n in range(1, columns + 1) if columns % n == 0 and n * words <= ROW_WORDS], default=1), 1


def _dims(block: Block, words: int, size: tuple[int, int], together: tuple[int, int]) -> tuple[list[Dim], list[Dim]]:
    """Return the dimensions of what goes into one wide row, and those around them."""
    (columns, rows), (across, down) = size, together
    part = max(n for n in range(1, ROW_WORDS + 1) if words % n == 0)
    inside = merge_dims([(part, 1), *many([(across, block.pixel), (down, block.pitch)])])
    around = [(words // part, part), (columns // across, across * block.pixel), (rows // down, down * block.pitch)]
    return inside, merge_dims(many(around))
