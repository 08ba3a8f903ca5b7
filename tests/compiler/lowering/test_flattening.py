"""RESHAPE of images to vectors over the mesh, and the identity matrix that layers share."""

from collections.abc import Callable

import pytest
from networks import Net, check

from compiler.lowering.spatial.buffers import Lifetime, NarrowMemory


def flat(shape: tuple[int, int, int], channels: int) -> Net:
    net = Net(shape).conv(channels, 1)
    height, width, depth = net.b.shape(net.x)[1:]
    return net.at(net.b.reshape(net.x, (1, height * width * depth)))


def softmax(net: Net) -> Net:
    return net.at(net.b.softmax(net.x))


def squared(net: Net) -> Net:
    return net.at(net.b.mul(net.x, net.x, scale=0.03, zero_point=net.zero))


NETWORKS: dict[str, Callable[[], Net]] = {
    "all tiles": lambda: flat((14, 10, 8), 12),
    "rows shared by rows of tiles": lambda: flat((6, 6, 8), 68),
    "one tile": lambda: flat((3, 3, 8), 4),
    "three rows of tiles in between": lambda: flat((13, 3, 8), 4),
    "a word per pixel, padded": lambda: flat((3, 3, 8), 1),
    "a word per pixel, many": lambda: flat((32, 32, 4), 1),
    "three channels": lambda: flat((32, 32, 4), 3),
    "a column": lambda: flat((9, 1, 8), 16),
    "into a dense layer": lambda: Net((10, 7, 8)).conv(16, 1).dense(5),
    "padded channels before a softmax": lambda: softmax(flat((32, 32, 4), 1)),
    "slices of one address before a softmax": lambda: softmax(flat((10, 7, 8), 4)),
    "products before": lambda: squared(squared(Net((12, 9, 8)).conv(8))).dense(3).logistic(),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_flattened_images_keep_their_order(name: str) -> None:
    check(NETWORKS[name]().model(), seeds=(None, 1), judge=True)


def test_room_for_steps_finds_its_place_among_activations() -> None:
    """Two squares of convolutions of one image, the second convolution between them; addresses of an official program."""
    image, first, second = Lifetime(1296, 0, 3), Lifetime(1024, 1, 5), Lifetime(1024, 3, 5)
    products = Lifetime(4100, 2, 2), Lifetime(4100, 4, 4)
    buffers = {0: image, 1: first, 2: second, 3: Lifetime(3856, 5, 6), -1: products[0], -2: products[1]}
    assert NarrowMemory().place_all(buffers, 196608) == {0: 1024, 1: 0, 2: 5124, 3: 1024, -1: 2320, -2: 1024}
