"""Dense networks of sizes nobody has compiled, run on the simulator against TensorFlow Lite."""

from __future__ import annotations

import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compiler.beagle.isa import decode_stream
from compiler.beagle.judge import try_executables
from compiler.beagle.simulator import Machine
from compiler.compile import CompiledModel, compile_model
from compiler.graph import Model, TensorType, parse_model, serialize_model
from compiler.graph.build import GraphBuilder
from compiler.graph.interpreter import TfliteModel
from compiler.package import decode_output, encode_input
from compiler.package.container import packages_of
from tests.compiler.lowering.networks import check


def network(sizes: list[int], kind: TensorType, *, bias: bool, activation: str, per_channel: bool,
            seed: int) -> Model:
    rng = np.random.default_rng(seed)
    b = GraphBuilder(type=kind)
    zero = 3 if kind is TensorType.INT8 else 131
    x = b.add_input((1, sizes[0]), scale=0.02, zero_point=zero)
    for i, (n, m) in enumerate(pairwise(sizes)):
        w = b.quantized_weights(rng.normal(size=(m, n)), per_channel=per_channel)
        last = i == len(sizes) - 2
        scale = 0.02 * 60 * np.sqrt(n) / 40
        x = b.fully_connected(x, w, b.bias(rng.normal(size=m), x, w) if bias else None, scale=float(scale),
                              zero_point=zero if last or activation == "NONE" else zero - 60,
                              activation="NONE" if last else activation)
    return parse_model(serialize_model(b.build(x)))


def simulate(compiled: CompiledModel, inputs: np.ndarray) -> np.ndarray:
    """Outputs of the compiled model on the simulator, one row per input row."""
    ((_, package),) = packages_of(parse_model(compiled.data))
    machine = Machine()
    if package.caching is not None:
        assert machine.run(package.caching).findings == ()
    source, target = package.execution.inputs[0], package.execution.outputs[0]
    rows = []
    for row in inputs:
        result = machine.run(package.execution, {source.name: encode_input(source, row)})
        assert result.findings == ()
        rows.append(decode_output(target, result.outputs[target.name]).reshape(-1))
    return np.stack(rows)


def compare(model: Model, count: int, seed: int) -> tuple[int, int, int]:
    """Values compared, values that differ, largest difference."""
    compiled = compile_model(model)
    assert compiled.on_cpu == 0, [v.reason for v in compiled.mapped.verdicts]
    reference = TfliteModel(serialize_model(model), reference_kernels=True)
    port = reference.inputs[0]
    info = np.iinfo(port.dtype)
    inputs = np.random.default_rng(seed).integers(info.min, info.max + 1, (count, port.shape[-1])).astype(port.dtype)
    want = np.stack([reference.run([row])[0].reshape(-1) for row in inputs]).astype(int)
    got = simulate(compiled, inputs).astype(int)
    return want.size, int((want != got).sum()), int(np.abs(want - got).max())


SIZES = [[300, 77, 10], [4096, 1000], [64, 64], [5, 3], [1, 1], [17, 2000], [3072, 256], [100, 65, 129, 4],
         [4732, 128], [1030, 1026], [8000, 10], [9000, 2100, 10], [30752, 16, 5], [20, *[100] * 84, 7]]


