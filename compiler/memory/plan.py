"""Which layers live in on-chip memory, and where: one model, or several that share it.

Rules, read off official programs:

* A layer is cached as a whole or streamed as a whole. A layer that does not fit is skipped,
  smaller ones are still tried.
* Local tensors come first, earlier layers before later ones. They lie from row 0 upwards: those
  on most tiles lowest, of equals the later layers.
* A ring tensor goes to the least filled tile, in the order most often read, depthwise first,
  largest first. One that no single tile can hold is cut into k pieces on k tiles, k as small
  as possible, the first k - 1 pieces filling their tile.
* Local tensors that do not fit side by side on their tiles lie like ring tensors instead, cut
  between groups of output channels only.
* Co-compiled models are served in the order of the command line. The rows set aside for
  executables are those of the largest executable, not the sum. Where everything fits, the local
  tensors of all models lie lowest. How else models share the memory: :mod:`compiler.memory.sharing`.
* Tables of a SOFTMAX get what all else leaves.

These rules are first fit, and first fit is not monotone: with more room an early layer may take
what two later ones had. :func:`plan_cache` therefore also plays them with less room than there is,
and takes the best of all: see there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from compiler.facts import TILES, WIDE_ROW_BYTES, WIDE_ROWS
from compiler.memory.demand import Kind, ModelDemand, ParameterTensor
from compiler.memory.placement import Piece, Placement
from compiler.memory.sharing import WHOLE, Sharing
from compiler.records import record


@record
class ModelPlan:
    """The plan of one model.

    Attributes
    ----------
    pieces:
        Per tensor of the demand, in its order: where it lives; empty when it is streamed.
    on_ring:
        Numbers of the local tensors that lie like ring tensors.
    available:
        On-chip bytes that earlier models left for this one.
    """

    demand: ModelDemand
    pieces: tuple[tuple[Piece, ...], ...]
    available: int
    on_ring: frozenset[int] = frozenset()

    def cached(self, index: int) -> bool:
        """Tell whether a tensor is cached."""
        return bool(self.pieces[index])

    def side_by_side(self, index: int) -> bool:
        """Tell whether a local tensor is cached on the tiles that compute with it."""
        return self.cached(index) and index not in self.on_ring

    @property
    def used(self) -> int:
        """On-chip bytes of this model's parameters."""
        return WIDE_ROW_BYTES * sum(p.rows for pieces in self.pieces for p in pieces)

    @property
    def streamed(self) -> int:
        """Bytes that travel with every inference."""
        return sum(t.streamed_bytes * t.reads for t, p in zip(self.demand.tensors, self.pieces, strict=True) if not p)


@record
class CachePlan:
    """The plan of all models that share a caching token.

    Attributes
    ----------
    rows:
        Wide rows for their parameters, over all tiles.
    """

    models: tuple[ModelPlan, ...]
    staging_row: int
    rows: int

    @property
    def capacity(self) -> int:
        """On-chip bytes for parameters."""
        return self.rows * WIDE_ROW_BYTES

    @property
    def remaining(self) -> int:
        """On-chip bytes that no model uses."""
        return self.capacity - sum(m.used for m in self.models)


def plan_cache(demands: Sequence[ModelDemand], rows: int | None = None, sharing: Sharing = WHOLE) -> CachePlan:
    """Plan the on-chip memory of models in the order of the command line.

    Let H(b) be what the official rules give when the tiles have b rows each, and s(b) the bytes
    that each model then streams and the rows it takes, compared model by model in the order of the
    command line. The plan is the H(b) with the least s(b) of all b up to the rows B that there are;
    of equals that with the largest b. So

    * it is the official plan H(B) whenever no smaller b streams less, in particular whenever
      everything fits;
    * it is monotone: a larger B only adds candidates.

    The search goes down from B and ends where no smaller b can win. All models before the first
    that streams anything avoidable must be cached completely by a better plan too, which takes
    all their rows; of the rows that ``TILES * b`` leaves, that model can at best save what a
    knapsack of its tensors saves. Values of b that leave every comparison of the official rules
    as it was are passed over.

    Parameters
    ----------
    demands:
        At least one model.
    rows:
        Rows per tile; by default those below the staging of every model.
    sharing:
        How models share the memory. Unless they have all of it, one after the other, the plan is H(B).
    """
    top = min((d.staging_row for d in demands), default=WIDE_ROWS) if rows is None else rows
    best, slack = _official(demands, top, sharing)
    row = top - slack - 1 if sharing == WHOLE else 0
    while row > 0 and (short := _first_short(demands, best)) is not None:
        least = least_streamed(demands, short, row)
        if least > best[short].streamed or (least == best[short].streamed and short == len(demands) - 1):
            break
        other, slack = _official(demands, row)
        if _cost(other) < _cost(best):
            best = other
        row -= slack + 1
    models, taken, room = [], 0, sharing.memory(top).free_rows
    for demand, placement in zip(demands, best, strict=True):
        models.append(ModelPlan(demand, placement.pieces, (room - taken) * WIDE_ROW_BYTES, placement.on_ring))
        taken += sum(p.rows for pieces in placement.pieces for p in pieces)
    return CachePlan(tuple(models), top, room)


