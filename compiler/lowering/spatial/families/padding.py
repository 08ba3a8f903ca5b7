"""PAD: part of the convolutions behind it where it can be, a copy to other places where it cannot."""

from __future__ import annotations

from compiler.graph import Graph, Operator
from compiler.lowering.spatial.context import Context, Padding
from compiler.lowering.spatial.families.family import Family
from compiler.lowering.spatial.families.selection import moved_objection, read_moved
from compiler.lowering.spatial.families.unary import read_unary
from compiler.lowering.spatial.layer import Layer

_CONVOLUTIONS = ("CONV_2D", "DEPTHWISE_CONV_2D")


def _pads(graph: Graph, op: Operator) -> list[list[int]]:
    pads: list[list[int]] = graph.tensors[op.inputs[1]].array().reshape(-1, 2).tolist()
    return pads


def _is_absorbed(context: Context, op: Operator, pads: list[list[int]]) -> bool:
    """Tell whether convolutions are all that reads an image padded by rows and columns."""
    y = op.outputs[0]
    users = context.graph.consumers.get(y, ())
    return len(pads) == 4 and not any(pads[3]) and y not in context.subgraph.outputs and all(
        u.name in _CONVOLUTIONS and u.index in context.subgraph.operators for u in users)


def _read(context: Context, op: Operator) -> Layer | list[Layer] | None:
    pads = _pads(context.graph, op)
    if _is_absorbed(context, op, pads):
        x, y = op.inputs[0], op.outputs[0]
        context.alias(y, x)
        context.padding[y] = Padding((pads[1][0], pads[1][1]), (pads[2][0], pads[2][1]))
        return None
    return read_moved(context, op) if any(map(any, pads)) else read_unary(context, op)


PADDING = Family(moved_objection, _read)
