"""SOFTMAX of a vector on tile 0, in the steps of official programs.

The largest value is found, its difference to every class looked up in a table of the exponential
(16 bits), and the sum inverted by way of the reciprocal root. Where the classes are no multiple of
four, tables of parameters take the spare lanes out: a bias of minus infinity before the maximum and
after the difference, and an infinite factor before the exponential.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from compiler.beagle.isa.counters import TileCounter
from compiler.beagle.isa.tables import EXPONENTIAL, EXPONENTIAL_LOW, RECIPROCAL_ROOT, PiecewiseQuartic
from compiler.facts import PARAMETER_LINE_BYTES, WIDE_ROWS
from compiler.lowering.arithmetic import bits
from compiler.lowering.builder import LAYER_COUNTERS, ProgramBuilder, Values, signal, walk, watch

IDENTITY_ROW = WIDE_ROWS - 1
CONSTANT_ROW = WIDE_ROWS - 2
STEP_ROW = WIDE_ROWS - 3
"""First of two rows through which operands pass."""
LARGEST_ROW = WIDE_ROWS - 6
"""Row of the negated maximum."""
SUM_ROW = WIDE_ROWS - 9
"""First of two rows through which sums pass; the lowest row in use."""
_ONE = 0x3F800000
_INFINITY, _MINUS_INFINITY = 0x7F800000, 0xFF800000
_IDENTITY = (0x1, 0x100, 0x10000, 0x1000000)
_IDENTITY_16_BIT = (0x10002, 0x20001, 0x10001, 0x10001, 0x10001, 0x10001, 0x10002, 0x20001)
"""Two rows that take two bytes each; one is added because the zero point is one."""
_STEP = np.float32(1 / 65535)
_RESULT_FACTOR = np.float32(1.1921416e-7)
_LARGEST_INVERSE = np.float32(32768)
_PLAIN, _TABLE, _ROOT = 4, 5, 7
"""Modes of the output stage with 16 bits: no table, exponential, reciprocal root."""
_SCRATCH_WORDS = 16
_TILE = 1


@dataclass(frozen=True)
class SoftmaxLayer:
    """A softmax ready for code generation.

    Attributes
    ----------
    scale:
        Of the operand, times beta.
    zero_point:
        Of the operand, unsigned domain.
    rows:
        First wide rows of the tables: bias before the maximum, bias after the difference, factors;
        empty without tables.
    """

    name: str
    classes: int
    scale: np.float32
    zero_point: int
    rows: tuple[int, ...] = ()

    @property
    def words(self) -> int:
        """Words of the vector."""
        return -(-self.classes // 4)

    @property
    def tables(self) -> tuple[bytes, ...]:
        """Parameters: a 64-byte line per word of the vector, its first 16 bytes in use."""
        if self.classes % 4 == 0:
            return ()
        spare = np.arange(4 * self.words) >= self.classes
        bias = np.where(spare, np.int32(-(1 << 31)), np.int32(0)).astype(np.int32)
        with np.errstate(over="ignore"):
            endless = np.float32(self.scale * np.finfo(np.float32).max)
        factors = np.where(spare, endless, self.scale).astype(np.float32)
        return _lines(bias.view(np.uint32)), _lines(bias.view(np.uint32)), _lines(factors.view(np.uint32))


@dataclass(frozen=True)
class Scratch:
    """Byte addresses for a softmax of so many words, from a first free one."""

    base: int
    words: int

    @property
    def constants(self) -> int:
        """Words that become wide rows."""
        return self.base

    @property
    def masked(self) -> int:
        """Operand without spare lanes."""
        return self.base + 4 * _SCRATCH_WORDS

    @property
    def largest(self) -> int:
        """The maximum, then its copies."""
        return self.masked + 4 * self.words

    @property
    def difference(self) -> int:
        """Operand minus maximum, plus 255."""
        return self.largest + 4 * (self.words + 2)

    @property
    def powers(self) -> int:
        """Exponentials, 16 bits; two words behind them are read."""
        return self.difference + 4 * self.words

    @property
    def root(self) -> int:
        """Reciprocal root, its square, the inverse."""
        return self.powers + 8 * (self.words + 1)

    @property
    def inverse(self) -> int:
        """Copies of the inverse."""
        return self.root + 4 * _SCRATCH_WORDS

    @property
    def end(self) -> int:
        """First byte behind."""
        return self.inverse + 8 * self.words


def _lines(words: np.ndarray[tuple[int], np.dtype[np.uint32]]) -> bytes:
    lines = np.zeros((words.size // 4, PARAMETER_LINE_BYTES // 4), np.uint32)
    lines[:, :4] = words.reshape(-1, 4)
    return lines.tobytes()


def emit_softmax(b: ProgramBuilder, layer: SoftmaxLayer, source: int, base: int, target: int) -> None:
    """Emit a softmax.

    Parameters
    ----------
    source, base, target:
        Byte addresses, on tile 0, of the operand, of free memory and of the result.
    """
    s, n = Scratch(base, layer.words), layer.words
    z = layer.zero_point
    _constant(b, s, _IDENTITY, IDENTITY_ROW, 1)
    x = source
    if layer.rows:
        _mask(b, layer.rows[0], n, x, s.masked, z, (-z, 255 - z))
        x = s.masked
    _largest(b, x, s, n, z)
    _difference(b, source, s, n)
    if layer.rows:
        _mask(b, layer.rows[1], n, s.difference, s.difference, 255, (-255, 0))
    _exponentials(b, layer, s, n)
    _invert(b, s, n)
    _shares(b, s, target, n)


def _fence(b: ProgramBuilder) -> None:
    b.tile_fence(reset=LAYER_COUNTERS)


def _float(value: float) -> int:
    return bits(np.float32(value))


def _limits(low: float, high: float) -> Values:
    return {"clamp_low": _float(low), "clamp_high": _float(high)}


def _constant(b: ProgramBuilder, s: Scratch, words: Sequence[int], row: int, rows: int) -> None:
    """Write words and make rows of four lanes of them."""
    _fence(b)
    for i, word in enumerate(words):
        b.tile("mesh_from_south", _TILE, walk("dst", s.constants // 4 + i, [(1, 1)], total_dims=4, mask=0), fill=1,
               fill_value=word)
    b.tile_fence()
    dims = [(4, 1)] if rows == 1 else [(4, 1), (rows, 4)]
    b.tile("narrow_to_wide", _TILE, walk("src", s.constants // 4, dims, total_dims=6),
           walk("dst", row, [(rows, 1)], total_dims=4, mask=int(rows > 1)), flush_level=1)
    b.tile_fence()


def _op(b: ProgramBuilder, name: str, *parts: Values, **values: int) -> None:
    """Emit a step of the tensor unit on four lanes."""
    fixed = {"partial_from_zero": 1, "no_partial_sums": 1, "lanes_m1": 3, "lanes_last_m1": 3, "multiplier": _ONE}
    b.tile(name, _TILE, fixed | values, *parts)


def _loops(*counts: int) -> Values:
    return {f"loop{i}": n - 1 for i, n in enumerate(counts)}


def _mask(b: ProgramBuilder, row: int, n: int, source: int, target: int, zero_point: int, limits: tuple[int, int]) -> None:
    """Add the bias of a table."""
    _fence(b)
    _scaling(b, row, n, 64)
    _op(b, "tensor_op", _loops(1, 2, n), _each_word(source, target, n, 1), _limits(*limits), in_zero_point=zero_point,
        out_zero_point=zero_point, use_bias=1, channel_group_level=2)


def _scaling(b: ProgramBuilder, row: int, n: int, bank: int) -> None:
    """Load four lanes of a bank per word."""
    b.tile("wide_to_narrow", _TILE, walk("src", row, [(1, 1), (n, 1)], total_dims=4),
           walk("dst", bank, [(2, 1), (1, 64), (n, 0)], total_dims=6, level=2, slot=32),
           watch(0, TileCounter.AVDATA, -1, level=2, side=1), signal("done", 2), to_scaling=1, drop_level=1)


def _each_word(source: int, target: int, n: int, size: int) -> Values:
    """Word after word through the identity; the second loop repeats, as in official programs."""
    return (walk("in", source, [(1, 4), (2, 0), (1, 4 * n), (n, 4)], total_dims=8)
            | walk("out", target, [(size, 4), (1, 4 * size * n), (2, 0), (n, 4 * size)], total_dims=8)
            | walk("weights", 4 * IDENTITY_ROW, [(2, 0), (n, 0)], total_dims=8, level=1)
            | walk("partial", 0, [(2, 0), (n, 0)], total_dims=8, slot=4)
            | watch(0, TileCounter.WIDE_TO_SCALING, 1, level=2) | signal("avdata", 3) | signal("parameters", 1))


def _pass(b: ProgramBuilder, source: int, count: int, row: int) -> None:
    """Pass words into lane 0 of two rows in turn."""
    b.tile("narrow_to_wide", _TILE, walk("src", source // 4, [(count, 1)], total_dims=6, mask=int(count > 1)),
           walk("dst", row, [(count, 0)], total_dims=4, slot=1), watch(0, TileCounter.PARAMETERS, -1, level=0, side=1),
           signal("done", 0), flush_level=0)


def _largest(b: ProgramBuilder, x: int, s: Scratch, n: int, z: int) -> None:
    """Find the maximum and copy it to all words."""
    _fence(b)
    _pass(b, x, n, STEP_ROW)
    _op(b, "tensor_max", _loops(4, n), walk("out", s.root, [(1, 4)], total_dims=8),
        walk("weights", 4 * STEP_ROW, [(4, 1), (n, 0)], total_dims=8, level=1, slot=4),
        walk("partial", 0, [(4 * n, 0)], total_dims=8, level=1, slot=4), _limits(-z, 255 - z),
        watch(0, TileCounter.NARROW_TO_WIDE, 1), signal("parameters", 1), constant=-z, out_zero_point=z,
        weights_zero_point=z, channel_group_level=1, reduction=3)
    _constant(b, s, (1, 1, 1, 1), CONSTANT_ROW, 1)
    _copies(b, s.root, s.largest, n)


def _copies(b: ProgramBuilder, source: int, target: int, count: int) -> None:
    """Multiply one word with the constant row, so many times."""
    _op(b, "tensor_op", _loops(1, count), walk("in", source, [(1, 4), (count, 0)], total_dims=8),
        walk("out", target, [(count, 4)], total_dims=8),
        walk("weights", 4 * CONSTANT_ROW, [(1, 4), (count, 0)], total_dims=8),
        walk("partial", 0, [(count, 0)], total_dims=8, slot=4), clamp_low=_MINUS_INFINITY, clamp_high=_INFINITY)


def _difference(b: ProgramBuilder, x: int, s: Scratch, n: int) -> None:
    """Subtract the maximum: negated it becomes a row of biases."""
    _constant(b, s, (0,) * 8, STEP_ROW, 2)
    b.tile("tensor_op", _TILE, walk("in", s.largest, [(1, 1)], total_dims=8),
           walk("out", s.difference, [(1, 1)], total_dims=8),
           walk("weights", 4 * STEP_ROW, [(1, 1)], total_dims=8, mask=0),
           walk("partial", 4 * LARGEST_ROW, [(1, 1)], total_dims=8, mask=0), _limits(-255, 0), partial_from_zero=1,
           weights_16bit=1, slot2_off=1, slot3_off=1, weights_zero_point=1, lanes_m1=3, lanes_last_m1=3, multiplier=_ONE,
           out_zero_point=255)
    _constant(b, s, _IDENTITY_16_BIT, STEP_ROW, 2)
    _fence(b)
    b.tile("wide_to_narrow", _TILE, walk("src", LARGEST_ROW, [(1, 1), (2, 0), (1, 1)], total_dims=4),
           walk("dst", 64, [(32, 1), (2, 0)], total_dims=6, level=1, slot=32),
           watch(0, TileCounter.AVDATA, 0, level=2, side=1), signal("done", 2), to_scaling=1, drop_level=1)
    _op(b, "tensor_op", _loops(2, n), walk("in", x, [(2 * n, 2)], total_dims=8),
        walk("out", s.difference, [(n, 4)], total_dims=8),
        walk("weights", 4 * STEP_ROW, [(2, 4), (n, 0)], total_dims=8),
        walk("partial", 0, [(2, 0), (n, 0)], total_dims=8, level=1, slot=4), _limits(-255, 0),
        watch(0, TileCounter.WIDE_TO_SCALING, 1, level=2), signal("avdata", 1), weights_16bit=1, weights_zero_point=1,
        out_zero_point=255, use_bias=1, channel_group_level=1, reduction=1)


def _load_table(b: ProgramBuilder, table: PiecewiseQuartic) -> None:
    b.tile_fence(reset=1 << TileCounter.AVDATA | 1 << TileCounter.PARAMETERS | 1 << TileCounter.PARTIAL_SUMS, engines=1)
    b.tile("table", _TILE, table.fields(), constant1566=3)


def _exponentials(b: ProgramBuilder, layer: SoftmaxLayer, s: Scratch, n: int) -> None:
    _fence(b)
    _load_table(b, EXPONENTIAL)
    common = {"in_zero_point": 255, "nonlinear": _TABLE, "clamp_low": bits(EXPONENTIAL_LOW), "clamp_high": 0}
    if layer.rows:
        _scaling(b, layer.rows[2], n, 0)
        _op(b, "tensor_op", _loops(1, 2, n), _each_word(s.difference, s.powers, n, 2), use_multiplier=1,
            channel_group_level=2, **common)
        return
    b.tile("tensor_op", _TILE, _loops(1, n), walk("in", s.difference, [(n, 4)], total_dims=8),
           walk("out", s.powers, [(2 * n, 4)], total_dims=8), walk("weights", 4 * IDENTITY_ROW, [(n, 0)], total_dims=8),
           walk("partial", 0, [(n, 0)], total_dims=8, slot=4), partial_from_zero=1, no_partial_sums=1, lanes_m1=3,
           lanes_last_m1=3, multiplier=bits(layer.scale), **common)


def _invert(b: ProgramBuilder, s: Scratch, n: int) -> None:
    """Sum up, then 1 / sum as the square of the reciprocal root."""
    _fence(b)
    _load_table(b, RECIPROCAL_ROOT)
    _pass(b, s.powers, 2 * n, SUM_ROW)
    _op(b, "tensor_sum", _loops(2 * n), walk("out", s.root, [(2, 4)], total_dims=8),
        walk("weights", 4 * SUM_ROW, [(2 * n, 0)], total_dims=8, slot=4),
        walk("partial", 0, [(2 * n, 0)], total_dims=8, level=1, slot=4), watch(0, TileCounter.NARROW_TO_WIDE, 1, level=0),
        signal("parameters", 0), weights_16bit=1, reduction=1, nonlinear=_ROOT, multiplier=bits(_STEP),
        clamp_low=_MINUS_INFINITY, clamp_high=_INFINITY)
    _fence(b)
    square, inverse = s.root + 8, s.root + 40
    _op(b, "tensor_op", _loops(2, 2), walk("in", s.root, [(4, 2)], total_dims=8),
        walk("out", square, [(2, 4), (4, 4)], total_dims=8),
        walk("weights", 4 * SUM_ROW, [(2, 2), (2, 0)], total_dims=8, level=1, slot=4),
        walk("partial", 0, [(1, 1), (4, 0)], total_dims=8, mask=1, level=1, slot=4), watch(0, TileCounter.NARROW_TO_WIDE, 1),
        signal("parameters", 1), in_16bit=1, weights_16bit=1, channel_group_level=4, nonlinear=_PLAIN,
        multiplier=bits(_STEP), clamp_low=0, clamp_high=bits(_LARGEST_INVERSE))
    _pass(b, s.root, 2, SUM_ROW)
    b.tile_fence()
    _op(b, "tensor_op", _loops(4), walk("in", square, [(4, 4)], total_dims=8), walk("out", inverse, [(2, 4)], total_dims=8),
        walk("weights", 4 * IDENTITY_ROW, [(4, 1)], total_dims=8, level=1),
        walk("partial", 0, [(4, 0)], total_dims=8, level=1, slot=4), in_16bit=1, slot2_off=1, slot3_off=1,
        channel_group_level=2, nonlinear=_PLAIN, clamp_low=_MINUS_INFINITY, clamp_high=_INFINITY)
    _constant(b, s, (0x1, 0x100, 0x1, 0x100), CONSTANT_ROW, 1)
    _copies(b, inverse, s.inverse, 2 * n)


def _shares(b: ProgramBuilder, s: Scratch, target: int, n: int) -> None:
    """Multiply every exponential with the inverse."""
    _fence(b)
    rows = -(-n // 2)
    b.tile("narrow_to_wide", _TILE, walk("src", s.powers // 4, [(2, 2), (2, 1), (rows, 4)], total_dims=6),
           walk("dst", STEP_ROW, [(rows, 0)], total_dims=4, slot=1), watch(0, TileCounter.PARAMETERS, -1, level=0, side=1),
           signal("done", 0), layout=3, flush_level=2)
    short = n % 2 == 1 and n > 1
    pairs = 1 if n == 1 else 2
    loops = _loops(pairs, rows) | ({"loop_epilogue_dim": 1, "loop_epilogue_limit": 0} if short else {})
    _op(b, "tensor_op", loops, walk("in", s.inverse, [(1, 4), (n, 0)], total_dims=8),
        walk("out", target, [(n, 4)], total_dims=8),
        walk("weights", 4 * STEP_ROW, [(pairs, 2), (rows, 0)], total_dims=8, level=1, slot=4,
             epilogue=(1, 1, 2) if short else None),
        walk("partial", 0, [(n, 0)], total_dims=8, slot=4), watch(0, TileCounter.NARROW_TO_WIDE, 1), signal("parameters", 1),
        in_16bit=1, weights_16bit=1, channel_group_level=1, multiplier=bits(_RESULT_FACTOR), clamp_low=0,
        clamp_high=_float(255))
    _fence(b)
