"""The order in which a model's operators are cut into segments, and where it may be cut.

Both follow the partitioner in Google's public libcoral, which documents what ``--num_segments``
does: operators in topological order, depth first, those whose results nobody consumes as late as
possible; every result of the model comes out of the last segment.
"""

from __future__ import annotations

from collections import Counter

from compiler.graph import Graph


def execution_order(graph: Graph) -> tuple[int, ...]:
    """Return the operators' indices in the order in which segments take them."""
    followers: dict[int, list[int]] = {op.index: [] for op in graph.operators}
    for tensor in sorted(graph.producers):
        for consumer in graph.consumers.get(tensor, ()):
            followers[graph.producers[tensor].index].append(consumer.index)
    waiting = Counter(i for found in followers.values() for i in found)
    stack = [op.index for op in graph.operators if not waiting[op.index]]
    order: list[int] = []
    while stack:
        index = stack.pop()
        order.append(index)
        for follower in followers[index]:
            waiting[follower] -= 1
            if not waiting[follower]:
                # one that nobody waits for goes to the bottom
                stack.insert(len(stack) if followers[follower] else 0, follower)
    return tuple(order)


def last_cut(graph: Graph, order: tuple[int, ...]) -> int:
    """Return how many operators can come before the last segment.

    It begins with the first operator that gives a result of the model, or one that nobody consumes.
    """
    def is_final(index: int) -> bool:
        outputs = graph.operators[index].outputs
        return any(t in graph.outputs for t in outputs) or not any(t in graph.consumers for t in outputs)

    return next((position for position, index in enumerate(order) if is_final(index)), len(order) - 1)
