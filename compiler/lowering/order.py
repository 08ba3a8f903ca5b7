"""The order in which the operators of a subgraph run.

Of the operators that could be next, the one comes whose chain leaves least memory in use; of equals the one that could
be next last, then the first of the file. A chain goes on to a branch, a join or a result. Results are not counted.
"""

from __future__ import annotations

from collections.abc import Sequence

from compiler.facts import LANES, NARROW_BYTES, TILES
from compiler.graph import Graph, Operator
from compiler.mapping import Subgraph

_POOLS = frozenset({"AVERAGE_POOL_2D", "MAX_POOL_2D", "MEAN", "SUM", "REDUCE_MAX", "REDUCE_MIN"})


def in_turn(graph: Graph, subgraph: Subgraph) -> tuple[int, ...]:
    """Return the operators in the order in which they run."""
    return tuple(_Schedule(graph, subgraph).run())


class _Schedule:
    """Operators that ran, those that can be next, and who still reads what."""

    def __init__(self, graph: Graph, subgraph: Subgraph) -> None:
        self._graph = graph
        self._order: list[int] = []
        self._place = {index: place for place, index in enumerate(subgraph.operators)}
        self._results = frozenset(subgraph.outputs)
        self._operands = {i: _operands(graph, graph.operators[i]) for i in subgraph.operators}
        self._readers: dict[int, list[int]] = {}
        for i, found in self._operands.items():
            for t in found:
                self._readers.setdefault(t, []).append(i)
        self._left = {t: len(found) for t, found in self._readers.items()}
        made = {t for i in subgraph.operators for t in graph.operators[i].outputs}
        self._missing = {i: made.intersection(found) for i, found in self._operands.items()}
        self._ready = {i: 0 for i, found in self._missing.items() if not found}
        self._away: set[int] = set()

    def run(self) -> Sequence[int]:
        """Let all operators run."""
        while self._ready:
            self._take(min(self._ready, key=self._rank) if len(self._ready) > 1 else next(iter(self._ready)))
        return self._order

    def _rank(self, index: int) -> tuple[int, int, int]:
        return self._left_by(index), -self._ready[index], self._place[index]

    def _take(self, index: int) -> None:
        del self._ready[index]
        self._order.append(index)
        op = self._graph.operators[index]
        for t in self._operands[index]:
            self._left[t] -= 1
        self._send_away(op)
        for t in op.outputs:
            for reader in self._readers.get(t, ()):
                self._missing[reader].discard(t)
                if not self._missing[reader]:
                    self._ready[reader] = len(self._order)

    def _left_by(self, index: int) -> int:
        """Bytes that a chain leaves in memory, less those that it frees."""
        op: Operator | None = self._graph.operators[index]
        freed = sum(self._bytes(t) for t in self._operands[index] if self._left[t] == 1 and t not in self._away)
        left = 0
        while op is not None:
            gathered = self._gathered(op)
            left = gathered or sum(self._bytes(t) for t in op.outputs if t not in self._results)
            op = None if gathered else self._follower(op)
        return left - freed

    def _follower(self, op: Operator) -> Operator | None:
        """Return the operator that continues a chain: the only reader of its result, which reads nothing else."""
        if len(op.outputs) > 1 or op.outputs[0] in self._results:
            return None
        readers = self._readers.get(op.outputs[0], [])
        alone = len(readers) == 1 and len(self._operands[readers[0]]) == 1
        return self._graph.operators[readers[0]] if alone else None

    def _send_away(self, op: Operator) -> None:
        """Note an image that cannot stay beside two copies of what a pool gathers: what else reads it fetches it again."""
        if (gathered := self._gathered(op)) and 2 * gathered + self._bytes(op.inputs[0]) // TILES > NARROW_BYTES:
            self._away.add(op.inputs[0])

    def _gathered(self, op: Operator) -> int:
        """Bytes that a pool over a whole image brings together on a tile, up to 64 channels; a chain ends with them."""
        if op.name not in _POOLS:
            return 0
        source = self._graph.tensors[op.inputs[0]]
        channels = source.shape[-1]
        whole = self._graph.output(op).elements == channels < source.elements
        return source.elements // channels * min(channels, LANES) if whole else 0

    def _bytes(self, number: int) -> int:
        return self._graph.tensors[number].elements


def _operands(graph: Graph, op: Operator) -> tuple[int, ...]:
    return tuple(dict.fromkeys(t for t in op.inputs if t >= 0 and not graph.tensors[t].is_constant))
