"""A family of operators: when it can be generated, and how it is read."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from compiler.graph import Graph, Operator, Tensor
from compiler.lowering.lowered import refusal
from compiler.lowering.spatial.context import Context, extent_of
from compiler.lowering.spatial.layer import Layer
from compiler.mapping import Verdict
from compiler.records import record

FUSED = (0, 1, 2, 3)
"""Fused activations: none, RELU, RELU_N1_TO_1, RELU6."""


@record
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


def weights_objection(op: Operator, x: Tensor, w: Tensor, y: Tensor) -> Verdict | None:
    """Input, weights and output of one type, all of them quantized."""
    if w.type is not x.type or x.type is not y.type:
        return refusal(op, f"mixes {x.type.name}, {w.type.name} and {y.type.name}.", "Quantize all of it to one type.")
    if w.quantization is None or x.quantization is None or y.quantization is None:
        return refusal(op, f"weights {w.name}, input or output carry no quantization.")
    return None


def fused_objection(op: Operator) -> Verdict | None:
    """RELU, RELU6 and RELU_N1_TO_1 may be fused."""
    if getattr(op.options, "fusedActivationFunction", 0) not in FUSED:
        return refusal(op, f"the fused activation {op.activation} is not supported.")
    return None


def binary_objection(graph: Graph, op: Operator) -> Verdict | None:
    """Operands of one shape, one of which may be a constant.

    One operand may have a single row, column or channel; RELU, RELU6 and RELU_N1_TO_1 may be fused.
    """
    a, b, y = (graph.tensors[t] for t in (*op.inputs, *op.outputs))
    if any(t.quantization is None for t in (a, b, y)) or a.type is not y.type or b.type is not y.type:
        return refusal(op, f"mixes {a.type.name}, {b.type.name} and {y.type.name}, or carries no quantization.")
    if (objection := fused_objection(op)) is not None:
        return objection
    if (a.is_constant and b.is_constant) or any(not _spreads(t, y) for t in (a, b)):
        return refusal(op, f"works on {list(a.shape)} and {list(b.shape)}; operands, of which one may have a single row, "
                           "column or channel, are generated.", "Bring both operands to one shape.")
    return None


def _spreads(x: Tensor, y: Tensor) -> bool:
    """Tell whether an operand has the shape of the result, or a single row, column or channel."""
    return all(n in (1, whole) for n, whole in zip(extent_of(x), extent_of(y), strict=True))
