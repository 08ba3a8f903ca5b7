"""Whole compiled files: official ones taken apart and put together again, and made from their source model."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from compiler.graph import Graph, Model, read_model
from compiler.package.container import packages_of, with_custom_operators
from compiler.package.file import serialize_compiled

if TYPE_CHECKING:
    from conftest import Pair

pytestmark = pytest.mark.corpus
CURRENT = 14
"""Runtime version of the compiler whose files are reproduced; older ones aligned differently."""


def current(pairs: list[Pair]) -> list[Pair]:
    found = [pair for pair in pairs if pair.facts["min_runtime_version"] == CURRENT]
    assert len(found) > 30
    return found


def test_official_files_are_rewritten_byte_for_byte(pairs: list[Pair]) -> None:
    for pair in current(pairs):
        assert serialize_compiled(read_model(pair.compiled)) == pair.compiled.read_bytes(), pair.name


def test_source_models_with_official_packages_become_official_files(pairs: list[Pair]) -> None:
    for pair in current(pairs):
        source, official = read_model(pair.source), read_model(pair.compiled)
        parts = [part(source.main, official, op.index) for op, _ in packages_of(official)]
        # The official compiler loses what an interpreter does not hold.
        ours = replace(with_custom_operators(source, parts), metadata=(), signatures=())
        assert serialize_compiled(ours) == pair.compiled.read_bytes(), pair.name


def part(source: Graph, official: Model, index: int) -> tuple[list[int], list[int], list[int], bytes]:
    """Find what a custom operator replaced: everything between its inputs and its outputs."""
    by_name = {t.name: t.index for t in source.tensors}
    op = official.main.operators[index]
    inputs, outputs = ([by_name[official.main.tensors[t].name] for t in ends] for ends in (op.inputs, op.outputs))
    replaced: set[int] = set()
    open_ends = list(outputs)
    while open_ends:
        t = open_ends.pop()
        producer = source.producers.get(t)
        if t not in inputs and producer is not None and producer.index not in replaced:
            replaced.add(producer.index)
            open_ends += [i for i in producer.inputs if i >= 0]
    assert op.custom_options is not None
    return sorted(replaced), inputs, outputs, op.custom_options.tobytes()
