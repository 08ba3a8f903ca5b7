"""The chip's arithmetic against TensorFlow Lite's kernels, operator by operator."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from compiler.beagle.reference import evaluate
from compiler.graph import TensorType, parse_model, serialize_model
from compiler.graph.build import GraphBuilder
from compiler.graph.interpreter import TfliteModel

RNG = np.random.default_rng(12)
Build = Callable[[GraphBuilder, int], int]


def conv(b: GraphBuilder, x: int) -> int:
    w = b.quantized_weights(RNG.normal(size=(10, 3, 3, 8)), per_channel=b.type is TensorType.INT8)
    return b.conv2d(x, w, b.bias(RNG.normal(size=10), x, w), scale=0.25, zero_point=7, stride=2, activation="RELU")


def depthwise(b: GraphBuilder, x: int) -> int:
    w = b.quantized_weights(RNG.normal(size=(1, 3, 3, 8)), per_channel=b.type is TensorType.INT8, axis=3)
    return b.depthwise_conv2d(x, w, b.bias(RNG.normal(size=8), x, w), scale=0.1, zero_point=3, activation="RELU6")


def dense(b: GraphBuilder, x: int) -> int:
    flat = b.reshape(x, (1, 9 * 9 * 8))
    w = b.quantized_weights(RNG.normal(size=(11, 9 * 9 * 8)))
    return b.fully_connected(flat, w, b.bias(RNG.normal(size=11), flat, w), scale=1.0, zero_point=1)


def add(b: GraphBuilder, x: int) -> int:
    return b.binary("ADD", x, depthwise(b, x), scale=0.11, zero_point=2)


def multiply(b: GraphBuilder, x: int) -> int:
    return b.binary("MUL", x, x, scale=0.05, zero_point=4)


CASES: dict[str, Build] = {
    "CONV_2D": conv, "DEPTHWISE_CONV_2D": depthwise, "FULLY_CONNECTED": dense, "ADD": add, "MUL": multiply,
    "MAX_POOL_2D": lambda b, x: b.pool("MAX_POOL_2D", x, 3),
    "AVERAGE_POOL_2D": lambda b, x: b.pool("AVERAGE_POOL_2D", x, 3),
    "MEAN": lambda b, x: b.mean(x, (1, 2)),
    "LOGISTIC": lambda b, x: b.logistic(x),
    "CONCATENATION": lambda b, x: b.concatenation([x, x]),
    "PAD": lambda b, x: b.pad(x, ((0, 0), (1, 2), (0, 1), (0, 0))),
}


@pytest.mark.parametrize("kind", [TensorType.INT8, TensorType.UINT8], ids=["int8", "uint8"])
@pytest.mark.parametrize("name", CASES)
def test_operator(name: str, kind: TensorType) -> None:
    b = GraphBuilder(type=kind)
    x = b.add_input((1, 9, 9, 8), scale=0.05, zero_point=6 if kind is TensorType.INT8 else 130)
    model = parse_model(serialize_model(b.build(CASES[name](b, x))))
    graph = model.main
    low, high = b.limits
    image = np.random.default_rng(1).integers(low, high, (1, 9, 9, 8), endpoint=True).astype(kind.numpy)
    ours = evaluate(graph, {graph.inputs[0]: image})[graph.outputs[0]].reshape(-1).astype(int)
    differences = [np.abs(ours - TfliteModel(serialize_model(model), reference_kernels=plain).run([image])[0]
                          .reshape(-1).astype(int)) for plain in (True, False)]
    worst, differing = min((int(d.max()), int((d > 0).sum())) for d in differences)
    print(f"{name} {kind.name}: {differing} of {ours.size} differ, at most by {worst}")
    assert worst <= (2 if name == "LOGISTIC" else 1)
    # Exact ties of means are rounded to even here and away from zero there.
    assert differing <= max(1, ours.size // (10 if name in ("MEAN", "AVERAGE_POOL_2D") else 500))
