"""Reading and writing the files of the corpus, source models and officially compiled ones alike."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ai_edge_litert.schema_py_generated as schema
import numpy as np
import pytest

from compiler.graph import parse_model, read_model, serialize_model

pytestmark = pytest.mark.corpus


def leaves(tree: Any, path: str = "model") -> Iterator[tuple[str, object]]:
    """Yield every value of a tree of schema objects with its place, absence included."""
    if isinstance(tree, np.ndarray):
        yield path, (tree.dtype.str, tree.tobytes())
    elif isinstance(tree, list):
        yield path, len(tree)
        for i, element in enumerate(tree):
            yield from leaves(element, f"{path}[{i}]")
    elif hasattr(tree, "__dict__"):
        yield path, type(tree).__name__
        for name, value in vars(tree).items():
            yield from leaves(value, f"{path}.{name}")
    else:
        yield path, tree


def unpacked(data: bytes) -> dict[str, object]:
    return dict(leaves(schema.ModelT.InitFromObj(schema.Model.GetRootAs(data, 0))))


def test_round_trip_keeps_every_table(pairs: list[Any]) -> None:
    files = sorted({path for pair in pairs for path in (pair.source, pair.compiled)})
    assert len(files) >= len(pairs)
    for path in files:
        data = path.read_bytes()
        written = unpacked(serialize_model(parse_model(data, path.name)))
        before = unpacked(data)
        assert {k: v for k, v in written.items() if before.get(k, "?") != v} == {}, path
        assert before.keys() == written.keys(), path


def test_graph_states_what_the_file_states(pairs: list[Any]) -> None:
    """Compare with the accessors of the bindings, which share no code with the reader."""
    for path in sorted({pair.source for pair in pairs}):
        raw = schema.Model.GetRootAs(Path(path).read_bytes(), 0).Subgraphs(0)
        graph = read_model(path).main
        assert len(graph.operators) == raw.OperatorsLength(), path
        for tensor in graph.tensors:
            table = raw.Tensors(tensor.index)
            assert tensor.name == table.Name().decode(), path
            assert tensor.shape == tuple(table.Shape(i) for i in range(table.ShapeLength())), path
            assert tensor.type == table.Type(), path
            quantization = table.Quantization()
            scales = quantization.ScaleAsNumpy() if quantization is not None else 0
            if isinstance(scales, np.ndarray) and scales.size:
                assert tensor.quantization is not None, path
                assert np.array_equal(tensor.quantization.scales, scales), path
