"""Chooses the code generation for a subgraph and for an operator."""

from __future__ import annotations

from compiler.generation import CURRENT, Generation
from compiler.graph import Graph, Operator
from compiler.lowering.lowered import refusal
from compiler.lowering.refusal import LoweringRefusal
from compiler.lowering.spatial.families import family_of
from compiler.lowering.spatial.network import Network
from compiler.mapping import Subgraph, Verdict

__all__ = ["Network", "network_of", "objection"]


def network_of(graph: Graph, subgraph: Subgraph, generation: Generation = CURRENT) -> Network:
    """Read a subgraph as a network that code can be generated for.

    Where the results of detectors are too large, the host puts them together.

    Raises
    ------
    LoweringRefusal
        When an operator in it cannot be generated.
    """
    try:
        return Network(graph, subgraph, generation)
    except LoweringRefusal as refused:
        from compiler.lowering.spatial.late import late_tensors

        late = late_tensors(graph, subgraph) if refused.too_large else frozenset[int]()
        if not late:
            raise
        try:
            return Network(graph, subgraph, generation, late)
        except LoweringRefusal:
            raise refused from None


def objection(graph: Graph, op: Operator) -> Verdict | None:
    """Say why an operator by itself cannot be emitted; None when it can."""
    empty = next((t for t in graph.activations(op) if not t.elements), None)
    if empty is not None:
        return refusal(op, f"{empty.name} of shape {list(empty.shape)} has no elements.",
                       "Use a larger input, or padding SAME in front.")
    family = family_of(op.name)
    if family is not None:
        return family.objection(graph, op)
    return refusal(op, "code for this operator is not generated yet.", "It runs on the CPU.")

