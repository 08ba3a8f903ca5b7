"""Operation logs and memory lines of published compilations, line by line."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from compiler.compile import CompiledModel, CompileOptions, compile_model
from compiler.graph import read_model
from compiler.mapping import MappingOptions, map_graph
from compiler.report.official import model_block, operation_log, size_text

if TYPE_CHECKING:
    from conftest import Pair

pytestmark = pytest.mark.corpus


def as_mapped_officially(pair: Pair) -> CompiledModel:
    model = read_model(pair.source)
    options = MappingOptions(pair.facts["min_runtime_version"], multiple_subgraphs=pair.facts["custom_ops"] > 1)
    return CompiledModel(model, b"", map_graph(model.main, options), (), 0, 0, 0, 0.0)


def test_logs(pairs: list[Pair]) -> None:
    """Every row of every log; their order is not specified. Rows of other compiler versions' headers differ."""
    logs = [pair for pair in pairs if pair.facts["log"]]
    assert len(logs) > 30
    for pair in logs:
        corpus = Path(str(pair.source).removesuffix(pair.facts["source"]))
        official = (corpus / pair.facts["log"]).read_text().splitlines()
        source, output = official[1].removeprefix("Input: "), official[2].removeprefix("Output: ")
        ours = operation_log(as_mapped_officially(pair), source, output).splitlines()
        assert official[0].startswith("Edge TPU Compiler version ")
        assert ours[1:6] == official[1:6], pair.name
        assert sorted(filter(None, ours[6:])) == sorted(filter(None, official[6:])), pair.name


def test_standard_output(pairs: list[Pair]) -> None:
    """Sizes, counts and, where our compiler maps as much, the memory lines."""
    published = [pair for pair in pairs if pair.facts["stdout"]]
    assert published
    for pair in published:
        fields = pair.facts["stdout"]
        official = as_mapped_officially(pair)
        assert size_text(official.source.size) == fields["input_size"]
        assert len(official.mapped.verdicts) == int(fields["total_number_of_operations"])
        assert official.subgraphs == int(fields["number_of_edge_tpu_subgraphs"])
        ours = compile_model(official.source, CompileOptions(pair.facts["min_runtime_version"]))
        if ours.on_edge_tpu == official.on_edge_tpu:
            lines = model_block(ours, "x", pair.compiled, show_operations=False).splitlines()
            for name in ("On-chip memory used for caching", "Off-chip memory used for streaming uncached"):
                key = f"{name} model parameters".lower().replace(" ", "_")
                assert f"{name} model parameters: {fields[key]}" in lines, pair.name
