"""Inputs and outputs of official models: their descriptions, and the host buffers they describe."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import pytest

from compiler.graph import Tensor, read_model
from compiler.package import Layer, decode_output, row_starts
from compiler.package.container import packages_of
from compiler.package.layers import grid_layout, input_layer, output_layer

if TYPE_CHECKING:
    from conftest import Pair

pytestmark = pytest.mark.corpus
MOST_BANDS = 4


def layers(pairs: list[Pair], *, outputs: bool) -> Iterator[tuple[str, Layer, Tensor]]:
    """Layers with the tensor of the compiled model that they belong to; state tensors of LSTMs have none."""
    for pair in pairs:
        model = read_model(pair.compiled)
        for operator, package in packages_of(model):
            indices = operator.outputs if outputs else operator.inputs
            tensors = {model.main.tensors[i].name: model.main.tensors[i] for i in indices}
            executable = package.execution
            for layer in executable.outputs if outputs else executable.inputs:
                if layer.name in tensors:
                    yield pair.name, layer, tensors[layer.name]


def test_inputs_are_described_as_official(pairs: list[Pair]) -> None:
    kinds = Counter()
    for name, theirs, tensor in layers(pairs, outputs=False):
        ours = input_layer(tensor)
        assert numerics(ours) == numerics(theirs), name
        assert ours.size == theirs.size, name
        # Some programs begin with a RESHAPE and describe its result: other dimensions, same bytes.
        assert ours.y * ours.x * ours.z == theirs.y * theirs.x * theirs.z, name
        kinds["equal" if ours == theirs else "reshaped"] += 1
    assert kinds["equal"] > 0.95 * kinds.total()


def test_outputs_are_described_as_official(pairs: list[Pair]) -> None:
    kinds = Counter()
    for name, theirs, tensor in layers(pairs, outputs=True):
        assert theirs.layout is not None
        ours = [output_layer(tensor, bands=n) for n in range(1, MOST_BANDS + 1)]
        assert {numerics(o) for o in ours} == {numerics(theirs)}, name
        match = [o for o in ours if o.layout == theirs.layout and o.size == theirs.size]
        if match:
            # Before the current compiler not all outputs stated their shape.
            assert match[0].shape == theirs.shape or theirs.shape is None, name
            kinds["vector" if theirs.y == theirs.x == 1 else "image"] += 1
        else:
            kinds[other_layout(name, theirs)] += 1
    assert kinds["vector"] > 25
    assert kinds["image"] > 50


def other_layout(name: str, layer: Layer) -> str:
    """Name the layouts that old compilers wrote and this one does not: everything else fails."""
    assert layer.layout is not None
    if layer.y == layer.x == 1:
        assert layer.layout.tile_offset == (0,) and layer.layout.row_size == (layer.z,), name
        return "vector on one tile"
    # Padding without anything else: on every other tile row and column only.
    half = [[(layer.y + 1) // 2, 0, layer.y // 2, 0]], [(layer.x + 1) // 2, 0, layer.x // 2, 0]
    assert grid_layout(*half, layer.z)[0] == layer.layout, name
    return "image on four tiles"


def numerics(layer: Layer) -> tuple[object, ...]:
    return layer.name, layer.zero_point, layer.scale, layer.data_type


def test_every_element_of_an_official_output_has_its_own_place(pairs: list[Pair]) -> None:
    count = 0
    for pair in pairs:
        for _, package in packages_of(read_model(pair.compiled)):
            for layer in package.execution.outputs:
                starts = np.sort(row_starts(layer).reshape(-1))
                assert starts[0] >= 0 and (starts[-1] + layer.z) * layer.data_type.bytes <= layer.size, pair.name
                assert (np.diff(starts) >= layer.z).all(), pair.name
                decoded = decode_output(layer, bytes(layer.size))
                assert decoded.shape == (layer.y, layer.x, layer.z)
                count += 1
    assert count >= len(pairs)
