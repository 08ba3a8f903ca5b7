"""The custom operator in a model: put packages in, take them out."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from compiler.errors import PackageError
from compiler.facts import CUSTOM_OPERATOR
from compiler.graph import Graph, Model, Operator, Quantization, Tensor
from compiler.graph.model import Signature
from compiler.graph.parts import part_of
from compiler.package.model import Package
from compiler.package.options import read_custom_options
from compiler.package.reader import read_package

_CUSTOM_CODE = 32
DESCRIPTION = "Exported from Subgraph."


def packages_of(model: Model) -> list[tuple[Operator, Package]]:
    """Return the custom operators of a compiled model and their packages.

    Raises
    ------
    PackageError
        When one of them is damaged.
    """
    found = []
    for op in model.main.operators:
        if op.custom_name == CUSTOM_OPERATOR:
            what = f"{model.source}: {op.title}"
            options = b"" if op.custom_options is None else op.custom_options.tobytes()
            found.append((op, read_package(read_custom_options(options, what).package, what)))
    return found


def with_custom_operators(model: Model, parts: Sequence[tuple[Sequence[int], Sequence[int], Sequence[int], bytes]]) -> Model:
    """Replace sets of operators by custom operators.

    Parameters
    ----------
    parts:
        Per custom operator: indices of the operators it replaces, its input and output tensors, its
        options.

    Returns
    -------
    Model
        With the tensors that are still used, in their old order.

    Raises
    ------
    PackageError
        When a part both feeds and needs the same operators outside of it.
    """
    graph = model.main
    replaced = {i for operators, *_ in parts for i in operators}
    nodes = [(op.index, op) for op in graph.operators if op.index not in replaced]
    nodes += [(min(operators), _custom(inputs, outputs, options)) for operators, inputs, outputs, options in parts]
    ordered = _in_order(graph, sorted(nodes, key=lambda node: node[0]))
    part, number = part_of(graph, ordered, graph.inputs, graph.outputs)
    # Version 1 of every operator, as in official files: kernels look at the types of their tensors, and
    # interpreters that are older than the converter accept it.
    new = replace(part, tensors=tuple(map(_clean, part.tensors)),
                  operators=tuple(replace(op, version=1) for op in part.operators))
    return replace(model.with_main(new), description=DESCRIPTION, signatures=_renumbered(model.signatures, number))


def _custom(inputs: Sequence[int], outputs: Sequence[int], options: bytes) -> Operator:
    return Operator(0, "CUSTOM", tuple(inputs), tuple(outputs), custom_name=CUSTOM_OPERATOR,
                    custom_options=np.frombuffer(options, np.uint8), code=_CUSTOM_CODE)


def _in_order(graph: Graph, nodes: list[tuple[int, Operator]]) -> list[Operator]:
    """Sort operators so that every one comes after those that feed it."""
    written = {t for _, op in nodes for t in op.outputs}
    ready = {t.index for t in graph.tensors if t.index not in written} | {-1}
    ordered: list[Operator] = []
    waiting = [op for _, op in nodes]
    while waiting:
        op = next((op for op in waiting if all(t in ready for t in op.inputs)), None)
        if op is None:
            raise PackageError(f"{graph.name or 'the graph'}: a part for the Edge TPU needs results of operators that "
                               "need its own results.")
        waiting.remove(op)
        ordered.append(op)
        ready.update(op.outputs)
    return ordered


def _clean(tensor: Tensor) -> Tensor:
    """Calibration ranges and open dimensions end here: programs are made for one shape."""
    q = tensor.quantization
    raw = copy.copy(tensor.raw) if tensor.raw is not None else None
    if raw is not None and raw.quantization is not None:
        raw.quantization = copy.copy(raw.quantization)
        raw.quantization.min = raw.quantization.max = None
    return replace(tensor, quantization=None if q is None else Quantization(q.scales, q.zero_points, q.axis),
                   raw=raw, signature=())


def _renumbered(signatures: Sequence[Signature], number: dict[int, int]) -> tuple[Signature, ...]:
    """Keep signatures whose tensors all still exist."""
    kept = []
    for signature in signatures:
        if all(t in number for _, t in (*signature.inputs, *signature.outputs)):
            kept.append(replace(signature, inputs=tuple((n, number[t]) for n, t in signature.inputs),
                                outputs=tuple((n, number[t]) for n, t in signature.outputs)))
    return tuple(kept)
