"""Words that go from tile to tile over several hops of the mesh: tiles in between pass them on.

A tile that passes words on has two slots of four words for them. Behind every hop that needs one, a
fence gives the counters of all tiles one value, so that the next watches are the same for all.
"""

from __future__ import annotations

from collections.abc import Mapping

from compiler.beagle.isa.counters import TileCounter, TileEngine
from compiler.lowering.builder import ALL_TILES, ProgramBuilder, Values, signal, walk, watch
from compiler.lowering.spatial.far_pixels import Stretch
from compiler.lowering.spatial.geometry import Dim, by_content
from compiler.records import record

BLOCK_WORDS = 4
PASSING_WORDS = 2 * BLOCK_WORDS
"""Narrow memory that a tile needs to pass words on."""


@record
class Course:
    """One of the four directions in which words go.

    Attributes
    ----------
    name:
        Instruction that receives from there.
    received, sent:
        Counters of blocks passed on: come in, gone out.
    """

    name: str
    engine: TileEngine
    received: TileCounter
    sent: TileCounter


FROM_SOUTH = Course("mesh_from_south", TileEngine.MESH_SOUTH, TileCounter.MESH_SOUTH_IN, TileCounter.MESH_NORTH_OUT)
FROM_NORTH = Course("mesh_from_north", TileEngine.MESH_NORTH, TileCounter.MESH_NORTH_IN, TileCounter.MESH_SOUTH_OUT)
FROM_EAST = Course("mesh_from_east", TileEngine.MESH_EAST, TileCounter.MESH_EAST_IN, TileCounter.MESH_WEST_OUT)
FROM_WEST = Course("mesh_from_west", TileEngine.MESH_WEST, TileCounter.MESH_WEST_IN, TileCounter.MESH_EAST_OUT)


@record
class Hop:
    """Words that tiles send at the same time in the same direction.

    Attributes
    ----------
    sources, targets:
        What tiles send and receive.
    passed:
        Words that tiles in between pass on.
    kinds:
        Senders and receivers of different kinds get instructions of their own; those without one are alike.
    """

    course: Course
    sources: Mapping[int, Stretch]
    targets: Mapping[int, Stretch]
    passed: Mapping[int, int]
    kinds: Mapping[int, object]


class MeshMoves:
    """Emits hops one after the other.

    Parameters
    ----------
    slots:
        Narrow word address of the slots for what is passed on.
    """

    def __init__(self, b: ProgramBuilder, slots: int) -> None:
        self._b, self._slots = b, slots
        self._counts: dict[TileCounter, int] = {}
        self._waiting = 0

    def count(self, counter: TileCounter) -> int:
        """Return the events since the counters were reset."""
        return self._counts.get(counter, 0)

    def add(self, counter: TileCounter) -> int:
        """Note an event on all tiles; returns how many there are."""
        self._counts[counter] = self.count(counter) + 1
        return self._counts[counter]

    def emit(self, hop: Hop) -> None:
        """Emit senders, tiles that pass on, and receivers."""
        b, course = self._b, hop.course
        for tiles, fields in by_content({t: _ends("src", s) for t, s in hop.sources.items()},
                                        also={t: hop.kinds.get(t) for t in hop.sources}):
            b.tile(course.name, tiles, dict(fields))
        for tiles, fields in by_content({t: self._passing(course, words) for t, words in hop.passed.items()}):
            b.tile(course.name, tiles, dict(fields))
        for tiles, fields in by_content({t: _ends("dst", s) for t, s in hop.targets.items()},
                                        also={t: hop.kinds.get(t) for t in hop.targets}):
            b.tile(course.name, tiles, dict(fields))
        self._waiting = 0
        if hop.passed:
            self._align(course, {t: -(-words // BLOCK_WORDS) for t, words in hop.passed.items()})

    def settle(self) -> None:
        """Wait for those that passed on last by themselves."""
        if self._waiting:
            self._b.tile_fence(tiles=self._waiting)
        self._waiting = 0

    def _passing(self, course: Course, words: int) -> Values:
        blocks, rest = -(-words // BLOCK_WORDS), words % BLOCK_WORDS
        dims: list[Dim] = [(1, 1)] if words == 1 else [(BLOCK_WORDS, 1), (blocks, 0)]
        short = (1, rest, BLOCK_WORDS - rest) if rest and words > 1 else None
        both = [walk(prefix, self._slots, dims, total_dims=4, mask=1, level=1, slot=BLOCK_WORDS, epilogue=short)
                for prefix in ("src", "dst")]
        return (both[0] | both[1] | watch(0, course.received, self.count(course.received) + 1)
                | watch(1, course.sent, self.count(course.sent) - 1, side=1) | signal("sent", 1) | signal("received", 1))

    def _align(self, course: Course, blocks: Mapping[int, int]) -> None:
        """Give the counters of all tiles the largest value that they have on one; tiles that have it go on."""
        before = {c: self.count(c) for c in (course.received, course.sent)}
        value = max(before.values()) + max(blocks.values())
        done = sum(1 << t for t, n in blocks.items() if all(start + n == value for start in before.values()))
        self._waiting = ALL_TILES & ~done
        self._b.tile_fence(tiles=self._waiting, reset=1 << course.received | 1 << course.sent, value=value,
                           engines=1 << course.engine)
        self._counts |= dict.fromkeys(before, value)


def _ends(prefix: str, stretch: Stretch) -> Values:
    return walk(prefix, stretch.start, stretch.dims, total_dims=4, mask=0 if stretch.words == 1 else None)


__all__ = ["FROM_EAST", "FROM_NORTH", "FROM_SOUTH", "FROM_WEST", "PASSING_WORDS", "Hop", "MeshMoves"]