@pytest.mark.parametrize("sizes", SIZES, ids=lambda s: "-".join(map(str, s)))
@pytest.mark.parametrize("kind", [TensorType.INT8, TensorType.UINT8], ids=["int8", "uint8"])
def test_sizes_that_nobody_has_compiled(sizes: list[int], kind: TensorType) -> None:
    values = differ = worst = 0
    for bias, activation, per_channel in ((True, "RELU", False), (False, "NONE", kind is TensorType.INT8),
                                          (True, "RELU6", kind is TensorType.INT8)):
        model = network(sizes, kind, bias=bias, activation=activation, per_channel=per_channel, seed=len(sizes))
        v, d, w = compare(model, 3, 5)
        values, differ, worst = values + v, differ + d, max(worst, w)
    print(f"{sizes} {kind.name}: {differ} of {values} differ, at most by {worst}")
    assert worst <= 1
    assert differ <= max(1, values // 1000)


def test_layers_that_find_no_room_are_streamed_whole() -> None:
    compiled = compile_model(network([9000, 130, 130, 7], TensorType.INT8, bias=True, activation="RELU",
                                     per_channel=False, seed=1))
    (plan,) = compiled.plans
    streamed = [not pieces for pieces in plan.pieces]
    assert any(streamed) and not all(streamed)
    assert compiled.off_chip == sum(t.streamed_bytes for t, s in zip(plan.demand.tensors, streamed, strict=True)
                                    if s)


def test_layers_that_do_not_fit_side_by_side_lie_on_the_ring() -> None:
    """The form is that of the 1x1 convolution behind the mean of an official co-compiled MobileNet."""
    compiled = compile_model(network([20, *[100] * 84, 7], TensorType.INT8, bias=True, activation="RELU",
                                     per_channel=False, seed=1))
    (plan,) = compiled.plans
    assert compiled.off_chip == 0
    assert plan.on_ring
    ((_, package),) = packages_of(parse_model(compiled.data))
    (source,) = package.execution.inputs
    assert package.caching is not None
    given = {source.name: encode_input(source, np.zeros((1, 20), np.int8))}
    report = try_executables([package.caching, package.execution], given)
    assert report.findings == ()
    sends = [ins for chunk in package.execution.chunks for ins in decode_stream(chunk.data)
             if ins.name == "ring_send" and ins["ring"]]
    assert {ins["receivers"] for ins in sends} == {1, 2}
    assert sum(ins["src.limit0"] + 1 for ins in sends) == sum(
        p.rows for i in plan.on_ring for p in plan.pieces[i])


@pytest.mark.parametrize("shape", [(1, 28, 28), (1, 9, 7, 3), (1, 1, 1, 40), (60,)], ids=str)
def test_images_are_flattened_for_free(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(4)
    count = int(np.prod(shape))
    b = GraphBuilder()
    x = b.add_input(shape, scale=0.02, zero_point=-5)
    y = b.reshape(x, (1, count))
    w = b.quantized_weights(rng.normal(size=(10, count)))
    y = b.fully_connected(y, w, b.bias(rng.normal(size=10), y, w), scale=1.0)
    model = parse_model(serialize_model(b.build(y)))
    compiled = compile_model(model)
    assert compiled.on_cpu == 0, [v.reason for v in compiled.mapped.verdicts]
    image = rng.integers(-128, 128, shape, dtype=np.int8)
    want = TfliteModel(serialize_model(model), reference_kernels=True).run([image])[0].reshape(-1).astype(int)
    got = simulate(compiled, image[None])[0].astype(int)
    assert np.abs(got - want).max() <= 1


def test_what_is_not_generated_stays_on_the_cpu_with_a_reason() -> None:
    b = GraphBuilder()
    x = b.add_input((1, 16), scale=0.02)
    w = b.quantized_weights(np.random.default_rng(0).normal(size=(8, 16)))
    y = b.leaky_relu(b.fully_connected(x, w, scale=0.5), alpha=0.1)
    compiled = compile_model(parse_model(serialize_model(b.build(y))))
    assert (compiled.on_edge_tpu, compiled.on_cpu, compiled.subgraphs) == (1, 1, 1)
    (reason,) = [v.reason for v in compiled.mapped.verdicts if v.reason]
    assert "LEAKY_RELU" in reason


@pytest.mark.parametrize("kind", [TensorType.INT8, TensorType.UINT8])
@pytest.mark.parametrize("backend", ["ai_edge_litert", "tflite_runtime"])
def test_interpreters_load_the_result_up_to_the_custom_operator(tmp_path: Path, kind: TensorType, backend: str) -> None:
    source = network([12, 9, 4], kind, bias=True, activation="RELU", per_channel=False, seed=2)
    compiled = compile_model(source)
    read = parse_model(compiled.data).main
    for ours, theirs in zip((*read.inputs, *read.outputs), (*source.main.inputs, *source.main.outputs), strict=True):
        a, b = read.tensors[ours], source.main.tensors[theirs]
        assert (a.name, a.shape, a.type) == (b.name, b.shape, b.type)
        assert a.quantization is not None and a.quantization.same_as(b.quantization)
    python = sys.executable if backend == "ai_edge_litert" else os.environ.get("ETPU_TFLITE_RUNTIME_PYTHON", "")
    if not python:
        pytest.skip("ETPU_TFLITE_RUNTIME_PYTHON names no Python with tflite-runtime")
    path = tmp_path / "model.tflite"
    path.write_bytes(compiled.data)
    program = (f"from {backend}.interpreter import Interpreter\n"
               f"i = Interpreter(model_path={str(path)!r})\n"
               "print(i.get_input_details()[0]['name'], i.get_output_details()[0]['shape'])\n"
               "i.allocate_tensors()\n")
    done = subprocess.run([python, "-c", program], capture_output=True, text=True, check=False)
    assert "input [1 4]" in done.stdout, done.stderr
    assert "edgetpu-custom-op" in done.stderr


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(1, 400), min_size=2, max_size=5), st.booleans(), st.booleans(),
       st.sampled_from(["NONE", "RELU", "RELU6"]), st.booleans(), st.integers(0, 99))
def test_random_networks(sizes: list[int], int8: bool, bias: bool, activation: str, per_channel: bool, seed: int) -> None:
    kind = TensorType.INT8 if int8 else TensorType.UINT8
    model = network(sizes, kind, bias=bias, activation=activation, per_channel=per_channel and int8, seed=seed)
    # TensorFlow Lite may round a tie otherwise, which the layers behind it can make more of; the chip's arithmetic is exact.
    check(model)


@pytest.mark.parametrize("sizes", [[300, 77, 10], [4732, 128], [1030, 1026], [30752, 16, 5]], ids=str)
def test_any_order_of_engines_gives_the_same_outputs(sizes: list[int]) -> None:
    model = network(sizes, TensorType.INT8, bias=True, activation="RELU", per_channel=True, seed=6)
    ((_, package),) = packages_of(parse_model(compile_model(model).data))
    source, target = package.execution.inputs[0], package.execution.outputs[0]
    data = {source.name: np.random.default_rng(8).integers(0, 256, source.size, np.uint8).tobytes()}
    outputs = set()
    for seed in (None, 1, 2, 3, 4):
        machine = Machine(seed)
        if package.caching is not None:
            machine.run(package.caching)
        result = machine.run(package.execution, data)
        assert result.findings == ()
        outputs.add(result.outputs[target.name])
    assert len(outputs) == 1
