"""SOFTMAX of a vector: on tile 0, where its slices lie, or on the scalar core where the generation has it so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import ClassVar

import numpy as np

from compiler.facts import WIDE_ROWS
from compiler.generation import SoftmaxForm
from compiler.graph import Graph, Operator
from compiler.lowering.arithmetic import quantization, zero_point
from compiler.lowering.caching_program import CacheSegment
from compiler.lowering.lowered import refusal
from compiler.lowering.pieces import ROWS
from compiler.lowering.scalar_softmax import ScalarSoftmax
from compiler.lowering.softmax import Places, SoftmaxProgram, lowest_row
from compiler.lowering.softmax_layer import SoftmaxLayer
from compiler.lowering.softmax_tables import ARRIVAL_ROW
from compiler.lowering.spatial.buffers import Lifetime, stack_wide
from compiler.lowering.spatial.context import Context, is_flat, same_bytes
from compiler.lowering.spatial.emission import Emission, Leaves
from compiler.lowering.spatial.families.family import Family
from compiler.lowering.spatial.families.pixel_softmax import pixel_softmax
from compiler.lowering.spatial.geometry import Vector
from compiler.lowering.spatial.layer import Activations, Layer, Stored
from compiler.lowering.spatial.streaming import stream_parts
from compiler.mapping import Verdict
from compiler.memory.demand import Kind, ParameterTensor
from compiler.memory.placement import Piece
from compiler.records import record

_SCALE = 1 / 256
_LANES = 16
"""Lanes of a wide row that hold a line of a table."""
_MOST_SCALAR_CLASSES = 4096
"""Largest SOFTMAX that official programs compute on the scalar core."""


@record
class Softmax(Layer):
    """A softmax of a vector, ready for code generation."""

    name: str
    layer: SoftmaxLayer
    source: int
    target: int
    form: SoftmaxForm = SoftmaxForm.THREE_TABLES

    banded: ClassVar[bool] = False
    on_identity: ClassVar[bool] = True
    claims_identity_row: ClassVar[bool] = True
    below_top: ClassVar[bool] = True
    leaves: ClassVar[Leaves] = Leaves.VECTOR

    @property
    def sources(self) -> tuple[int, ...]:
        """The vector."""
        return (self.source,)

    @property
    def parameters(self) -> tuple[Stored, ...]:
        """Tables that take spare lanes out."""
        return tuple(Stored(tensor, table, _segments) for tensor, table in softmax_tables(self.layer, self.form))

    @property
    def arrival_row(self) -> int:
        """Row through which streamed tables pass."""
        return ARRIVAL_ROW if self.layer.masked else WIDE_ROWS

    @property
    def steps(self) -> int:
        """How many steps of the program it takes."""
        return len(self.layer.steps)

    def reads_until(self, source: int) -> int:
        """Return the step of the differences."""
        del source
        return self.layer.steps["difference"]

    @property
    def writes_from(self) -> int:
        """Only the last step writes the result."""
        return self.layer.steps["shares"]

    @property
    def buffers(self) -> Mapping[str, Lifetime]:
        """What is between the steps."""
        return self.layer.buffers

    def lowest_row(self, scenes: Sequence[Activations], top: int) -> int:
        """Return the lowest row of all steps."""
        del scenes, top
        return lowest_row(self.layer)

    def emit(self, emission: Emission, activations: Activations) -> None:
        """Emit all steps."""
        stored = self.parameters
        if self.form is SoftmaxForm.TWO_TABLES:
            stored = stored[:1] + stored
        rows = tuple(tuple(piece.row for piece in emission.pieces[s.tensor.name]) for s in stored)

        def stream(table: int) -> None:
            parts = [(1 << tile, lines) for tile, lines in enumerate(self.layer.lines(table))]
            stream_parts(emission.b, emission.books, stored[table].tensor.name, parts, lanes=_LANES)

        source, identity = activations[self.source], not emission.missing_identity(self.name)
        places = Places(source.own_address(0), activations[self.target].own_address(0), emission.buffers[self.name])
        if not self.layer.spread:
            emission.begin_vector()
        gathering = stack_wide([emission.arriving_rows, ROWS])[-1] - int(identity)
        aligned = isinstance(source, Vector) and source.whole and not source.in_place
        SoftmaxProgram(emission.b, replace(self.layer, rows=rows), places, gathering, stream, identity=identity,
                       aligned=aligned).emit()
        emission.settled()


def softmax_tables(layer: SoftmaxLayer, form: SoftmaxForm) -> list[tuple[ParameterTensor, bytes]]:
    """Return the tables of a softmax, and what they ask of parameter memory.

    The first two hold the same, so that one serves for both.
    """
    tables = [] if form is SoftmaxForm.SCALAR_CORE else layer.tables
    if form is SoftmaxForm.TWO_TABLES:
        tables = tables[1:]
    first = len(layer.tables) - len(tables)
    lines = [layer.lines(first + i) for i in range(len(tables))]
    return [(ParameterTensor(f"{layer.name} table {i}", Kind.LOCAL, max(on), len(table), len(on), on[-1], table=True), table)
            for i, (on, table) in enumerate(zip(lines, tables, strict=True))]


def _segments(pieces: Sequence[Piece], on_ring: bool) -> list[CacheSegment]:
    """Return where the lines of a table go."""
    del on_ring
    return [CacheSegment(piece.tile, piece.row, piece.rows, _LANES) for piece in pieces]


def softmax_layer(graph: Graph, op: Operator, slices: tuple[int, ...] = ()) -> SoftmaxLayer:
    """Read the constants of a SOFTMAX whose operand lies in slices on tiles 0, 1, ..., or on tile 0."""
    x = graph.tensors[op.inputs[0]]
    scale = np.float32(quantization(x).scales[0] * np.float32(op.options.beta))
    return SoftmaxLayer(op.title, x.shape[-1], scale, zero_point(x), slices or (-(-x.shape[-1] // 4),))


def _read(context: Context, op: Operator) -> Layer | None:
    (x, y), form = (op.inputs[0], op.outputs[0]), context.generation.softmax
    layer = softmax_layer(context.graph, op)
    if not is_flat(context.graph.tensors[x]):
        return pixel_softmax(op, layer, context.resolve(x), y)
    if form is SoftmaxForm.SCALAR_CORE:
        if layer.classes <= _MOST_SCALAR_CLASSES and _leaves(context, y):
            context.alias(y, x)
            context.ending = ScalarSoftmax(op.title, layer.classes, layer.scale, layer.zero_point,
                                           context.generation.clears_spare_bytes)
            return None
        form = SoftmaxForm.THREE_TABLES
    source = _slices(context, x, form) if layer.masked else context.whole_slices(x)
    if source is None:
        return Softmax(op.title, layer, context.resolve(x), y, form)
    slices = context.slices[source]
    context.lie(y, slices)
    return Softmax(op.title, replace(layer, slices=tuple(w for w in slices if w)), source, y, form)


def _slices(context: Context, x: int, form: SoftmaxForm) -> int | None:
    """Return the activation whose slices tables of their own serve: all of one length but the last, on tiles 0, 1, ..."""
    source = context.own_slices(x)
    if source is None or form is not SoftmaxForm.THREE_TABLES:
        return None
    slices = context.slices[source]
    words = [w for w in slices if w]
    served = len(words) > 1 and set(words[:-1]) == {max(words)} and all(slices[:len(words)])
    return source if served else None


def _leaves(context: Context, tensor: int) -> bool:
    """Tell whether nothing but a result leaves the subgraph, and nothing else reads it."""
    readers = context.graph.consumers.get(tensor, ())
    if len(readers) == 1 and context.members(tensor) and same_bytes(context.graph, readers[0]):
        return _leaves(context, readers[0].outputs[0])
    return context.subgraph.outputs == (tensor,) and not context.members(tensor)


def _objection(graph: Graph, op: Operator) -> Verdict | None:
    """Over the innermost dimension; results in steps of 1/256."""
    x, y = graph.tensors[op.inputs[0]], graph.output(op)
    if x.type is not y.type or x.quantization is None or y.quantization is None:
        return refusal(op, f"turns {x.type.name} into {y.type.name}, or carries no quantization.")
    if quantization(y).scale != _SCALE or zero_point(y) != 0:
        return refusal(op, f"its result {y.name} has scale {quantization(y).scale}; the chip gives steps of 1/256.",
                       "Convert with the fixed output range of SOFTMAX.")
    return None


SOFTMAX = Family(_objection, _read)
