"""Segments of a model as models of their own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

from compiler.graph import Graph, Model, serialize_model
from compiler.graph.parts import part_of


def segments_of(model: Model, order: Sequence[int], ends: Sequence[int]) -> tuple[Model, ...]:
    """Cut a model.

    Parameters
    ----------
    order:
        Operators in execution order.
    ends:
        Where each segment ends in it.

    Returns
    -------
    tuple of Model
        Named ``X_segment_0_of_N.tflite``; the model itself if there is one only. Tensors keep their names, by
        which segments exchange them: each takes what it needs from graph inputs and any earlier segment, and
        gives what a later one needs. The first one takes all inputs of the model, because that is where a
        pipeline is fed; the last one gives the results of the model in their order.
    """
    count = len(ends)
    if count == 1:
        return (model,)
    cut = [segment_of(model, order[begin:end], f"_segment_{i}_of_{count}", is_first=i == 0, is_last=i == count - 1)
           for i, (begin, end) in enumerate(pairwise((0, *ends)))]
    return tuple(replace(segment, size=len(serialize_model(segment))) for segment in cut)


def segment_of(model: Model, operators: Sequence[int], suffix: str, *, is_first: bool, is_last: bool) -> Model:
    """Make a model of some operators; its name ends in ``suffix``."""
    graph = model.main
    inputs, outputs = boundary(graph, operators)
    part, _ = part_of(graph, [graph.operators[i] for i in operators], graph.inputs if is_first else inputs,
                      graph.outputs if is_last else outputs)
    path = Path(model.source)
    return replace(model.with_main(part), source=str(path.with_name(f"{path.stem}{suffix}{path.suffix}")), metadata=(),
                   signatures=(), size=0)


def boundary(graph: Graph, operators: Sequence[int]) -> tuple[list[int], list[int]]:
    """Return the tensors that a segment takes and those that it gives to later ones.

    Graph inputs come first, then results of earlier segments in the order of their operators.
    """
    members = set(operators)
    made = {t for i in operators for t in graph.operators[i].outputs}
    taken = {t for i in operators for t in graph.operators[i].inputs if t >= 0 and t not in made
             and not graph.tensors[t].is_constant and not graph.tensors[t].is_variable}
    inputs = [t for t in graph.inputs if t in taken]
    inputs += sorted(taken - set(inputs), key=lambda t: (graph.producers[t].index, t) if t in graph.producers else (-1, t))
    outputs = [t for i in sorted(operators) for t in graph.operators[i].outputs
               if any(c.index not in members for c in graph.consumers.get(t, ()))]
    return inputs, outputs
