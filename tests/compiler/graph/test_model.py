"""The graph's own answers: who writes and reads a tensor, which are constant, float or dynamic."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, replace

import ai_edge_litert.schema_py_generated as schema
import numpy as np
import pytest

from compiler.graph import Graph, Quantization, Tensor, TensorType, parse_model, serialize_model
from compiler.graph.build import GraphBuilder
from compiler.graph.model import ACTIVATIONS


def diamond() -> Graph:
    """Return x -> relu -> (tanh, logistic) -> mul, read back from a file."""
    builder = GraphBuilder()
    x = builder.relu(builder.add_input((1, 4), scale=0.1))
    y = builder.mul(builder.tanh(x), builder.logistic(x), scale=0.1, activation="RELU6")
    return parse_model(serialize_model(builder.build(y))).main


def test_producers_and_consumers() -> None:
    graph = diamond()
    relu, tanh, logistic, mul = graph.operators
    assert graph.producers == {relu.outputs[0]: relu, tanh.outputs[0]: tanh, logistic.outputs[0]: logistic,
                               mul.outputs[0]: mul}
    assert graph.consumers[relu.outputs[0]] == (tanh, logistic)
    assert graph.consumers[tanh.outputs[0]] == (mul,)
    assert mul.outputs[0] not in graph.consumers
    assert mul.activation == "RELU6"
    assert tanh.activation == "NONE"


def test_an_operator_that_reads_a_tensor_twice_is_one_consumer() -> None:
    builder = GraphBuilder()
    x = builder.add_input((1, 4), scale=0.1)
    graph = builder.build(builder.add(x, x, scale=0.1)).main
    assert graph.consumers[x] == graph.operators


def test_omitted_operands() -> None:
    builder = GraphBuilder()
    x = builder.add_input((1, 4), scale=0.1)
    graph = parse_model(serialize_model(builder.build(builder.fully_connected(x, np.eye(4), scale=0.1)))).main
    (op,) = graph.operators
    assert op.inputs[2] == -1
    assert graph.input(op, 2) is None
    assert graph.input(op, 3) is None
    assert graph.input(op, 0) is graph.tensors[x]
    assert list(graph.activations(op)) == [graph.tensors[x], graph.output(op)]
    assert -1 not in graph.consumers


def test_float_and_dynamic_tensors_count_only_where_used() -> None:
    builder = GraphBuilder()
    x = builder.add_input((1, 2, 4), scale=0.1, signature=(-1, 2, 4))
    builder.tensor((3,), type=TensorType.FLOAT32, name="unused", signature=(1, -1))
    y = builder.rename(builder.dequantize(x), "real")
    graph = builder.build(y).main
    assert [t.name for t in graph.float_tensors()] == ["real"]
    assert graph.dynamic_tensors() == ()
    opened = replace(graph.tensors[x], signature=(-1, -1, 4))
    graph = replace(graph, tensors=(opened, *graph.tensors[1:]))
    assert graph.dynamic_tensors() == (opened,)


def test_constants_are_read_only_arrays() -> None:
    builder = GraphBuilder()
    index = builder.constant(np.arange(6).reshape(2, 3), type=TensorType.INT32)
    tensor = builder.tensors[index]
    assert tensor.array().tolist() == [[0, 1, 2], [3, 4, 5]]
    assert tensor.elements == 6
    with pytest.raises(ValueError, match="read-only"):
        tensor.array()[0, 0] = 1
    with pytest.raises(ValueError, match="no constant data"):
        builder.tensors[builder.add_input((1,), scale=1.0)].array()


def test_graphs_cannot_be_changed() -> None:
    tensor = diamond().tensors[0]
    with pytest.raises(FrozenInstanceError):
        tensor.name = "other"  # type: ignore[misc]
    assert not hasattr(tensor, "__dict__")


def test_equality_is_identity() -> None:
    tensor = Tensor(0, "x", (1,), TensorType.INT8, data=np.zeros(3, np.uint8))
    assert tensor != replace(tensor)
    assert len({tensor, replace(tensor)}) == 2


def test_quantizations_compare_by_meaning() -> None:
    def q(scales: list[float], points: list[int], axis: int = 0) -> Quantization:
        return Quantization(np.asarray(scales, np.float32), np.asarray(points, np.int64), axis)

    assert q([0.5], [3]).same_as(q([0.5], [3], axis=2))
    assert not q([0.5], [3]).same_as(q([0.5], [4]))
    assert not q([0.5, 1], [0, 0]).same_as(q([0.5, 1], [0, 0], axis=1))
    assert not q([0.5], [3]).same_as(None)
    assert q([0.5, 1], [0, 0]).per_channel


def test_numbers_are_those_of_the_schema() -> None:
    def numbers(table: type) -> dict[str, int]:
        return {k: v for k, v in vars(table).items() if isinstance(v, int)}

    assert {t.name: int(t) for t in TensorType} == numbers(schema.TensorType)
    assert {name: number for number, name in ACTIVATIONS.items()} == numbers(schema.ActivationFunctionType)


@pytest.mark.parametrize(("kind", "bits"), [(TensorType.INT8, 8), (TensorType.INT4, 4), (TensorType.BFLOAT16, 16),
                                            (TensorType.BOOL, 8), (TensorType.COMPLEX128, 128),
                                            (TensorType.STRING, None)])
def test_stored_size(kind: TensorType, bits: int | None) -> None:
    assert kind.bits == bits
