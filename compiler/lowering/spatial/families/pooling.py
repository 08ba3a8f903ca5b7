"""MAX_POOL_2D and AVERAGE_POOL_2D: when they can be generated, and how they are read."""

from __future__ import annotations

from collections.abc import Sequence

from compiler.graph import Graph, Operator, Tensor
from compiler.lowering.arithmetic import bits, clamp, mean_multiplier, unary_multiplier, zero_point
from compiler.lowering.lowered import refusal
from compiler.lowering.spatial.context import Context, is_flat, same_padding
from compiler.lowering.spatial.families.family import Family, fused_objection
from compiler.lowering.spatial.families.pool import Pool, common_count
from compiler.lowering.spatial.families.whole_pool import read_whole_pool
from compiler.lowering.spatial.geometry import Span, Window
from compiler.lowering.spatial.layer import Layer
from compiler.mapping import Verdict

_VALID = 1

def _read(context: Context, op: Operator) -> Layer:
    x, y, o = context.graph.tensors[op.inputs[0]], context.graph.output(op), op.options
    if _reduces_all(context.graph, op):
        return read_whole_pool(context, op)
    low, high = clamp(y, o.fusedActivationFunction)
    sizes, strides = (o.filterHeight, o.filterWidth), (o.strideH, o.strideW)
    windows = [Window(sizes[axis], strides[axis]) for axis in (0, 1)]
    if o.padding != _VALID:
        windows = [same_padding(x.shape[1 + axis], w) for axis, w in enumerate(windows)]
    maximum = op.name == "MAX_POOL_2D"
    inside = _inside(x, y, windows) if not maximum else None
    count = sizes[0] * sizes[1] if inside is None else common_count(inside)
    early = context.generation.early_arithmetic
    multiplier = unary_multiplier(x, y) if maximum else mean_multiplier(x, y, count, early_pool=early)
    return Pool(op.title, maximum, context.resolve(x.index), y.index, (windows[0], windows[1]), zero_point(x),
                zero_point(y), bits(multiplier), low, high, inside)


def _inside(x: Tensor, y: Tensor, windows: Sequence[Window]) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """Return the rows and columns inside the image under each result; None where all windows are full."""
    found = [tuple(len(w.needed(Span(i, i + 1)).within(length)) for i in range(count))
             for w, length, count in zip(windows, x.shape[1:3], y.shape[1:3], strict=True)]
    full = all(n == w.size for w, axis in zip(windows, found, strict=True) for n in axis)
    return None if full else (found[0], found[1])


def _reduces_all(graph: Graph, op: Operator) -> bool:
    """Tell whether a pool makes one pixel of all pixels of an image."""
    x, y, o = graph.tensors[op.inputs[0]], graph.output(op), op.options
    return is_flat(y) and (o.filterHeight, o.filterWidth) == x.shape[1:3]


def _objection(graph: Graph, op: Operator) -> Verdict | None:
    """Batch size 1; any window, stride and padding.

    Averages with padding SAME: the least common multiple of the numbers of pixels at the border is limited. RELU,
    RELU6 and RELU_N1_TO_1 may be fused.
    """
    x, y = graph.tensors[op.inputs[0]], graph.output(op)
    if x.type is not y.type or x.quantization is None or y.quantization is None:
        return refusal(op, f"turns {x.type.name} into {y.type.name}, or carries no quantization.")
    if len(x.shape) != 4 or x.shape[0] != 1:
        return refusal(op, f"its input {x.name} has shape {list(x.shape)}, four dimensions and batch size 1 are needed.")
    return fused_objection(op)


POOL = Family(_objection, _read)
