"""A family of operators: when it can be generated, and how it is read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from compiler.graph import Graph, Operator, Tensor
from compiler.lowering.lowered import refusal
from compiler.lowering.spatial.context import Context, extent_of
from compiler.lowering.spatial.layer import Layer
from compiler.mapping import Verdict

FUSED = (0, 1, 2, 3)
"""Fused activations: none, RELU, RELU_N1_TO_1, RELU6."""


@dataclass(frozen=True)
class Family:
    """What the compiler needs of a family of operators.

    Attributes
    ----------
    objection:
        Says why an operator by itself cannot be emitted; None when it can.
    read:
        Turns an operator into a layer, or into several; None when another layer absorbs it. May raise
        :class:`~compiler.lowering.refusal.LoweringRefusal`.
    """

    objection: Callable[[Graph, Operator], Verdict | None]
    read: Callable[[Context, Operator], Layer | Sequence[Layer] | None]


def binary_objection(graph: Graph, op: Operator) -> Verdict | None:
    """Operands of one shape, or a constant with one value or one per channel.

    One operand may have a single row, column or channel; RELU, RELU6 and RELU_N1_TO_1 may be fused.
    """
    a, b, y = (graph.tensors[t] for t in (*op.inputs, *op.outputs))
    if any(t.quantization is None for t in (a, b, y)) or a.type is not y.type or b.type is not y.type:
        return refusal(op, f"mixes {a.type.name}, {b.type.name} and {y.type.name}, or carries no quantization.")
    if getattr(op.options, "fusedActivationFunction", 0) not in FUSED:
        return refusal(op, f"the fused activation {op.activation} is not supported.")
    constants, operands = ([t for t in (a, b) if t.is_constant is wanted] for wanted in (True, False))
    uneven = next((t for t in constants if t.elements > 1 and not t.shape[-1] == t.elements == y.shape[-1]), None)
    if uneven is not None:
        return refusal(op, f"its constant {uneven.name} has shape {list(uneven.shape)}; one value, or one per channel, is "
                           "generated.")
    if not operands or any(not _spreads(t, y) for t in operands):
        return refusal(op, f"works on {list(a.shape)} and {list(b.shape)}; operands, of which one may have a single row, "
                           "column or channel, and constants per channel are "
                           "generated.", "Bring both operands to one shape.")
    return None


def _spreads(x: Tensor, y: Tensor) -> bool:
    """Tell whether an operand has the shape of the result, or a single row, column or channel."""
    return all(n in (1, whole) for n, whole in zip(extent_of(x), extent_of(y), strict=True))
