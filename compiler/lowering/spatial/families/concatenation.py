"""CONCATENATION: joins images by rows, columns or channels: each operand is copied to its place, rescaled on the way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate
from typing import ClassVar

import numpy as np

from compiler.facts import TILES
from compiler.graph import Graph, Operator, Tensor
from compiler.lowering.arithmetic import bits, clamp, quantization, unary_multiplier, zero_point
from compiler.lowering.builder import LAYER_COUNTERS, Values, walk
from compiler.lowering.lowered import refusal
from compiler.lowering.spatial.bands import Windows
from compiler.lowering.spatial.context import Context, Share, extent_of, image_of, is_flat
from compiler.lowering.spatial.emission import Emission
from compiler.lowering.spatial.families.dense import pick_channels
from compiler.lowering.spatial.families.family import Family
from compiler.lowering.spatial.families.selection import move, select_channels
from compiler.lowering.spatial.families.unary import (
    OnIdentity,
    Unary,
    apply_to_words,
    build_identity,
)
from compiler.lowering.spatial.gathering import Gather
from compiler.lowering.spatial.geometry import IDENTITY, Activation, Several, Span, Window, by_content, many
from compiler.lowering.spatial.layer import Activations, Layer
from compiler.mapping import Verdict
from compiler.records import record

_CHANNELS = 2


@record
class Place(Window):
    """Rows (or columns) ``first`` to ``first + length`` of a result, which are all rows of an operand."""

    first: int = 0
    length: int = 0

    def indices(self, out: Span) -> Span:
        """Return which rows of the result are the operand's, in a part of it."""
        start = max(out.start, self.first)
        return Span(start, max(min(out.stop, self.first + self.length), start))

    def needed(self, out: Span) -> Span:
        """Input rows for output rows."""
        found = self.indices(out)
        return Span(found.start - self.first, found.stop - self.first) if len(found) else Span(0, 0)


@record
class Piece:
    """An operand and its place in the result.

    Attributes
    ----------
    copy:
        How values are rescaled.
    channel:
        First channel of the result, a multiple of four.
    """

    copy: Unary
    rows: Place
    columns: Place
    channel: int


@record
class Concatenation(OnIdentity):
    """A concatenation ready for code generation.

    Attributes
    ----------
    parts:
        The operands; all have the same target.
    axis:
        Rows, columns or channels: 0, 1, 2.
    zeros:
        Some of the result comes from no operand.
    """

    name: str
    parts: tuple[Piece, ...]
    target: int
    axis: int
    zeros: bool = False

    follows_input: ClassVar[bool] = True

    @property
    def moves(self) -> bool:  # type: ignore[override]
        """Rows and columns come to lie on other tiles."""
        return self.axis != _CHANNELS

    @property
    def sources(self) -> tuple[int, ...]:
        """The operands."""
        return tuple(p.copy.source for p in self.parts)

    def windows_of(self, source: int) -> Windows:
        """Return the rows and columns of an operand."""
        if not self.moves:
            return IDENTITY, IDENTITY
        parts = [p for p in self.parts if p.copy.source == source]
        return Several(windows=tuple(p.rows for p in parts)), Several(windows=tuple(p.columns for p in parts))

    def emit(self, emission: Emission, activations: Activations) -> None:
        """Write the identity matrix and a copy per operand."""
        b, target = emission.b, activations[self.target]
        if self.moves:
            for source in self.sources:
                self.exchange(emission, activations, source)
            b.barrier()
        b.tile_fence(reset=LAYER_COUNTERS)
        if self.zeros:
            for tiles, fields in by_content({t: _filled(self, target, t) for t in range(TILES) if target.pixels(t)}):
                b.tile("mesh_from_south", tiles, dict(fields))
        build_identity(b, emission.constants[self.name])
        for part in self.parts:
            values = {t: _copy(part, activations[part.copy.source], target, t) for t in range(TILES)}
            for tiles, fields in by_content({t: v for t, v in values.items() if v}):
                b.tile("tensor_op", tiles, dict(fields))
        emission.reset()


