"""Memory plans of published models."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from compiler.conformance.partners import find_partners, room_beside
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


def settled(pairs: list[Pair], ending: str) -> PairUnderTest:
    pair = next(p for p in pairs if p.name.endswith(ending))
    partners = find_partners([(pair.source, pair.compiled)])
    return PairUnderTest(pair.source, pair.compiled, 1, 0, partners[pair.compiled.resolve()])


@pytest.mark.parametrize(("ending", "members"), [
    ("edgetpu/mobilenet_v1_0.5_160_quant_cocompiled_with_3quant", 2),
    ("test_data/mobilenet_v1_0.25_128_quant_cocompiled_with_3quant", 2), ("KapiBara-ROS-2-Package/model", 1)])
def test_members_of_incomplete_sets_are_planned_beside_rows_of_the_others(pairs: list[Pair], ending: str, members: int,
                                                                           ) -> None:
    """Named alone: the others at hand are found in its folder; the first is one of compiler 1.0, the others of 16.0."""
    setting = settled(pairs, ending).setting
    assert setting is not None
    assert len(setting.order) == members
    assert all(c.equal for comparisons in setting.comparisons for c in comparisons)
    assert setting.rows_taken > 0


def test_a_complete_set_is_planned_without_rows_of_others(pairs: list[Pair]) -> None:
    pair = settled(pairs, "mobilenet_v1_0.5_160_quant_cocompiled_with_mobilenet_v1_0.25_128_quant")
    assert pair.setting is not None
    assert pair.setting.order == (1, 0)
    assert pair.setting.rows_taken == 0
    assert [c.identical for (c,) in pair.setting.comparisons] == [28, 28]


def test_a_model_that_streams_layers_by_itself_has_no_rows_of_others(pairs: list[Pair]) -> None:
    """What does not fit lies below the staging, with free rows below: nothing of that is taken by others."""
    for ending in ("EdgeTPU-Compiler-Log-Parser/dummy", "model_size_channel332_quant"):
        assert room_beside(settled(pairs, ending).official_packages) is None
