"""What operators take by themselves: from the cycle model of the compiled whole, or from shapes alone.

From shapes, the Edge TPU's time is that of its compute engines: beats of the busiest tile at the fitted
cycles per beat (docs/cycle-model.md). It resolves no waiting and no moves. The CPU's time is that of a
small ARM core.
"""

from __future__ import annotations

from math import prod
from typing import Protocol

from compiler.beagle.timing import estimate
from compiler.beagle.timing.costs import Bus, Costs
from compiler.beagle.timing.trace import Work
from compiler.compile import CompiledModel
from compiler.facts import LANE_BYTES, LANES, TILE_COLUMNS, TILE_ROWS, TILES
from compiler.graph import Graph, Operator, parse_model
from compiler.package.container import packages_of

_CPU_MACS_PER_US = 4000.0
"""Multiply-accumulates of int8 that one core of a Dev Board does with TensorFlow Lite's kernels."""
_CPU_ELEMENTS_PER_US = 400.0
_WEIGHTED = ("CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV")
_POOLS = ("AVERAGE_POOL_2D", "MAX_POOL_2D")
ARRANGED = ("RESHAPE", "SQUEEZE", "EXPAND_DIMS")
"""Operators that move nothing."""


class OperatorTimes(Protocol):
    """What operators of a graph take, microseconds."""

    def edge_tpu_us(self, op: Operator) -> float:
        """Return the time of an operator's computation on the chip, parameters and transfers not counted."""

    def cpu_us(self, op: Operator) -> float:
        """Return the time of an operator on the host."""


class ShapeTimes:
    """Times from the operators' shapes.

    Parameters
    ----------
    costs:
        Cycles of the chip.
    """

    def __init__(self, graph: Graph, costs: Costs | None = None) -> None:
        costs = costs or Costs()
        self._graph = graph
        self._beat_us = costs.per_element[Work.COMPUTE] / costs.megahertz
        self._start_us = costs.start[Work.COMPUTE] / costs.megahertz

    def edge_tpu_us(self, op: Operator) -> float:
        """See :class:`OperatorTimes`."""
        return 0.0 if op.name in ARRANGED else self._start_us + self._beat_us * self._beats(op)

    def cpu_us(self, op: Operator) -> float:
        """See :class:`OperatorTimes`."""
        elements = sum(self._graph.tensors[t].elements for t in op.outputs if t >= 0)
        return self._multiplications(op) / _CPU_MACS_PER_US + elements / _CPU_ELEMENTS_PER_US

    def _beats(self, op: Operator) -> int:
        """Beats of the busiest tile: steps of four input channels for 64 results, one per word of these at least."""
        y = self._graph.output(op)
        height, width, channels = (1, 1, 1, *y.shape)[-3:]
        pixels = _up(height, TILE_ROWS) * _up(width, TILE_COLUMNS)
        kernel = self._graph.input(op, 1)
        words = _up(min(channels, LANES), LANE_BYTES)
        if op.name == "FULLY_CONNECTED" and kernel is not None:
            return max(_up(kernel.shape[-1], LANE_BYTES), words) * _up(_up(kernel.shape[0], LANES), TILES)
        groups = _up(channels, LANES)
        if op.name in _WEIGHTED and kernel is not None:
            depth = 1 if op.name == "DEPTHWISE_CONV_2D" else _up(kernel.shape[3], LANE_BYTES)
            return pixels * groups * max(kernel.shape[1] * kernel.shape[2] * depth, words)
        if op.name in _POOLS and op.options is not None:
            return pixels * groups * max(int(op.options.filterHeight) * int(op.options.filterWidth), words)
        x = self._graph.input(op, 0)
        moved = max(y.elements, x.elements if x is not None else 0)
        return _up(moved, LANE_BYTES * TILES)

    def _multiplications(self, op: Operator) -> int:
        kernel, y = self._graph.input(op, 1), self._graph.output(op)
        if kernel is None or op.name not in (*_WEIGHTED, "FULLY_CONNECTED"):
            return 0
        if op.name == "DEPTHWISE_CONV_2D":
            return y.elements * prod(kernel.shape[1:3])
        return y.elements * prod(kernel.shape[1:])


class ProgramTimes(ShapeTimes):
    """Times from the programs of a compiled model: how much later an inference ends because of an operator.

    Operators whose parameters were streamed count with the work of their busiest engine: in a segment they may be
    cached. Operators that the programs do not show count with nothing on the Edge TPU, they were absorbed.

    Parameters
    ----------
    compiled:
        With all its Edge TPU subgraphs.
    """

    def __init__(self, compiled: CompiledModel, bus: Bus) -> None:
        super().__init__(compiled.mapped.graph)
        self._known: dict[str, float] = {}
        for (_, package), parts in zip(packages_of(parse_model(compiled.data)), compiled.parts, strict=True):
            for cost in estimate(package, bus, parts=parts).operators:
                work = max(cost.compute_us, cost.moves_us)
                self._known[cost.name] = work if cost.streamed_bytes else cost.latency_us

    def edge_tpu_us(self, op: Operator) -> float:
        """See :class:`OperatorTimes`."""
        return self._known.get(op.title, 0.0)


def _up(value: int, step: int) -> int:
    return -(-value // step)
