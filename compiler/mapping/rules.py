"""Constraint rules: may the official compiler's mapping put an operator on the Edge TPU?

Each rule looks at one operator and returns a verdict or None. The first verdict counts. The
docstring is the rule's text; docs/supported-operators.md is generated from them.
"""

from __future__ import annotations

from collections.abc import Callable

from compiler.graph import Graph, Operator, Tensor, TensorType
from compiler.mapping.status import Status, Verdict

SINCE_RUNTIME: dict[str, int] = {
    "ADD": 10, "AVERAGE_POOL_2D": 10, "CONCATENATION": 10, "CONV_2D": 10, "DEPTHWISE_CONV_2D": 10,
    "FULLY_CONNECTED": 10, "L2_NORMALIZATION": 10, "LOGISTIC": 10, "MAXIMUM": 10, "MAX_POOL_2D": 10, "MEAN": 10,
    "MINIMUM": 10, "MUL": 10, "PAD": 10, "RELU": 10, "RELU6": 10, "RELU_N1_TO_1": 10, "RESHAPE": 10,
    "RESIZE_BILINEAR": 10, "RESIZE_NEAREST_NEIGHBOR": 10, "SLICE": 10, "SOFTMAX": 10, "SPACE_TO_DEPTH": 10,
    "SPLIT": 10, "SQUEEZE": 10, "STRIDED_SLICE": 10, "SUB": 10, "TANH": 10,
    "PRELU": 12, "QUANTIZE": 12, "TILE": 12, "TRANSPOSE_CONV": 12, "UNIDIRECTIONAL_SEQUENCE_LSTM": 12,
    "EXPAND_DIMS": 13, "PACK": 13, "SUM": 13,
    "REDUCE_MAX": 14, "REDUCE_MIN": 14, "RSQRT": 14, "SQUARED_DIFFERENCE": 14, "TRANSPOSE": 14,
}
"""Operators that the official compiler maps, and the first runtime version they were seen with."""

_CONSTANTS_COUNT = {"ADD", "MUL", "SUB"}
_TRANSPOSE_LIMIT = 16_384
_RESIZE_LIMIT = 4
_UINT8_ZERO = {TensorType.UINT8: 0}

Rule = Callable[[Graph, Operator, int], Verdict | None]


def quantize_needs_8_bit(graph: Graph, op: Operator, _: int) -> Verdict | None:
    """QUANTIZE runs on the Edge TPU only between 8-bit tensors; a float input stays on the CPU."""
    if op.name != "QUANTIZE":
        return None
    bad = next((t for t in graph.activations(op) if not t.type.is_8bit), None)
    if bad is None:
        return None
    return Verdict(Status.LIMITATION, f"{op.title}: tensor {bad.name} is {bad.type.name}, the Edge TPU quantizes only "
                   "between INT8 and UINT8.", "Convert the model with int8 or uint8 inference input and output types.")


def operator_is_known(graph: Graph, op: Operator, runtime: int) -> Verdict | None:
    """The operator is in the table of supported operators for the runtime version."""
    since = SINCE_RUNTIME.get(op.name)
    if since is not None and since <= runtime:
        return None
    floats = next((t for t in graph.activations(op) if t.type is TensorType.FLOAT32), None)
    if op.name in ("DEQUANTIZE", "CUSTOM") or floats is not None:
        what = f"tensor {floats.name} is FLOAT32" if floats is not None else f"{op.title} works on other than 8-bit data"
        return Verdict(Status.DATA_TYPE, f"{op.title}: {what}; the Edge TPU computes in INT8 and UINT8.",
                       "Quantize the whole model to int8.")
    if since is not None:
        return Verdict(Status.NOT_SUPPORTED, f"{op.title} needs runtime version {since}, the model is compiled for "
                       f"{runtime}.", f"Compile with --min_runtime_version {since} or higher.")
    return Verdict(Status.NOT_SUPPORTED, f"{op.title}: the Edge TPU has no such operation.",
                   "Replace it by supported operations, or move it to the end of the model.")


