"""Functions of single values: rectifiers, changes of scale, the logistic function.

Every word is multiplied with the identity; the output stage does the rest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from compiler.beagle.isa.counters import TileCounter
from compiler.beagle.isa.tables import PiecewiseQuartic
from compiler.facts import TILES, WIDE_ROWS
from compiler.lowering.builder import ALL_TILES, LAYER_COUNTERS, ProgramBuilder, Values, signal, walk, watch
from compiler.lowering.dense import Slice
from compiler.lowering.spatial.geometry import IDENTITY, Activation, Window, by_content
from compiler.lowering.spatial.state import Books

CONSTANT_WORDS = 4
IDENTITY_ROW = WIDE_ROWS - 1
_IDENTITY = (0x1, 0x100, 0x10000, 0x1000000)
_WITH_TABLE = 1


@dataclass(frozen=True)
class Unary:
    """A function ready for code generation.

    Attributes
    ----------
    multiplier, clamp_low, clamp_high:
        Bit patterns of float32 numbers.
    table:
        Applied behind multiplier and clamp; None for none.
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
    windows: tuple[Window, Window] = (IDENTITY, IDENTITY)

    @property
    def moves(self) -> bool:
        """True when results lie on other tiles than operands: padding."""
        return self.windows != (IDENTITY, IDENTITY)

    @property
    def sources(self) -> tuple[int]:
        """The operand."""
        return (self.source,)


def emit_unary(b: ProgramBuilder, books: Books, layer: Unary, source: Activation, target: Activation,
               constants: int) -> None:
    """Apply a function to an image; ``constants`` is the byte address of four words."""
    values = {}
    for tile in range(TILES):
        rows, columns = target.own(tile)
        if len(rows) and len(columns):
            a, c = source.slab(tile), target.slab(tile)
            counts = (a.pixel // 4, len(columns), len(rows))
            first = layer.windows[0].needed(rows).start, layer.windows[1].needed(columns).start
            values[tile] = apply_to_words(layer, source.address + a.offset(*first), (4, a.pixel, a.pitch),
                                          target.own_address(tile), (4, c.pixel, c.pitch), counts)
    _emit(b, layer, values, constants)
    books.counts.reset()


def emit_vector_unary(b: ProgramBuilder, layer: Unary, slices: Sequence[Slice], constants: int) -> None:
    """Apply a function to a vector, in place."""
    values = {s.tile: apply_to_words(layer, 4 * s.word, (4, 0, 0), 4 * s.word, (4, 0, 0), (s.words, 1, 1)) for s in slices}
    _emit(b, layer, values, constants)


def build_identity(b: ProgramBuilder, constants: int) -> None:
    """Put the identity matrix into its wide row, by way of four words."""
    for i, word in enumerate(_IDENTITY):
        b.tile("mesh_from_south", ALL_TILES, walk("dst", constants // 4 + i, [(1, 1)], total_dims=4, mask=0),
               signal("received", 1) if i == 3 else {}, fill=1, fill_value=word)
    b.tile("narrow_to_wide", ALL_TILES, walk("src", constants // 4, [(4, 1)], total_dims=6),
           walk("dst", IDENTITY_ROW, [(1, 1)], total_dims=4, mask=0), watch(0, TileCounter.MESH_SOUTH_IN, 1, step=0),
           signal("done", 1), flush_level=1)
    b.tile_fence()


def _emit(b: ProgramBuilder, layer: Unary, values: Mapping[int, Values], constants: int) -> None:
    b.tile_fence(reset=LAYER_COUNTERS)
    build_identity(b, constants)
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
        fields["nonlinear"] = _WITH_TABLE
    stay = [(n, 0) for n in counts]
    return (fields | walk("in", source, list(zip(counts, source_strides, strict=True)), total_dims=8)
            | walk("out", target, list(zip(counts, target_strides, strict=True)), total_dims=8)
            | walk("weights", 4 * IDENTITY_ROW, stay, total_dims=8)
            | walk("partial", 0, stay, total_dims=8, slot=4) | signal("avdata", 3))
