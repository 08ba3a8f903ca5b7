"""Custom operators put into models, and the file that comes out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from packages import small_package

from compiler.errors import PackageError
from compiler.graph import Model, Operator, TensorType, parse_model, serialize_model
from compiler.graph.build import GraphBuilder
from compiler.graph.interpreter import TfliteModel
from compiler.graph.model import Signature
from compiler.package import CustomOptions, write_custom_options, write_package
from compiler.package.container import packages_of, with_custom_operators
from compiler.package.file import serialize_compiled

OPTIONS = write_custom_options(CustomOptions(write_package(small_package())))


def network() -> Model:
    """Three operators for the Edge TPU between a QUANTIZE and the end, with constants on both sides."""
    rng = np.random.default_rng(5)
    b = GraphBuilder()
    x = b.add_input((1, 8, 8, 3), scale=0.02, zero_point=1)
    x = b.prelu(x, b.constant(rng.integers(-9, 9, (1, 1, 3)).astype(np.int8), scale=0.01), scale=0.02, zero_point=1)
    x = b.conv2d(x, b.quantized_weights(rng.normal(size=(4, 3, 3, 3)), per_channel=True), scale=0.1, zero_point=-5)
    x = b.average_pool(x, (2, 2), stride=(2, 2))
    x = b.relu(x)
    x = b.reshape(x, (1, b.shape(x)[1] * b.shape(x)[2] * 4))
    model = b.build([x])
    signature = Signature("serve", (("image", model.main.inputs[0]),), (("result", model.main.outputs[0]),))
    return parse_model(serialize_model(replace(
        model, signatures=(signature,), metadata=(("notes", np.frombuffer(b"hello", np.uint8)),))), "net.tflite")


def compiled(model: Model) -> Model:
    """Conv, pool and relu as one custom operator."""
    graph = model.main
    conv, relu = (next(op for op in graph.operators if op.name == name) for name in ("CONV_2D", "RELU"))
    part = range(conv.index, relu.index + 1)
    return with_custom_operators(model, [(part, [conv.inputs[0]], relu.outputs, OPTIONS)])


def test_operators_are_replaced() -> None:
    model = network()
    got = parse_model(serialize_compiled(compiled(model)))
    assert [op.custom_name or op.name for op in got.main.operators] == ["PRELU", "edgetpu-custom-op", "RESHAPE"]
    ((_, package),) = packages_of(got)
    assert package == small_package()
    used = {t.name for t in got.main.tensors}
    assert len(used) == len(got.main.tensors) == 6, used
    for before, after in ((model.main.inputs, got.main.inputs), (model.main.outputs, got.main.outputs)):
        a, b = model.main.tensors[before[0]], got.main.tensors[after[0]]
        assert (a.name, a.shape, a.type) == (b.name, b.shape, b.type)
        assert a.quantization is not None and a.quantization.same_as(b.quantization)
    assert [(n, t.name) for s in got.signatures for n, i in s.inputs for t in [got.main.tensors[i]]] == [("image", "input")]
    assert [(n, bytes(d)) for n, d in got.metadata] == [("notes", b"hello")]


def test_both_writers_say_the_same() -> None:
    model = compiled(network())
    a, b = (parse_model(data) for data in (serialize_compiled(model), serialize_model(model)))
    assert (a.description, a.version, a.signatures) == (b.description, b.version, b.signatures)
    assert (a.main.name, a.main.inputs, a.main.outputs) == (b.main.name, b.main.inputs, b.main.outputs)
    for t, u in zip(a.main.tensors, b.main.tensors, strict=True):
        assert (t.name, t.shape, t.type, t.data is None) == (u.name, u.shape, u.type, u.data is None)
        assert t.data is None or t.data.tobytes() == u.data.tobytes()  # type: ignore[union-attr]
        assert t.quantization.same_as(u.quantization) if t.quantization else u.quantization is None
    for o, p in zip(a.main.operators, b.main.operators, strict=True):
        assert (o.title, o.inputs, o.outputs, o.version, o.code) == (p.title, p.inputs, p.outputs, p.version, p.code)
        assert options(o) == options(p)


def options(op: Operator) -> dict[str, object]:
    return {k: np.asarray(v).tolist() for k, v in vars(op.options).items()} if op.options is not None else {}


def test_cpu_operators_still_run() -> None:
    model = network()
    data = serialize_compiled(model)
    assert data != serialize_model(model)
    image = np.random.default_rng(1).integers(-128, 128, (1, 8, 8, 3)).astype(np.int8)
    (want,), (got,) = (TfliteModel(d).run([image]) for d in (serialize_model(model), data))
    np.testing.assert_array_equal(got, want)


def test_packages_and_constants_are_aligned() -> None:
    data = serialize_compiled(compiled(network()))
    assert data.index(OPTIONS) % 32 == 0
    constants = [t.data.tobytes() for t in parse_model(data).main.tensors if t.data is not None]
    assert constants
    assert all(data.index(c) % 16 == 0 for c in constants)


def test_models_beyond_the_official_layout_keep_everything() -> None:
    model = compiled(network())
    variable = replace(model.main.tensors[0], is_variable=True)
    stateful = model.with_main(replace(model.main, tensors=(variable, *model.main.tensors[1:])))
    assert serialize_compiled(stateful) == serialize_model(stateful)
    assert parse_model(serialize_compiled(stateful)).main.tensors[0].is_variable


def test_interpreters_load_the_file_up_to_the_custom_operator() -> None:
    interpreter = pytest.importorskip("ai_edge_litert.interpreter")
    loaded = interpreter.Interpreter(model_content=serialize_compiled(compiled(network())))
    (details,) = loaded.get_input_details()
    assert (details["name"], tuple(details["shape"]), details["dtype"]) == ("input", (1, 8, 8, 3), np.int8)
    assert details["quantization"] == (pytest.approx(0.02), 1)
    with pytest.raises(RuntimeError, match="edgetpu-custom-op"):
        loaded.allocate_tensors()


def test_parts_around_other_operators_are_refused() -> None:
    model = network()
    conv, relu = (next(op for op in model.main.operators if op.name == name) for name in ("CONV_2D", "RELU"))
    with pytest.raises(PackageError, match="needs results of operators that need its own"):
        with_custom_operators(model, [((conv.index, relu.index), (conv.inputs[0], relu.inputs[0]),
                                       (*conv.outputs, *relu.outputs), OPTIONS)])


def test_custom_operators_without_options_are_named() -> None:
    model = compiled(network())
    operators = [replace(op, custom_options=None) for op in model.main.operators]
    with pytest.raises(PackageError, match=r"net\.tflite: edgetpu-custom-op \(operator 1\)"):
        packages_of(model.with_main(replace(model.main, operators=tuple(operators))))


def test_open_batches_are_closed() -> None:
    b = GraphBuilder(type=TensorType.UINT8)
    x = b.add_input((1, 4), scale=1.0)
    model = b.build([b.relu(x)])
    tensors = [replace(t, signature=(-1, *t.shape[1:])) for t in model.main.tensors]
    model = model.with_main(replace(model.main, tensors=tuple(tensors)))
    got = with_custom_operators(model, [((0,), model.main.inputs, model.main.outputs, OPTIONS)])
    assert [t.signature for t in parse_model(serialize_compiled(got)).main.tensors] == [(), ()]
