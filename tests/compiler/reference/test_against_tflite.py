"""The chip's arithmetic against TensorFlow Lite's kernels, operator by operator, on random and real inputs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from operator_cases import CASES, SHAPE, Case

from compiler.beagle.reference import RULES, evaluate
from compiler.graph import Graph, Tensor, TensorType, parse_model, serialize_model
from compiler.graph.build import GraphBuilder
from compiler.graph.interpreter import TfliteModel
from compiler.mapping.rules import SINCE_RUNTIME

Array = npt.NDArray[Any]
DIGITS = Path(__file__).parents[3] / "examples" / "digits" / "digits_test.npz"
IDS = [(name, kind) for name, case in CASES.items() for kind in case.types]


@pytest.fixture(scope="module")
def digits() -> Array:
    """Handwritten digits, int8, 64 of them as one image of 16 channels after the other."""
    with np.load(DIGITS) as file:
        images = file["inputs"][:384].reshape(-1, 2, 2, 16, 8, 8)
    return images.transpose(0, 1, 4, 2, 5, 3).reshape(-1, *SHAPE)


@pytest.mark.parametrize("inputs", ["random", "digits"])
@pytest.mark.parametrize(("name", "kind"), IDS, ids=[f"{name} {kind.name}" for name, kind in IDS])
def test_operator(name: str, kind: TensorType, inputs: str, digits: Array) -> None:
    case = CASES[name]
    content = _model(case, kind)
    graph = parse_model(content).main
    rng = np.random.default_rng(1)
    values = [_values(graph.tensors[i], rng, digits[k] if inputs == "digits" else None)
              for k, i in enumerate(graph.inputs)]
    ours = evaluate(graph, dict(zip(graph.inputs, values, strict=True)))
    counted = ~_halves(case, graph, values[0]) if case.ties else slice(None)
    differences = [_difference(graph, ours, TfliteModel(content, reference_kernels=plain).run(values))[counted]
                   for plain in (True, False)]
    best = min(differences, key=lambda d: (int(d.max()) > case.tolerance, int((d > 0).sum())))
    share = float((best == 0).mean())
    print(f"{name} {kind.name} {inputs}: {share:.3%} of {best.size} equal, at most {best.max():g} apart")
    assert best.max() <= case.tolerance
    # One value may always differ: of a few results a single near tie is more than the share.
    assert share >= case.share or np.count_nonzero(best) == 1


def test_every_operator_has_a_case() -> None:
    assert {name.split()[0] for name in CASES} == set(RULES)
    assert set(SINCE_RUNTIME) <= set(RULES)


def _model(case: Case, kind: TensorType) -> bytes:
    b = GraphBuilder(type=kind)
    x = b.add_input(SHAPE, scale=case.scale, zero_point=6 if kind is TensorType.INT8 else 134)
    return serialize_model(b.build(case.build(b, x)))


def _values(tensor: Tensor, rng: np.random.Generator, image: Array | None) -> Array:
    dtype = tensor.type.numpy
    assert dtype is not None
    if image is None or tensor.shape != SHAPE:
        info = np.iinfo(dtype)
        return rng.integers(info.min, info.max, tensor.shape, endpoint=True).astype(dtype)
    return (image.astype(int) - np.iinfo(np.int8).min + np.iinfo(dtype).min).astype(dtype)


def _halves(case: Case, graph: Graph, image: Array) -> npt.NDArray[np.bool_]:
    """Tell which exact results lie halfway between two steps."""
    b = GraphBuilder(type=TensorType.FLOAT32)
    exact = TfliteModel(serialize_model(b.build(case.build(b, b.add_input(SHAPE, scale=None)))))
    quantization = graph.tensors[graph.inputs[0]].quantization
    assert quantization is not None
    results = exact.run([image.astype(np.float32) - quantization.zero_point])[0].reshape(-1)
    return np.asarray(np.abs(results - np.floor(results) - 0.5) < 1e-3)


def _difference(graph: Graph, ours: dict[int, Array], theirs: list[Array]) -> npt.NDArray[np.float64]:
    parts = [np.abs(ours[index].astype(np.float64) - array).reshape(-1)
             for index, array in zip(graph.outputs, theirs, strict=True)]
    return np.concatenate(parts)
