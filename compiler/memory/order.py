"""The best order of models on one Edge TPU: co-compiled or not, and in which order.

The official advice is to try orders by hand. Here every choice is compared by the latency it
is expected to give:

* A *group* of models is co-compiled in an order: they share one caching token and the memory.
* Every other model is compiled alone: it has the whole memory, but whenever another token was
  active before it, its cache must be written again.

Models are invoked at random with given frequencies. After an invocation the same model is
invoked again with probability ``stickiness``; otherwise the next one is drawn by frequency.

With ``p`` the frequencies, ``s`` the stickiness and ``Q`` the summed frequency of the models
outside the group, looking back in time from an invocation of model ``i`` gives the probability
that its cached parameters were wiped since it last ran: ``(1 - s) * (1 - p_i)`` for a model
compiled alone and ``(1 - s) * Q / (Q + p_i)`` for a member of the group.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from itertools import combinations, cycle, permutations

from compiler.facts import TILES, WIDE_ROW_BYTES
from compiler.memory.demand import ModelDemand
from compiler.memory.plan import fits_together, plan_cache
from compiler.memory.prefix import Prefix, is_pooled
from compiler.records import record

EXACT_MODELS = 8
"""Up to this many models the search is exhaustive (with bounds that lose nothing)."""
SEARCH_SECONDS = 6.0
"""Time limit of longer searches; a step that has begun ends up to two seconds later, all within ten."""
IMPROVING_SHARE = 0.7
"""Part of the time of a longer search in which a good order is looked for, before the rest proves what it can."""


@record
class Candidate:
    """A model that wants memory.

    Attributes
    ----------
    demand:
        Its parameter tensors.
    frequency:
        Relative number of invocations.
    compute_us:
        Latency with all its parameters on the chip, microseconds.
    """

    demand: ModelDemand
    frequency: float = 1.0
    compute_us: float = 0.0


@record
class Traffic:
    """What parameter traffic costs, and how invocations follow each other.

    Attributes
    ----------
    us_per_byte:
        Time to bring one byte of parameters onto the chip.
    stickiness:
        Probability that the next invocation is of the same model for other reasons than chance.
    objective:
        ``latency``: expected microseconds. ``bytes``: parameter bytes that stay off the chip,
        weighted by frequency; switching does not count.
    """

    us_per_byte: float = 1 / 387.0
    stickiness: float = 0.0
    objective: str = "latency"


@record
class Share:
    """What one model gets in an arrangement.

    Attributes
    ----------
    cached_us, uncached_us:
        Latency when its cache is on the chip, and when it must be written first.
    reload_probability:
        Probability that an invocation finds its cache wiped.
    wiped_by_others:
        A model with another token comes in between when all others have their turn.
    """

    name: str
    grouped: bool
    on_chip: int
    off_chip: int
    cached_us: float
    uncached_us: float
    reload_probability: float
    wiped_by_others: bool

    @property
    def switching_us(self) -> float:
        """Latency after all other models had their turn."""
        return self.uncached_us if self.wiped_by_others else self.cached_us


@record
class Arrangement:
    """The chosen order.

    Attributes
    ----------
    group:
        Indices of the co-compiled models in command-line order (fewer than two: none are).
    alone:
        Indices of the models compiled alone.
    cost, bound:
        Value of the objective, and a proven lower bound of any arrangement's.
    """

    group: tuple[int, ...]
    alone: tuple[int, ...]
    cost: float
    bound: float
    shares: tuple[Share, ...]

    @property
    def gap(self) -> float:
        """Relative distance to the proven bound; 0 means optimal."""
        return 0.0 if self.cost - self.bound <= 1e-9 else (self.cost - self.bound) / self.cost


def best_order(candidates: Sequence[Candidate], traffic: Traffic | None = None, *,
               seconds: float = SEARCH_SECONDS) -> Arrangement:
    """Find the arrangement with the least expected cost.

    Parameters
    ----------
    candidates:
        The models, any number.
    traffic:
        Cost of traffic and pattern of invocations.
    seconds:
        Time limit beyond :data:`EXACT_MODELS` models; what is best by then is
        returned together with the proven bound.
    """
    started = time.monotonic()
    search = _Search(candidates, traffic or Traffic())
    # Describing the result plans the models once more, which takes about as long as preparing did.
    prepared = time.monotonic() - started
    limit = None if len(candidates) <= EXACT_MODELS else started + seconds - prepared
    return search.run(limit)


def evaluate(candidates: Sequence[Candidate], group: Sequence[int], traffic: Traffic | None = None) -> Arrangement:
    """Work out the cost of one arrangement: ``group`` co-compiled in this order, the rest alone."""
    search = _Search(candidates, traffic or Traffic())
    return search.arrangement(tuple(group), bound=0.0)


class _Search:
    """Depth-first over groups and their orders; a branch ends when its bound cannot win."""

    def __init__(self, candidates: Sequence[Candidate], traffic: Traffic) -> None:
        self.candidates = candidates
        self.traffic = traffic
        total = sum(c.frequency for c in candidates)
        self.p = [c.frequency / total for c in candidates]
        self.pooled = [is_pooled(c.demand) for c in candidates]
        self.solo = [plan_cache([c.demand]).models[0] for c in candidates]
        self.best: tuple[float, tuple[int, ...]] = (float("inf"), ())
        self.proven = float("inf")

    def run(self, limit: float | None) -> Arrangement:
        """Search all groups, the most promising first."""
        n = len(self.candidates)
        groups = [g for size in range(n + 1) if size != 1 for g in combinations(range(n), size)]
        bounds = sorted((self.group_bound(g), g) for g in groups)
        open_bound = float("inf")
        if limit is not None:
            self.improve(bounds[0][1], time.monotonic() + IMPROVING_SHARE * (limit - time.monotonic()))
        for bound, group in bounds:
            if bound >= self.best[0]:
                break
            if self.is_over(limit):
                open_bound = min(open_bound, bound)
                break
            open_bound = min(open_bound, self.orders(group, limit))
        return self.arrangement(self.best[1], bound=min(self.best[0], open_bound))

    def is_over(self, limit: float | None) -> bool:
        """Tell whether the time is up; one order is looked at in any case."""
        return limit is not None and self.best[0] < float("inf") and time.monotonic() > limit

    # -- cost of one model ------------------------------------------------------------------

    def reload(self, i: int, group: tuple[int, ...]) -> float:
        """Probability that an invocation of model i finds its cache wiped."""
        awake = 1 - self.traffic.stickiness
        if i not in group:
            return awake * (1 - self.p[i])
        outside = 1 - sum(self.p[j] for j in group)
        return awake * outside / (outside + self.p[i]) if outside > 1e-12 else 0.0

    def cost(self, i: int, group: tuple[int, ...], cached: float, streamed: float) -> float:
        """Expected cost of model i with so many bytes cached and streamed, weighted by frequency."""
        if self.traffic.objective == "bytes":
            return self.p[i] * streamed
        moved = streamed + self.reload(i, group) * cached
        return self.p[i] * (self.candidates[i].compute_us + self.traffic.us_per_byte * moved)

    def alone_cost(self, i: int, group: tuple[int, ...]) -> float:
        """Expected cost of a model compiled alone."""
        return self.cost(i, group, self.solo[i].used, self.solo[i].streamed)

    # -- bounds -------------------------------------------------------------------------------

    def group_bound(self, group: tuple[int, ...]) -> float:
        """Return a cost that no order of the group can undercut."""
        rest = sum(self.alone_cost(i, group) for i in range(len(self.candidates)) if i not in group)
        staging = min((self.candidates[i].demand.staging_row for i in group), default=0)
        return rest + self.remaining_bound(group, group, staging * TILES)

    def remaining_bound(self, members: Iterable[int], group: tuple[int, ...], free_rows: int) -> float:
        """Bound the cost of members that share ``free_rows``: rows could be cut at will.

        A row cached for model i saves at most ``gain_i`` per row; giving rows to the largest
        gains first is the fractional knapsack, which no whole-layer placement can beat.
        """
        cost = 0.0
        offers: list[tuple[float, int]] = []
        for i in members:
            cost += self.cost(i, group, 0, sum(t.streamed_bytes * t.reads for t in self.candidates[i].demand.tensors))
            offers.extend(self.offers(i, group))
        for gain, rows in sorted(offers, reverse=True):
            if gain <= 0 or free_rows <= 0:
                break
            taken = min(rows, free_rows)
            cost -= gain * taken
            free_rows -= taken
        return cost

    def offers(self, i: int, group: tuple[int, ...]) -> list[tuple[float, int]]:
        """Gain per cached row and number of rows, for every cacheable tensor of a model."""
        found = []
        empty = self.cost(i, group, 0, 0)
        for tensor in self.candidates[i].demand.tensors:
            if tensor.cacheable and tensor.total_rows:
                saved = self.cost(i, group, 0, tensor.streamed_bytes * tensor.reads) - empty
                paid = self.cost(i, group, tensor.total_rows * WIDE_ROW_BYTES, 0) - empty
                found.append(((saved - paid) / tensor.total_rows, tensor.total_rows))
        return found

    # -- orders of one group --------------------------------------------------------------------

    def orders(self, group: tuple[int, ...], limit: float | None) -> float:
        """Search the orders of a group; returns the least bound of what was left unsearched."""
        outside = sum(self.alone_cost(i, group) for i in range(len(self.candidates)) if i not in group)
        if len(group) < 2:
            self.offer(outside, ())
            return float("inf")
        demands = [self.candidates[i].demand for i in group]
        if fits_together(demands):
            shares = zip(group, plan_cache(demands).models, strict=True)
            self.offer(outside + sum(self.cost(i, group, m.used, m.streamed) for i, m in shares), group)
            return float("inf")
        return self._extend((), self.promising(group), group, Prefix.empty(_top(demands)), outside, set(), limit)

    def promising(self, group: tuple[int, ...]) -> list[int]:
        """Return the models of a group, those first for which a row saves most."""
        return sorted(group, key=lambda i: -self.density(i, group))

    def improve(self, group: tuple[int, ...], until: float) -> None:
        """Move one model of an order at a time, near places first, as long as that helps and there is time."""
        demands = [self.candidates[i].demand for i in group]
        if len(group) < 2 or fits_together(demands):
            return
        outside = sum(self.alone_cost(i, group) for i in range(len(self.candidates)) if i not in group)
        known: dict[tuple[int, ...], tuple[Prefix, float]] = {(): (Prefix.empty(_top(demands)), outside)}

        def cost(order: tuple[int, ...]) -> float:
            if order not in known:
                cost(order[:-1])
                before, spent = known[order[:-1]]
                prefix = before.extended(self.candidates[order[-1]].demand)
                known[order] = prefix, spent + self.cost(order[-1], group, prefix.rows * WIDE_ROW_BYTES, prefix.streamed)
            return known[order][1]

        order = tuple(self.promising(group))
        self.offer(cost(order), order)
        moves = sorted(permutations(range(len(group)), 2), key=lambda move: abs(move[0] - move[1]))
        tried = 0
        # Round and round until no move of the whole list has helped since the last one that did.
        for source, target in cycle(moves):
            if tried == len(moves) or time.monotonic() > until:
                break
            other = _moved(order, source, target)
            tried += 1
            if cost(other) < cost(order) - 1e-9:
                order, tried = other, 0
                self.offer(cost(order), order)

    def density(self, i: int, group: tuple[int, ...]) -> float:
        """What a row for model i saves on average."""
        offers = self.offers(i, group)
        return sum(gain * rows for gain, rows in offers) / max(1, sum(rows for _, rows in offers))

    def _extend(self, order: tuple[int, ...], left: list[int], group: tuple[int, ...], prefix: Prefix, cost: float,
                seen: set[frozenset[int]], limit: float | None) -> float:
        """Go through the orders that begin with ``order``; what the first models get depends on those before them only."""
        if not left:
            self.offer(cost, order)
            return float("inf")
        bound = cost + self.remaining_bound(left, group, prefix.free_rows)
        if bound >= self.best[0]:
            return float("inf")
        if prefix.complete and all(self.pooled[i] for i in group):
            # tensors on the ring find room by the number of free rows alone, so the order of these models does not matter
            if (members := frozenset(order)) in seen:
                return float("inf")
            seen.add(members)
        unsearched = float("inf")
        for i in left:
            if self.is_over(limit):
                return min(unsearched, bound)
            longer = prefix.extended(self.candidates[i].demand)
            spent = cost + self.cost(i, group, longer.rows * WIDE_ROW_BYTES, longer.streamed)
            unsearched = min(unsearched, self._extend((*order, i), [j for j in left if j != i], group, longer, spent, seen,
                                                      limit))
        return unsearched

    def offer(self, cost: float, order: tuple[int, ...]) -> None:
        """Keep an arrangement if it is the best so far."""
        if cost < self.best[0] - 1e-9:
            self.best = (cost, order)

    # -- result -----------------------------------------------------------------------------------

    def arrangement(self, group: tuple[int, ...], *, bound: float) -> Arrangement:
        """Describe an arrangement with all its figures."""
        plans = dict(zip(group, plan_cache([self.candidates[i].demand for i in group]).models, strict=True)
                     ) if group else {}
        shares, cost = [], 0.0
        for i, candidate in enumerate(self.candidates):
            plan = plans.get(i, self.solo[i])
            cost += self.cost(i, group, plan.used, plan.streamed)
            warm = candidate.compute_us + self.traffic.us_per_byte * plan.streamed
            shares.append(Share(candidate.demand.name, i in plans, plan.used, plan.streamed, warm,
                                warm + self.traffic.us_per_byte * plan.used, self.reload(i, group),
                                len(group) < len(self.candidates)))
        alone = tuple(i for i in range(len(self.candidates)) if i not in group)
        return Arrangement(group, alone, cost, min(bound, cost), tuple(shares))


def _top(demands: Sequence[ModelDemand]) -> int:
    return min(demand.staging_row for demand in demands)


def _moved(order: tuple[int, ...], source: int, target: int) -> tuple[int, ...]:
    rest = [*order[:source], *order[source + 1:]]
    return (*rest[:target], order[source], *rest[target:])
