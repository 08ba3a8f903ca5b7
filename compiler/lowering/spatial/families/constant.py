"""Sums and products with a constant that has one value, or one per channel.

A product with one value only is another scale. Constants per channel come with every inference, four
channels to a line, and go through the scaling registers: products as multipliers, sums as biases in
units of the input.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from compiler.beagle.isa.counters import TileCounter
from compiler.facts import LANES, PARAMETER_LINE_BYTES, TILES
from compiler.graph import Graph, Operator, Tensor
from compiler.lowering.arithmetic import bits, clamp, quantization, unary_multiplier, zero_point
from compiler.lowering.builder import LAYER_COUNTERS, ProgramBuilder, Values, signal, walk, watch
from compiler.lowering.spatial.context import Context
from compiler.lowering.spatial.emission import Emission
from compiler.lowering.spatial.families.broadcast import read_spread
from compiler.lowering.spatial.families.unary import IDENTITY_ROW, Unary, apply_to_words, build_identity
from compiler.lowering.spatial.geometry import Activation, by_content
from compiler.lowering.spatial.layer import Activations, Layer
from compiler.lowering.spatial.streaming import stream_lines
from compiler.records import record

TABLE_ROW = IDENTITY_ROW - 2
"""First of two wide rows that lines pass through."""
_GROUP = 4
"""Channels of a line."""
_ENTRIES = 2
"""Scaling registers of a group."""
_ONE = np.float32(1)


@record
class PerChannel(Unary):
    """A sum or product with a constant per channel.

    Attributes
    ----------
    constants:
        What goes into the scaling registers: float32 multipliers or int32 biases, 4 bytes per channel.
    added:
        True for biases.
    part:
        Tells it from others of the same operator.
    """

    constants: bytes = b""
    added: bool = False
    part: str = ""

    takes_over: ClassVar[bool] = True
    on_identity: ClassVar[bool] = False

    @property
    def streamed(self) -> bytes:
        """Lines of four channels."""
        values = np.frombuffer(self.constants, np.uint32)
        lines = np.zeros((self._groups, PARAMETER_LINE_BYTES // 4), np.uint32)
        lines[:, :_GROUP] = np.resize(np.append(values, np.zeros(-len(values) % _GROUP, np.uint32)), (self._groups, _GROUP))
        return lines.tobytes()

    @property
    def stream(self) -> str:
        """Name under which its lines come."""
        return f"{self.name} {self.part}" if self.part else self.name

    @property
    def _groups(self) -> int:
        return -(-len(self.constants) // (4 * _GROUP))

    def lowest_row(self, scenes: Sequence[Activations], top: int) -> int:
        """Return the first row of the lines."""
        del scenes, top
        return TABLE_ROW

    def emit(self, emission: Emission, activations: Activations) -> None:
        """Load the scaling registers group by group and apply them."""
        b = emission.b
        source, target = activations[self.source], activations[self.target]
        b.tile_fence(reset=LAYER_COUNTERS)
        build_identity(b, emission.constants[self.name])
        b.tile_fence(reset=LAYER_COUNTERS)
        tiles = [t for t in range(TILES) if target.pixels(t)]
        active = sum(1 << t for t in tiles)
        self.load(b, active)
        for mask, fields in by_content({t: self._apply(source, target, t) for t in tiles}):
            b.tile("tensor_op", mask, dict(fields))
        stream_lines(b, emission.books, self.stream, self._groups, receivers=active, lanes=PARAMETER_LINE_BYTES // 4)
        emission.reset()

    def load(self, b: ProgramBuilder, tiles: int) -> None:
        """Receive lines in turn in two rows, and copy each into its half of the registers when the other is in use."""
        level = int(self._groups == 1)
        b.tile("ring_receive_a", tiles,
               walk("dst", TABLE_ROW, [(self._groups, 0)], total_dims=4, mask=0, level=level, slot=1),
               watch(0, TileCounter.WIDE_TO_SCALING, -1, level=level, side=1), signal("read", level))
        groups = [(self._groups, 0)] if self._groups > 1 else []
        b.tile("wide_to_narrow", tiles,
               walk("src", TABLE_ROW, [(1, 1), *groups], total_dims=4, level=1, slot=1),
               walk("dst", LANES if self.added else 0, [(_ENTRIES, 1), (1, LANES), *groups], total_dims=6, level=2,
                    slot=LANES // 2),
               watch(0, TileCounter.RING_READ_A, 1), watch(1, TileCounter.AVDATA, -1, level=2, side=1), signal("done", 2),
               to_scaling=1, drop_level=1)

    def _apply(self, source: Activation, target: Activation, tile: int) -> Values:
        rows, columns = target.own(tile)
        a, c = source.slab(tile), target.slab(tile)
        counts = (len(columns), len(rows), self._groups)
        fields = apply_to_words(self, source.address + a.offset(rows.start, columns.start), (a.pixel, a.pitch, 4),
                                target.own_address(tile), (c.pixel, c.pitch, 4), counts)
        fields = fields | ({"use_bias": 1} if self.added else {"use_multiplier": 1})
        return fields | {"channel_group_level": 3} | signal("avdata", 2) | watch(0, TileCounter.WIDE_TO_SCALING, 1, level=3)


def is_per_channel(constant: Tensor, y: Tensor) -> bool:
    """Tell whether a constant has one value, or one per channel of the result."""
    return constant.elements in (1, y.shape[-1]) and constant.elements == (constant.shape[-1] if constant.shape else 1)


def split_operands(graph: Graph, op: Operator) -> tuple[Tensor | None, Tensor]:
    """Return the constant operand, if there is one with one value or one per channel, and the other."""
    a, b = (graph.tensors[t] for t in op.inputs)
    constant, x = (a, b) if a.is_constant else (b, a)
    return (constant if constant.is_constant and is_per_channel(constant, graph.output(op)) else None), x


def read_scaled(context: Context, op: Operator) -> Layer:
    """Read a product with a constant."""
    constant, x = split_operands(context.graph, op)
    y = context.graph.output(op)
    assert constant is not None
    limits = clamp(y, op.options.fusedActivationFunction)
    return read_spread(context, op, x, lambda source: scaled(op.title, constant, x, y, (source, y.index), limits))


def scaled(name: str, constant: Tensor, x: Tensor, y: Tensor, numbers: tuple[int, int], limits: tuple[int, int]) -> Unary:
    """Return a product with a constant.

    Parameters
    ----------
    numbers:
        Those of the image and of the result.
    limits:
        Bit patterns of the clamp, low and high.
    """
    real = quantization(constant).scales[0] * _centred(constant, y).astype(np.float32)
    factors = (quantization(x).scales[0] * real * (_ONE / quantization(y).scales[0])).astype(np.float32)
    if np.all(factors == factors[0]):
        return Unary(name, *numbers, zero_point(x), zero_point(y), bits(factors[0]), *limits)
    return PerChannel(name, *numbers, zero_point(x), zero_point(y), bits(_ONE), *limits, constants=factors.tobytes())


def read_shifted(context: Context, op: Operator) -> Layer:
    """Read a sum or difference with a constant; a constant minus an image has a negative multiplier."""
    constant, x = split_operands(context.graph, op)
    y = context.graph.output(op)
    assert constant is not None
    low, high = clamp(y, op.options.fusedActivationFunction)
    ratio = np.float64(quantization(constant).scales[0]) / np.float64(quantization(x).scales[0])
    biases = np.rint(_centred(constant, y) * ratio)
    multiplier = unary_multiplier(x, y)
    if op.name == "SUB":
        biases = -biases
        if context.graph.tensors[op.inputs[0]].is_constant:
            multiplier = np.float32(-multiplier)
    info = np.iinfo(np.int32)
    constants = np.clip(biases, info.min, info.max).astype(np.int32).tobytes()
    return read_spread(context, op, x, lambda source: PerChannel(
        op.title, source, y.index, zero_point(x), zero_point(y), bits(multiplier), low, high, constants=constants,
        added=True))


def _centred(constant: Tensor, y: Tensor) -> npt.NDArray[np.int64]:
    """Return the values of a constant minus its zero point, one per channel of the result."""
    values = constant.array().reshape(-1).astype(np.int64) - quantization(constant).zero_point
    return np.broadcast_to(values, y.shape[-1:])


__all__ = ["PerChannel", "is_per_channel", "read_scaled", "read_shifted", "scaled", "split_operands"]
