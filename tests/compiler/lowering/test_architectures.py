"""The architectures that people run: mapped as the rules allow, equal to the arithmetic reference, without races."""

from __future__ import annotations

from collections.abc import Callable

import architectures
import numpy as np
import pytest
from networks import random_values, run

from compiler.beagle.judge import try_executables
from compiler.beagle.reference import evaluate
from compiler.compile import compile_model
from compiler.graph import Model, parse_model
from compiler.mapping import map_graph
from compiler.package import encode_input
from compiler.package.container import packages_of

_WITH_TABLES = {"SOFTMAX", "LOGISTIC"}


@pytest.mark.parametrize("name", architectures.__all__)
def test_architecture(name: str) -> None:
    build: Callable[[], Model] = getattr(architectures, name)
    model = build()
    graph = model.main
    compiled = compile_model(model)
    allowed = [v.mapped for v in map_graph(graph).verdicts]
    assert [v.mapped for v in compiled.mapped.verdicts] == allowed, [
        v.reason for v in compiled.mapped.verdicts if not v.mapped]
    ((_, package),) = packages_of(parse_model(compiled.data))
    values = {t: random_values(graph.tensors[t]) for t in graph.inputs}
    named = {graph.tensors[t].name: array for t, array in values.items()}
    outputs = run(package, named)
    names = {t.name: t.index for t in graph.tensors}
    want = evaluate(graph, values, until=[names[name] for name in outputs])
    pairs = [(array.reshape(-1).astype(int), want[names[name]].reshape(-1).astype(int)) for name, array in outputs.items()]
    differences = np.concatenate([np.abs(ours - theirs) for ours, theirs in pairs])
    largest = 2 if any(op.name in _WITH_TABLES for op in graph.operators) else 1
    assert differences.max() <= largest
    assert np.mean(differences == 0) >= 0.999
    data = {layer.name: encode_input(layer, named[layer.name]) for layer in package.execution.inputs}
    assert not try_executables([e for e in (package.caching, package.execution) if e is not None], data).findings
