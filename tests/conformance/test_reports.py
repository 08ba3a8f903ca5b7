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
    return CompiledModel(model, b"", map_graph(model.main, options), plans=(), parts=(), on_chip_used=0, on_chip_remaining=0,
                         off_chip=0, seconds=0.0)


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
    """Sizes and counts."""
    published = [pair for pair in pairs if pair.facts["stdout"]]
    assert published
    for pair in published:
        fields = pair.facts["stdout"]
        official = as_mapped_officially(pair)
        assert size_text(official.source.size) == fields["input_size"]
        assert len(official.mapped.verdicts) == int(fields["total_number_of_operations"])
        assert official.subgraphs == int(fields["number_of_edge_tpu_subgraphs"])


MEMORY = ["Off-chip memory used for streaming uncached", "On-chip memory used for caching"]


@pytest.mark.parametrize("name", MEMORY)
def test_memory_lines(pairs: list[Pair], name: str) -> None:
    """Where our compiler maps as much as the official one; all published blocks are of compiler 1.0."""
    pair = next(pair for pair in pairs if pair.facts["stdout"])
    ours = compile_model(read_model(pair.source), CompileOptions(pair.facts["min_runtime_version"]))
    if ours.on_edge_tpu < as_mapped_officially(pair).on_edge_tpu:
        pytest.skip("not all of it is mapped yet")
    lines = model_block(ours, "x", pair.compiled, show_operations=False).splitlines()
    key = f"{name} model parameters".lower().replace(" ", "_")
    assert f"{name} model parameters: {pair.facts['stdout'][key]}" in lines