def fits_together(demands: Sequence[ModelDemand]) -> bool:
    """Tell whether all that models can cache fits once their local tensors lie lowest; their order does not matter then."""
    top = min(demand.staging_row for demand in demands)
    return WHOLE.memory(top).place_together([demand.tensors for demand in demands]) is not None


def settled_plan(demands: Sequence[Callable[[ModelPlan | None], ModelDemand]], sharing: Sharing = WHOLE) -> CachePlan:
    """Plan the memory; layers that turn out to be streamed take rows, so plan again until nothing changes.

    Parameters
    ----------
    demands:
        Per model: what it asks for under a plan made before, or under none yet.
    """
    plan = plan_cache([demand(None) for demand in demands], sharing=sharing)
    while True:
        found = [demand(own) for demand, own in zip(demands, plan.models, strict=True)]
        if min((d.staging_row for d in found), default=plan.staging_row) >= plan.staging_row:
            return plan
        plan = plan_cache(found, sharing=sharing)


def _official(demands: Sequence[ModelDemand], top: int, sharing: Sharing = WHOLE) -> tuple[list[Placement], int]:
    """Play the official rules with ``top`` rows per tile; returns also how many fewer would change nothing."""
    memory, models = sharing.memory(top), [demand.tensors for demand in demands]
    together = memory.place_together(models) if len(demands) > 1 else None
    if together is not None:
        return together, memory.slack
    memory = sharing.memory(top)
    if sharing.jointly:
        return memory.place_jointly(models), memory.slack
    return [memory.place(tensors) for tensors in models], memory.slack


def _cost(placements: Sequence[Placement]) -> list[tuple[int, int]]:
    return [(placement.streamed, placement.rows) for placement in placements]


def _first_short(demands: Sequence[ModelDemand], placements: Sequence[Placement]) -> int | None:
    """Return the first model that streams more than it must."""
    for i, (demand, placement) in enumerate(zip(demands, placements, strict=True)):
        if any(t.cacheable and not p for t, p in zip(demand.tensors, placement.pieces, strict=True)):
            return i
    return None


def least_streamed(demands: Sequence[ModelDemand], model: int, row: int) -> int:
    """Bytes that a model streams at least with ``row`` rows per tile, all models before it being complete."""
    free = row * TILES - sum(t.total_rows for d in demands[:model] for t in d.tensors if t.cacheable)
    tensors = demands[model].tensors
    return sum(t.streamed_bytes * t.reads for t in tensors) - int(_most_saved(tensors)[max(free, 0)])


@lru_cache(maxsize=64)
def _most_saved(tensors: tuple[ParameterTensor, ...]) -> npt.NDArray[np.int64]:
    """Bytes that need not be streamed at most, by the rows there are in all: a knapsack."""
    saved = np.zeros(WIDE_ROWS * TILES + 1, np.int64)
    for t in tensors:
        if _may_fit(t, WIDE_ROWS):
            saved[t.total_rows:] = np.maximum(saved[t.total_rows:], saved[:-t.total_rows] + t.streamed_bytes * t.reads)
    return saved


def _may_fit(tensor: ParameterTensor, row: int) -> bool:
    """Tell whether a tensor fits into empty tiles of ``row`` rows."""
    unit = tensor.group_rows or 1
    side_by_side = tensor.kind is Kind.LOCAL and tensor.rows <= row
    on_ring = (tensor.kind is Kind.RING or tensor.group_rows > 0) and tensor.total_rows <= row // unit * unit * TILES
    return tensor.cacheable and tensor.total_rows > 0 and (side_by_side or on_ring)


__all__ = ["CachePlan", "ModelPlan", "Piece", "fits_together", "least_streamed", "plan_cache", "settled_plan"]
