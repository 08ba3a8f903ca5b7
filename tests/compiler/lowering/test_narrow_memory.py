"""Addresses in narrow memory: the official order first, other orders where it leaves no room."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from networks import Net

from compiler.compile import compile_model
from compiler.errors import ActivationsTooLargeError
from compiler.lowering.spatial.buffers import Lifetime, NarrowMemory

LIVES = st.builds(lambda size, first, length: Lifetime(4 * size, first, first + length),
                  st.integers(1, 60), st.integers(0, 8), st.integers(0, 4))


@given(st.lists(LIVES, min_size=1, max_size=12), st.integers(0, 400))
def test_buffers_needed_at_once_never_overlap(lives: list[Lifetime], limit: int) -> None:
    buffers = dict(enumerate(lives))
    addresses = NarrowMemory().place_all(buffers, limit)
    for i, a in buffers.items():
        for j, b in buffers.items():
            if i < j and a.overlaps(b):
                assert addresses[i] + a.size <= addresses[j] or addresses[j] + b.size <= addresses[i]


def test_memory_is_filled_from_the_bottom() -> None:
    """Depthwise convolutions between two sums, with the addresses of an official program."""
    buffers = {0: Lifetime(640, 0, 4), 1: Lifetime(15360, 1, 2), 2: Lifetime(3840, 2, 3), 3: Lifetime(640, 3, 5),
               5: Lifetime(15360, 5, 6)}
    assert NarrowMemory().place_all(buffers, 196608) == {0: 15360, 1: 0, 2: 16000, 3: 19840, 5: 0}


def test_what_is_needed_longer_comes_first_of_two_that_can_lie_equally_low() -> None:
    """The product of size and squared steps decides: 8 * 2 ** 2 against 31, then against 33."""
    shorter, longer = ({0: Lifetime(size, 1, 1), 1: Lifetime(8, 1, 2)} for size in (31, 33))
    assert NarrowMemory().place_all(shorter, 100) == {0: 8, 1: 0}
    assert NarrowMemory().place_all(longer, 100) == {0: 0, 1: 33}


def test_other_orders_are_tried_only_where_the_official_one_leaves_no_room() -> None:
    buffers = {0: Lifetime(8, 0, 1), 1: Lifetime(8, 1, 2), 2: Lifetime(4, 0, 2), 3: Lifetime(12, 3, 3), 4: Lifetime(4, 2, 3)}
    ends = {limit: _end(buffers, limit) for limit in (20, 24)}
    assert ends == {20: 20, 24: 24}


def _end(buffers: dict[int, Lifetime], limit: int) -> int:
    addresses = NarrowMemory().place_all(buffers, limit)
    return max(addresses[i] + b.size for i, b in buffers.items())


def test_a_network_that_only_passes_a_large_tensor_on_is_refused_with_its_size() -> None:
    net = Net((100, 100, 40))
    net.x = net.b.reshape(net.x, (1, 10_000, 40))
    with pytest.raises(ActivationsTooLargeError, match="passes tensor_2 on, which needs 900016 bytes"):
        compile_model(net.model())
