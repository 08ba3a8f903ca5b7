"""What a mapped graph asks of parameter memory, operator by operator.

The parameters of a layer are a function of the source model alone. They can therefore be told for
every graph that the mapping allows, also where no program can be generated yet.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from compiler.facts import LANES, PARAMETER_LINE_BYTES, TILES, WIDE_ROWS
from compiler.generation import CURRENT, Generation, SoftmaxForm
from compiler.graph import Graph, Operator, Tensor
from compiler.lowering.arithmetic import unsigned_weights, zero_point
from compiler.lowering.dense_layer import DenseLayer
from compiler.lowering.order import in_turn
from compiler.lowering.parameters import Bytes, DenseParameters, dense_blob, round_up
from compiler.lowering.spatial.context import Context, extent_of, image_of, is_flat, same_bytes
from compiler.lowering.spatial.families import family_of
from compiler.lowering.spatial.families.convolution import kernel_of, ring_tensor
from compiler.lowering.spatial.families.dense import dense_layer, dense_tensor
from compiler.lowering.spatial.families.softmax import softmax_layer, softmax_tables
from compiler.lowering.spatial.gathering import flattened_weights
from compiler.lowering.spatial.layer import Layer
from compiler.lowering.spatial.weights import Kernel
from compiler.mapping import Subgraph
from compiler.memory.demand import Kind, ModelDemand, ParameterTensor
from compiler.records import record

_CONVOLUTIONS = ("CONV_2D", "DEPTHWISE_CONV_2D")
_WITH_CONSTANTS = ("ADD", "SUB", "MUL", "PRELU")
_UNREAD = ("TRANSPOSE_CONV", "UNIDIRECTIONAL_SEQUENCE_LSTM", "SPLIT", "TRANSPOSE", "PACK")
"""Operators with tables of their own that are not known."""
_SPREAD_POSITIONS = 16
"""Pixels that a table brings together when an image is too large for one."""


@record
class GraphDemand:
    """The demand of a subgraph, and the parameters themselves.

    Attributes
    ----------
    blobs:
        Per tensor of the demand: its bytes as they lie in the parameters of an executable; empty when only
        their number is known.
    unread:
        Operators that may have parameters of which nothing is known.
    """

    demand: ModelDemand
    blobs: tuple[bytes, ...]
    unread: tuple[str, ...]


def read_demand(graph: Graph, subgraph: Subgraph, name: str, staging_row: int = WIDE_ROWS, *,
                generation: Generation = CURRENT) -> GraphDemand:
    """Read the demand of a subgraph, in the order of its operators.

    Parameters
    ----------
    staging_row:
        Lowest wide row that the executable uses for itself.
    generation:
        Whose habits the programs have.
    """
    found: list[tuple[ParameterTensor, bytes]] = []
    unread = []
    context = Context(graph, subgraph, generation)
    for index in in_turn(graph, subgraph):
        op = graph.operators[index]
        tensors = _of_layers(context, op) or _tensors(graph, op, generation)
        found += tensors
        if op.name in _UNREAD or (op.name == "FULLY_CONNECTED" and not tensors):
            unread.append(op.title)
    return GraphDemand(ModelDemand(name, tuple(t for t, _ in found), staging_row), tuple(b for _, b in found),
                       tuple(unread))


def _tensors(graph: Graph, op: Operator, generation: Generation) -> list[tuple[ParameterTensor, bytes]]:
    x = graph.tensors[op.inputs[0]]
    if op.name == "FULLY_CONNECTED" or (op.name == "CONV_2D" and is_flat(x)):
        weights = graph.tensors[op.inputs[1]]
        if not weights.is_constant or (op.name == "FULLY_CONNECTED" and weights.shape[-1] != x.elements):
            return []
        return [_dense(op, dense_layer(graph, op, _flattened(graph, op), generation).parameters)]
    if op.name in _CONVOLUTIONS:
        kernel = kernel_of(graph, op, generation=generation)
        return [(ring_tensor(op.title, kernel), kernel.blob)]
    if op.name == "SOFTMAX" and not is_flat(x):
        layer = softmax_layer(graph, op)
        return [(_streamed(f"{op.title} table {i}", layer.words), table) for i, table in enumerate(layer.tables)]
    if op.name == "SOFTMAX":
        spread = generation.softmax is SoftmaxForm.THREE_TABLES
        return softmax_tables(softmax_layer(graph, op, _slices(x.elements) if spread else ()), generation.softmax)
    if op.name in _WITH_CONSTANTS:
        constants = [t for t in (graph.tensors[i] for i in op.inputs) if t.is_constant]
        return [(_table(op, t, graph.output(op)), b"") for t in constants if _has_table(graph, op, t)]
    return _layout_table(graph, op)


def _of_layers(context: Context, op: Operator) -> list[tuple[ParameterTensor, bytes]]:
    """Return what our own layers have: channels moved by a PAD, or kept apart for a RESHAPE; weights for several vectors."""
    graph = context.graph
    if op.name != "PAD" and not _on_vectors(graph, op) and (op.name != "CONV_2D" or is_flat(graph.output(op))):
        return []
    family = family_of(op.name)
    if family is None or family.objection(graph, op) is not None:
        return []
    made = family.read(context, op)
    layers = () if made is None else (made,) if isinstance(made, Layer) else made
    return [(p.tensor, p.blob) for layer in layers for p in layer.parameters]


def _on_vectors(graph: Graph, op: Operator) -> bool:
    """Tell whether an operator is a dense layer of several vectors: a convolution."""
    if op.name != "FULLY_CONNECTED":
        return False
    x, weights = (graph.tensors[t] for t in op.inputs[:2])
    return weights.is_constant and weights.shape[-1] != x.elements


def _dense(op: Operator, parameters: DenseParameters) -> tuple[ParameterTensor, bytes]:
    return dense_tensor(DenseLayer(op.title, parameters, None, 0, 0, 0, 0)), dense_blob(parameters)


def _slices(outputs: int) -> tuple[int, ...]:
    """Return the words of a dense layer's outputs on every tile that has some: whole groups of 64."""
    groups = -(-outputs // LANES)
    most = LANES // 4 * -(-groups // TILES)
    words = -(-outputs // 4)
    return tuple(min(most, words - first) for first in range(0, words, most))


def _layout_table(graph: Graph, op: Operator) -> list[tuple[ParameterTensor, bytes]]:
    """Zeros and ones with which channels are moved where four of them do not stay together.

    Seen: vectors of odd lengths put together; pixels of one channel made a vector, all of them
    where they are few; a channel axis added.
    """
    y = graph.output(op)
    inputs = [graph.tensors[i] for i in op.inputs]
    if op.name == "CONCATENATION" and is_flat(y) and any(t.shape[-1] % 4 for t in inputs[:-1]):
        return [_dense(op, _moving([t.shape[-1] for t in inputs]))]
    made_by = graph.producers.get(inputs[0].index)
    if op.name != "RESHAPE" or made_by is None:
        return []
    source = extent_of(inputs[0])
    if is_flat(y) and not is_flat(inputs[0]) and source[-1] == 1 and not _is_free(graph, made_by):
        if y.elements <= LANES:
            return [_dense(op, _moving([1] * y.elements))]
        parameters = _moving([1] * _SPREAD_POSITIONS)
        kernel = Kernel(parameters, _SPREAD_POSITIONS, 1, 1, depthwise=False)
        return [(ring_tensor(op.title, kernel), kernel.blob)]
    if len(y.shape) == len(inputs[0].shape) + 1 and y.shape[:-1] == inputs[0].shape and y.shape[-1] == 1:
        channels = y.shape[-2]
        weights = np.zeros((4 * channels, channels), np.uint8)
        weights[4 * np.arange(channels), np.arange(channels)] = 1
        kernel = Kernel(_zeros_and_ones(weights), 1, -(-channels // 4), 1, depthwise=False)
        return [(ring_tensor(op.title, kernel), kernel.blob)]
    return []


def _moving(parts: Sequence[int]) -> DenseParameters:
    """Put parts together that each begin at a multiple of four inputs."""
    starts = np.cumsum([0, *(round_up(part, 4) for part in parts)])
    columns = np.concatenate([start + np.arange(part) for start, part in zip(starts[:-1], parts, strict=True)])
    weights = np.zeros((len(columns), int(starts[-1])), np.uint8)
    weights[np.arange(len(columns)), columns] = 1
    return _zeros_and_ones(weights)


def _zeros_and_ones(weights: Bytes) -> DenseParameters:
    return DenseParameters(weights, 0, False, np.ones(1, np.float32), np.zeros(len(weights), np.int32))


def _flattened(graph: Graph, op: Operator) -> Bytes | None:
    """Weights of a dense layer on an image, with the channels that fill up words."""
    source = op.inputs[0]
    while is_flat(graph.tensors[source]) and source in graph.producers and _is_free(graph, graph.producers[source]):
        source = graph.producers[source].inputs[0]
    w, image = graph.tensors[op.inputs[1]], graph.tensors[source]
    if is_flat(image) or (source not in graph.producers and source != op.inputs[0]):
        return None
    return flattened_weights(unsigned_weights(w).reshape(w.shape[0], -1), image_of(image), zero_point(w))


def _is_free(graph: Graph, op: Operator) -> bool:
    return op.name == "RESHAPE" or same_bytes(graph, op)


def _has_table(graph: Graph, op: Operator, constant: Tensor) -> bool:
    """Tell whether a constant takes lines: a product with one value is another scale, a sum with nothing is no step."""
    if op.name in ("ADD", "SUB"):
        return not same_bytes(graph, op)
    return constant.elements > 1 and (op.name != "MUL" or len(np.unique(constant.array())) > 1)


def _table(op: Operator, constant: Tensor, result: Tensor) -> ParameterTensor:
    """Rows of four channels, or the values of a whole image as they are; the chip only accepts them as a stream."""
    channels = result.shape[-1] if result.shape else 1
    rows = -(-channels // 4) if constant.elements in (1, channels) else -(-constant.elements // PARAMETER_LINE_BYTES)
    return _streamed(f"{op.title} table", rows)


def _streamed(name: str, rows: int) -> ParameterTensor:
    return ParameterTensor(name, Kind.RING, rows, PARAMETER_LINE_BYTES * rows, cacheable=False)
