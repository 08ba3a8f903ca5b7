"""Evaluate a source graph, operator by operator."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

import numpy as np

from compiler.beagle.reference import convolutions, elementwise, movement, normalisation, pooling, recurrent
from compiler.beagle.reference.step import Array, Generation, NoReferenceError, Step
from compiler.errors import UsageError
from compiler.graph import Graph, Operator

Rule = Callable[[Step], list[Array]]

RULES: dict[str, Rule] = {
    "ADD": elementwise.add,
    "ARG_MAX": pooling.arg_max,
    "AVERAGE_POOL_2D": pooling.average_pool_2d,
    "BATCH_TO_SPACE_ND": movement.batch_to_space,
    "CAST": movement.cast,
    "CONCATENATION": movement.concatenation,
    "CONV_2D": convolutions.conv_2d,
    "DEPTHWISE_CONV_2D": convolutions.depthwise_conv_2d,
    "DEPTH_TO_SPACE": movement.depth_to_space,
    "DEQUANTIZE": elementwise.dequantize,
    "EXPAND_DIMS": movement.reshape,
    "FULLY_CONNECTED": convolutions.fully_connected,
    "L2_NORMALIZATION": normalisation.l2_normalization,
    "LEAKY_RELU": elementwise.leaky_relu,
    "LOGISTIC": elementwise.logistic,
    "MAXIMUM": elementwise.maximum,
    "MAX_POOL_2D": pooling.max_pool_2d,
    "MEAN": pooling.mean,
    "MINIMUM": elementwise.minimum,
    "MIRROR_PAD": movement.mirror_pad,
    "MUL": elementwise.mul,
    "PACK": movement.pack,
    "PAD": movement.pad,
    "PADV2": movement.pad,
    "PRELU": elementwise.prelu,
    "QUANTIZE": elementwise.quantize,
    "REDUCE_MAX": pooling.reduce_max,
    "REDUCE_MIN": pooling.reduce_min,
    "RELU": elementwise.identity,
    "RELU6": elementwise.identity,
    "RELU_N1_TO_1": elementwise.identity,
    "RESHAPE": movement.reshape,
    "RESIZE_BILINEAR": movement.resize_bilinear,
    "RESIZE_NEAREST_NEIGHBOR": movement.resize_nearest_neighbor,
    "RSQRT": elementwise.rsqrt,
    "SLICE": movement.slice_,
    "SOFTMAX": normalisation.softmax,
    "SPACE_TO_BATCH_ND": movement.space_to_batch,
    "SPACE_TO_DEPTH": movement.space_to_depth,
    "SPLIT": movement.split,
    "SPLIT_V": movement.split_v,
    "SQUARED_DIFFERENCE": elementwise.squared_difference,
    "SQUEEZE": movement.reshape,
    "STRIDED_SLICE": movement.strided_slice,
    "SUB": elementwise.sub,
    "SUM": pooling.total,
    "TANH": elementwise.tanh,
    "TILE": movement.tile,
    "TRANSPOSE": movement.transpose,
    "TRANSPOSE_CONV": convolutions.transpose_conv,
    "UNIDIRECTIONAL_SEQUENCE_LSTM": recurrent.unidirectional_sequence_lstm,
    "UNPACK": movement.unpack,
}
"""What computes each operator."""


def evaluate(graph: Graph, inputs: Mapping[int, Array], *, until: Collection[int] | None = None,
             generation: Generation = Generation.LATER) -> dict[int, Array]:
    """Evaluate a quantized graph with the chip's arithmetic.

    Parameters
    ----------
    inputs:
        Values by tensor index, in the tensors' types: the graph inputs, or any tensors that the
        evaluation is to start from.
    until:
        Tensors that are wanted; only what they depend on is evaluated. By default the graph outputs.
    generation:
        The official compilers whose habits are followed.

    Returns
    -------
    dict
        Values of all tensors evaluated, by index, the inputs included; of variable tensors the last.

    Raises
    ------
    NoReferenceError
        When the chip's arithmetic of an operator is not known.
    UsageError
        When an input is missing, or of another type or size than the tensor.
    """
    arrays = {t.index: t.array() for t in graph.tensors if t.is_constant and t.type.numpy is not None}
    arrays.update(_initial_states(graph))
    given = {index: _fitting(graph, index, array) for index, array in inputs.items()}
    arrays.update(given)
    found = dict(given)
    for op in needed(graph, given, graph.outputs if until is None else until):
        step = Step(graph, op, arrays, generation)
        results = _evaluate(step)
        for index, value in step.next_values.items():
            results[index] = _shaped(graph, op, index, value).astype(graph.tensors[index].type.numpy)
        arrays.update(results)
        found.update(results)
    return found


def _initial_states(graph: Graph) -> dict[int, Array]:
    """Variable tensors start at the real value zero."""
    return {t.index: np.full(t.shape, t.quantization.zero_point, t.type.numpy)
            for t in graph.tensors if t.is_variable and t.quantization is not None}


def needed(graph: Graph, given: Collection[int], wanted: Collection[int]) -> list[Operator]:
    """Return the operators between given and wanted tensors, in execution order.

    Raises
    ------
    UsageError
        When a tensor is needed that nothing computes.
    """
    operators: set[int] = set()
    open_ends, seen = list(wanted), set(given)
    while open_ends:
        index = open_ends.pop()
        tensor = graph.tensors[index]
        if index < 0 or index in seen or tensor.is_constant or tensor.is_variable:
            continue
        seen.add(index)
        op = graph.producers.get(index)
        if op is None:
            raise UsageError(f"tensor {tensor.name} is needed and not given.")
        operators.add(op.index)
        open_ends += op.inputs
    return [op for op in graph.operators if op.index in operators]


def _evaluate(step: Step) -> dict[int, Array]:
    op = step.op
    rule = RULES.get(op.name)
    if rule is None:
        raise NoReferenceError(f"{op.title}: the chip's arithmetic of this operator is not known.")
    return {i: _shaped(step.graph, op, i, array) for i, array in zip(op.outputs, rule(step), strict=True)}


def _shaped(graph: Graph, op: Operator, index: int, array: Array) -> Array:
    tensor = graph.tensors[index]
    if array.size != tensor.elements:
        raise NoReferenceError(f"{op.title} gives {array.size} values, tensor {tensor.name} has {tensor.elements}.")
    return np.ascontiguousarray(array).reshape(tensor.shape)


def _fitting(graph: Graph, index: int, array: Array) -> Array:
    tensor = graph.tensors[index]
    if array.dtype != tensor.type.numpy or array.size != tensor.elements:
        raise UsageError(f"tensor {tensor.name} takes {tensor.type.name} of shape {list(tensor.shape)}, given was "
                         f"{array.dtype} of shape {list(array.shape)}.")
    return array.reshape(tensor.shape)
