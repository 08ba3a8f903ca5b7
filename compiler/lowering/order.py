"""The order in which the operators of a subgraph run."""

from __future__ import annotations

from heapq import heapify, heappop, heappush

from compiler.graph import Graph
from compiler.mapping import Subgraph


def in_turn(graph: Graph, subgraph: Subgraph) -> tuple[int, ...]:
    """Return the operators in the order of the file, heads first.

    A head is a chain of operators that ends in a result. Each of them has one operand, which is made in the subgraph
    and, from the second on, read by nothing else. Of what can be next, heads come before what other operators wait
    for: so are the heads of an official PoseNet ordered.
    """
    members = {index: place for place, index in enumerate(subgraph.operators)}
    readers = {index: sorted({r.index for t in graph.operators[index].outputs for r in graph.consumers.get(t, ())
                              if r.index in members}) for index in members}
    missing = dict.fromkeys(members, 0)
    for found in readers.values():
        for reader in found:
            missing[reader] += 1
    heads = _heads(graph, subgraph, readers)
    ready = [(index not in heads, place, index) for index, place in members.items() if not missing[index]]
    heapify(ready)
    order = []
    while ready:
        *_, index = heappop(ready)
        order.append(index)
        for reader in readers[index]:
            missing[reader] -= 1
            if not missing[reader]:
                heappush(ready, (reader not in heads, members[reader], reader))
    return tuple(order)


def _heads(graph: Graph, subgraph: Subgraph, readers: dict[int, list[int]]) -> set[int]:
    """Return the operators from which a chain ends in a result, but those that read what comes from the host."""
    heads: set[int] = set()
    for index in reversed(subgraph.operators):
        op = graph.operators[index]
        operands = [t for t in op.inputs if t >= 0 and not graph.tensors[t].is_constant]
        ends = not readers[index] and op.outputs[0] in subgraph.outputs
        goes_on = len(readers[index]) == 1 and readers[index][0] in heads
        if len(op.outputs) == len(operands) == 1 and (ends or goes_on):
            heads.add(index)
    return {index for index in heads if set(subgraph.inputs).isdisjoint(graph.operators[index].inputs)}
