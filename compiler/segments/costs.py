"""What a segment takes on an Edge TPU of its own, for every stretch of operators that could become one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from compiler.beagle.timing.costs import Bus
from compiler.facts import TILES
from compiler.graph import Graph
from compiler.mapping.mapper import partition
from compiler.memory.demand import Kind, ModelDemand, ParameterTensor
from compiler.memory.plan import plan_cache
from compiler.segments.segment import boundary
from compiler.segments.times import ARRANGED, OperatorTimes

Floats = npt.NDArray[np.float64]
_CERTAIN = 0.9
"""Tensors that take no more than this share of the memory find room whatever their sizes."""


class SegmentCosts:
    """Latency of stretches of operators, microseconds.

    A segment waits for its inputs to reach the chip, computes while parameters that found no on-chip memory
    stream in, gives its outputs to the host and runs what is left on the CPU. Parameters in on-chip memory cost
    nothing: a segment has its Edge TPU for itself.

    Parameters
    ----------
    order:
        Operators in execution order; stretches are given by positions in it.
    on_tpu:
        Per operator index whether it could run on the Edge TPU.
    demands:
        What the networks of the whole model ask of parameter memory.
    """

    def __init__(self, graph: Graph, order: Sequence[int], on_tpu: Sequence[bool], demands: Sequence[ModelDemand],
                 times: OperatorTimes, bus: Bus) -> None:
        self._graph = graph
        self._order = order
        self._bus = bus
        self._mapped = on_tpu
        self._compute = [times.edge_tpu_us(op) for op in graph.operators]
        self._cpu = [times.cpu_us(op) for op in graph.operators]
        self._tensors = _by_operator(graph, demands)
        self._staging_row = min((d.staging_row for d in demands), default=0)
        self._known: dict[tuple[int, int], float] = {}
        self._parts: dict[tuple[int, int], frozenset[int]] = {}

    def matrix(self) -> Floats:
        """Return the cost of every stretch, indexed by its first position and the position behind its last one."""
        count = len(self._order)
        costs = np.full((count + 1, count + 1), np.inf)
        for first in range(count):
            for last in range(first + 1, count + 1):
                costs[first, last] = self(first, last)
        return costs

    def __call__(self, first: int, last: int) -> float:
        """Return the latency of the operators at positions ``first`` to ``last - 1``."""
        if (first, last) not in self._known:
            self._known[first, last] = self._latency(self._first_part(self._order[first:last]), self._order[first:last])
        return self._known[first, last]

    def correct(self, first: int, last: int, on_tpu: Iterable[int]) -> None:
        """State which operators of a stretch really run on the Edge TPU."""
        part = [i for i in self._order[first:last] if i in set(on_tpu)]
        self._parts[first, last] = frozenset(part)
        self._known[first, last] = self._latency(part, self._order[first:last])

    def on_tpu(self, first: int, last: int) -> frozenset[int]:
        """Return the operators of a stretch that run on the Edge TPU, as far as is known."""
        if (first, last) not in self._parts:
            self._parts[first, last] = frozenset(self._first_part(self._order[first:last]))
        return self._parts[first, last]

    def _first_part(self, operators: Sequence[int]) -> Sequence[int]:
        """The operators that one custom operator could hold: the first subset of the partition."""
        part = operators
        if not all(self._mapped[i] for i in operators):
            part = next(iter(partition(self._graph, self._mapped, operators)), ())
        # a program needs something to compute
        return () if all(self._graph.operators[i].name in ARRANGED for i in part) else part

    def _latency(self, part: Sequence[int], operators: Sequence[int]) -> float:
        host = sum(self._cpu[i] for i in set(operators) - set(part))
        if not part:
            return host
        inputs, outputs = boundary(self._graph, part)
        outputs += [t for t in self._graph.outputs if t not in outputs and self._graph.producers[t].index in set(part)]
        tensors = self._graph.tensors
        to_chip = sum(tensors[t].elements for t in inputs) / self._bus.to_chip
        to_host = sum(tensors[t].elements for t in outputs) / self._bus.to_host
        streaming = self._streamed(part) / self._bus.to_chip
        transfers = self._bus.transfer_us * (len(inputs) + len(outputs))
        return (self._bus.overhead_us + transfers + to_chip + max(sum(self._compute[i] for i in part), streaming) + to_host
                + host)

    def _streamed(self, part: Sequence[int]) -> int:
        """Bytes of parameters that find no on-chip memory."""
        tensors = tuple(t for i in sorted(part) for t in self._tensors[i])
        local = sum(t.rows for t in tensors if t.kind is Kind.LOCAL)
        fits = local <= self._staging_row and sum(t.total_rows for t in tensors) <= _CERTAIN * TILES * self._staging_row
        if fits and all(t.cacheable for t in tensors):
            return 0
        return plan_cache([ModelDemand("segment", tensors, self._staging_row)]).models[0].streamed


def _by_operator(graph: Graph, demands: Sequence[ModelDemand]) -> list[list[ParameterTensor]]:
    """Sort parameter tensors by the operator that their name begins with."""
    titles = {op.title: op.index for op in graph.operators}
    found: list[list[ParameterTensor]] = [[] for _ in graph.operators]
    for demand in demands:
        for tensor in demand.tensors:
            title = next(t for t in titles if tensor.name == t or tensor.name.startswith(f"{t} "))
            found[titles[title]].append(tensor)
    return found
