"""Which layers live in on-chip memory, and where: one model, or several that share it.

Rules, read off official programs:

* A layer is cached as a whole or streamed as a whole. A layer that does not fit is skipped,
  smaller ones are still tried.
* Local tensors come first, from row 0 upwards: those on most tiles first, later layers lower.
* A ring tensor goes to the least filled tile, in the order most often read, depthwise first,
  largest first. One that no single tile can hold is cut into k pieces on k tiles, k as small
  as possible, the first k - 1 pieces filling their tile.
* Co-compiled models are served in the order of the command line. The rows set aside for
  executables are those of the largest executable, not the sum.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from compiler.facts import TILES, WIDE_ROW_BYTES, WIDE_ROWS
from compiler.memory.demand import Kind, ModelDemand, ParameterTensor
from compiler.memory.tile_heap import TileHeap


@dataclass(frozen=True)
class Piece:
    """Rows of one tensor on one tile.

    Attributes
    ----------
    tile:
        Owner.
    row:
        First wide row.
    first, rows:
        Which rows of the tensor (local tensors: of the tile's own part).
    """

    tile: int
    row: int
    first: int
    rows: int


@dataclass(frozen=True)
class ModelPlan:
    """The plan of one model.

    Attributes
    ----------
    pieces:
        Per tensor of the demand, in its order: where it lives; empty when it is streamed.
    available:
        On-chip bytes that earlier models left for this one.
    """

    demand: ModelDemand
    pieces: tuple[tuple[Piece, ...], ...]
    available: int

    def cached(self, index: int) -> bool:
        """Tell whether a tensor is cached."""
        return bool(self.pieces[index])

    @property
    def used(self) -> int:
        """On-chip bytes of this model's parameters."""
        return WIDE_ROW_BYTES * sum(p.rows for pieces in self.pieces for p in pieces)

    @property
    def streamed(self) -> int:
        """Bytes that travel with every inference."""
        return sum(t.streamed_bytes * t.reads if not p else 0
                   for t, p in zip(self.demand.tensors, self.pieces, strict=True))


@dataclass(frozen=True)
class CachePlan:
    """The plan of all models that share a caching token."""

    models: tuple[ModelPlan, ...]
    staging_row: int

    @property
    def capacity(self) -> int:
        """On-chip bytes for parameters."""
        return self.staging_row * TILES * WIDE_ROW_BYTES

    @property
    def remaining(self) -> int:
        """On-chip bytes that no model uses."""
        return self.capacity - sum(m.used for m in self.models)


def plan_cache(demands: Sequence[ModelDemand]) -> CachePlan:
    """Plan the on-chip memory of models in the order of the command line.

    Parameters
    ----------
    demands:
        At least one model.
    """
    staging_row = min((d.staging_row for d in demands), default=WIDE_ROWS)
    memory = TileMemory(staging_row)
    models = []
    for demand in demands:
        available = memory.free_rows * WIDE_ROW_BYTES
        models.append(ModelPlan(demand, memory.place(demand.tensors), available))
    return CachePlan(tuple(models), staging_row)


class TileMemory:
    """Rows in use on every tile: a bottom part that grows up and a top part that grows down.

    Parameters
    ----------
    top:
        Rows below this one are free at first.
    """

    def __init__(self, top: int) -> None:
        self._top = top
        self._bottom = [0] * TILES
        self._ceiling = [top] * TILES
        self._tables = [0] * TILES

    def copy(self) -> TileMemory:
        """Return an independent copy (for searches)."""
        other = TileMemory(self._top)
        other._bottom, other._ceiling = self._bottom.copy(), self._ceiling.copy()
        other._tables = self._tables.copy()
        return other

    @property
    def free_rows(self) -> int:
        """Rows not in use, over all tiles."""
        return sum(self._ceiling) - sum(self._bottom)

    def free(self, tile: int) -> int:
        """Rows not in use on one tile."""
        return self._ceiling[tile] - self._bottom[tile]

    def place(self, tensors: Sequence[ParameterTensor]) -> tuple[tuple[Piece, ...], ...]:
        """Place the tensors of the next model; returns the pieces of each, empty when streamed."""
        first_model = not any(self._bottom) and all(c == self._top for c in self._ceiling)
        pieces: list[tuple[Piece, ...]] = [()] * len(tensors)
        for i in _local_order(tensors):
            pieces[i] = self._place_local(tensors[i])
        owners = self._assign(tensors)
        complete = all(i in owners or pieces[i] for i, t in enumerate(tensors) if t.cacheable)
        upward = first_model and complete
        for i, placed in self._lay_out(owners, upward).items():
            pieces[i] = placed
        return tuple(pieces)

    def _place_local(self, tensor: ParameterTensor) -> tuple[Piece, ...]:
        row = max(self._bottom[:tensor.tiles])
        if row + tensor.rows > min(self._ceiling[:tensor.tiles]):
            return ()
        for tile in range(tensor.tiles):
            self._bottom[tile] = row + tensor.rows
            self._tables[tile] += tensor.rows if tensor.table else 0
        return tuple(Piece(tile, row, 0, tensor.rows_on(tile)) for tile in range(tensor.tiles))

    def _assign(self, tensors: Sequence[ParameterTensor]) -> dict[int, list[tuple[int, int]]]:
        """Choose owner tiles: tensor index -> (tile, rows) of its pieces."""
        free = [self.free(t) for t in range(TILES)]
        heap = TileHeap(self._top - f - tables for f, tables in zip(free, self._tables, strict=True))
        owners: dict[int, list[tuple[int, int]]] = {}
        for i in _ring_order(tensors):
            chosen = _choose(heap, tensors[i].rows, free)
            if chosen:
                owners[i] = chosen
        return owners

    def _lay_out(self, owners: dict[int, list[tuple[int, int]]], upward: bool) -> dict[int, tuple[Piece, ...]]:
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


def _local_order(tensors: Sequence[ParameterTensor]) -> list[int]:
    local = [i for i, t in enumerate(tensors) if t.cacheable and t.kind is Kind.LOCAL]
    return sorted(local, key=lambda i: (-tensors[i].tiles, -i))


def _ring_order(tensors: Sequence[ParameterTensor]) -> Iterable[int]:
    ring = [i for i, t in enumerate(tensors) if t.cacheable and t.kind is Kind.RING]
    return sorted(ring, key=lambda i: (-tensors[i].reads, not tensors[i].depthwise, -tensors[i].rows, i))


def _choose(heap: TileHeap, rows: int, free: list[int]) -> list[tuple[int, int]]:
    """Take the least filled tiles until k of them hold the tensor, k as small as possible.

    A tile that ends an attempt stays out of the following ones, as in official programs.
    """
    out: list[tuple[int, int]] = []
    chosen: list[tuple[int, int]] = []
    for k in range(1, len(heap) + 1):
        held, failed = _attempt(heap, k, -(-rows // k), free)
        if failed is None and len(held) == k:
            chosen = _fill(rows, [tile for tile, _ in held], free)
        elif failed is not None:
            out.append(failed)
        taken = dict(chosen)
        for tile, used in held:
            free[tile] -= taken.get(tile, 0)
            heap.push(tile, used + taken.get(tile, 0))
        if chosen or failed is None:
            break
    for tile, used in out:
        heap.push(tile, used)
    return chosen


def _attempt(heap: TileHeap, k: int, part: int,
             free: list[int]) -> tuple[list[tuple[int, int]], tuple[int, int] | None]:
    """Take k tiles with room for ``part`` rows each; returns those taken and the one that ended it."""
    held: list[tuple[int, int]] = []
    while len(held) < k and len(heap):
        tile, used = heap.pop()
        if free[tile] < part:
            return held, (tile, used)
        held.append((tile, used))
    return held, None


def _fill(rows: int, tiles: list[int], free: list[int]) -> list[tuple[int, int]]:
    parts = []
    for tile in tiles:
        part = min(rows, free[tile])
        parts.append((tile, part))
        rows -= part
    return [p for p in parts if p[1]]
