"""Small quantized networks with seeded random weights, for tests on more than one floor."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from compiler.graph import Graph, Model, TensorType, parse_model, serialize_model
from compiler.graph.build import GraphBuilder
from compiler.lowering.spatial import fitting
from compiler.lowering.spatial import network as image_network

EVERYTHING = bool(os.environ.get("ETPU_TEST_EVERYTHING"))
"""Long lists of cases run as a whole; otherwise a part of them."""


class Layers:
    """Adds layers by tensor index; every method returns the index of its result."""

    def __init__(self, seed: int = 0, kind: TensorType = TensorType.INT8) -> None:
        self.rng = np.random.default_rng(seed)
        self.b = GraphBuilder(type=kind)
        self.zero = -5 if kind is TensorType.INT8 else 123

    def input(self, *shape: int, name: str = "input") -> int:
        return self.b.add_input((1, *shape), scale=0.05, zero_point=self.zero, name=name)

    def dense(self, x: int, outputs: int, activation: str = "NONE") -> int:
        inputs = int(np.prod(self.b.shape(x)))
        flat = x if len(self.b.shape(x)) == 2 else self.b.reshape(x, (1, inputs))
        w = self.b.quantized_weights(self.rng.normal(size=(outputs, inputs)))
        return self.b.fully_connected(flat, w, self.b.bias(self.rng.normal(size=outputs), flat, w),
                                      scale=0.05 * inputs**0.5, zero_point=self.zero, activation=activation)

    def conv(self, x: int, outputs: int, size: int = 3, *, stride: int = 1, activation: str = "RELU") -> int:
        channels = self.b.shape(x)[-1]
        w = self.b.quantized_weights(self.rng.normal(size=(outputs, size, size, channels)))
        return self.b.conv2d(x, w, self.b.bias(self.rng.normal(size=outputs), x, w), stride=stride, activation=activation,
                             scale=0.05 * size * channels**0.5, zero_point=self.zero)

    def depthwise(self, x: int, size: int = 3) -> int:
        channels = self.b.shape(x)[-1]
        w = self.b.quantized_weights(self.rng.normal(size=(1, size, size, channels)), axis=3)
        return self.b.depthwise_conv2d(x, w, self.b.bias(self.rng.normal(size=channels), x, w), scale=0.05 * size,
                                       zero_point=self.zero, activation="RELU")

    def add(self, x: int, y: int) -> int:
        return self.b.add(x, y, scale=0.4, zero_point=self.zero)

    def cpu(self, x: int) -> int:
        """An operator that never runs on the Edge TPU."""
        return self.b.leaky_relu(x, alpha=0.25)

    def model(self, *outputs: int, name: str = "net.tflite") -> Model:
        return parse_model(serialize_model(self.b.build(list(outputs))), name)


def random_inputs(graph: Graph, seed: int = 0) -> list[npt.NDArray[Any]]:
    """Seeded values over the whole range of every graph input."""
    rng = np.random.default_rng(seed)
    values = []
    for index in graph.inputs:
        tensor = graph.tensors[index]
        dtype = tensor.type.numpy
        assert dtype is not None
        info = np.iinfo(dtype)
        values.append(rng.integers(info.min, info.max, tensor.shape, dtype, endpoint=True))
    return values


def little_memory(patch: pytest.MonkeyPatch, limit: int) -> None:
    """Pretend that tiles have only so many bytes of narrow memory."""
    for module in (fitting, image_network):
        patch.setattr(module, "NARROW_BYTES", limit)
