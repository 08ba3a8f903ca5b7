"""State of a program of image operators while it is written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from enum import Enum, auto

from compiler.beagle.isa.counters import TileCounter
from compiler.facts import TILES
from compiler.lowering.builder import LAYER_COUNTERS, ProgramBuilder
from compiler.lowering.spatial.books import Books
from compiler.lowering.spatial.far_pixels import emit_gather
from compiler.lowering.spatial.geometry import Activation
from compiler.lowering.spatial.halo import Readiness, emit_halo, too_far
from compiler.memory.plan import Piece

_WATCHED_ALIKE = (TileCounter.PARAMETERS, TileCounter.AVDATA, TileCounter.RING_READ_A, TileCounter.RING_READ_B,
                  TileCounter.WIDE_TO_SCALING)
"""Counters that one instruction to many tiles waits for."""


class Leaves(Enum):
    """What went before, for a layer that collects a vector."""

    NOTHING = auto()
    """All tiles have finished, and their counters are zero."""
    VECTOR = auto()
    """All tiles have finished."""
    IMAGE = auto()
    """Tiles may still compute."""


class Emission:
    """A program being written: builder, books of the counters, and what layers ask of it.

    Parameters
    ----------
    pieces:
        Where the parameters of each layer lie, by name; empty for streamed ones.
    constants, rooms:
        Narrow byte address of what each layer builds for itself, and of its room for steps in between, by name.
    buffers:
        Those of what some of its steps need besides, by the names of layer and buffer.
    identities:
        Wide row of the identity matrix that layers share, by the name of each of them.
    tops:
        Wide row from which on a layer finds them taken, by name.
    on_ring:
        Dense layers whose parameters lie on the ring, by name.

    Attributes
    ----------
    before:
        What went before.
    in_bands:
        The layer being written runs in bands.
    arriving_rows:
        Wide rows at the top that an input may still be passing through.
    """

    def __init__(self, pieces: Mapping[str, Sequence[Piece]], constants: Mapping[str, int], rooms: Mapping[str, int],
                 buffers: Mapping[str, Mapping[str, int]], tops: Mapping[str, int], identities: Mapping[str, int],
                 on_ring: frozenset[str]) -> None:
        self.b, self.books = ProgramBuilder(), Books()
        self.pieces, self.constants, self.rooms, self.on_ring = pieces, constants, rooms, on_ring
        self.buffers, self.tops, self.identities = buffers, tops, identities
        self._identity_built = False
        self.before = Leaves.NOTHING
        self._ready: dict[int, Readiness] = {}
        self._exchanged: dict[int, int] = {}
        self.in_bands = False
        self.arriving_rows = 0

    def missing_identity(self, layer: str) -> bool:
        """Tell whether a layer has to build the identity matrix; those behind it that share its row find it."""
        if layer not in self.identities:
            return True
        missing, self._identity_built = not self._identity_built, True
        return missing

    def exchange(self, number: int, activation: Activation, fill: int | None = None, *, near: bool = False) -> None:
        """Bring every tile the borders of an image, unless they are there.

        Parameters
        ----------
        fill:
            Value beyond the border of the image; None when it does not matter.
        near:
            Known: what a tile needs, it or a neighbour has.
        """
        known = self._exchanged.get(number)
        if known is not None and fill in (None, known):
            return
        if known is not None:
            # Operators before may still read what is written again.
            self.reset()
        filled = activation if fill in (None, activation.zero_point) else replace(activation, zero_point=fill)
        if not near and too_far(filled):
            emit_gather(self.b, filled)
            self.settled()
        else:
            emit_halo(self.b, self.books, filled, self._ready.get(number))
        self._exchanged[number] = filled.zero_point

    def finish(self, number: int, activation: Activation) -> None:
        """End an operator that ends with a fence: borders of its result are on their way before."""
        if not self.in_bands and not too_far(activation):
            self.exchange(number, activation, near=True)
        self.reset()

    def made_anew(self, numbers: set[int]) -> None:
        """Note that images will be computed again: their borders are stale."""
        for number in numbers:
            self._exchanged.pop(number, None)

    def reset(self) -> None:
        """Fence with reset of the layers' counters."""
        self.b.tile_fence(reset=LAYER_COUNTERS)
        self.settled()

    def even_out(self, tiles: Sequence[int]) -> None:
        """Fence with reset where the counters of the engines differ between tiles that get the same instructions.

        They do behind a smaller image, which other tiles have no part of.
        """
        if any(len({self.books.counts.get(counter, t) for t in tiles}) > 1 for counter in _WATCHED_ALIKE):
            self.reset()

    def settled(self) -> None:
        """Note that a fence has waited for everything and has reset the counters."""
        self.books.counts.reset()
        self._ready.clear()

    def begin_vector(self) -> None:
        """Wait until what a layer on vectors reads is there, with all counters at zero."""
        if self.before is Leaves.IMAGE:
            self.b.barrier()
        if self.before is not Leaves.NOTHING:
            self.b.tile_fence(reset=LAYER_COUNTERS)
        self.settled()

    def announce(self, number: int, groups: int, *, at_end: bool) -> None:
        """Note when the blocks of 64 channels of the next result will be there.

        Parameters
        ----------
        at_end:
            All of them when the last is done.
        """
        done = groups if at_end else 1
        first = tuple(self.books.counts.get(TileCounter.AVDATA, t) + done for t in range(TILES))
        self._ready[number] = Readiness(first, 0 if at_end else 1)

    def drain_rows(self, *, again: bool) -> None:
        """Before an output the counter of lines in wide memory must be zero."""
        if again or any(self.books.counts.get(TileCounter.NARROW_TO_WIDE, t) for t in range(TILES)):
            self.reset()
