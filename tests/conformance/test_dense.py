"""Fully connected networks: byte-identical to compiler 16.0, equal in outputs to older ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from compiler.beagle.simulator import Machine
from compiler.compile import CompileOptions, compile_model
from compiler.conformance.runs import PairUnderTest, simulated_cycles
from compiler.generation import COMPILER_1_0
from compiler.graph import parse_model, read_model
from compiler.mapping import MappingOptions, map_graph
from compiler.package import Package, decode_output
from compiler.package.container import packages_of

if TYPE_CHECKING:
    from conftest import Pair

pytestmark = pytest.mark.corpus
DENSE = {"FULLY_CONNECTED", "QUANTIZE", "RESHAPE"}
VECTORS = DENSE | {"SOFTMAX", "CONCATENATION"}


def dense_pairs(pairs: list[Pair], ops: set[str] = DENSE) -> list[Pair]:
    found = [p for p in pairs if "FULLY_CONNECTED" in p.facts["ops"] and set(p.facts["ops"]) <= ops]
    assert found
    return found


def test_programs_of_compiler_16_are_byte_identical(pairs: list[Pair]) -> None:
    count = 0
    for pair in dense_pairs(pairs, VECTORS):
        (_, official), *_ = packages_of(read_model(pair.compiled))
        if official.min_runtime_version < 14:
            continue
        compiled = compile_model(read_model(pair.source), CompileOptions(token=official.execution.token))
        (operator, ours), *_ = packages_of(parse_model(compiled.data))
        assert ours == official, pair.name
        (theirs, _), *_ = packages_of(read_model(pair.compiled))
        assert operator.custom_options is not None and theirs.custom_options is not None
        assert operator.custom_options.tobytes() == theirs.custom_options.tobytes(), pair.name
        count += 1
    assert count >= 7


def outputs(package: Package, inputs: list[bytes]) -> list[np.ndarray]:
    machine = Machine()
    if package.caching is not None:
        machine.run(package.caching)
    source, target = package.execution.inputs[0], package.execution.outputs[0]
    rows = []
    for data in inputs:
        result = machine.run(package.execution, {source.name: data})
        assert result.findings == ()
        rows.append(decode_output(target, result.outputs[target.name]))
    return rows


def test_programs_of_other_compilers_give_equal_outputs(pairs: list[Pair]) -> None:
    rng = np.random.default_rng(7)
    count = 0
    for pair in dense_pairs(pairs):
        (_, official), *_ = packages_of(read_model(pair.compiled))
        if official.min_runtime_version >= 14:
            continue
        compiled = compile_model(read_model(pair.source))
        (_, ours), *_ = packages_of(parse_model(compiled.data))
        assert compiled.on_cpu == 0, pair.name
        inputs = [rng.integers(0, 256, ours.execution.inputs[0].size, np.uint8).tobytes() for _ in range(4)]
        for a, b in zip(outputs(ours, inputs), outputs(official, inputs), strict=True):
            assert np.array_equal(a, b), pair.name
        count += 1
    assert count >= 3


def test_chains_of_compiler_1_take_little_longer_than_official_ones(pairs: list[Pair]) -> None:
    """100 and 200 layers whose parameters do not fit all; ours wait for turns that official ones leave to the time."""
    ratios = {}
    for pair in dense_pairs(pairs):
        under_test = PairUnderTest(pair.source, pair.compiled, samples=1, seed=0)
        if under_test.generation == COMPILER_1_0:
            (ours,), (official,) = under_test.our_packages, under_test.official_packages
            ratios[pair.name] = (simulated_cycles(ours) or 0) / (simulated_cycles(official) or 1)
    assert len(ratios) >= 2
    assert all(0.5 < ratio <= 1.4 for ratio in ratios.values()), ratios


def test_official_table_leaves_the_same_operators_on_the_cpu(pairs: list[Pair]) -> None:
    for pair in pairs:
        model = read_model(pair.source)
        several = pair.facts["custom_ops"] > 1
        mapped = map_graph(model.main, MappingOptions(multiple_subgraphs=several))
        ours = sorted(op.custom_name or op.name for op, v in zip(model.main.operators, mapped.verdicts, strict=True)
                      if not v.mapped)
        assert ours == sorted(row["op"] for row in pair.facts["cpu_ops"]), pair.name
