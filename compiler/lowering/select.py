"""Chooses the family of code generation for a subgraph."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from compiler.graph import Graph, Operator
from compiler.lowering.lowered import refusal
from compiler.lowering.network import DenseNetwork, dense_objection, is_free, softmax_objection
from compiler.lowering.spatial.families import FAMILIES
from compiler.lowering.spatial.network import ImageNetwork
from compiler.mapping import Status, Subgraph, Verdict

Network = DenseNetwork | ImageNetwork
_ON_VECTORS = {name for name, family in FAMILIES.items() if family.on_vectors}


def network_of(graph: Graph, subgraph: Subgraph) -> Network:
    """Read a subgraph as a network that code can be generated for.

    Raises
    ------
    LoweringRefusal
        When an operator in it cannot be generated.
    """
    operators = (graph.operators[i] for i in subgraph.operators)
    names = {op.name for op in operators if not is_free(graph, op)}
    source = graph.tensors[subgraph.inputs[0]]
    image = source.elements > source.shape[-1] if source.shape else False
    on_images = names & (FAMILIES.keys() - _ON_VECTORS) or (image and names & _ON_VECTORS)
    return ImageNetwork(graph, subgraph) if on_images else DenseNetwork(graph, subgraph)


def objection(graph: Graph, op: Operator) -> Verdict | None:
    """Say why an operator by itself cannot be emitted; None when it can."""
    empty = next((t for t in graph.activations(op) if not t.elements), None)
    if empty is not None:
        return refusal(op, f"{empty.name} of shape {list(empty.shape)} has no elements.",
                       "Use a larger input, or padding SAME in front.")
    if op.name in OBJECTIONS:
        return OBJECTIONS[op.name](graph, op)
    return refusal(op, "code for this operator is not generated yet.", "It runs on the CPU.")


def reshape_objection(graph: Graph, op: Operator) -> Verdict | None:
    """The new shape is a constant; rows, columns and channels stay, or the image becomes a vector for a dense layer."""
    return None if len(op.inputs) < 2 or graph.tensors[op.inputs[1]].is_constant else Verdict(
        Status.NOT_CONSTANT, f"{op.title}: the new shape must be a constant.", "Freeze the model before converting it.")


OBJECTIONS: Mapping[str, Callable[[Graph, Operator], Verdict | None]] = {
    name: family.objection for name, family in FAMILIES.items()} | {
    "FULLY_CONNECTED": dense_objection, "RESHAPE": reshape_objection, "SOFTMAX": softmax_objection}
"""What speaks against an operator by itself; the docstrings are the rules' text."""
