"""The best order of models: the search against all arrangements, its bound, and what the figures mean."""

from __future__ import annotations

import time
from itertools import permutations

import numpy as np
import pytest
from small_networks import EVERYTHING

from compiler.facts import WIDE_ROW_BYTES
from compiler.memory.demand import Kind, ModelDemand, ParameterTensor
from compiler.memory.order import Candidate, Traffic, best_order, evaluate
from compiler.memory.plan import fits_together, plan_cache
from compiler.memory.prefix import Prefix

SETS = [(count, seed) for seed in range(50 if EVERYTHING else 2) for count in (3, 4, 5, 6)]
"""Two hundred with ETPU_TEST_EVERYTHING set."""
_PLANNED = 4
"""Up to so many models every order is planned by itself; prefixes, which another test compares with plans, serve more."""


def candidates(count: int, seed: int, tensors: int = 6, dense: int = 0) -> list[Candidate]:
    """Random models of convolutions, some of them with a dense layer, that fill the chip 0.8 to 3 times."""
    rng = np.random.default_rng([count, seed])
    shapes = [[*rng.choice(["depthwise", "conv", "conv"], rng.integers(2, tensors)), *(["dense"] if i < dense else [])]
              for i in range(count)]
    mean = {"depthwise": 0.15, "conv": 1.0, "dense": 1.5}
    sizes = [[rng.exponential(mean[kind]) + 0.02 for kind in shape] for shape in shapes]
    unit = rng.uniform(0.8, 3.0) * 16 * 2000 / sum(map(sum, sizes))
    found = []
    for number, (shape, parts) in enumerate(zip(shapes, sizes, strict=True)):
        rows = [max(1, int(part * unit)) for part in parts]
        made = tuple(_tensor(rng, f"{kind} {i}", r) for i, (kind, r) in enumerate(zip(shape, rows, strict=True)))
        demand = ModelDemand(f"m{number}", made, int(rng.integers(1800, 2080)))
        found.append(Candidate(demand, float(rng.choice([1, 2, 5, 10])), float(rng.uniform(0, 2000))))
    return found


