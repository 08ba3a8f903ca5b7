"""Graphs made of some operators of another graph."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from compiler.graph.model import Graph, Operator


def part_of(graph: Graph, operators: Sequence[Operator], inputs: Sequence[int], outputs: Sequence[int]
            ) -> tuple[Graph, dict[int, int]]:
    """Return a graph of the given operators, and the new number of every tensor that it kept.

    Parameters
    ----------
    operators:
        In execution order, with the tensor numbers of ``graph``.
    inputs, outputs:
        Tensors of ``graph``.

    Returns
    -------
    Graph
        With the tensors that are still used, in their old order.
    dict
        Old to new number; -1, an omitted operand, stays.
    """
    used = {t for op in operators for t in (*op.inputs, *op.outputs, *op.intermediates) if t >= 0}
    used |= {*inputs, *outputs}
    kept = [t for t in graph.tensors if t.index in used]
    number = {t.index: i for i, t in enumerate(kept)} | {-1: -1}
    renumbered = tuple(replace(op, index=i, inputs=tuple(number[t] for t in op.inputs),
                               outputs=tuple(number[t] for t in op.outputs),
                               intermediates=tuple(number[t] for t in op.intermediates)) for i, op in enumerate(operators))
    part = replace(graph, tensors=tuple(replace(t, index=number[t.index]) for t in kept), operators=renumbered,
                   inputs=tuple(number[t] for t in inputs), outputs=tuple(number[t] for t in outputs))
    return part, number
