"""Plans of the first models of an order, extended model by model: for searches over many orders.

:func:`compiler.memory.plan.plan_cache` compares what the official rules give with b rows per tile, for all b,
model by model. So what the first models get does not depend on those behind them: a further model chooses among
those b that are best for the models before it. A prefix keeps these b.

What a model gets whose tensors all lie on the ring depends on nothing but the number of free rows, because such
tensors are cut over as many tiles as it takes. So it is worked out for all b at once, and where everything lies is
only looked at when a model with dense layers follows. How many rows are free is kept for every b: dense layers begin
on the same row on all their tiles, and what lies below it on less filled tiles is lost.

Models that fit all together (:func:`compiler.memory.plan.fits_together`) are placed in another way, which needs all of
them; prefixes say nothing about these.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from compiler.facts import TILES
from compiler.memory.demand import Kind, ModelDemand
from compiler.memory.placement import TileMemory, ring_order
from compiler.memory.plan import least_streamed

Ints = npt.NDArray[np.int64]


class Prefix:
    """The first models of an order.

    Attributes
    ----------
    streamed, rows:
        What the last of them streams, bytes, and the rows that it takes.
    complete:
        All of them stream nothing that could be cached.
    taken:
        Rows that they take, over all tiles.
    choices:
        Rows per tile that are best for them, most first.
    """

    def __init__(self, demands: tuple[ModelDemand, ...], choices: Ints, free: Ints, parent: Prefix | None = None, *,
                 streamed: int = 0, rows: int = 0, complete: bool = True) -> None:
        self.streamed = streamed
        self.rows = rows
        self.complete = complete
        self.choices = choices
        self.taken: int = rows + (parent.taken if parent is not None else 0)
        self._demands = demands
        self._free = free
        self._parent = parent
        self._memories: dict[int, TileMemory] = {}

    @classmethod
    def empty(cls, top: int) -> Prefix:
        """Return a prefix without models; ``top``: rows per tile."""
        choices = np.arange(top, 0, -1)
        return cls((), choices, TILES * choices)

    @property
    def free_rows(self) -> int:
        """Rows that they leave of all that there are, over all tiles."""
        first = self
        while first._parent is not None:
            first = first._parent
        return TILES * int(first.choices[0]) - self.taken

    def extended(self, demand: ModelDemand) -> Prefix:
        """Return the prefix with one model more."""
        demands = (*self._demands, demand)
        if is_pooled(demand):
            streamed, rows = pooled(demand, self._free)
            choices, free = self.choices, self._free - rows
        else:
            found = list(self._played(demand, demands))
            choices, streamed, rows, free = (np.array(column) for column in zip(*found, strict=True))
        best = int(streamed.min())
        fewest = int(rows[streamed == best].min())
        least = sum(t.streamed_bytes * t.reads for t in demand.tensors if not t.cacheable)
        chosen = (streamed == best) & (rows == fewest)
        return Prefix(demands, choices[chosen], free[chosen], self, streamed=best, rows=fewest,
                      complete=self.complete and best == least)

    def _played(self, demand: ModelDemand, demands: tuple[ModelDemand, ...]) -> Iterator[tuple[int, int, int, int]]:
        """Place a model by the rules; yields rows per tile, bytes streamed, rows taken and rows left free."""
        best, valid_to = 0, int(self.choices[0]) + 1
        last = (0, 0)
        base = 0
        for choice in self.choices.tolist():
            if choice < valid_to:
                if valid_to <= int(self.choices[0]) and self.complete and least_streamed(
                        demands, len(demands) - 1, choice) > best:
                    return
                memory = self.memory(choice).copy()
                placement = memory.place(demand.tensors)
                last = (placement.streamed, placement.rows)
                base = memory.free_rows - TILES * choice
                best = min(best, last[0]) if valid_to <= int(self.choices[0]) else last[0]
                valid_to = choice - memory.slack
            yield choice, *last, base + TILES * choice

    def memory(self, choice: int) -> TileMemory:
        """Return what is in use with so many rows per tile."""
        if choice not in self._memories:
            if self._parent is None:
                memory = TileMemory(choice)
            else:
                memory = self._parent.memory(choice).copy()
                memory.place(self._demands[-1].tensors)
            self._memories[choice] = memory
        return self._memories[choice]


def is_pooled(demand: ModelDemand) -> bool:
    """Tell whether what a model gets depends on the number of free rows alone."""
    return all(t.kind is Kind.RING for t in demand.tensors if t.cacheable)


def pooled(demand: ModelDemand, free: Ints) -> tuple[Ints, Ints]:
    """Return bytes streamed and rows taken for each number of free rows."""
    streamed = np.full(free.shape, sum(t.streamed_bytes * t.reads for t in demand.tensors), np.int64)
    left = free.copy()
    for i in ring_order(demand.tensors, {i for i, t in enumerate(demand.tensors) if t.cacheable}):
        tensor = demand.tensors[i]
        fits = (left >= tensor.total_rows) if tensor.total_rows else np.zeros(left.shape, bool)
        left -= np.where(fits, tensor.total_rows, 0)
        streamed -= np.where(fits, tensor.streamed_bytes * tensor.reads, 0)
    return streamed, free - left
