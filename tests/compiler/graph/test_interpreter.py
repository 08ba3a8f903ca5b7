"""The adapter to TensorFlow Lite: both runtimes, kernels, tensors in between, clear refusals."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

from compiler.errors import EtpuError, InvalidModelError, UsageError
from compiler.graph import TensorType, interpreter, serialize_model
from compiler.graph.build import GraphBuilder
from compiler.graph.interpreter import TfliteModel, load_backend, runtime_name

ROOT = Path(__file__).resolve().parents[3]
OTHER_PYTHON = "ETPU_TFLITE_RUNTIME_PYTHON"
"""Names a Python whose environment has tflite-runtime, which needs another numpy than ours."""


def network() -> bytes:
    rng = np.random.default_rng(2)
    builder = GraphBuilder()
    a = builder.add_input((1, 8), scale=0.1, name="first")
    b = builder.add_input((1, 8), scale=0.2, zero_point=4, name="second")
    total = builder.rename(builder.add(a, b, scale=0.3), "total")
    return serialize_model(builder.build(builder.fully_connected(total, rng.normal(size=(5, 8)), scale=0.4)))


FIRST = np.arange(-4, 4, dtype=np.int8).reshape(1, 8)
SECOND = np.arange(10, 26, 2, dtype=np.int8).reshape(1, 8)


def test_inputs_by_order_name_and_position_agree() -> None:
    model = TfliteModel(network())
    (by_order,) = model.run([FIRST, SECOND])
    (by_name,) = model.run({"second": SECOND, "first": FIRST})
    (by_position,) = model.run({1: SECOND, 0: FIRST})
    (swapped,) = model.run([SECOND, FIRST])
    assert np.array_equal(by_order, by_name)
    assert np.array_equal(by_order, by_position)
    assert not np.array_equal(by_order, swapped)


def test_ports_state_shape_type_and_quantization() -> None:
    model = TfliteModel(network())
    second = model.inputs[1]
    assert (second.name, second.shape, second.dtype, second.zero_point) == ("second", (1, 8), np.dtype(np.int8), 4)
    assert second.scale == pytest.approx(0.2)
    assert model.outputs[0].shape == (1, 5)


def test_results_are_copies() -> None:
    model = TfliteModel(network())
    (before,) = model.run([FIRST, SECOND])
    kept = before.copy()
    model.run([SECOND, FIRST])
    assert np.array_equal(before, kept)


def test_tensors_in_between_need_to_be_kept() -> None:
    data = network()
    model = TfliteModel(data, keep_tensors=True)
    index = next(p.index for p in model.tensors() if p.name == "total")
    (total,) = model.run_tensors([FIRST, SECOND], [index])
    expected = np.rint((FIRST * 0.1 + (SECOND - 4.0) * 0.2) / 0.3)
    assert np.abs(total - expected).max() <= 1
    other = TfliteModel(data)
    other.run([FIRST, SECOND])
    with pytest.raises(UsageError, match=f"tensor {index} of the model is neither input nor output"):
        other.tensor(index)
    with pytest.raises(UsageError, match="tensor 1000 of the model cannot be read"):
        model.tensor(1000)


@pytest.mark.parametrize("options", [{"reference_kernels": True}, {"default_delegates": False}, {"threads": 2},
                                     {"keep_tensors": True}])
def test_kernels_agree_on_integers(options: dict[str, bool]) -> None:
    (expected,) = TfliteModel(network()).run([FIRST, SECOND])
    (result,) = TfliteModel(network(), **options).run([FIRST, SECOND])
    assert np.array_equal(result, expected)


def test_resolver_follows_the_options(monkeypatch: pytest.MonkeyPatch) -> None:
    module = load_backend("ai_edge_litert")
    chosen: list[object] = []
    original = module.Interpreter

    def recording(*args: object, **kwargs: object) -> object:
        chosen.append(kwargs["experimental_op_resolver_type"])
        return original(*args, **kwargs)

    monkeypatch.setattr(module, "Interpreter", recording)
    for options in ({}, {"reference_kernels": True}, {"default_delegates": False}):
        TfliteModel(network(), **options)
    kinds = module.OpResolverType
    assert chosen == [kinds.AUTO, kinds.BUILTIN_REF, kinds.BUILTIN_WITHOUT_DEFAULT_DELEGATES]


@pytest.mark.parametrize(("inputs", "message"), [
    ([FIRST], "the model has 2 inputs, 1 were given"),
    ({"first": FIRST}, "the model has the inputs first, second, given were first"),
    ({"first": FIRST, "third": SECOND}, "given were first, third"),
    ([FIRST, SECOND.astype(np.float32)], "input second takes int8 of shape [1, 8], given was float32"),
    ([FIRST, SECOND[:, :4]], "given was int8 of shape [1, 4]"),
])
def test_wrong_inputs_are_named(inputs: object, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        TfliteModel(network()).run(inputs)  # type: ignore[arg-type]
    assert message in caught.value.message


def test_refused_models_are_named(tmp_path: Path) -> None:
    (tmp_path / "noise.tflite").write_bytes(b"\x10\0\0\0TFL3" + bytes(range(200)))
    for path in (tmp_path / "noise.tflite", tmp_path / "nothing.tflite"):
        with pytest.raises(InvalidModelError, match=f"TensorFlow Lite refuses {path}: ") as caught:
            TfliteModel(path)
        assert "\n" not in str(caught.value)
    builder = GraphBuilder()
    x = builder.add_input((1, 4), scale=None, type=TensorType.FLOAT32)
    custom = builder.custom("unheard-of", (x,), (builder.tensor((1, 4), type=TensorType.FLOAT32),))
    with pytest.raises(InvalidModelError, match="unheard-of"):
        TfliteModel(serialize_model(builder.build(custom)))


def test_backend_is_chosen_and_named() -> None:
    assert load_backend() is load_backend("ai_edge_litert")
    assert runtime_name().startswith("ai-edge-litert ")
    with pytest.raises(UsageError, match="torch is no TensorFlow Lite interpreter"):
        load_backend("torch")


def test_missing_interpreters_are_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interpreter.importlib.util, "find_spec", lambda _: None)
    for call in (load_backend, runtime_name):
        with pytest.raises(EtpuError, match=r"ai-edge-litert or tflite-runtime\)\. Install ai-edge-litert"):
            call()
    with pytest.raises(EtpuError, match=r"\(tflite-runtime\)\. Install tflite-runtime"):
        load_backend("tflite_runtime")


def test_runtime_that_numpy_breaks_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interpreter.importlib.util, "find_spec", lambda name: name == "tflite_runtime" or None)
    monkeypatch.setattr(np, "__version__", "2.1.0")
    with pytest.raises(EtpuError, match=r"tflite-runtime does not work with numpy 2\.1\.0\. .*numpy below 2"):
        load_backend()


def test_broken_installation_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: str) -> None:
        raise ImportError("libm.so.6: version `GLIBC_9' not found")

    monkeypatch.setattr(interpreter.importlib, "import_module", broken)
    with pytest.raises(EtpuError, match="ai-edge-litert is installed but cannot be loaded: libm"):
        load_backend()


OTHER_RUNTIME = """
import json, sys
import numpy as np
from compiler.graph.interpreter import TfliteModel, runtime_name
model = TfliteModel(sys.argv[1], reference_kernels=True, backend="tflite_runtime")
first, second = json.loads(sys.argv[2])
(result,) = model.run({"first": np.array(first, np.int8), "second": np.array(second, np.int8)})
print(json.dumps([runtime_name(), result.tolist(), [p.name for p in model.inputs]]))
"""


def test_tflite_runtime_gives_the_same_numbers(tmp_path: Path) -> None:
    python = os.environ.get(OTHER_PYTHON)
    if not python:
        pytest.skip(f"{OTHER_PYTHON} names no Python with tflite-runtime")
    path = tmp_path / "network.tflite"
    path.write_bytes(network())
    values = json.dumps([FIRST.tolist(), SECOND.tolist()])
    run = subprocess.run([python, "-c", OTHER_RUNTIME, str(path), values], capture_output=True, text=True, check=False,
                         env={**os.environ, "PYTHONPATH": str(ROOT)}, cwd=tmp_path)
    assert run.returncode == 0, run.stderr
    name, result, inputs = json.loads(run.stdout.splitlines()[-1])
    (expected,) = TfliteModel(path, reference_kernels=True).run([FIRST, SECOND])
    assert name.startswith("tflite-runtime ")
    assert result == expected.tolist()
    assert inputs == ["first", "second"]
