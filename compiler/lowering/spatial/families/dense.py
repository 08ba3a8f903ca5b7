"""Dense layers: FULLY_CONNECTED of a vector, and convolutions of a whole image to one pixel.

Every tile computes output channels of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import ClassVar

import numpy as np

from compiler.facts import PARAMETER_LINE_BYTES, TILES, WIDE_ROWS
from compiler.generation import CURRENT, Generation
from compiler.graph import Graph, Operator, Tensor
from compiler.lowering.arithmetic import (
    bias_values,
    clamp,
    multipliers,
    unary_multiplier,
    unsigned_weights,
    zero_point,
)
from compiler.lowering.caching_program import CacheSegment
from compiler.lowering.dense import emit_dense, reuse_gathering
from compiler.lowering.dense_layer import DenseLayer
from compiler.lowering.dense_stream import StreamBuffers
from compiler.lowering.parameters import Bytes, DenseParameters, dense_blob, round_up
from compiler.lowering.softmax_tables import IDENTITY_ROW
from compiler.lowering.spatial.context import Context
from compiler.lowering.spatial.emission import Emission, Leaves
from compiler.lowering.spatial.gathering import flattened_weights
from compiler.lowering.spatial.geometry import Vector
from compiler.lowering.spatial.layer import Activations, Layer, Stored
from compiler.memory.demand import Kind, ParameterTensor
from compiler.memory.placement import Piece
from compiler.records import record


@record
class Dense(Layer):
    """A dense layer on a gathered vector, ready for code generation."""

    name: str
    layer: DenseLayer
    source: int
    target: int

    banded: ClassVar[bool] = False
    below_top: ClassVar[bool] = True
    leaves: ClassVar[Leaves] = Leaves.VECTOR

    @property
    def sources(self) -> tuple[int, ...]:
        """The vector."""
        return (self.source,)

    @cached_property
    def parameters(self) -> tuple[Stored, ...]:
        """Weights and what belongs to the outputs."""
        return (Stored(dense_tensor(self.layer), dense_blob(self.layer.parameters), self._segments),)

    def _segments(self, pieces: Sequence[Piece], on_ring: bool) -> list[CacheSegment]:
        """Return where the lines of the blob go."""
        p, layer = self.layer.parameters, self.layer
        if on_ring:
            lines = [piece.rows // p.group_rows * p.group_bytes // PARAMETER_LINE_BYTES for piece in pieces]
            return [CacheSegment(piece.tile, piece.row, n, p.lanes) for piece, n in zip(pieces, lines, strict=True)]
        return [CacheSegment(tile, pieces[0].row, layer.groups_on(tile) * p.group_bytes // PARAMETER_LINE_BYTES, p.lanes,
                             p.header_rows, layer.groups_on(tile)) for tile in range(layer.tiles)]

    def lowest_row(self, scenes: Sequence[Activations], top: int) -> int:
        """Cached parameters are used where they lie."""
        del scenes, top
        return WIDE_ROWS

    @property
    def arrival_row(self) -> int:
        """Lowest row through which parameters pass."""
        return StreamBuffers.of(self.layer).lowest

    def emit(self, emission: Emission, activations: Activations) -> None:
        """Multiply."""
        gathered_before = emission.before is Leaves.VECTOR
        emission.begin_vector()
        if gathered_before:
            reuse_gathering(emission.b)
        pieces, books = emission.pieces[self.name], emission.books
        if self.name in emission.on_ring:
            layer = replace(self.layer, pieces=tuple(pieces))
        else:
            layer = replace(self.layer, row=pieces[0].row if pieces else None)
        target = activations[self.target]
        layer = replace(layer, in_place=isinstance(target, Vector) and target.in_place, joint_bytes=target.joint_bytes,
                        top_row=max(emission.tops[self.name], IDENTITY_ROW))
        p = layer.parameters
        lines = round_up(p.groups * p.group_bytes, PARAMETER_LINE_BYTES) // PARAMETER_LINE_BYTES
        first = books.first_line(self.name, lines) if layer.streamed else 0
        books.streamed_lines = emit_dense(emission.b, layer, activations[self.source].own_address(0),
                                          target.own_address(0), books.streamed_lines, first)
        emission.settled()


@record
class EarlyDense(Dense):
    """The same as compiler 1.0 emits it: no tile waits until all have finished."""

    leaves: ClassVar[Leaves] = Leaves.IMAGE


def dense_words(layer: DenseLayer) -> tuple[int, ...]:
    """Return the words of the result on every tile."""
    return tuple(layer.bytes_on(t) // 4 if t < layer.tiles else 0 for t in range(TILES))


def dense_tensor(layer: DenseLayer) -> ParameterTensor:
    """Return what a dense layer asks of parameter memory."""
    p = layer.parameters
    last = layer.groups_on(layer.tiles - 1) * p.group_rows
    return ParameterTensor(layer.name, Kind.LOCAL, layer.groups_per_tile * p.group_rows,
                           round_up(p.groups * p.group_bytes, PARAMETER_LINE_BYTES), layer.tiles, last,
                           cacheable=p.group_rows <= WIDE_ROWS, group_rows=p.group_rows)


def dense_layer(graph: Graph, op: Operator, weights: Bytes | None = None, generation: Generation = CURRENT) -> DenseLayer:
    """Read the parameters of a FULLY_CONNECTED, or of a CONV_2D to a single pixel.

    Parameters
    ----------
    weights:
        Weights in another order of inputs, shape (outputs, inputs).
    generation:
        Decides whether a bias that is all zero is kept.
    """
    x, w, bias = (graph.input(op, i) for i in range(3))
    y = graph.output(op)
    assert x is not None and w is not None and w.quantization is not None  # checked by the objection
    low, high = clamp(y, op.options.fusedActivationFunction if op.options is not None else 0)
    own = unsigned_weights(w).reshape(w.shape[0], -1) if weights is None else weights
    parameters = DenseParameters(own, zero_point(w), w.quantization.per_channel, multipliers(x, w, y),
                                 bias_values(bias, w.shape[0], keep_zero=generation.keeps_zero_bias(op.name)))
    return DenseLayer(op.title, parameters, None, zero_point(x), zero_point(y), low, high,
                      early=generation.early_dense)


def read_dense(context: Context, op: Operator) -> Layer:
    """Read a FULLY_CONNECTED, or a CONV_2D of a whole image to one pixel."""
    x, y = context.graph.tensors[op.inputs[0]], context.graph.output(op)
    w, image = context.graph.tensors[op.inputs[1]], context.image(context.origin(x.index))
    weights = None
    if image.height * image.width > 1:
        weights = flattened_weights(unsigned_weights(w).reshape(w.shape[0], -1), image, zero_point(w))
    layer = dense_layer(context.graph, op, weights, context.generation)
    source = context.gather_in_place(x.index, layer.tiles) if layer.early else None
    if source is None:
        source = context.gather((context.origin(x.index),), layer.tiles, in_order=weights is not None)
    context.lie(y.index, dense_words(layer))
    return (EarlyDense if layer.early else Dense)(op.title, layer, source, y.index)


def pick_channels(context: Context, name: str, operands: tuple[int, ...], y: Tensor, chosen: Sequence[int]) -> Layer:
    """Return a layer that picks channels of vectors: a dense layer whose weights are zeros and ones.

    Parameters
    ----------
    operands:
        Vectors with the scale and the zero point of the result.
    chosen:
        Byte of the gathered vectors for each channel of the result.
    """
    words = sum(map(context.words, operands))
    weights = np.zeros((len(chosen), 4 * words), np.uint8)
    weights[np.arange(len(chosen)), chosen] = 1
    parameters = DenseParameters(weights, 0, False, unary_multiplier(y, y).reshape(1), np.zeros(len(chosen), np.int32))
    layer = DenseLayer(name, parameters, None, zero_point(y), zero_point(y), *clamp(y, 0))
    source = context.gather(operands, layer.tiles)
    context.lie(y.index, dense_words(layer))
    return Dense(name, layer, source, y.index)
