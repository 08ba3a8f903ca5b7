"""The cut of ``--num_segments``: about equally many parameter bytes in every segment."""

from __future__ import annotations

from collections.abc import Sequence

from compiler.errors import CompilationError
from compiler.graph import Graph


def parameter_bytes(graph: Graph) -> tuple[int, ...]:
    """Return the bytes of constant operands of every operator; custom operators count as none."""
    return tuple(0 if op.custom_name else sum(data.nbytes for t in op.inputs if t >= 0
                                              and (data := graph.tensors[t].data) is not None)
                 for op in graph.operators)


def check_count(count: int, possible: int, source: str) -> None:
    """Refuse more segments than can be cut.

    Raises
    ------
    CompilationError
        With the largest number.
    """
    if count - 1 > possible:
        raise CompilationError(f"{source}: cannot be cut into {count} segments: only {possible} operators come before the "
                               "first result, and every segment takes one at least.",
                               advice=f"Ask for {possible + 1} segments." if possible else "Compile it as one model.")


def cut_by_parameters(sizes: Sequence[int], count: int, possible: int) -> tuple[int, ...]:
    """Return where the segments end.

    Each but the last takes operators until the next one would bring it over the average.

    Parameters
    ----------
    sizes:
        Parameter bytes of the operators in execution order.
    count:
        Segments.
    possible:
        Operators that can come before the last segment, at least ``count - 1``.

    Returns
    -------
    tuple of int
        Positions in the order, one per segment, the last one the number of operators.
    """
    average = sum(sizes) // count + 1
    ends: list[int] = []
    end = 0
    for segment in range(count - 1):
        latest = possible - (count - 2 - segment)
        size, end = sizes[end], end + 1
        while end < latest and size + sizes[end] <= average:
            size, end = size + sizes[end], end + 1
        ends.append(end)
    return (*ends, len(sizes))
