"""Which operators run on the Edge TPU, and in which subgraphs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from compiler.errors import DynamicShapeError, InvalidModelError, NotQuantizedError, UsageError
from compiler.facts import CUSTOM_OPERATOR, RUNTIME_VERSION_CURRENT
from compiler.graph import Graph, Model, Operator
from compiler.mapping.rules import RULES
from compiler.mapping.status import MAPPED, Status, Verdict
from compiler.records import record

Lowerable = Callable[[Graph, Operator], Verdict | None]
"""Says why an operator cannot be emitted; None when it can."""


@record
class MappingOptions:
    """What the user asks of the mapping.

    Attributes
    ----------
    intermediate_tensors:
        Outputs of the Edge TPU part: operators that depend on them stay on the CPU.
    multiple_subgraphs:
        Map every Edge TPU subgraph, not only the first.
    first_operators:
        Only the first so many operators may run on the Edge TPU; None for all.
    """

    min_runtime_version: int = RUNTIME_VERSION_CURRENT
    intermediate_tensors: tuple[str, ...] = ()
    multiple_subgraphs: bool = False
    first_operators: int | None = None


@record
class Subgraph:
    """Operators that become one custom operator.

    Attributes
    ----------
    operators, inputs, outputs:
        Indices of operators and tensors of the graph.
    """

    operators: tuple[int, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


@record
class MappedGraph:
    """A graph with a verdict for every operator."""

    graph: Graph
    verdicts: tuple[Verdict, ...]
    subgraphs: tuple[Subgraph, ...]


def check_model(model: Model) -> None:
    """Refuse models that no compiler could map.

    Raises
    ------
    InvalidModelError
        Already compiled, dynamic shapes, or not quantized; the message names file and tensor.
    """
    graph = model.main
    if any(op.custom_name == CUSTOM_OPERATOR for op in graph.operators):
        raise InvalidModelError(f"{model.source}: is already compiled for the Edge TPU.",
                                advice="Compile the original .tflite file.")
    dynamic = next((t for t in graph.tensors if t.is_dynamic), None)
    if dynamic is not None:
        shape = list(dynamic.signature or dynamic.shape)
        raise DynamicShapeError(f"{model.source}: tensor {dynamic.name} has the dynamic shape {shape}.",
                                advice="Export the model with fixed input shapes (batch size 1).")
    if not graph.operators:
        raise InvalidModelError(f"{model.source}: has no operators.", advice="There is nothing to compile.")
    if not any(t.type.is_8bit and t.quantization is not None for op in graph.operators for t in graph.activations(op)):
        bad = next((t for op in graph.operators for t in graph.activations(op) if not t.type.is_8bit), graph.tensors[0])
        raise NotQuantizedError(f"{model.source}: Model not quantized (tensor {bad.name} is {bad.type.name}).",
                                advice="Convert it with full integer quantization to int8.")


def official_verdict(graph: Graph, op: Operator, runtime: int) -> Verdict:
    """Return the verdict of the rules."""
    return next((v for rule in RULES if (v := rule(graph, op, runtime)) is not None), MAPPED)


def map_graph(graph: Graph, options: MappingOptions | None = None, lowerable: Lowerable | None = None) -> MappedGraph:
    """Decide where every operator runs.

    Parameters
    ----------
    lowerable:
        Objections of the code generator; without it the verdicts are the official compiler's.

    Raises
    ------
    UsageError
        When an intermediate tensor does not exist.
    """
    options = options or MappingOptions()
    verdicts = [official_verdict(graph, op, options.min_runtime_version) for op in graph.operators]
    for i in _behind(graph, options.intermediate_tensors):
        if verdicts[i].mapped:
            verdicts[i] = Verdict(_left_out(graph, graph.operators[i]), f"{graph.operators[i].title} lies behind an "
                                  "intermediate tensor.")
    for op in graph.operators[options.first_operators:] if options.first_operators is not None else ():
        if verdicts[op.index].mapped:
            verdicts[op.index] = Verdict(_left_out(graph, op), f"{op.title} is not among the first "
                                         f"{options.first_operators} operators, which the search for a delegate took.")
    if lowerable is not None:
        for op in graph.operators:
            objection = lowerable(graph, op) if verdicts[op.index].mapped else None
            if objection is not None:
                verdicts[op.index] = objection
    parts = partition(graph, [v.mapped for v in verdicts])
    kept = parts if options.multiple_subgraphs else parts[:1]
    for part in parts[len(kept):]:
        first = graph.operators[part[0]]
        for i in part:
            op = graph.operators[i]
            verdicts[i] = Verdict(_left_out(graph, op), f"{op.title} belongs to a second Edge TPU subgraph "
                                  f"that begins with {first.title}: {_cut(graph, verdicts, part)}",
                                  "Move what runs on the CPU to the end, or use --enable_multiple_subgraphs.")
    return MappedGraph(graph, tuple(verdicts), tuple(_subgraph(graph, part) for part in kept))


def _left_out(graph: Graph, op: Operator) -> Status:
    """Return the status of an operator that could be mapped and is not.

    Official logs name it by the subgraph, except for QUANTIZE between int8 and uint8.
    """
    converts = op.name == "QUANTIZE" and len({t.type for t in graph.activations(op)}) > 1
    return Status.LIMITATION if converts else Status.SUBGRAPH


def _cut(graph: Graph, verdicts: Sequence[Verdict], part: Sequence[int]) -> str:
    """Name a CPU operator that feeds a subgraph."""
    for i in part:
        for t in graph.operators[i].inputs:
            producer = graph.producers.get(t)
            if producer is not None and not verdicts[producer.index].mapped:
                return f"{producer.title} before it runs on the CPU."
    return "the graph is cut before it."


def _behind(graph: Graph, names: Sequence[str]) -> list[int]:
    """Operators that depend on the named tensors."""
    by_name = {t.name: t.index for t in graph.tensors}
    missing = [name for name in names if name not in by_name]
    if missing:
        raise UsageError(f"there is no tensor named {missing[0]} in the model.",
                         advice="List the tensor names with: etpu inspect MODEL")
    reached = {by_name[name] for name in names}
    behind = []
    for op in graph.operators:
        if reached.intersection(op.inputs):
            behind.append(op.index)
            reached.update(op.outputs)
    return behind


def partition(graph: Graph, mapped: Sequence[bool], operators: Sequence[int] | None = None) -> list[tuple[int, ...]]:
    """Cut operators into subsets as TensorFlow Lite's delegate partitioner does; returns the mapped ones.

    Parameters
    ----------
    mapped:
        Per operator of the graph.
    operators:
        Those to cut, in execution order; all by default.
    """
    waiting = list(range(len(graph.operators)) if operators is None else operators)
    made = {t for i in waiting for t in graph.operators[i].outputs}
    ready = {t.index for t in graph.tensors if t.index not in made}
    parts: list[tuple[int, ...]] = []

    def runnable(i: int) -> bool:
        return all(t < 0 or t in ready for t in graph.operators[i].inputs)

    while waiting:
        first = next((i for i in waiting if runnable(i)), None)
        if first is None:
            break
        kind, part = mapped[first], []
        progress = True
        while progress:
            progress = False
            for i in list(waiting):
                if mapped[i] == kind and runnable(i):
                    part.append(i)
                    waiting.remove(i)
                    ready.update(graph.operators[i].outputs)
                    progress = True
        if kind:
            parts.append(tuple(sorted(part)))
    return parts


def _subgraph(graph: Graph, part: Sequence[int]) -> Subgraph:
    """Work out inputs and outputs of a set of operators."""
    inside = {t for i in part for t in graph.operators[i].outputs}
    inputs = dict.fromkeys(t for i in part for t in graph.operators[i].inputs
                           if t >= 0 and t not in inside and not graph.tensors[t].is_constant)
    members = set(part)
    outputs = [t for i in part for t in graph.operators[i].outputs if t in graph.outputs
               or any(c.index not in members for c in graph.consumers.get(t, ()))]
    return Subgraph(tuple(part), tuple(inputs), tuple(outputs))
