"""The order of operators: what leaves least memory in use comes first."""

from __future__ import annotations

import pytest

from compiler.graph import Model
from compiler.lowering.order import in_turn
from compiler.mapping import Subgraph, map_graph
from tests.compiler.lowering.networks import Net, check


def order(model: Model) -> list[int]:
    (part,) = map_graph(model.main).subgraphs
    return list(in_turn(model.main, part))


def test_heads_come_before_what_is_joined() -> None:
    """As in an official PoseNet: two layers of one image that are joined, then two heads on the same image."""
    net = Net((8, 8, 4))
    image = net.conv(8).x
    parts = [net.at(image).conv(n, 1).x for n in (4, 8)]
    joined = net.b.concatenation(parts, scale=0.9, zero_point=net.zero)
    heads = [net.at(image).conv(n, 1, activation="NONE").x for n in (5, 6)]
    model = net.finish([joined, *heads])
    assert order(model) == [0, 4, 5, 1, 2, 3]
    check(model, judge=True)


def test_a_chain_keeps_its_order() -> None:
    assert order(Net((8, 8, 4)).conv(8).conv(8).residual().pool_all().model()) == [0, 1, 2, 3, 4, 5]


def test_a_layer_that_frees_its_input_comes_before_layers_that_do_not() -> None:
    net = Net((8, 8, 4))
    first = net.x
    second = net.b.add_input((1, 8, 8, 4), scale=0.05, zero_point=net.zero, name="second")
    left = net.at(first).conv(4, 1).x
    joined = net.b.concatenation([left, net.at(first).conv(4, 1).x], scale=0.9, zero_point=net.zero)
    alone = net.at(second).conv(4, 1).x
    assert order(net.finish([joined, alone])) == [3, 0, 1, 2]


def test_a_pooled_shortcut_is_pooled_as_soon_as_that_frees_the_image() -> None:
    """As in an official BlazeFace: between the two layers of the other branch, and the newest of equals first."""
    net = Net((16, 16, 4))
    image = net.conv(8).x
    main = net.depthwise(stride=2).conv(8, 1, activation="NONE").x
    shortcut = net.at(image).pool("MAX_POOL_2D", 2, 2).conv(8, 1, activation="NONE").x
    net.x = net.b.add(shortcut, main, scale=0.07, zero_point=net.zero + 2)
    assert order(net.model()) == [0, 1, 3, 4, 2, 5]


def test_a_layer_on_a_large_image_waits_for_the_branch_that_shrinks_it() -> None:
    """As the lateral layers of an official MoveNet."""
    net = Net((16, 16, 4))
    image = net.conv(8).x
    lateral = net.conv(8, 1, activation="NONE").x
    net.at(image).conv(16, 1).depthwise(stride=2).conv(8, 1, activation="NONE").residual()
    net.x = net.b.resize_bilinear(net.x, 16, 16)
    net.x = net.b.add(net.x, lateral, scale=0.07, zero_point=net.zero + 2)
    assert order(net.model()) == [0, 2, 3, 4, 1, 5, 6, 7, 8, 9]


@pytest.mark.parametrize(("channels", "expected"), [(64, [0, 1, 2, 3, 4, 5]), (1280, [0, 1, 3, 4, 2, 5])])
def test_an_image_sent_away_by_its_pool_is_fetched_last(channels: int, expected: list[int]) -> None:
    """As in an official DeepLab with 1280 channels: beside two copies of what the pool gathers the image has no room."""
    net = Net((33, 33, 4))
    image = net.conv(channels, 1).x
    pooled = net.pool_all().x
    beside = net.at(image).conv(128, 1).x
    wide = net.b.resize_bilinear(net.at(pooled).conv(128, 1).x, 33, 33)
    net.x = net.b.add(wide, beside, scale=0.07, zero_point=net.zero)
    graph = net.model().main
    assert list(in_turn(graph, Subgraph(tuple(range(6)), graph.inputs, graph.outputs))) == expected