def activations_are_8_bit(graph: Graph, op: Operator, _: int) -> Verdict | None:
    """All tensors that are computed at run time are INT8 or UINT8 (for ADD, MUL and SUB constants too)."""
    if op.name == "UNIDIRECTIONAL_SEQUENCE_LSTM":
        return None
    tensors: list[Tensor] = list(graph.activations(op))
    if op.name in _CONSTANTS_COUNT:
        tensors = [graph.tensors[t] for t in (*op.inputs, *op.outputs) if t >= 0]
    bad = next((t for t in tensors if not t.type.is_8bit), None)
    if bad is None:
        return None
    return Verdict(Status.DATA_TYPE, f"{op.title}: tensor {bad.name} is {bad.type.name}, the Edge TPU computes in INT8 "
                   "and UINT8.", "Quantize the whole model to int8.")


def at_most_three_dimensions(graph: Graph, op: Operator, _: int) -> Verdict | None:
    """Only the three innermost dimensions of a tensor may be larger than 1."""
    for t in graph.activations(op):
        if any(d > 1 for d in t.shape[:-3]):
            return Verdict(Status.RANK, f"{op.title}: tensor {t.name} has shape {list(t.shape)}, only the 3 innermost "
                           "dimensions may exceed 1.", "Use batch size 1.")
    return None


def bilinear_resize_is_precise(graph: Graph, op: Operator, _: int) -> Verdict | None:
    """RESIZE_BILINEAR enlarges at most four times."""
    if op.name != "RESIZE_BILINEAR":
        return None
    x, y = graph.tensors[op.inputs[0]], graph.output(op)
    ratio = max(b / a for a, b in zip(x.shape[1:3], y.shape[1:3], strict=False))
    if ratio <= _RESIZE_LIMIT:
        return None
    return Verdict(Status.INTERPOLATION, f"{op.title}: {x.name} grows from {list(x.shape[1:3])} to {list(y.shape[1:3])}, "
                   f"more than {_RESIZE_LIMIT} times.", "Enlarge in several steps or leave the resize to the CPU.")


def transpose_is_small(graph: Graph, op: Operator, _: int) -> Verdict | None:
    """TRANSPOSE of the innermost dimension is limited to 16384 elements."""
    if op.name != "TRANSPOSE" or not graph.tensors[op.inputs[1]].is_constant:
        return None
    x, order = graph.tensors[op.inputs[0]], graph.tensors[op.inputs[1]].array().reshape(-1).tolist()
    if order[-1] == len(order) - 1 or x.elements <= _TRANSPOSE_LIMIT:
        return None
    return Verdict(Status.LIMITATION, f"{op.title}: {x.name} has {x.elements} elements, the limit is {_TRANSPOSE_LIMIT} "
                   "when the innermost dimension moves.", "Transpose a smaller tensor or keep the channels last.")


def split_keeps_batch(graph: Graph, op: Operator, _: int) -> Verdict | None:
    """SPLIT may not cut the outermost dimension of a tensor."""
    if op.name != "SPLIT" or not graph.tensors[op.inputs[0]].is_constant:
        return None
    x = graph.tensors[op.inputs[1]]
    axis = int(graph.tensors[op.inputs[0]].array().reshape(-1)[0])
    if axis % max(len(x.shape), 1) != 0:
        return None
    return Verdict(Status.LIMITATION, f"{op.title}: splits {x.name} along its outermost dimension.",
                   "Split along channels, rows or columns.")


RULES: tuple[Rule, ...] = (
    quantize_needs_8_bit, operator_is_known, activations_are_8_bit, at_most_three_dimensions,
    bilinear_resize_is_precise, transpose_is_small, split_keeps_batch,
)
"""All rules in the order in which they are tested."""