def _tensor(rng: np.random.Generator, name: str, rows: int) -> ParameterTensor:
    size = rows * WIDE_ROW_BYTES - int(rng.integers(0, 100))
    if not name.startswith("dense"):
        return ParameterTensor(name, Kind.RING, rows, size, depthwise=name.startswith("depthwise"))
    tiles = int(rng.integers(1, 17))
    own = -(-rows // tiles)
    return ParameterTensor(name, Kind.LOCAL, own, own * tiles * WIDE_ROW_BYTES, tiles, group_rows=own, cacheable=own <= 2080)


def best_of_all(models: list[Candidate], traffic: Traffic) -> float:
    """Least cost of all groups in all orders, nothing left out."""
    p = np.array([c.frequency for c in models]) / sum(c.frequency for c in models)
    solo = [plan_cache([c.demand]).models[0] for c in models]

    def cost(i: int, group: frozenset[int], used: int, streamed: int) -> float:
        outside = max(0.0, 1 - p[list(group)].sum()) if group else 1.0
        reload = 1 - p[i] if i not in group else outside / (outside + p[i])
        moved = streamed + reload * (1 - traffic.stickiness) * used
        if traffic.objective == "bytes":
            return float(p[i] * streamed)
        return float(p[i] * (models[i].compute_us + traffic.us_per_byte * moved))

    def least(order: tuple[int, ...], prefix: Prefix, group: frozenset[int], spent: float) -> float:
        left = group - set(order)
        if not left:
            return spent
        found = []
        for i in left:
            longer = prefix.extended(models[i].demand)
            found.append(least((*order, i), longer, group, spent + cost(i, group, longer.rows * WIDE_ROW_BYTES,
                                                                        longer.streamed)))
        return min(found)

    def planned(group: frozenset[int]) -> float:
        found = []
        for order in permutations(sorted(group)):
            plan = plan_cache([models[i].demand for i in order]).models
            found.append(sum(cost(i, group, m.used, m.streamed) for i, m in zip(order, plan, strict=True)))
        return min(found)

    best = float("inf")
    for members in range(1 << len(models)):
        group = frozenset(i for i in range(len(models)) if members >> i & 1)
        if len(group) == 1:
            continue
        rest = sum(cost(i, group, solo[i].used, solo[i].streamed) for i in range(len(models)) if i not in group)
        top = min((models[i].demand.staging_row for i in group), default=1)
        if group and fits_together([models[i].demand for i in sorted(group)]):
            shares = zip(sorted(group), plan_cache([models[i].demand for i in sorted(group)]).models, strict=True)
            best = min(best, rest + sum(cost(i, group, m.used, m.streamed) for i, m in shares))
        elif len(models) <= _PLANNED and group:
            best = min(best, rest + planned(group))
        else:
            best = min(best, least((), Prefix.empty(top), group, rest))
    return best


@pytest.mark.parametrize(("count", "seed"), SETS)
def test_search_equals_trying_everything(count: int, seed: int) -> None:
    models = candidates(count, seed, dense=(3, 2, 0, 0)[count - 3])
    traffic = Traffic(stickiness=(0.0, 0.5)[seed % 2], objective=("latency", "bytes")[seed % 3 == 2])
    found = best_order(models, traffic)
    assert found.gap == 0
    assert found.cost == pytest.approx(best_of_all(models, traffic), rel=1e-12, abs=1e-9)
    assert evaluate(models, found.group, traffic).cost == found.cost


@pytest.mark.parametrize("seed", range(20 if EVERYTHING else 2))
def test_prefixes_are_what_the_plan_says(seed: int) -> None:
    demands = [c.demand for c in candidates(5, 100 + seed, dense=3)]
    top = min(d.staging_row for d in demands)
    if fits_together(demands):
        assert all(plan.streamed == 0 for plan in plan_cache(demands).models)
        return
    for order in list(permutations(demands))[::29]:
        prefix, found = Prefix.empty(top), []
        for demand in order:
            prefix = prefix.extended(demand)
            found.append((prefix.streamed, prefix.rows * WIDE_ROW_BYTES))
        plan = plan_cache(list(order), top)
        assert found == [(m.streamed, m.used) for m in plan.models]
        assert prefix.free_rows * WIDE_ROW_BYTES == plan.remaining


@pytest.mark.parametrize("seed", range(20 if EVERYTHING else 1))
def test_twelve_models_in_ten_seconds(seed: int) -> None:
    models = candidates(12, seed, 10, dense=4)
    started = time.process_time()
    found = best_order(models)
    seconds = time.process_time() - started
    print(f"{seed}: gap {100 * found.gap:.3f} %, {seconds:.1f} s")
    assert seconds < 10
    assert found.gap < 0.01


def test_what_everything_fits_costs_nothing_but_computing() -> None:
    layer = ParameterTensor("c", Kind.RING, 100, 25600)
    small = [Candidate(ModelDemand(f"m{i}", (layer,), 2000), 1.0, 100.0) for i in range(3)]
    found = best_order(small)
    assert found.cost == pytest.approx(100.0)
    assert sorted(found.group) == [0, 1, 2] and found.alone == ()
    assert all(share.reload_probability == 0 for share in found.shares)


def test_a_large_model_that_is_rarely_used_is_left_alone() -> None:
    """Two models that switch all the time fit together; the third would need the whole memory, once in a while."""
    def model(rows: int) -> ModelDemand:
        return ModelDemand("m", (ParameterTensor("c", Kind.RING, rows // 10, rows // 10 * 256),) * 10, 2000)

    found = best_order([Candidate(model(15000), 50), Candidate(model(15000), 50), Candidate(model(30000), 0.1)])
    assert sorted(found.group[:2]) == [0, 1]
    assert found.shares[0].off_chip == found.shares[1].off_chip == 0