def _filled(layer: Concatenation, target: Activation, tile: int) -> Values:
    """Fill what a tile owns with zeros."""
    rows, columns = target.own(tile)
    slab, words = target.slab(tile), target.image.padded // 4
    dims = many([(words, 1), (len(columns), words), (len(rows), slab.pitch // 4)]) or [(1, 1)]
    return {"fill": 1, "fill_value": layer.parts[0].copy.out_zero_point * 0x01010101} | walk(
        "dst", target.own_address(tile) // 4, dims, total_dims=4)


def _copy(part: Piece, source: Activation, target: Activation, tile: int) -> Values:
    own = target.own(tile)
    rows, columns = (place.indices(span) for place, span in zip((part.rows, part.columns), own, strict=True))
    if not len(rows) or not len(columns):
        return {}
    a, c = source.slab(tile), target.slab(tile)
    first = source.address + a.offset(rows.start - part.rows.first, columns.start - part.columns.first)
    return apply_to_words(part.copy, first, (4, a.pixel, a.pitch),
                          target.address + c.offset(rows.start, columns.start) + part.channel, (4, c.pixel, c.pitch),
                          (a.pixel // 4, len(columns), len(rows)))


def _read(context: Context, op: Operator) -> list[Layer]:
    y = context.graph.output(op)
    if y.index in context.late:
        return _join_late(context, op)
    tensors = [context.graph.tensors[t] for t in op.inputs]
    if is_flat(y) and axis_of(y, op) == _CHANNELS and not any(x.is_constant for x in tensors):
        return [_join_vectors(context, op)]
    operands = [(None if x.is_constant else context.resolve(x.index), x) for x in tensors]
    return join(op.title, context, operands, y, axis_of(y, op))


def _join_late(context: Context, op: Operator) -> list[Layer]:
    """Leave the joining to the host: images stay as they are, but for the scale of the result."""
    y = context.graph.output(op)
    shares: list[Share] = []
    layers: list[Layer] = []
    for i, (share, x) in enumerate((s, context.graph.tensors[t]) for t in op.inputs for s in context.shares[t]):
        if not quantization(x).same_as(quantization(y)):
            scaled = context.between(y, context.tensor(share.number).shape, f"operand {i}")
            layers.append(_rescaled(f"{op.title} operand {i}", share.number, x, scaled.index, y))
            share = replace(share, number=scaled.index)
        shares.append(share)
    context.shares[y.index] = tuple(shares)
    return layers


def _rescaled(name: str, source: int, x: Tensor, target: int, y: Tensor) -> Unary:
    low, high = clamp(y, 0)
    return Unary(name, source, target, zero_point(x), zero_point(y), bits(unary_multiplier(x, y)), low, high)


def join(name: str, context: Context, operands: Sequence[tuple[int | None, Tensor]], y: Tensor, axis: int) -> list[Layer]:
    """Return the layers that set images side by side; where their channels are no multiple of four, gaps are closed then.

    Parameters
    ----------
    operands:
        Number of each image, None for zeros, and the tensor that says how it is quantized.
    axis:
        Rows, columns or channels: 0, 1, 2.
    """
    images = [image_of(x) for _, x in operands]
    gaps = axis == _CHANNELS and any(image.channels % 4 for image in images[:-1])
    joined = y
    if gaps:
        joined = context.between(y, (*y.shape[:-1], sum(image.padded for image in images)), "with gaps")
    parts, at = [], [0, 0, 0]
    for i, ((number, x), image) in enumerate(zip(operands, images, strict=True)):
        if number is not None:
            copy = _rescaled(f"{name} operand {i}", number, x, joined.index, y)
            parts.append(Piece(copy, Place(first=at[0], length=image.height), Place(first=at[1], length=image.width), at[2]))
        at[axis] += (image.height, image.width, image.padded)[axis]
    zeros = any(number is None for number, _ in operands)
    layers: list[Layer] = [Concatenation(f"{name} with gaps" if gaps else name, tuple(parts), joined.index, axis, zeros)]
    if gaps:
        starts = [0, *accumulate(image.padded for image in images)]
        channels = [start + c for start, image in zip(starts, images, strict=False) for c in range(image.channels)]
        layers.append(select_channels(name, joined.index, joined, y.index, y, channels, (IDENTITY, IDENTITY)))
    return layers


def _join_vectors(context: Context, op: Operator) -> Layer:
    """Gather vectors one behind the other; a dense layer drops the padding between them, as in official programs."""
    y = context.graph.output(op)
    operands = tuple(_in_scale(context, op, i) for i in range(len(op.inputs)))
    sizes = [context.graph.tensors[t].elements for t in op.inputs]
    if not any(size % 4 for size in sizes[:-1]):
        return Gather(op.title, operands, y.index)
    chosen: list[int] = []
    joined = context.join(f"parts of {op.title}", operands)
    start = 0
    for operand, size in zip(operands, sizes, strict=True):
        chosen += range(start, start + size)
        start += 4 * context.words(operand)
    operands = operands if joined is None else (joined,)
    return pick_channels(context, op.title, operands, y, chosen)


def _in_scale(context: Context, op: Operator, number: int) -> int:
    """Return an operand in the scale of the result."""
    x, y = context.graph.tensors[op.inputs[number]], context.graph.output(op)
    origin = context.origin(x.index)
    if quantization(x).scale == quantization(y).scale and zero_point(x) == zero_point(y):
        return origin
    target = context.between(y, x.shape, f"operand {number}").index
    context.pass_on(origin, target)
    context.before.append(_rescaled(f"{op.title} operand {number}", origin, x, target, y))
    return target


def axis_of(y: Tensor, op: Operator) -> int:
    """Return the joined dimension: 0 for rows, 1 for columns, 2 for channels; negative for others."""
    return int(op.options.axis) % len(y.shape) - len(y.shape) + 3


def _objection(graph: Graph, op: Operator) -> Verdict | None:
    """Rows, columns or channels of activations of one type; no fused activation."""
    xs, y = [graph.tensors[t] for t in op.inputs], graph.output(op)
    if any(x.type is not y.type or x.quantization is None for x in xs) or y.quantization is None:
        return refusal(op, "joins tensors of several types.", "Quantize all of them to one type.")
    constant = next((x for x in xs if x.is_constant and (x.array() != quantization(x).zero_point).any()), None)
    if constant is not None or all(x.is_constant for x in xs):
        return refusal(op, f"joins the constant {(constant or xs[0]).name}; only constants of zeros are generated.",
                       "Pad with zeros, or compute the constant part outside the model.")
    if axis_of(y, op) < 0 or getattr(op.options, "fusedActivationFunction", False):
        return refusal(op, f"joins along dimension {op.options.axis} of {y.name} of shape {list(y.shape)}, or has a fused "
                           "activation; only rows, columns and channels of images are joined.")
    return None


def _read_packed(context: Context, op: Operator) -> list[Layer]:
    """PACK: operands get a dimension of one more, along which they are joined."""
    graph, y, axis = context.graph, context.graph.output(op), axis_of(context.graph.output(op), op)
    shape = [*(1, 1, 1, *y.shape)[-3:]]
    shape[axis] = 1
    layers: list[Layer] = []
    operands: list[tuple[int | None, Tensor]] = []
    for i, t in enumerate(op.inputs):
        x = graph.tensors[t]
        number = context.resolve(t)
        if extent_of(x) != tuple(shape):
            view = context.between(x, tuple(shape), f"operand {i}")
            layers += move(context, f"{op.title} operand {i} moved", x, view, np.arange(x.elements).reshape(shape))
            number, x = view.index, view
        operands.append((number, x))
    return [*layers, *join(op.title, context, operands, y, axis)]


CONCATENATION = Family(_objection, _read)
PACK = Family(_objection, _read_packed)
