"""Functions of single values: RELU and its kin, LOGISTIC, TANH, RSQRT, QUANTIZE, PAD.

Every word is multiplied with the identity; the output stage does the rest.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import ClassVar

from compiler.beagle.isa.counters import TileCounter, TileEngine
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
from compiler.records import record

CONSTANT_WORDS = 4
HIGHEST = 255
"""Largest value of an activation."""
IDENTITY_ROW = WIDE_ROWS - 1
IDENTITY_WORDS = (0x1, 0x100, 0x10000, 0x1000000)
NO_LIMITS: Values = {"clamp_low": bits(float("-inf")), "clamp_high": bits(float("inf"))}
TABLE_COUNTERS = sum(1 << c for c in (TileCounter.AVDATA, TileCounter.PARAMETERS, TileCounter.PARTIAL_SUMS))
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


@record
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
    on_identity: ClassVar[bool] = True
    below_top: ClassVar[bool] = True
    follows_input: ClassVar[bool] = True
    matrix: ClassVar[tuple[int, ...]] = IDENTITY_WORDS

    @property
    def sources(self) -> tuple[int, ...]:
        """The operand."""
        return (self.source,)

    def lowest_row(self, scenes: Sequence[Activations], top: int) -> int:
        """Return the row of the identity matrix, if it has one of its own."""
        del scenes
        return top if self.on_identity else IDENTITY_ROW

    def emit(self, emission: Emission, activations: Activations) -> None:
        """Apply the function to an image."""
        b, source, target = emission.b, activations[self.source], activations[self.target]
        tiles = [t for t in range(TILES) if target.pixels(t)]
        row = emission.identities.get(self.name, IDENTITY_ROW)
        missing = emission.missing_identity(self.name)
        b.tile_fence(reset=LAYER_COUNTERS)
        if missing:
            build_identity(b, emission.constants[self.name], row, matrix=self.matrix, fenced=self.table is None)
        values = {t: self._copy(source, target, t, row) for t in tiles}
        if self.table is not None:
            b.tile_fence(reset=TABLE_COUNTERS, engines=1 << TileEngine.OP)
            b.tile("table", sum(1 << t for t in tiles), self.table.fields(), constant1566=3)
            arrived = watch(0, TileCounter.NARROW_TO_WIDE, int(missing), level=1 if target.is_vector else 4)
            values = {t: fields | arrived for t, fields in values.items()}
        for mask, fields in by_content(values):
            b.tile("tensor_op", mask, dict(fields))
        emission.reset()

    def _copy(self, source: Activation, target: Activation, tile: int, row: int) -> Values:
        rows, columns = target.own(tile)
        a, c = source.slab(tile), target.slab(tile)
        if self.table is not None and target.is_vector:
            return self._from_table(source.own_address(tile), target.own_address(tile), c.pixel // 4, row)
        return apply_to_words(self, source.address + a.offset(rows.start, columns.start), (4, a.pixel, a.pitch),
                              target.own_address(tile), (4, c.pixel, c.pitch), (a.pixel // 4, len(columns), len(rows)), row)

    def _from_table(self, source: int, target: int, words: int, row: int) -> Values:
        """Fields of a function of a slice of a vector."""
        fields = _ends(self) | {"loop0": words - 1, "nonlinear": _WITH_TABLE | _ROOT * self.root,
                                "odd_symmetry": 3 * self.odd}
        places = [(1, 4), (1, 4 * words), (words, 4)]
        stay = [(words, 0)] if words > 1 else [(1, 1)]
        return (fields | walk("in", source, places, total_dims=8) | walk("out", target, places, total_dims=8)
                | walk("weights", 4 * row, stay, total_dims=8, mask=0)
                | walk("partial", 0, stay, total_dims=8, mask=0, slot=4 * (words > 1))
                | signal("avdata", 2) | signal("parameters", int(words == 1)))


@record
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
    on_identity: ClassVar[bool] = False

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

    def _copy(self, source: Activation, target: Activation, tile: int, row: int) -> Values:
        rows, columns = target.own(tile)
        a, c = source.slab(tile), target.slab(tile)
        strides = 4, self.windows[1].stride * a.pixel, self.windows[0].stride * a.pitch
        return apply_to_words(self, self._first(source, target, tile) + self.first_channel, strides,
                              target.own_address(tile), (4, c.pixel, c.pitch), (c.pixel // 4, len(columns), len(rows)), row)

    def _first(self, source: Activation, target: Activation, tile: int) -> int:
        """Return the address of the first pixel read."""
        spans = zip(self.windows, target.own(tile), strict=True)
        return source.address + source.slab(tile).offset(*(w.needed(s).start for w, s in spans))


def complement(name: str, source: int, target: int) -> Unary:
    """Return what values of an activation lack to 255: their largest belongs to the smallest value."""
    return Unary(name, source, target, 0, HIGHEST, bits(-1.0), bits(-HIGHEST), 0)


def build_identity(b: ProgramBuilder, constants: int, row: int = IDENTITY_ROW, *, engines: int = ALL_ENGINES,
                   matrix: tuple[int, ...] = IDENTITY_WORDS, received: int = 1, announced: bool = True,
                   fenced: bool = True) -> None:
    """Put the identity matrix (or another) into a wide row, by way of four words, and wait for engines.

    Parameters
    ----------
    constants:
        Narrow byte address of the four words.
    received:
        What the counter of words from the south shows when they are there.
    announced:
        The row is counted.
    fenced:
        Wait; without it, whoever multiplies has to.
    """
    for i, word in enumerate(matrix):
        b.tile("mesh_from_south", ALL_TILES, walk("dst", constants // 4 + i, [(1, 1)], total_dims=4, mask=0),
               signal("received", 1) if i == 3 else {}, fill=1, fill_value=word)
    b.tile("narrow_to_wide", ALL_TILES, walk("src", constants // 4, [(4, 1)], total_dims=6),
           walk("dst", row, [(1, 1)], total_dims=4, mask=0), watch(0, TileCounter.MESH_SOUTH_IN, received, step=0),
           signal("done", 1) if announced else {}, flush_level=1)
    if fenced:
        b.tile_fence(engines=engines)


def apply_to_words(layer: Unary, source: int, source_strides: tuple[int, int, int], target: int,
                   target_strides: tuple[int, int, int], counts: tuple[int, int, int], row: int = IDENTITY_ROW) -> Values:
    """Fields of an operation over words, columns and rows, not to be changed; strides in bytes."""
    operation = _ends(layer) | {"channel_group_level": 4}
    if layer.table is not None:
        operation |= {"nonlinear": _WITH_TABLE | _ROOT * layer.root, "odd_symmetry": 3 * layer.odd}
    return _applied(tuple(operation.items()), source, source_strides, target, target_strides, counts, row)


@lru_cache(maxsize=4096)
def _applied(operation: tuple[tuple[str, int], ...], source: int, source_strides: tuple[int, int, int], target: int,
             target_strides: tuple[int, int, int], counts: tuple[int, int, int], row: int) -> Values:
    """Many tiles have the same part of an image."""
    fields: Values = {f"loop{i + 1}": n - 1 for i, n in enumerate(counts)}
    stay = [(n, 0) for n in counts]
    return (fields | dict(operation) | walk("in", source, list(zip(counts, source_strides, strict=True)), total_dims=8)
            | walk("out", target, list(zip(counts, target_strides, strict=True)), total_dims=8)
            | walk("weights", 4 * row, stay, total_dims=8)
            | walk("partial", 0, stay, total_dims=8, slot=4) | signal("avdata", 3))


def _ends(layer: Unary) -> Values:
    return {"partial_from_zero": 1, "no_partial_sums": 1, "lanes_m1": 3, "lanes_last_m1": 3,
            "in_zero_point": layer.in_zero_point, "out_zero_point": layer.out_zero_point, "multiplier": layer.multiplier,
            "clamp_low": layer.clamp_low, "clamp_high": layer.clamp_high}


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
