"""Rows of the tiles: the official rules by which tensors get their places, for one amount of room."""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence, Set
from copy import copy
from functools import lru_cache
from itertools import accumulate, pairwise

from compiler.facts import TILES
from compiler.memory.demand import Kind, ParameterTensor
from compiler.memory.size_order import by_size, unstable_order
from compiler.memory.tile_heap import TileHeap
from compiler.records import record


@record
class Piece:
    """Rows of one tensor on one tile.

    Attributes
    ----------
    tile:
        Owner.
    row:
        First wide row.
    first, rows:
        Which rows of the tensor (local tensors side by side: of the tile's own part).
    """

    tile: int
    row: int
    first: int
    rows: int


@record
class Placement:
    """Where the tensors of one model lie.

    Attributes
    ----------
    pieces:
        Per tensor; empty when it is streamed.
    on_ring:
        Numbers of the local tensors that lie like ring tensors.
    streamed:
        Bytes that travel with every inference.
    """

    pieces: tuple[tuple[Piece, ...], ...]
    on_ring: frozenset[int]
    streamed: int

    @property
    def rows(self) -> int:
        """Wide rows in use."""
        return sum(p.rows for pieces in self.pieces for p in pieces)


class TileMemory:
    """Rows in use on every tile: a bottom part that grows up and a top part that grows down.

    Parameters
    ----------
    top:
        Rows below this one are free at first.

    Attributes
    ----------
    slack:
        With up to so many rows less per tile everything placed so far would have got as many rows on the same tiles.
    """

    def __init__(self, top: int) -> None:
        self.slack = top
        self._top = top
        self._bottom = [0] * TILES
        self._ceiling = [top] * TILES
        self._tables = [0] * TILES

    def copy(self) -> TileMemory:
        """Return an independent copy."""
        other = copy(self)
        other._restore(self)
        return other

    def _restore(self, other: TileMemory) -> None:
        self._bottom, self._ceiling = other._bottom.copy(), other._ceiling.copy()
        self._tables = other._tables.copy()

    @property
    def free_rows(self) -> int:
        """Rows not in use, over all tiles."""
        return sum(self._ceiling) - sum(self._bottom)

    def free(self, tile: int) -> int:
        """Rows not in use on one tile."""
        return self._ceiling[tile] - self._bottom[tile]

    def place(self, tensors: Sequence[ParameterTensor]) -> Placement:
        """Place the tensors of the next model.

        Dense layers lie side by side as far as they fit, the others on the ring. Where not everything
        fits, tables of a SOFTMAX get what all else leaves. Where something is left over still, all dense
        layers on the ring may leave less: published sizes of dense networks (24 of 25 groups of 64
        outputs, 16.0) only come about so.
        """
        before = self.copy()
        placed = self._place(tensors, set())
        tables = frozenset(i for i, t in enumerate(tensors) if t.table and t.cacheable)
        if tables and not all(p for p, t in zip(placed.pieces, tensors, strict=True) if t.cacheable):
            self._restore(before)
            placed = self._place(tensors, set(), tables)
        dense = {i for i, t in enumerate(tensors) if t.cacheable and t.kind is Kind.LOCAL and t.group_rows}
        least = sum(t.streamed_bytes * t.reads for t in tensors if not t.cacheable)
        if placed.streamed == least or not dense:
            return placed
        after = self.copy()
        self._restore(before)
        on_ring = self._place(tensors, dense, tables)
        if on_ring.streamed < placed.streamed:
            return on_ring
        self._restore(after)
        return placed

    def place_together(self, models: Sequence[Sequence[ParameterTensor]]) -> list[Placement] | None:
        """Place models of which everything fits; None when it does not.

        The local tensors of all of them lie lowest, as if they belonged to one model; then follows what lies on the
        ring, model by model.
        """
        flat = [t for tensors in models for t in tensors]
        found = self._place_locals(flat, self._side_by_side(flat, set()))
        placements, first = [], 0
        for tensors in models:
            pieces = [found.get(first + i, ()) for i in range(len(tensors))]
            ring = {i for i, t in enumerate(tensors) if t.cacheable and not pieces[i]}
            owners = self._assign(tensors, ring, set())
            if owners.keys() != ring or any(tensors[i].kind is Kind.LOCAL for i in ring):
                return None
            for i, placed in self._lay_out(owners, upward=True).items():
                pieces[i] = placed
            placements.append(_placement(tensors, pieces, owners))
            first += len(tensors)
        return placements

    def place_jointly(self, models: Sequence[Sequence[ParameterTensor]]) -> list[Placement]:
        """Place models as if their tensors belonged to one."""
        placed = self.place([t for tensors in models for t in tensors])
        placements = []
        for tensors, (first, last) in zip(models, pairwise(accumulate(map(len, models), initial=0)), strict=True):
            on_ring = [i - first for i in placed.on_ring if first <= i < last]
            placements.append(_placement(tensors, placed.pieces[first:last], on_ring))
        return placements

    def _place(self, tensors: Sequence[ParameterTensor], on_ring: set[int], last: frozenset[int] = frozenset()) -> Placement:
        """Place tensors, those dense layers on the ring, these tables in the end."""
        before = self.copy()
        first_model = not any(self._bottom) and all(c == self._top for c in self._ceiling)
        local = self._side_by_side(tensors, on_ring | last)
        beside = self._place_locals(tensors, local)
        ring = {i for i, t in enumerate(tensors)
                if t.cacheable and i not in beside and (t.kind is Kind.RING or t.group_rows)}
        owners = self._assign(tensors, ring, set(beside))
        if tables := before._room_for_tables(tensors, local, owners, last):
            self._restore(before)
            self.slack = min(self.slack, before.slack)
            beside = self._place_locals(tensors, [*local, *tables])
        complete = all(i in owners or i in beside for i, t in enumerate(tensors) if t.cacheable)
        placed = beside | self._lay_out(owners, upward=first_model and complete)
        return _placement(tensors, [placed.get(i, ()) for i in range(len(tensors))], owners)

    def _room_for_tables(self, tensors: Sequence[ParameterTensor], local: Sequence[int],
                         owners: dict[int, list[tuple[int, int]]], tables: Set[int]) -> list[int]:
        """Choose the tables for which the other tensors leave room; from the rows in use before any of them."""
        on_ring = [0] * TILES
        for tile, rows in (part for chosen in owners.values() for part in chosen):
            on_ring[tile] += rows
        chosen: list[int] = []
        for i in sorted(tables):
            trial = self.copy()
            placed = trial._place_locals(tensors, [*local, *chosen, i])
            left = min(trial.free(tile) - rows for tile, rows in enumerate(on_ring))
            if left >= 0 and all(placed.values()):
                self.slack = min(self.slack, left)
                chosen.append(i)
        return chosen

    def _side_by_side(self, tensors: Sequence[ParameterTensor], on_ring: set[int]) -> list[int]:
        """Choose local tensors as long as there is room."""
        local = local_order(tensors, on_ring)
        chosen: list[int] = []
        rows = tiles = 0
        for i in local:
            t = tensors[i]
            widest = max(tiles, t.tiles)
            left = min(self._ceiling[:widest]) - max(self._bottom[:widest]) - rows - t.rows
            if left >= 0:
                self.slack = min(self.slack, left)
                rows, tiles = rows + t.rows, widest
                chosen.append(i)
        return chosen

    def _place_locals(self, tensors: Sequence[ParameterTensor], chosen: Sequence[int]) -> dict[int, tuple[Piece, ...]]:
        """Give local tensors rows, from the lowest up: by size where that is the habit, else those on most tiles first."""
        sized = any(tensors[i].by_size for i in chosen)
        order = chosen if sized else sorted(chosen, key=lambda i: (-tensors[i].tiles, -i))
        return {i: self._place_local(tensors[i]) for i in order}

    def _place_local(self, tensor: ParameterTensor) -> tuple[Piece, ...]:
        row = max(self._bottom[:tensor.tiles])
        self._bottom[:tensor.tiles] = [row] * tensor.tiles
        return self._lie(tensor, row)

    def _lie(self, tensor: ParameterTensor, row: int) -> tuple[Piece, ...]:
        """Count the rows of a local tensor, and say where they are."""
        for tile in range(tensor.tiles):
            self._bottom[tile] += tensor.rows
            self._tables[tile] += tensor.rows if tensor.table else 0
        return tuple(Piece(tile, row, 0, tensor.rows_on(tile)) for tile in range(tensor.tiles))

    def _assign(self, tensors: Sequence[ParameterTensor], ring: set[int], beside: set[int],
                ) -> dict[int, list[tuple[int, int]]]:
        """Choose owner tiles: tensor index -> (tile, rows) of its pieces.

        Parameters
        ----------
        beside:
            Local tensors of the model that have their places; they count in their turn. Behind each local tensor,
            also those on the ring, tiles are queued anew.
        """
        beside = {i for i in beside if not tensors[i].table}
        free = [self.free(t) for t in range(TILES)]
        used = [self._top - f - tables for f, tables in zip(free, self._tables, strict=True)]
        for i in beside:
            _count(tensors[i], used, -1)
        heap: TileHeap | None = None
        owners: dict[int, list[tuple[int, int]]] = {}
        for i in ring_order(tensors, ring | beside) if ring else ():
            if i in beside:
                _count(tensors[i], used, 1)
                heap = None
                continue
            heap = TileHeap(used) if heap is None else heap
            chosen = self._choose(heap, tensors[i], free)
            if chosen:
                owners[i] = chosen
                for tile, rows in chosen:
                    used[tile] += rows
            heap = None if tensors[i].kind is Kind.LOCAL else heap
        return owners

    def _choose(self, heap: TileHeap, tensor: ParameterTensor, free: list[int]) -> list[tuple[int, int]]:
        """Fill the least filled tiles with a tensor, the last as far as needed; nothing changes when they do not suffice."""
        rows, unit = tensor.total_rows, tensor.group_rows or 1
        passed: list[tuple[int, int]] = []
        room = 0
        while len(heap) and room + free[heap.least_filled] // unit * unit < rows:
            room += free[heap.least_filled] // unit * unit
            self.slack = min(self.slack, free[heap.least_filled] % unit)
            passed.append(heap.pop())
        fits = len(heap) > 0
        if fits:
            self.slack = min(self.slack, free[heap.least_filled] - -(-(rows - room) // unit) * unit)
        # Tiles counted before the last one come back behind their equals.
        for tile, used in passed:
            heap.push(tile, used)
        return self._fill(heap, rows, unit, free) if fits else []

    def _fill(self, heap: TileHeap, rows: int, unit: int, free: list[int]) -> list[tuple[int, int]]:
        """Take rows of the least filled tiles; each comes back before the next is taken, those without room in the end."""
        taken: list[tuple[int, int]] = []
        without: list[tuple[int, int]] = []
        while rows:
            tile, used = heap.pop()
            part = min(rows, free[tile] // unit * unit)
            self.slack = min(self.slack, free[tile] - part if part == rows else free[tile] % unit)
            free[tile] -= part
            rows -= part
            if part:
                taken.append((tile, part))
                heap.push(tile, used + part)
            else:
                without.append((tile, used))
        for tile, used in without:
            heap.push(tile, used)
        return taken

    def _lay_out(self, owners: dict[int, list[tuple[int, int]]], *, upward: bool) -> dict[int, tuple[Piece, ...]]:
        """Give the pieces rows: contiguous in operator order, above the locals or below the ceiling."""
        used = [0] * TILES
        for chosen in owners.values():
            for tile, rows in chosen:
                used[tile] += rows
        base = self._bottom.copy() if upward else [c - u for c, u in zip(self._ceiling, used, strict=True)]
        for tile in range(TILES):
            if upward:
                self._bottom[tile] += used[tile]
            else:
                self._ceiling[tile] -= used[tile]
        placed = {}
        for i in sorted(owners):
            parts, first = [], 0
            for tile, rows in owners[i]:
                parts.append(Piece(tile, base[tile], first, rows))
                base[tile] += rows
                first += rows
            placed[i] = tuple(parts)
        return placed


def _placement(tensors: Sequence[ParameterTensor], pieces: Sequence[tuple[Piece, ...]], owners: Iterable[int]) -> Placement:
    streamed = sum(t.streamed_bytes * t.reads for t, p in zip(tensors, pieces, strict=True) if not p)
    return Placement(tuple(pieces), frozenset(i for i in owners if tensors[i].kind is Kind.LOCAL), streamed)


def local_order(tensors: Sequence[ParameterTensor], on_ring: Container[int]) -> list[int]:
    """Return the order in which dense layers are served."""
    local = [i for i, t in enumerate(tensors) if t.cacheable and t.kind is Kind.LOCAL and i not in on_ring]
    if any(tensors[i].by_size for i in local):
        return [local[n] for n in by_size([tensors[i].total_rows for i in local])]
    return local


def _count(tensor: ParameterTensor, used: list[int], times: int) -> None:
    for tile in range(tensor.tiles):
        used[tile] += times * tensor.rows


def ring_order(tensors: Sequence[ParameterTensor], ring: set[int]) -> list[int]:
    """Return the order in which tensors are served: most often read, depthwise or dense, largest."""
    numbers = sorted(ring)
    return [numbers[n] for n in _unstable_order(tuple(
        (-tensors[i].reads, not (tensors[i].depthwise or tensors[i].kind is Kind.LOCAL), -tensors[i].total_rows)
        for i in numbers))]


@lru_cache(maxsize=1024)
def _unstable_order(keys: tuple[tuple[int, bool, int], ...]) -> list[int]:
    return unstable_order(keys)
