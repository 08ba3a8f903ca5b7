"""Results that are put together on the host: heads of detectors whose joined boxes and scores are larger than the tiles.

Networks end with images that are reshaped to rows of boxes or scores and joined. The description of an
output says for every row where it arrives (see :mod:`compiler.package.layers`), so that the images may
leave one after the other as they lie on the tiles; neither the reshaped images nor the joined one need
memory. The runtime reads rows of one tile as one stretch, and the distance of rows off the first two.
"""

from __future__ import annotations

from collections.abc import Iterable

from compiler.facts import TILE_COLUMNS
from compiler.graph import Graph
from compiler.lowering.spatial.context import extent_of
from compiler.lowering.spatial.families.concatenation import axis_of
from compiler.lowering.spatial.families.reshape import per_pixel
from compiler.mapping import Subgraph

_COLUMNS = 1
_SINGLE = ("LOGISTIC", "TANH", "RELU", "RELU6", "RELU_N1_TO_1", "QUANTIZE")
"""Functions of single values, which may be applied before images are joined as well as behind."""


def late_tensors(graph: Graph, subgraph: Subgraph) -> frozenset[int]:
    """Return the tensors that need not be put together on the chip: results of reshapes, of their joins, of what follows."""
    found: set[int] = set()
    for output in subgraph.outputs:
        found.update(_tail(graph, subgraph, output))
    return frozenset(found)


def _tail(graph: Graph, subgraph: Subgraph, output: int) -> Iterable[int]:
    members = set(subgraph.operators)
    found, t = [output], output
    if any(op.index in members for op in graph.consumers.get(output, ())):
        return ()
    while True:
        op = graph.producers.get(t)
        if op is None or op.index not in members:
            return ()
        if op.name == "CONCATENATION":
            break
        t = op.inputs[0]
        if op.name not in _SINGLE or not _passes_on(graph, subgraph, t):
            return ()
        found.append(t)
    y, heads = graph.tensors[t], op.inputs
    of_rows = extent_of(y)[0] == 1 and axis_of(y, op) == _COLUMNS
    if not of_rows or len(set(heads)) < len(heads) or not all(_is_head(graph, subgraph, h) for h in heads):
        return ()
    return [*found, *heads] if _begins_with_a_stretch(graph, heads[0]) else ()


def _passes_on(graph: Graph, subgraph: Subgraph, t: int) -> bool:
    """Tell whether one operator reads a tensor, and nobody else."""
    return t not in subgraph.outputs and len(graph.consumers.get(t, ())) == 1


def _is_head(graph: Graph, subgraph: Subgraph, t: int) -> bool:
    op = graph.producers.get(t)
    return op is not None and op.index in subgraph.operators and op.name == "RESHAPE" and _passes_on(graph, subgraph, t)


def _begins_with_a_stretch(graph: Graph, head: int) -> bool:
    """Tell whether the first two rows of a result lie side by side on a tile."""
    x = graph.tensors[graph.producers[head].inputs[0]]
    return per_pixel(x, graph.tensors[head]) > 1 or extent_of(x)[1] > TILE_COLUMNS
