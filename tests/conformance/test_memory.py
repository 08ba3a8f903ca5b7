"""Memory plans of published models."""

from __future__ import annotations

from typing import TYPE_CHECKING

from compiler.conformance.plan import compare, official_staging
from compiler.conformance.runs import PairUnderTest
from compiler.lowering.demand import read_demand
from compiler.mapping import map_graph
from compiler.memory.plan import plan_cache

if TYPE_CHECKING:
    from conftest import Pair


def test_models_compiled_together_lie_on_the_official_rows(pairs: list[Pair]) -> None:
    """All segments of the one set of which every member is at hand."""
    small, large = "mobilenet_v1_0.25_128_quant", "mobilenet_v1_0.5_160_quant"
    found = {p.name.split("/")[-1]: p for p in pairs}
    reads, packages = [], []
    for one, other in ((small, large), (large, small)):
        pair = found[f"{one}_cocompiled_with_{other}"]
        test = PairUnderTest(pair.source, pair.compiled, 1, 0)
        ((_, package),) = test.packages
        (part,) = map_graph(test.source.main).subgraphs
        reads.append(read_demand(test.source.main, part, one, generation=test.generation))
        packages.append(package)
    assert len({p.execution.token for p in packages}) == 1
    plan = plan_cache([read.demand for read in reads], min(map(official_staging, packages)))
    for read, own, package in zip(reads, plan.models, packages, strict=True):
        comparison = compare(read, own, package)
        assert comparison.equal
        assert comparison.identical == comparison.segments == comparison.layers == 28
