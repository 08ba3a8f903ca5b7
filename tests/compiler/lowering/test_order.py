"""The order of operators: that of the file, heads first."""

from __future__ import annotations

from compiler.graph import Model
from compiler.lowering.order import in_turn
from compiler.mapping import map_graph
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


def test_layers_on_inputs_keep_their_order() -> None:
    net = Net((8, 8, 4))
    first = net.x
    second = net.b.add_input((1, 8, 8, 4), scale=0.05, zero_point=net.zero, name="second")
    left = net.at(first).conv(4, 1).x
    joined = net.b.concatenation([left, net.at(first).conv(4, 1).x], scale=0.9, zero_point=net.zero)
    alone = net.at(second).conv(4, 1).x
    assert order(net.finish([joined, alone])) == [0, 1, 2, 3]
