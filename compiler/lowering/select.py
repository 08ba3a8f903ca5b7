"""Chooses the family of code generation for a subgraph."""

from __future__ import annotations

from collections.abc import Callable

from compiler.graph import Graph, Operator
from compiler.lowering.lowered import refusal
from compiler.lowering.network import DenseNetwork, dense_objection, quantize_objection, softmax_objection
from compiler.lowering.spatial.network import ImageNetwork
from compiler.lowering.spatial.objections import (
    addition_objection,
    concatenation_objection,
    convolution_objection,
    mean_objection,
    pool_objection,
    unary_objection,
)
from compiler.mapping import Status, Subgraph, Verdict

Network = DenseNetwork | ImageNetwork
_OBJECTIONS: dict[str, Callable[[Graph, Operator], Verdict | None]] = {
    "CONV_2D": convolution_objection, "DEPTHWISE_CONV_2D": convolution_objection, "AVERAGE_POOL_2D": pool_objection,
    "MAX_POOL_2D": pool_objection, "ADD": addition_objection, "MEAN": mean_objection,
    "CONCATENATION": concatenation_objection,
    "RELU": unary_objection, "RELU6": unary_objection, "RELU_N1_TO_1": unary_objection, "LOGISTIC": unary_objection,
}
"""Operators on images."""
_OF_VALUES = {"RELU", "RELU6", "RELU_N1_TO_1", "LOGISTIC", "PAD"}
"""Those that vectors know as well."""


def network_of(graph: Graph, subgraph: Subgraph) -> Network:
    """Read a subgraph as a network that code can be generated for.

    Raises
    ------
    LoweringRefusal
        When an operator in it cannot be generated.
    """
    names = {graph.operators[i].name for i in subgraph.operators}
    source = graph.tensors[subgraph.inputs[0]]
    image = source.elements > source.shape[-1] if source.shape else False
    on_images = names & (_OBJECTIONS.keys() - _OF_VALUES) or (image and names & _OF_VALUES)
    return ImageNetwork(graph, subgraph) if on_images else DenseNetwork(graph, subgraph)


def objection(graph: Graph, op: Operator) -> Verdict | None:
    """Say why an operator by itself cannot be emitted; None when it can."""
    if op.name in _OBJECTIONS:
        return _OBJECTIONS[op.name](graph, op)
    if op.name == "FULLY_CONNECTED":
        return dense_objection(graph, op)
    if op.name == "SOFTMAX":
        return softmax_objection(graph, op)
    if op.name == "QUANTIZE":
        return quantize_objection(graph, op)
    if op.name == "RESHAPE":
        return None if len(op.inputs) < 2 or graph.tensors[op.inputs[1]].is_constant else Verdict(
            Status.NOT_CONSTANT, f"{op.title}: the new shape must be a constant.", "Freeze the model before converting it.")
    if op.name == "PAD":
        return None if graph.tensors[op.inputs[1]].is_constant else Verdict(
            Status.NOT_CONSTANT, f"{op.title}: the padding must be a constant.", "Freeze the model before converting it.")
    return refusal(op, "code for this operator is not generated yet.", "It runs on the CPU.")
