"""Detectors whose joined boxes and scores are larger than the tiles: the host puts them together."""

from __future__ import annotations

import pytest
from networks import Net, check
from small_networks import little_memory

from compiler.compile import CompiledModel, compile_model
from compiler.graph import Model, TensorType, parse_model
from compiler.package import Layer
from compiler.package.container import packages_of

TILES = 16


def _detector(classes: int, anchors: int, *, kind: TensorType = TensorType.INT8, same_scale: bool = True) -> Model:
    """Boxes and scores of scales down to a single pixel, scores through LOGISTIC and for a host of uint8."""
    net = Net((10, 11, 12), kind)
    b, features = net.b, [net.x]
    for _ in range(3):
        features.append(net.conv(16, stride=2).x)
    features.append(net.conv(16, (2, 2), padding="VALID").x)
    joined = []
    for size in (4, classes):
        heads = []
        for x in features:
            head = net.at(x).conv(size * anchors, 1, activation="NONE")
            head = head.rescale(0.2) if same_scale else head
            heads.append(b.reshape(head.x, (1, b.shape(x)[1] * b.shape(x)[2] * anchors, size)))
        joined.append(b.concatenation(heads, axis=1, scale=0.2, zero_point=net.zero + 3))
    scores = b.logistic(joined[1])
    if kind is TensorType.INT8:
        scores = b.quantize(scores, type=TensorType.UINT8, scale=1 / 256)
    return net.finish([joined[0], scores])


def _outputs(compiled: CompiledModel) -> tuple[Layer, ...]:
    ((_, package),) = packages_of(parse_model(compiled.data))
    return package.execution.outputs


CASES = {"odd classes": (5, 3, TensorType.INT8, True), "whole words": (8, 2, TensorType.UINT8, True),
         "other scales": (7, 6, TensorType.INT8, False)}


@pytest.mark.parametrize("name", CASES)
def test_results_larger_than_the_tiles_are_put_together_on_the_host(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    classes, anchors, kind, same = CASES[name]
    model = _detector(classes, anchors, kind=kind, same_scale=same)
    ordinary = _outputs(compile_model(model))
    assert all(_tiles(layer) <= TILES for layer in ordinary)
    little_memory(monkeypatch, 2300)
    together = _outputs(check(model, judge=True))
    assert all(_tiles(layer) > TILES for layer in together)
    assert [(layer.name, layer.y, layer.x, layer.z) for layer in together] == [
        (layer.name, layer.y, layer.x, layer.z) for layer in ordinary]


def _tiles(layer: Layer) -> int:
    assert layer.layout is not None
    return len(layer.layout.tile_offset)
