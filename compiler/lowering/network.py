"""From a mapped subgraph of dense layers to programs and parameters.

Chains of FULLY_CONNECTED with fused activations, and the border operators that cost nothing
(QUANTIZE between int8 and uint8, RESHAPE of vectors).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from compiler.facts import NARROW_BYTES, PARAMETER_LINE_BYTES, WIDE_ROWS
from compiler.graph import Graph, Operator, Tensor
from compiler.lowering.arithmetic import (
    ACTIVATION_NAMES,
    bias_values,
    clamp,
    multipliers,
    quantization,
    unsigned_weights,
    zero_point,
)
from compiler.lowering.builder import ProgramBuilder
from compiler.lowering.caching_program import CacheSegment, caching_program
from compiler.lowering.dense import Slice, allocate, dense_program, staging_row
from compiler.lowering.dense_layer import DenseLayer
from compiler.lowering.lowered import LoweredNetwork, refusal
from compiler.lowering.parameters import Bytes, DenseParameters, dense_blob, round_up
from compiler.lowering.refusal import LoweringRefusal
from compiler.lowering.softmax import SUM_ROW, Scratch, SoftmaxLayer, softmax_of
from compiler.mapping import Status, Subgraph, Verdict
from compiler.memory.demand import Kind, ModelDemand, ParameterTensor
from compiler.memory.placement import Piece
from compiler.memory.plan import ModelPlan

_FUSED = (0, 1, 2, 3)
_SOFTMAX_SCALE = 1 / 256


def _is_vector(t: Tensor) -> bool:
    return t.elements == (t.shape[-1] if t.shape else 1)


def dense_objection(graph: Graph, op: Operator) -> Verdict | None:
    """Constant weights and bias, one input vector; RELU, RELU6 and RELU_N1_TO_1 may be fused."""
    x, w, bias = (graph.input(op, i) for i in range(3))
    y = graph.output(op)
    if x is None or w is None or not w.is_constant or (bias is not None and not bias.is_constant):
        return Verdict(Status.NOT_CONSTANT, f"{op.title}: weights and bias must be constants.",
                       "Freeze the model before converting it.")
    if w.type is not x.type or x.type is not y.type:
        return refusal(op, f"mixes {x.type.name}, {w.type.name} and {y.type.name}.", "Quantize all of it to one type.")
    if w.quantization is None or x.quantization is None or y.quantization is None:
        return refusal(op, f"weights {w.name}, input or output carry no quantization.")
    if len(w.shape) != 2 or x.elements != w.shape[1]:
        return Verdict(Status.OUTPUT_2D, f"{op.title}: {x.name} of shape {list(x.shape)} is more than one vector of "
                       f"{w.shape[-1]}.", "Use batch size 1.")
    if op.options is not None and op.options.weightsFormat:
        return refusal(op, "shuffled weights are not supported.", "Convert with the default weight format.")
    activation = op.options.fusedActivationFunction if op.options is not None else 0
    if activation not in _FUSED:
        return refusal(op, f"the fused activation {ACTIVATION_NAMES.get(activation, activation)} is not supported.")
    if not _is_vector(y):
        return Verdict(Status.OUTPUT_2D, f"{op.title}: its result {y.name} of shape {list(y.shape)} is no vector.",
                       "Use batch size 1.")
    return None


def is_free(graph: Graph, op: Operator) -> bool:
    """Tell whether an operator leaves all bytes as they are: RESHAPE, and QUANTIZE between int8 and uint8."""
    x, y = graph.tensors[op.inputs[0]], graph.output(op)
    return op.name == "RESHAPE" or (op.name == "QUANTIZE" and x.quantization is not None and y.quantization is not None
                                    and x.quantization.scale == y.quantization.scale and zero_point(x) == zero_point(y))


def dense_layer(graph: Graph, op: Operator, weights: Bytes | None = None) -> DenseLayer:
    """Read a FULLY_CONNECTED, or a CONV_2D of a single pixel.

    Parameters
    ----------
    weights:
        Weights in another order of inputs, shape (outputs, inputs).
    """
    x, w, bias = (graph.input(op, i) for i in range(3))
    y = graph.output(op)
    assert x is not None and w is not None and w.quantization is not None  # checked by objection()
    low, high = clamp(y, op.options.fusedActivationFunction if op.options is not None else 0)
    own = unsigned_weights(w).reshape(w.shape[0], -1) if weights is None else weights
    parameters = DenseParameters(own, zero_point(w), w.quantization.per_channel, multipliers(x, w, y),
                                 bias_values(bias, w.shape[0]))
    return DenseLayer(op.title, parameters, None, zero_point(x), zero_point(y), low, high)


def softmax_objection(graph: Graph, op: Operator) -> Verdict | None:
    """One vector; results in steps of 1/256."""
    x, y = graph.tensors[op.inputs[0]], graph.output(op)
    if x.type is not y.type or x.quantization is None or y.quantization is None:
        return refusal(op, f"turns {x.type.name} into {y.type.name}, or carries no quantization.")
    if not _is_vector(x):
        return refusal(op, f"its input {x.name} of shape {list(x.shape)} is more than one vector.", "Use batch size 1.")
    if quantization(y).scale != _SOFTMAX_SCALE or zero_point(y) != 0:
        return refusal(op, f"its result {y.name} has scale {quantization(y).scale}; the chip gives steps of 1/256.",
                       "Convert with the fixed output range of SOFTMAX.")
    return None


def softmax_layer(graph: Graph, op: Operator) -> SoftmaxLayer:
    """Read a SOFTMAX."""
    x = graph.tensors[op.inputs[0]]
    scale = np.float32(quantization(x).scales[0] * np.float32(op.options.beta))
    return SoftmaxLayer(op.title, x.shape[-1], scale, zero_point(x))


def softmax_tensors(layer: SoftmaxLayer | None) -> list[ParameterTensor]:
    """Return what a softmax asks of parameter memory."""
    tables = layer.tables if layer is not None else ()
    return [ParameterTensor(f"{layer.name} table {i}", Kind.LOCAL, layer.words, len(table), table=True)
            for i, table in enumerate(tables) if layer is not None]


def placed_softmax(graph: Graph, layer: SoftmaxLayer | None, pieces: Sequence[Sequence[Piece]]) -> SoftmaxLayer | None:
    """Give the tables of a softmax their rows.

    Raises
    ------
    LoweringRefusal
        When they found no room.
    """
    if layer is None:
        return None
    if not all(pieces):
        op = next(o for o in graph.operators if o.title == layer.name)
        raise LoweringRefusal(op.index, refusal(op, "its tables do not fit the on-chip memory.", "Compile the model alone."))
    return replace(layer, rows=tuple(p[0].row for p in pieces))


def softmax_segments(layer: SoftmaxLayer | None) -> list[list[CacheSegment]]:
    """Return where the lines of the tables go."""
    if layer is None:
        return []
    return [[CacheSegment(0, row, layer.words, 16)] for row in layer.rows]


class DenseNetwork:
    """A chain of dense layers: demand first, programs when the memory is planned.

    Parameters
    ----------
    graph, subgraph:
        What the mapping chose.

    Raises
    ------
    LoweringRefusal
        When the subgraph is no such chain.
    """

    def __init__(self, graph: Graph, subgraph: Subgraph) -> None:
        self.graph = graph
        self.subgraph = subgraph
        self.operators = self._chain()
        self.layers = [dense_layer(graph, op) for op in self.operators if op.name == "FULLY_CONNECTED"]
        last = self.operators[-1]
        self.softmax = softmax_layer(graph, last) if last.name == "SOFTMAX" else None

    def _chain(self) -> list[Operator]:
        """Check that the operators form one chain; returns its dense layers."""
        current = self._start()
        chain: list[Operator] = []
        seen = 0
        while True:
            users = [op for op in self.graph.consumers.get(current, ()) if op.index in self.subgraph.operators]
            if not users:
                break
            if len(users) > 1:
                raise LoweringRefusal(users[1].index, refusal(users[1], "shares its input with "
                                      f"{users[0].title}; only unbranched chains are generated so far."))
            op = users[0]
            seen += 1
            if chain and chain[-1].name == "SOFTMAX" and op.name in ("FULLY_CONNECTED", "SOFTMAX"):
                raise LoweringRefusal(op.index, refusal(op, f"computes with the result of {chain[-1].title}; nothing "
                                                            "behind a softmax is generated.", "It runs on the CPU."))
            if op.name == "SOFTMAX" and not chain:
                raise LoweringRefusal(op.index, refusal(op, "is only generated behind a dense layer."))
            if op.name in ("FULLY_CONNECTED", "SOFTMAX"):
                chain.append(op)
            elif not is_free(self.graph, op):
                raise LoweringRefusal(op.index, refusal(op, "is only generated behind images.", "It runs on the CPU."))
            current = op.outputs[0]
            if current in self.subgraph.outputs and self._goes_on(current):
                later = next(o for o in self.graph.consumers[current] if o.index in self.subgraph.operators)
                raise LoweringRefusal(later.index, refusal(later, f"continues from {self.graph.tensors[current].name}, "
                                      "which is also an output; only one output is generated so far."))
        if seen < len(self.subgraph.operators):
            stray = self.graph.operators[max(self.subgraph.operators)]
            raise LoweringRefusal(stray.index, refusal(stray, "is not part of one chain from the input."))
        if not _is_vector(self.graph.tensors[current]):
            last = self.graph.producers[current]
            raise LoweringRefusal(last.index, refusal(last, f"gives {self.graph.tensors[current].name} of shape "
                                  f"{list(self.graph.tensors[current].shape)}; only vectors leave the Edge TPU so far."))
        if not chain:
            first = self.graph.operators[self.subgraph.operators[0]]
            raise LoweringRefusal(first.index, refusal(first, "has nothing to compute beside it on the Edge TPU."))
        return chain

    def _goes_on(self, tensor: int) -> bool:
        return any(op.index in self.subgraph.operators for op in self.graph.consumers.get(tensor, ()))

    def _start(self) -> int:
        if len(self.subgraph.inputs) > 1:
            second = self.graph.consumers[self.subgraph.inputs[1]]
            op = next(o for o in second if o.index in self.subgraph.operators)
            raise LoweringRefusal(op.index, refusal(op, "is fed by a second input; only one is generated so far."))
        return self.subgraph.inputs[0]

    def demand(self, name: str, plan: ModelPlan | None = None) -> ModelDemand:
        """Return what the network asks of parameter memory.

        Parameters
        ----------
        plan:
            A plan made before: layers that it streams need rows of wide memory to pass through.
        """
        row = staging_row(self.layers, arriving(plan, range(len(self.layers))))
        tensors = [*(parameter_tensor(layer) for layer in self.layers), *softmax_tensors(self.softmax)]
        return ModelDemand(name, tuple(tensors), row if self.softmax is None else min(row, SUM_ROW))

    def lower(self, plan: ModelPlan) -> LoweredNetwork:
        """Write the programs for a memory plan: layers without memory are streamed."""
        placed, segments = [], []
        cached, streamed = b"", b""
        count = len(self.layers)
        softmax = placed_softmax(self.graph, self.softmax, plan.pieces[count:])
        for i, (layer, pieces) in enumerate(zip(self.layers, plan.pieces[:count], strict=True)):
            placed.append(placed_dense(layer, pieces, on_ring=i in plan.on_ring))
            blob = dense_blob(layer.parameters)
            if pieces:
                segments.append(dense_segments(placed[-1]))
                cached += blob
            else:
                streamed += blob
        buffers = allocate(placed)
        source, target = self.graph.tensors[self.subgraph.inputs[0]], self.graph.tensors[self.subgraph.outputs[0]]
        end = Scratch(max(buffers.used, 4 * softmax.words), softmax.words).end if softmax is not None else buffers.used
        if end > NARROW_BYTES:
            last = self.operators[-1]
            raise LoweringRefusal(last.index, refusal(last, f"needs {end} bytes of narrow memory on tile 0, the limit is "
                                                            f"{NARROW_BYTES}.", "Use fewer classes."))
        behind = None if softmax is None else partial(_softmax_behind, softmax, end)
        program = dense_program(placed, source.name, target.name, input_bytes=round_up(source.elements, 8),
                                output_bytes=round_up(target.elements, 8), behind=behind)
        segments += softmax_segments(softmax)
        cached += b"".join(softmax.tables) if softmax is not None else b""
        caching = caching_program(segments) if segments else None
        return LoweredNetwork(program, caching, cached, streamed, end)


def _softmax_behind(layer: SoftmaxLayer, end: int, b: ProgramBuilder, slices: Sequence[Slice]) -> Sequence[Slice]:
    b.serve(layer.name)
    return [softmax_of(b, layer, slices, end)]


def parameter_tensor(layer: DenseLayer) -> ParameterTensor:
    """Return what a dense layer asks of parameter memory."""
    p = layer.parameters
    last = layer.groups_on(layer.tiles - 1) * p.group_rows
    rows = layer.groups_per_tile * p.group_rows
    return ParameterTensor(layer.name, Kind.LOCAL, rows, round_up(p.groups * p.group_bytes, PARAMETER_LINE_BYTES),
                           layer.tiles, last, cacheable=p.group_rows <= WIDE_ROWS, group_rows=p.group_rows)


def arriving(plan: ModelPlan | None, tensors: Iterable[int]) -> list[bool]:
    """Tell for dense layers whether a plan lets their parameters arrive while they are used."""
    return [plan is not None and not plan.side_by_side(i) for i in tensors]


def placed_dense(layer: DenseLayer, pieces: Sequence[Piece], *, on_ring: bool) -> DenseLayer:
    """Tell a layer where its parameters lie."""
    if on_ring:
        return replace(layer, pieces=tuple(pieces))
    return replace(layer, row=pieces[0].row if pieces else None)


def dense_segments(layer: DenseLayer) -> list[CacheSegment]:
    """Return where the lines of a cached dense layer's blob go."""
    p = layer.parameters
    if layer.row is None:
        lines = [piece.rows // p.group_rows * p.group_bytes // PARAMETER_LINE_BYTES for piece in layer.pieces]
        return [CacheSegment(piece.tile, piece.row, n, p.lanes) for piece, n in zip(layer.pieces, lines, strict=True)]
    return [CacheSegment(tile, layer.row, layer.groups_on(tile) * p.group_bytes // PARAMETER_LINE_BYTES, p.lanes,
                         p.header_rows, layer.groups_on(tile)) for tile in range(layer.tiles)]
