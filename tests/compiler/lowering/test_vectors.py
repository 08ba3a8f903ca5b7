"""Networks of images and vectors in any order, on the simulator against the arithmetic reference."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from compiler.facts import TILES
from compiler.graph import TensorType
from compiler.memory.sharing import Sharing
from tests.compiler.lowering.networks import Net, check


def _inputs() -> Net:
    net = Net((1, 1, 40))
    other = net.b.add_input((1, 90), scale=0.05, zero_point=net.zero, name="second")
    first = net.dense(32).x
    second = net.at(other).dense(32).x
    net.x = net.b.add(first, second, scale=0.4, zero_point=net.zero)
    return net


def _image_and_vector() -> Net:
    net = Net((9, 7, 5))
    other = net.b.add_input((1, 1, 1, 12), scale=0.05, zero_point=net.zero, name="factors")
    image = net.conv(12).x
    net.x = net.b.mul(image, other, scale=0.4, zero_point=net.zero)
    return net


def _squeeze_and_excite() -> Net:
    net = Net((9, 7, 12))
    image = net.conv(24, 1).x
    factors = net.mean().conv(8, 1, activation="RELU").conv(24, 1, activation="NONE").logistic().x
    net.x = net.b.mul(image, factors, scale=0.2, zero_point=net.zero)
    return net.conv(8, 3)


def _join(*sizes: int, scales: bool = False, scale: float = 0.3) -> Net:
    net = Net((1, 1, 30))
    x = net.x
    parts = [net.at(x).dense(n).x for n in sizes]
    if scales:
        parts[0] = net.at(parts[0]).rescale(0.5).x
    net.x = net.b.concatenation(parts, scale=scale, zero_point=net.zero)
    return net


_DENSE_SCALE = 0.05 * 30 ** 0.5
"""Of dense layers on 30 inputs."""


def _softmax_between() -> Net:
    return Net((1, 1, 77)).softmax().dense(130).softmax().dense(6)


def _reshaped(shape: tuple[int, int, int], *to: int) -> Net:
    return Net(shape).conv(shape[2], 1).reshape(1, *to)


NETWORKS: dict[str, Callable[[], Net]] = {
    "two inputs": _inputs,
    "image and vector": _image_and_vector,
    "squeeze and excite": _squeeze_and_excite,
    "joined": lambda: _join(8, 16, 7),
    "joined odd": lambda: _join(3, 1, 70, 2),
    "joined scales": lambda: _join(8, 5, scales=True),
    "written side by side": lambda: _join(3, 1, 6, scale=_DENSE_SCALE).dense(5),
    "softmax between": _softmax_between,
    "logistic, tanh": lambda: Net((1, 1, 300)).dense(200).logistic().dense(300).tanh(),
    "long input": lambda: Net((1, 1, 1030)).rescale(0.1),
    "copies": lambda: Net((1, 1, 20)).rescale(0.05),
    "relu": lambda: Net((1, 1, 150)).unary("RELU").dense(80).unary("RELU6").softmax(),
    "whole kernel": lambda: Net((6, 5, 8)).conv(40, (6, 5), padding="VALID").conv(12, 1),
    "image of a vector": lambda: _reshaped((1, 1, 96), 4, 6, 4).conv(8),
    "image of an odd vector": lambda: _reshaped((1, 1, 90), 5, 6, 3).conv(8),
    "vector of an image": lambda: _reshaped((5, 6, 3), 90).softmax(),
    "vector of a deep image": lambda: _reshaped((5, 6, 8), 240),
    "other image": lambda: _reshaped((6, 8, 5), 8, 6, 5).conv(4),
    "one channel": lambda: _reshaped((7, 9, 1), 63).rescale(0.3),
    "one step in many chunks": lambda: Net((2, 1, 65)).conv(5, 1),
    "dense layer of every pixel": lambda: Net((9, 6, 20)).dense_per_pixel(70, activation="RELU").dense_per_pixel(7),
    "dense layer of every pixel in rows": lambda: Net((5, 7, 8)).conv(16).dense_per_pixel(72, keep=False),
    "dense layers of rows": lambda: Net((6, 6, 8)).conv(12).reshape(1, 36, 12).dense_per_pixel(40, False).dense_per_pixel(9),
    "products of pixels": lambda: Net((14, 14, 20)).conv(20, 1).products(2),
    "products with 64 pixels": lambda: Net((16, 16, 9)).conv(30, 1).products(2).conv(4, 1),
    "products with 128 pixels": lambda: Net((16, 32, 9)).conv(8, 1).products(2),
    "mean of a pixel": lambda: Net((1, 1, 40)).mean(),
    "kernel on a mean": lambda: Net((3, 5, 8)).mean().conv(12, 3),
    "padded mean": lambda: Net((3, 5, 8)).mean().pad((2, 5), (3, 4)),
    "boxes": lambda: _reshaped((4, 4, 12), 48, 4),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_vectors_and_images_in_any_order(name: str) -> None:
    check(NETWORKS[name]().model(), judge=name == "products of pixels")


@pytest.mark.parametrize("classes", [1, 3, 5, 8, 13, 64, 65, 98, 100, 131, 256, 1001, 1090])
def test_softmax_of_any_number_of_classes(classes: int) -> None:
    """Vectors of more than 64 classes lie on several tiles; spare lanes of the last word count for nothing."""
    check(Net((1, 1, 24)).dense(classes).softmax().model(), seeds=(None, 1), judge=True)


def test_the_last_of_an_odd_number_of_classes_counts() -> None:
    """It is the largest one here; its exponential comes to tile 0 by itself."""
    check(Net((1, 1, 7), TensorType.UINT8, seed=18).dense(97).softmax().model())


@pytest.mark.parametrize("classes", [3, 5, 65, 130, 1001])
def test_tables_of_a_softmax_come_from_the_host_where_nothing_is_left(classes: int) -> None:
    model = Net((1, 1, 24)).dense(classes).softmax().dense(7).softmax().model()
    compiled = check(model, seeds=(None, 1), judge=True, sharing=Sharing(room=((),) * TILES))
    assert compiled.on_chip_used == 0


def test_some_tables_are_cached_and_others_come() -> None:
    """Room for the dense layer and one of the tables."""
    model = Net((1, 1, 24)).dense(131).softmax().model()
    compiled = check(model, judge=True, sharing=Sharing(room=(((0, 26),),) * 3 + ((),) * (TILES - 3)))
    (plan,) = compiled.plans
    assert [plan.cached(i) for i in range(5)] == [True, True, False, False, True]


def test_softmax_of_an_input_in_slices() -> None:
    check(Net((1, 1, 92)).softmax().dense(6).softmax().model(), seeds=(None, 1), judge=True)


def test_layers_behind_a_softmax_leave_the_identity_matrix_alone() -> None:
    """Two dense layers share one gathering, and write side by side what the matrix is needed for again."""
    net = Net((1, 1, 80)).softmax()
    x = net.x
    parts = [net.at(x).dense(n).x for n in (3, 2)]
    net.x = net.b.concatenation(parts, scale=0.05 * 80 ** 0.5, zero_point=net.zero)
    check(net.softmax().model(), seeds=(None, 1), judge=True)


@pytest.mark.parametrize("shape", [(12, 10, 8), (9, 4, 20), (6, 6, 64)])
def test_flattened_images_go_over_the_mesh(shape: tuple[int, int, int]) -> None:
    """Rows that neighbours need, a row of tiles without slices, and words that tiles in between pass on."""
    check(Net(shape).conv(shape[2], 3).dense(11).softmax().model(), seeds=(None, 1), judge=True)


def test_results_leave_from_anywhere() -> None:
    net = Net((8, 8, 12)).conv(16, stride=2)
    image = net.x
    pooled = net.pool_all().x
    scores = net.dense(10).x
    shares = net.softmax().x
    boxes = net.at(image).dense(70, "RELU").dense(4).x
    check(net.finish([shares, boxes, image, scores, pooled]))


def test_a_layer_on_few_tiles_may_come_before_one_on_all() -> None:
    net = Net((12, 12, 8))
    image = net.x
    small = net.depthwise(5, stride=6).conv(12, 1).x
    check(net.finish([small, net.at(image).conv(24, 1).x]), judge=True)


LAYERS = st.one_of(
    st.tuples(st.just("dense"), st.integers(1, 150)), st.tuples(st.just("softmax")), st.tuples(st.just("logistic")),
    st.tuples(st.just("conv"), st.integers(1, 20)), st.tuples(st.just("mean")), st.tuples(st.just("rescale")),
    st.tuples(st.just("image")), st.tuples(st.just("vector")), st.tuples(st.just("join"), st.integers(1, 20)),
    st.tuples(st.just("add")))


def _grow(net: Net, layer: tuple[object, ...]) -> None:
    """Add a layer to what there is, whatever its shape is."""
    b, shape = net.b, net.b.shape(net.x)
    count = int(np.prod(shape))
    name, number = str(layer[0]), int(str(layer[1])) if len(layer) > 1 else 0
    flat = len(shape) == 2
    if name in ("softmax", "vector") and not flat:
        net.x = b.reshape(net.x, (1, count))
    if name in ("conv", "mean", "image") and (flat or name == "image"):
        height = next(n for n in (6, 4, 3, 2, 1) if count % n == 0)
        net.x = b.reshape(net.x, (1, height, 1, count // height))
    if name == "dense":
        net.dense(number)
    elif name == "softmax":
        net.softmax()
    elif name == "logistic":
        net.logistic()
    elif name == "conv":
        net.conv(number, 1)
    elif name == "mean":
        net.mean(keep=False)
    elif name == "rescale":
        net.rescale(0.07)
    elif name == "join":
        before = net.x
        other = net.dense(number).x
        whole = before if flat else b.reshape(before, (1, count))
        net.x = b.concatenation([other, whole], scale=0.1, zero_point=net.zero)
    elif name == "add":
        before = net.x
        net.x = b.add(net.rescale(0.03).x, before, scale=0.1, zero_point=net.zero)


@settings(max_examples=20, deadline=None, phases=[Phase.explicit, Phase.generate])
@given(st.sampled_from([(1, 1, 40), (1, 1, 7), (5, 6, 4), (3, 3, 5), (1, 1, 200)]), st.lists(LAYERS, min_size=1, max_size=5),
       st.booleans(), st.integers(0, 99))
def test_random_networks(shape: tuple[int, int, int], layers: list[tuple[object, ...]], int8: bool, seed: int) -> None:
    net = Net(shape, TensorType.INT8 if int8 else TensorType.UINT8, seed=seed)
    outputs = []
    for layer in layers:
        _grow(net, layer)
        outputs.append(net.x)
    compiled = check(net.finish(list(dict.fromkeys(outputs[-2:] if seed % 2 else outputs[-1:]))))
    assert compiled.on_cpu == 0


def test_the_judge_finds_nothing_in_a_softmax_of_one_word() -> None:
    check(Net((7, 6, 8)).dense(50).dense(4).softmax().model(), judge=True)
