"""Convolutional networks against officially compiled ones: blobs, whole packages, outputs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from compiler.beagle.reference import evaluate
from compiler.beagle.simulator import Machine
from compiler.compile import CompileOptions, compile_model
from compiler.conformance.vintage import generation_of
from compiler.graph import parse_model, read_model
from compiler.lowering.spatial.families.convolution import convolution_objection, kernel_of
from compiler.package import decode_output, encode_input
from compiler.package.container import packages_of

if TYPE_CHECKING:
    from conftest import Pair

pytestmark = pytest.mark.corpus
CONVOLUTIONS = {"CONV_2D", "DEPTHWISE_CONV_2D"}
BY_ITSELF = CONVOLUTIONS | {"QUANTIZE", "AVERAGE_POOL_2D"}
PLACED_BEHIND_OTHERS = ("/dummy", "/dummy_v2")
"""Compiled together with other models: their parameters lie elsewhere."""
CUT_IN_ANOTHER_WAY = ("/N400-nMACs5942476800_quant",)
"""Their layers run in bands; only their parameters are the same."""


def test_blobs_of_all_convolutions_are_in_the_official_ones(pairs: list[Pair]) -> None:
    convolutions = different = 0
    for pair in pairs:
        if not CONVOLUTIONS & pair.facts["ops"].keys():
            continue
        graph = read_model(pair.source).main
        packages = packages_of(read_model(pair.compiled))
        official = b"".join(e.parameters for _, p in packages for e in p.executables)
        generation = generation_of(*packages[0])
        for op in graph.operators:
            if op.name not in CONVOLUTIONS or convolution_objection(graph, op) is not None:
                continue
            convolutions += 1
            if kernel_of(graph, op, generation=generation).blob in official:
                continue
            assert pair.facts["min_runtime_version"] < 14, (pair.name, op.title)
            different += 1
    print(f"{convolutions - different} of {convolutions} blobs are found")
    assert convolutions > 750
    assert different <= 6


def test_programs_of_compiler_16_are_byte_identical(pairs: list[Pair]) -> None:
    identical = []
    for pair in pairs:
        ops = pair.facts["ops"].keys()
        if pair.facts["min_runtime_version"] < 14 or not ops & CONVOLUTIONS or not ops <= BY_ITSELF:
            continue
        (_, official), *_ = packages_of(read_model(pair.compiled))
        compiled = compile_model(read_model(pair.source), CompileOptions(token=official.execution.token))
        if pair.name.endswith(PLACED_BEHIND_OTHERS) or compiled.on_edge_tpu < len(compiled.mapped.verdicts) - len(
                pair.facts["cpu_ops"]):
            continue
        (_, ours), *_ = packages_of(parse_model(compiled.data))
        if pair.name.endswith(CUT_IN_ANOTHER_WAY):
            assert [e.parameters for e in ours.executables] == [e.parameters for e in official.executables], pair.name
            continue
        assert ours == official, pair.name
        identical.append(pair.name)
    assert len(identical) >= 14, identical


@pytest.mark.parametrize("name", ["mobilenet_v1_0.25_128_quant", "hjonnala+snippets/model_quantized"])
def test_mobilenets_compile_completely_and_equal_the_reference(pairs: list[Pair], name: str) -> None:
    pair = next(p for p in pairs if p.name.endswith(name))
    model = read_model(pair.source)
    compiled = compile_model(model)
    assert compiled.on_cpu == 0
    ((_, package),) = packages_of(parse_model(compiled.data))
    graph = model.main
    source = graph.tensors[graph.inputs[0]]
    info = np.iinfo(source.type.numpy)
    values = np.random.default_rng(5).integers(info.min, info.max + 1, source.shape).astype(source.type.numpy)
    machine = Machine()
    assert package.caching is not None
    machine.run(package.caching)
    inputs, outputs = package.execution.inputs[0], package.execution.outputs[0]
    result = machine.run(package.execution, {inputs.name: encode_input(inputs, values)})
    assert result.findings == ()
    want = evaluate(graph, {source.index: values})[graph.outputs[0]].reshape(-1)
    assert np.array_equal(decode_output(outputs, result.outputs[outputs.name]).reshape(-1), want)
