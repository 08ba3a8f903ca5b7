"""``min_runtime_version`` decides what is mapped, and how it is packaged."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from compiler.compile import CompileOptions, compile_model
from compiler.errors import UsageError
from compiler.graph import Model, TensorType, parse_model, serialize_model
from compiler.graph.build import GraphBuilder
from compiler.mapping.rules import SINCE_RUNTIME
from compiler.mapping.rules import operator_is_known as known
from compiler.package.container import packages_of


def chain(sizes: list[int], kind: TensorType) -> Model:
    rng = np.random.default_rng(1)
    b = GraphBuilder(type=kind)
    x = b.add_input((1, sizes[0]), scale=0.02, zero_point=3)
    for n, m in pairwise(sizes):
        x = b.fully_connected(x, b.quantized_weights(rng.normal(size=(m, n))), scale=0.05 * n**0.5, zero_point=3)
    return parse_model(serialize_model(b.build(x)))


@pytest.mark.parametrize("version", range(10, 15))
def test_the_package_asks_for_the_version(version: int) -> None:
    compiled = compile_model(chain([32, 16], TensorType.UINT8), CompileOptions(version))
    assert compiled.on_cpu == 0
    ((_, package),) = packages_of(parse_model(compiled.data))
    assert package.min_runtime_version == version


@pytest.mark.parametrize("version", [9, 15])
def test_other_versions_are_refused(version: int) -> None:
    with pytest.raises(UsageError):
        CompileOptions(version)


@pytest.mark.parametrize("version", [10, 11, 12, 14])
def test_int8_host_data_needs_runtime_12(version: int) -> None:
    compiled = compile_model(chain([32, 16], TensorType.INT8), CompileOptions(version))
    assert bool(compiled.on_cpu) is (version < 12)
    if version < 12:
        assert "needs runtime version 12" in compiled.mapped.verdicts[0].reason


@pytest.mark.parametrize(("name", "since"), sorted(SINCE_RUNTIME.items()))
def test_operators_are_mapped_from_their_version_on(name: str, since: int) -> None:
    model = chain([8, 8], TensorType.UINT8)
    graph = model.main
    op = graph.operators[0].__class__(0, name, graph.operators[0].inputs, graph.operators[0].outputs)
    assert [known(graph, op, version) is None for version in range(10, 15)] == [v >= since for v in range(10, 15)]


def test_dense_layers_go_over_the_ring_from_runtime_12_on() -> None:
    """Official programs for runtime 10 leave 14 tiles empty and stream the layers that two tiles do not hold."""
    model = chain([20, *[100] * 84, 7], TensorType.UINT8)
    old, new = (compile_model(model, CompileOptions(version)) for version in (10, 12))
    assert not old.plans[0].on_ring and old.off_chip > 0
    assert new.plans[0].on_ring and new.off_chip == 0
