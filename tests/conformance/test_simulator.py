"""Official executables on the simulator, against TensorFlow Lite on the source model.

Models with few layers in front of their outputs are compared: there the two kernel sets of TensorFlow
Lite and the chip's float multiplier can only differ by rounding ties.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from compiler.beagle.reference import evaluate
from compiler.beagle.simulator import Machine
from compiler.graph import Graph, read_model
from compiler.graph.interpreter import TfliteModel
from compiler.package import Package, decode_output, encode_input, tensor_name
from compiler.package.container import packages_of

if TYPE_CHECKING:
    from conftest import Pair

pytestmark = pytest.mark.corpus

MAX_BYTES = 600_000
"""Larger source files take too long for every run of the tests."""
EXACT_OPERATORS = {"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "MAX_POOL_2D", "PAD", "RELU", "RELU6", "RESHAPE",
                   "QUANTIZE"}
"""Operators in which the chip and TensorFlow Lite differ by ties only."""
MAX_LAYERS = 8


def comparable(pair: Pair) -> bool:
    operators = pair.facts["ops"]
    return (pair.source.stat().st_size < MAX_BYTES and set(operators) <= EXACT_OPERATORS
            and sum(operators.values()) <= MAX_LAYERS and pair.facts["custom_ops"] == 1)


def run_both(pair: Pair, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Outputs of the mapped part: simulator and TensorFlow Lite."""
    graph = read_model(pair.source).main
    names = {t.name: t.index for t in graph.tensors}
    host = TfliteModel(pair.source, keep_tensors=True)
    rng = np.random.default_rng(seed)
    inputs: list[Any] = []
    for port in host.inputs:
        if port.dtype.kind == "f":
            inputs.append(rng.random(port.shape, np.float32))
        else:
            info = np.iinfo(port.dtype)
            inputs.append(rng.integers(info.min, info.max, port.shape, port.dtype, endpoint=True))
    host.run(inputs)
    # The optimised kernels rescale in floating point, as the chip does; they only show graph outputs.
    optimised = TfliteModel(pair.source)
    finals = {port.index: array for port, array in zip(optimised.outputs, optimised.run(inputs), strict=True)}
    ((_, package),) = packages_of(read_model(pair.compiled))
    machine = Machine()
    if package.caching is not None:
        machine.run(package.caching)
    data = {layer.name: encode_input(layer, host.tensor(names[layer.name])) for layer in package.execution.inputs}
    result = machine.run(package.execution, data)
    assert result.findings == (), pair.name
    assert result.interrupts == (0,), pair.name
    return [(decode_output(layer, result.outputs[layer.name]).reshape(-1).astype(int),
             np.asarray(finals.get(names[layer.name], host.tensor(names[layer.name]))).reshape(-1).astype(int))
            for layer in package.execution.outputs]


def test_official_executables_give_the_numbers_of_the_source_model(pairs: list[Pair]) -> None:
    models = values = equal = 0
    for pair in filter(comparable, pairs):
        for ours, theirs in run_both(pair, seed=3):
            difference = np.abs(ours - theirs)
            assert difference.max() <= 1, f"{pair.name}: {difference.max()}"
            values += difference.size
            equal += int((difference == 0).sum())
        models += 1
    print(f"{models} models, {equal} of {values} values equal")
    assert models >= 20
    assert equal >= 0.999 * values


def test_parameter_caching_programs_fill_memory_and_end(pairs: list[Pair]) -> None:
    for pair in pairs:
        if pair.source.stat().st_size > MAX_BYTES:
            continue
        for _, package in packages_of(read_model(pair.compiled)):
            if package.caching is not None:
                result = Machine().run(package.caching)
                assert result.findings == (), pair.name
                assert result.interrupts == (0,), pair.name


def test_mobilenet_runs_from_the_stream_alone(pairs: list[Pair]) -> None:
    pair = next(p for p in pairs if p.name.endswith("/mobilenet_v1_0.25_128_quant"))
    host = TfliteModel(pair.source)
    (port,) = host.inputs
    image = np.random.default_rng(1).integers(0, 256, port.shape, np.uint8)
    ((_, package),) = packages_of(read_model(pair.compiled))
    machine = Machine()
    assert package.caching is not None
    machine.run(package.caching)
    (source,), (target,) = package.execution.inputs, package.execution.outputs
    result = machine.run(package.execution, {source.name: encode_input(source, image)})
    got = decode_output(target, result.outputs[target.name]).reshape(-1).astype(int)
    want = host.run([image])[0].reshape(-1).astype(int)
    assert np.abs(got - want).max() <= 1
    assert (got == want).mean() >= 0.99


def test_official_programs_do_not_depend_on_the_order_of_engines(pairs: list[Pair]) -> None:
    count = 0
    for pair in filter(comparable, pairs):
        ((_, package),) = packages_of(read_model(pair.compiled))
        if sum(len(c.data) for c in package.execution.chunks) > 20_000:
            continue
        rng = np.random.default_rng(2)
        data = {layer.name: rng.integers(0, 256, layer.size, np.uint8).tobytes() for layer in package.execution.inputs}
        outputs = []
        for seed in (None, 5, 6):
            machine = Machine(seed)
            if package.caching is not None:
                machine.run(package.caching)
            result = machine.run(package.execution, data)
            assert result.findings == (), pair.name
            outputs.append(result.outputs)
        assert outputs[0] == outputs[1] == outputs[2], pair.name
        count += 1
    assert count >= 10


def test_programs_of_several_streams_and_of_time_loops_equal_the_reference(pairs: list[Pair]) -> None:
    tried = {"several streams": False, "time loop": False}
    for pair in sorted(pairs, key=lambda pair: pair.compiled.stat().st_size):
        packages = packages_of(read_model(pair.compiled))
        graph = read_model(pair.source).main
        several = any(len(package.execution.chunks) > 1 for _, package in packages)
        recurrent = any(op.name == "UNIDIRECTIONAL_SEQUENCE_LSTM" for op in graph.operators)
        for kind in [k for k, found in zip(tried, (several, recurrent), strict=True) if found and not tried[k]]:
            tried[kind] = True
            for _, package in packages:
                assert differences(graph, package, seed=5) == 0, pair.name
    assert all(tried.values())


def differences(graph: Graph, package: Package, seed: int) -> int:
    """Output values, next values of variable tensors included, that differ from the arithmetic reference."""
    names = {t.name: t.index for t in graph.tensors}
    rng = np.random.default_rng(seed)
    given = {}
    for layer in package.execution.inputs:
        tensor = graph.tensors[names[layer.name]]
        assert tensor.type.numpy is not None
        info = np.iinfo(tensor.type.numpy)
        given[layer.name] = rng.integers(info.min, info.max, tensor.shape, tensor.type.numpy, endpoint=True)
    machine = Machine()
    if package.caching is not None:
        machine.run(package.caching)
    result = machine.run(package.execution, {layer.name: encode_input(layer, given[layer.name])
                                             for layer in package.execution.inputs})
    wanted = [names[tensor_name(layer)] for layer in package.execution.outputs]
    truth = evaluate(graph, {names[name]: array for name, array in given.items()}, until=wanted)
    return sum(int((decode_output(layer, result.outputs[layer.name]).reshape(-1) != truth[index].reshape(-1)).sum())
               for layer, index in zip(package.execution.outputs, wanted, strict=True))
