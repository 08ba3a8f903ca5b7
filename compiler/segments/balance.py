"""The cut whose slowest segment is fastest."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Cut:
    """Where segments end.

    Attributes
    ----------
    ends:
        Positions in the execution order, the last one the number of operators.
    latencies:
        Of each segment, microseconds.
    """

    ends: tuple[int, ...]
    latencies: tuple[float, ...]

    @property
    def slowest(self) -> float:
        """Latency of the slowest segment: what a full pipeline takes per inference."""
        return max(self.latencies)


def cut_at(costs: Floats, ends: tuple[int, ...]) -> Cut:
    """Describe a cut; ``costs`` is indexed by first position and the position behind the last."""
    begins = (0, *ends[:-1])
    return Cut(ends, tuple(float(costs[b, e]) for b, e in zip(begins, ends, strict=True)))


def balance(costs: Floats, count: int, possible: int) -> Cut:
    """Find the cut with the fastest slowest segment, and among those one with the least time in all.

    Exact, by dynamic programming over the positions: the best way to end a segment at a position does
    not depend on what comes behind.

    Parameters
    ----------
    costs:
        Latency of every stretch of operators, indexed by first position and the position behind the last.
    count:
        Segments.
    possible:
        Last position at which the last segment may begin.
    """
    slowest = _choose(costs, count, possible, worst=True)
    limit = max(cut_at(costs, slowest).latencies)
    return cut_at(costs, _choose(np.where(costs <= limit, costs, np.inf), count, possible, worst=False))


def _choose(costs: Floats, count: int, possible: int, *, worst: bool) -> tuple[int, ...]:
    """Minimise the largest cost, or the sum of all."""
    operators = costs.shape[0] - 1
    best = costs[0].copy()
    best[possible + 1:operators] = np.inf
    if count > 1:
        best[operators] = np.inf
    begins: list[npt.NDArray[np.int64]] = []
    for segment in range(1, count):
        joined = np.maximum(best[:, None], costs) if worst else best[:, None] + costs
        chosen = joined.argmin(axis=0)
        best = joined[chosen, np.arange(operators + 1)]
        if segment < count - 1:
            best[possible + 1:] = np.inf
        begins.append(chosen)
    ends = [operators]
    for chosen in reversed(begins):
        ends.append(int(chosen[ends[-1]]))
    return tuple(reversed(ends))
