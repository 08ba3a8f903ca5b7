"""Functions of single values: RELU and its kin, LOGISTIC, TANH, RSQRT, QUANTIZE, PAD.

Every word is multiplied with the identity; the output stage does the rest.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from compiler.beagle.isa.counters import TileCounter
from compiler.beagle.isa.tables import LOGISTIC, LOGISTIC_LIMIT, RECIPROCAL_ROOT, TANH, TANH_LIMIT, PiecewiseQuartic
from compiler.facts import TILES, WIDE_ROWS
from compiler.graph import Graph, Operator
from compiler.lowering.arithmetic import bits, clamp, quantization, unary_multiplier, zero_point
from compiler.lowering.builder import ALL_ENGINES, ALL_TILES, LAYER_COUNTERS, ProgramBuilder, Values, signal, walk, watch
from compiler.lowering.lowered import refusal
from compiler.lowering.spatial.bands import Windows
from compiler.lowering.spatial.context import Context
from compiler.lowering.spatial.emission import Emission
from compiler.lowering.spatial.families.family import Family
from compiler.lowering.spatial.geometry import IDENTITY, Activation, by_content
from compiler.lowering.spatial.layer import Activations, Layer
from compiler.mapping import Verdict

CONSTANT_WORDS = 4
HIGHEST = 255
"""Largest value of an activation."""
IDENTITY_ROW = WIDE_ROWS - 1
IDENTITY_WORDS = (0x1, 0x100, 0x10000, 0x1000000)
NO_LIMITS: Values = {"clamp_low": bits(float("-inf")), "clamp_high": bits(float("inf"))}
_WITH_TABLE = 1
_ROOT = 2
_TANH_SCALE = 1 / 128
_LIMITED_BY = {"QUANTIZE": 0, "RELU": 1, "RELU_N1_TO_1": 2, "RELU6": 3, "LOGISTIC": 0, "PAD": 0}
"""Functions of single values, with the activation that limits them."""


class OnIdentity(Layer):
    """A layer that multiplies words with the identity matrix, which it builds."""

    def lowest_row(self, scenes: Sequence[Activations], top: int) -> int:
        """Return the row of the identity matrix."""
        del scenes, top
        return IDENTITY_ROW

    def constant_bytes(self, scenes: Sequence[Activations]) -> int:
        """Return the bytes in which the identity matrix is built."""
        del scenes
        return 4 * CONSTANT_WORDS


@dataclass(frozen=True)
class Unary(OnIdentity):
    """A function ready for code generation.

    Attributes
    ----------
    multiplier, clamp_low, clamp_high:
        Bit patterns of float32 numbers.
    table:
        Applied behind multiplier and clamp; None for none.
    root:
        The table holds a reciprocal square root: operands are brought into its range.
    odd:
        The table holds an odd function for positive operands.
    matrix:
        Bytes that every word is multiplied with.
    windows:
        Which row and column each result comes from.
    """

    name: str
    source: int
    target: int
    in_zero_point: int
    out_zero_point: int
    multiplier: int
    clamp_low: int
    clamp_high: int
    table: PiecewiseQuartic | None = None
    root: bool = False
    odd: bool = False

    takes_over: ClassVar[bool] = True
    matrix: ClassVar[tuple[int, ...]] = IDENTITY_WORDS

    @property
    def sources(self) -> tuple[int, ...]:
        """The operand."""
        return (self.source,)

    def emit(self, emission: Emission, activations: Activations) -> None:
        """Apply the function to an image."""
        source, target = activations[self.source], activations[self.target]
        values = {t: self._copy(source, target, t) for t in range(TILES) if target.pixels(t)}
        _emit(emission.b, self, values, emission.constants[self.name])
        emission.settled()

    def _copy(self, source: Activation, target: Activation, tile: int) -> Values:
        rows, columns = target.own(tile)
        a, c = source.slab(tile), target.slab(tile)
        return apply_to_words(self, source.address + a.offset(rows.start, columns.start), (4, a.pixel, a.pitch),
                              target.own_address(tile), (4, c.pixel, c.pitch), (a.pixel // 4, len(columns), len(rows)))


@dataclass(frozen=True)
class Shift(Unary):
    """A copy of pixels whose results lie on other tiles than operands.

    Attributes
    ----------
    windows:
        Which row and column each result comes from.
    first_channel:
        First channel that is taken.
    """

    windows: Windows = (IDENTITY, IDENTITY)
    first_channel: int = 0

    moves: ClassVar[bool] = True
    takes_over: ClassVar[bool] = False

    def windows_of(self, source: int) -> Windows:
        """Return how far rows and columns move."""
        del source
        return self.windows

    def fill(self, source: int) -> int | None:
        """Padding is zero."""
        del source
        return self.in_zero_point

    def emit(self, emission: Emission, activations: Activations) -> None:
        """Exchange borders and copy."""
        self.exchange(emission, activations, self.source)
        emission.b.barrier()
        super().emit(emission, activations)

    def _copy(self, source: Activation, target: Activation, tile: int) -> Values:
        rows, columns = target.own(tile)
        a, c = source.slab(tile), target.slab(tile)
        strides = 4, self.windows[1].stride * a.pixel, self.windows[0].stride * a.pitch
        return apply_to_words(self, self._first(source, target, tile) + self.first_channel, strides,
                              target.own_address(tile), (4, c.pixel, c.pitch), (c.pixel // 4, len(columns), len(rows)))

    def _first(self, source: Activation, target: Activation, tile: int) -> int:
        """Return the address of the first pixel read."""
        spans = zip(self.windows, target.own(tile), strict=True)
        return source.address + source.slab(tile).offset(*(w.needed(s).start for w, s in spans))


def complement(name: str, source: int, target: int) -> Unary:
    """Return what values of an activation lack to 255: their largest belongs to the smallest value."""
    return Unary(name, source, target, 0, HIGHEST, bits(-1.0), bits(-HIGHEST), 0)


def build_identity(b: ProgramBuilder, constants: int, *, engines: int = ALL_ENGINES,
                   matrix: tuple[int, ...] = IDENTITY_WORDS) -> None:
    """Put the identity matrix (or another) into its wide row, by way of four words, and wait for engines."""
    for i, word in enumerate(matrix):
        b.tile("mesh_from_south", ALL_TILES, walk("dst", constants // 4 + i, [(1, 1)], total_dims=4, mask=0),
               signal("received", 1) if i == 3 else {}, fill=1, fill_value=word)
    b.tile("narrow_to_wide", ALL_TILES, walk("src", constants // 4, [(4, 1)], total_dims=6),
           walk("dst", IDENTITY_ROW, [(1, 1)], total_dims=4, mask=0), watch(0, TileCounter.MESH_SOUTH_IN, 1, step=0),
           signal("done", 1), flush_level=1)
    b.tile_fence(engines=engines)


def _emit(b: ProgramBuilder, layer: Unary, values: Mapping[int, Values], constants: int) -> None:
    b.tile_fence(reset=LAYER_COUNTERS)
    build_identity(b, constants, matrix=layer.matrix)
    if layer.table is not None:
        b.tile("table", ALL_TILES, layer.table.fields(), constant1566=3)
    for tiles, fields in by_content(values):
        b.tile("tensor_op", tiles, dict(fields))
    b.tile_fence(reset=LAYER_COUNTERS)


def apply_to_words(layer: Unary, source: int, source_strides: tuple[int, int, int], target: int,
                   target_strides: tuple[int, int, int], counts: tuple[int, int, int]) -> Values:
    """Fields of an operation over words, columns and rows; strides in bytes."""
    fields: Values = {f"loop{i + 1}": n - 1 for i, n in enumerate(counts)}
    fields |= {"partial_from_zero": 1, "no_partial_sums": 1, "channel_group_level": 4, "lanes_m1": 3, "lanes_last_m1": 3,
               "in_zero_point": layer.in_zero_point, "out_zero_point": layer.out_zero_point,
               "multiplier": layer.multiplier, "clamp_low": layer.clamp_low, "clamp_high": layer.clamp_high}
    if layer.table is not None:
        fields |= {"nonlinear": _WITH_TABLE | _ROOT * layer.root, "odd_symmetry": 3 * layer.odd}
    stay = [(n, 0) for n in counts]
    return (fields | walk("in", source, list(zip(counts, source_strides, strict=True)), total_dims=8)
            | walk("out", target, list(zip(counts, target_strides, strict=True)), total_dims=8)
            | walk("weights", 4 * IDENTITY_ROW, stay, total_dims=8)
            | walk("partial", 0, stay, total_dims=8, slot=4) | signal("avdata", 3))


def copied_words(source: int, target: int, strides: tuple[int, int, int], counts: tuple[int, int, int]) -> Values:
    """Fields of a copy inside one slab, over words, columns and rows; addresses and strides in bytes."""
    copy = Unary("", 0, 0, 0, 0, bits(1.0), bits(-math.inf), bits(math.inf))
    return apply_to_words(copy, source, strides, target, strides, counts)


def _read(context: Context, op: Operator) -> Layer | list[Layer]:
    layer = read_unary(context, op)
    shares = context.shares.get(op.inputs[0])
    if shares is None:
        return layer
    y, made, layers = context.graph.output(op), [], list[Layer]()
    for i, share in enumerate(shares):
        result = context.between(y, context.tensor(share.number).shape, f"part {i}")
        layers.append(replace(layer, name=f"{op.title} part {i}", source=share.number, target=result.index))
        made.append(replace(share, number=result.index))
    context.shares[y.index] = tuple(made)
    return layers


def read_unary(context: Context, op: Operator) -> Unary:
    """Read a function of single values."""
    x, y = context.graph.tensors[op.inputs[0]], context.graph.output(op)
    source = context.origin(x.index)
    context.pass_on(source, y.index)
    if op.name == "LOGISTIC":
        limit = bits(LOGISTIC_LIMIT), bits(-LOGISTIC_LIMIT)
        return Unary(op.title, source, y.index, zero_point(x), 0, bits(quantization(x).scales[0]), limit[1], limit[0],
                     LOGISTIC)
    if op.name == "TANH":
        return Unary(op.title, source, y.index, zero_point(x), zero_point(y), bits(quantization(x).scales[0]),
                     bits(-TANH_LIMIT), bits(TANH_LIMIT), TANH.scaled(1 / _TANH_SCALE), odd=True)
    if op.name == "RSQRT":
        table = RECIPROCAL_ROOT.scaled(1 / quantization(y).scale)
        return Unary(op.title, source, y.index, zero_point(x), zero_point(y), bits(quantization(x).scales[0]),
                     NO_LIMITS["clamp_low"], NO_LIMITS["clamp_high"], table, root=True)
    low, high = clamp(y, _LIMITED_BY[op.name])
    return Unary(op.title, source, y.index, zero_point(x), zero_point(y), bits(unary_multiplier(x, y)), low, high)


def _objection(graph: Graph, op: Operator) -> Verdict | None:
    """From 8 bits to 8 bits.

    LOGISTIC in steps of 1/256 from the lowest value on, TANH in steps of 1/128 around zero.
    """
    x, y = graph.tensors[op.inputs[0]], graph.output(op)
    if x.quantization is None or y.quantization is None or not (x.type.is_8bit and y.type.is_8bit) or (
            op.name != "QUANTIZE" and x.type is not y.type):
        return refusal(op, f"turns {x.type.name} into {y.type.name}, or carries no quantization.")
    if op.name == "LOGISTIC" and (quantization(y).scale != 1 / 256 or zero_point(y) != 0):
        return refusal(op, f"its result {y.name} has scale {quantization(y).scale}; the chip gives steps of 1/256.",
                       "Convert with the fixed output range of LOGISTIC.")
    if op.name == "TANH" and (quantization(y).scale != _TANH_SCALE or quantization(y).zero_point % 128):
        return refusal(op, f"its result {y.name} has scale {quantization(y).scale}; the chip gives steps of 1/128.",
                       "Convert with the fixed output range of TANH.")
    return None


UNARY = Family(_objection, _read)
