"""CONCATENATION: joins images channel by channel: each operand is copied to its place, rescaled on the way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import ClassVar

from compiler.facts import TILES
from compiler.graph import Graph, Operator
from compiler.lowering.arithmetic import bits, clamp, unary_multiplier, zero_point
from compiler.lowering.builder import LAYER_COUNTERS
from compiler.lowering.lowered import refusal
from compiler.lowering.spatial.context import Context, image_of
from compiler.lowering.spatial.emission import Emission
from compiler.lowering.spatial.families.family import Family
from compiler.lowering.spatial.families.selection import select_channels
from compiler.lowering.spatial.families.unary import (
    CONSTANT_WORDS,
    IDENTITY_ROW,
    Unary,
    apply_to_words,
    build_identity,
)
from compiler.lowering.spatial.geometry import IDENTITY, by_content
from compiler.lowering.spatial.layer import Activations, Layer
from compiler.mapping import Verdict


@dataclass(frozen=True)
class Concatenation(Layer):
    """A concatenation ready for code generation.

    Attributes
    ----------
    parts:
        Copy of each operand; all have the same target.
    """

    name: str
    parts: tuple[Unary, ...]
    target: int

    banded: ClassVar[bool] = False

    @property
    def sources(self) -> tuple[int, ...]:
        """The operands."""
        return tuple(p.source for p in self.parts)

    def lowest_row(self, scenes: Sequence[Activations], top: int) -> int:
        """Return the row of the identity matrix."""
        del scenes, top
        return IDENTITY_ROW

    def constant_bytes(self, scenes: Sequence[Activations]) -> int:
        """Return the bytes in which the identity matrix is built."""
        del scenes
        return 4 * CONSTANT_WORDS

    def emit(self, emission: Emission, activations: Activations) -> None:
        """Write the identity matrix and a copy per operand."""
        b, target = emission.b, activations[self.target]
        b.tile_fence(reset=LAYER_COUNTERS)
        build_identity(b, emission.constants[self.name])
        channel = 0
        for part in self.parts:
            source = activations[part.source]
            values = {}
            for tile in range(TILES):
                rows, columns = target.own(tile)
                if len(rows) and len(columns):
                    a, c = source.slab(tile), target.slab(tile)
                    first = source.address + a.offset(rows.start, columns.start)
                    values[tile] = apply_to_words(part, first, (4, a.pixel, a.pitch),
                                                  target.own_address(tile) + channel, (4, c.pixel, c.pitch),
                                                  (a.pixel // 4, len(columns), len(rows)))
            for tiles, fields in by_content(values):
                b.tile("tensor_op", tiles, dict(fields))
            channel += source.image.padded
        emission.reset()


def _read(context: Context, op: Operator) -> list[Layer]:
    """Operands stand side by side; where their channels are no multiple of four, gaps between them are closed then."""
    graph, y = context.graph, context.graph.output(op)
    images = [image_of(graph.tensors[t]) for t in op.inputs]
    gaps = any(image.channels % 4 for image in images[:-1])
    joined = y
    if gaps:
        joined = context.between(y, (*y.shape[:-1], sum(image.padded for image in images)), "with gaps")
    low, high = clamp(y, 0)
    parts = []
    for i, t in enumerate(op.inputs):
        x = graph.tensors[t]
        parts.append(Unary(f"{op.title} operand {i}", context.resolve(t), joined.index, zero_point(x), zero_point(y),
                           bits(unary_multiplier(x, y)), low, high))
    layers: list[Layer] = [Concatenation(f"{op.title} with gaps" if gaps else op.title, tuple(parts), joined.index)]
    if gaps:
        starts = [0, *accumulate(image.padded for image in images)]
        channels = [start + c for start, image in zip(starts, images, strict=False) for c in range(image.channels)]
        layers.append(select_channels(op.title, joined.index, joined, y.index, y, channels, (IDENTITY, IDENTITY)))
    return layers


def _objection(graph: Graph, op: Operator) -> Verdict | None:
    xs, y = [graph.tensors[t] for t in op.inputs], graph.output(op)
    if any(x.is_constant or x.type is not y.type or x.quantization is None for x in xs) or y.quantization is None:
        return refusal(op, "joins a constant or tensors of several types.")
    if len(y.shape) != 4 or op.options.axis % 4 != 3 or op.options.fusedActivationFunction:
        return refusal(op, f"joins along dimension {op.options.axis} of {y.name} of shape {list(y.shape)}; only channels of "
                           "images are joined.")
    return None


CONCATENATION = Family(_objection, _read)
