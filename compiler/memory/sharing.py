"""Several models in one on-chip memory: how they are served, and what models leave that are not part of the plan."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from compiler.facts import TILES
from compiler.memory.demand import ParameterTensor
from compiler.memory.placement import Piece, TileMemory, local_order
from compiler.records import record

Room = tuple[tuple[tuple[int, int], ...], ...]
"""Per tile: stretches of wide rows (first, stop) that may be used."""


@record
class Sharing:
    """How models share the memory.

    Attributes
    ----------
    jointly:
        Where not everything fits, the tensors of all models are served as if they belonged to one. By default a model
        gets what those before it have left.
    room:
        Rows that models outside of the plan left; None: all of them.
    """

    jointly: bool = False
    room: Room | None = None

    def memory(self, top: int) -> TileMemory:
        """Return a memory without parameters; ``top``: the row below which they lie."""
        return TileMemory(top) if self.room is None else SharedMemory(top, self.room)


WHOLE = Sharing()
"""All rows, one model after the other."""


class SharedMemory(TileMemory):
    """Tiles of which only some rows may be used.

    The rules are those of the whole memory. Dense layers side by side need the same free rows on all their tiles and
    take the shortest stretch that holds them; what lies on the ring takes what is left, from the lowest row up.
    """

    def __init__(self, top: int, room: Room) -> None:
        super().__init__(top)
        self._open = np.zeros((TILES, top), bool)
        for tile, stretches in enumerate(room):
            for first, stop in stretches:
                self._open[tile, first:stop] = True
        self._ceiling = self._open.sum(1).tolist()

    def _restore(self, other: TileMemory) -> None:
        assert isinstance(other, SharedMemory)
        super()._restore(other)
        self._open = other._open.copy()

    def _side_by_side(self, tensors: Sequence[ParameterTensor], on_ring: Container[int]) -> list[int]:
        chosen: list[int] = []
        for i in local_order(tensors, on_ring):
            if all(self.copy()._place_locals(tensors, [*chosen, i]).values()):
                chosen.append(i)
        return chosen

    def _place_local(self, tensor: ParameterTensor) -> tuple[Piece, ...]:
        """Give a local tensor rows; nothing where there are none."""
        common = np.logical_and.reduce(self._open[:tensor.tiles])
        fitting = [(stop - first, first) for first, stop in stretches(common) if stop - first >= tensor.rows]
        if not fitting:
            return ()
        _, row = min(fitting)
        self._open[:tensor.tiles, row:row + tensor.rows] = False
        return self._lie(tensor, row)

    def _lay_out(self, owners: dict[int, list[tuple[int, int]]], *, upward: bool) -> dict[int, tuple[Piece, ...]]:
        """Give the pieces rows in operator order; one that meets a stretch in use goes on behind it."""
        del upward
        return {i: tuple(self._pieces(owners[i])) for i in sorted(owners)}

    def _pieces(self, parts: Iterable[tuple[int, int]]) -> Iterator[Piece]:
        first = 0
        for tile, rows in parts:
            taken = np.zeros_like(self._open[tile])
            taken[np.flatnonzero(self._open[tile])[:rows]] = True
            self._open[tile] &= ~taken
            self._bottom[tile] += rows
            for start, stop in stretches(taken):
                yield Piece(tile, start, first, stop - start)
                first += stop - start


def stretches(rows: npt.NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Return the stretches of rows that are set: first and stop."""
    edges = np.flatnonzero(np.diff(rows.astype(np.int8), prepend=0, append=0)).tolist()
    return list(zip(edges[::2], edges[1::2], strict=True))
