"""PRELU: values above zero and values below it apart, each with its multiplier, then their sum.

One of the two is always zero, so that the sum is exact. Where slopes are below zero, values above zero are
taken off first, because a clamp behind the multiplier would not tell them apart.
"""

from __future__ import annotations

import numpy as np

from compiler.graph import Graph, Operator
from compiler.lowering.arithmetic import bits, clamp, quantization, unary_multiplier, zero_point
from compiler.lowering.lowered import refusal
from compiler.lowering.spatial.context import Context
from compiler.lowering.spatial.families.addition import Addition
from compiler.lowering.spatial.families.composite import FIRST, SECOND, Composite
from compiler.lowering.spatial.families.constant import scaled
from compiler.lowering.spatial.families.family import Family
from compiler.lowering.spatial.families.unary import NO_LIMITS, Unary
from compiler.lowering.spatial.layer import Layer
from compiler.mapping import Status, Verdict

_ONE = bits(1.0)


def _read(context: Context, op: Operator) -> Layer:
    x, slopes = (context.graph.tensors[t] for t in op.inputs)
    y = context.graph.output(op)
    low, high = clamp(y, 0)
    zero, source = zero_point(y), context.resolve(x.index)
    above = Unary(op.title, source, FIRST, zero_point(x), zero, bits(unary_multiplier(x, y)), 0, high)
    both = Addition(op.title, (FIRST, SECOND), y.index, (1, 1), -2 * zero, zero, _ONE, low, high)
    if np.all(slopes.array().astype(np.int64) >= quantization(slopes).zero_point):
        below: tuple[Layer, ...] = (scaled(op.title, slopes, x, y, (source, SECOND), (low, 0)),)
    else:
        negative = Unary(op.title, source, SECOND, zero_point(x), zero_point(x), _ONE, NO_LIMITS["clamp_low"], 0)
        below = negative, scaled(op.title, slopes, x, y, (SECOND, SECOND), (low, high))
    return Composite(op.title, (above, *below, both), y.index)


def _objection(graph: Graph, op: Operator) -> Verdict | None:
    """One slope, or one per channel."""
    x, slopes = (graph.tensors[t] for t in op.inputs)
    y = graph.output(op)
    if not slopes.is_constant:
        return Verdict(Status.NOT_CONSTANT, f"{op.title}: its slopes must be constants.", "Freeze the model first.")
    if any(t.quantization is None for t in (x, slopes, y)) or x.type is not y.type or slopes.type is not y.type:
        return refusal(op, f"turns {x.type.name} into {y.type.name}, or carries no quantization.")
    if slopes.elements not in (1, y.shape[-1]) or slopes.shape[-1] != slopes.elements:
        return refusal(op, f"its slopes {slopes.name} have shape {list(slopes.shape)}; one slope, or one per channel, is "
                           "generated.", "Share the slopes between rows and columns.")
    return None


PRELU = Family(_objection, _read)
