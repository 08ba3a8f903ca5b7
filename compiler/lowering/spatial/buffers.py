"""Places in narrow and wide memory.

Narrow memory holds activations while they are needed; it is filled from the bottom, as in official
programs. Wide
memory holds what an operator works with at its upper end, the largest block on top; cached
parameters lie below.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterator, Mapping, Sequence

from compiler.facts import WIDE_ROWS
from compiler.records import record

_PROMOTIONS = 6
"""How often what found no room is put in front."""


@record
class Lifetime:
    """A buffer and the steps of the program during which it is needed, both ends included."""

    size: int
    first: int
    last: int

    def overlaps(self, other: Lifetime) -> bool:
        """Tell whether there is a step that needs both."""
        return self.first <= other.last and other.first <= self.last

    def later(self, steps: int) -> Lifetime:
        """Return the same, so many steps later."""
        return Lifetime(self.size, self.first + steps, self.last + steps)


def _address(taken: tuple[int, Lifetime]) -> int:
    return taken[0]


class NarrowMemory:
    """Addresses of buffers that are needed at the same time do not overlap."""

    def __init__(self) -> None:
        self._taken: list[tuple[int, Lifetime]] = []

    def place(self, buffer: Lifetime, floor: int = 0) -> int:
        """Take the lowest address from ``floor`` on that is free during all of the buffer's life."""
        at = self._lowest(buffer, floor)
        self._take(at, buffer)
        return at

    def _take(self, at: int, buffer: Lifetime) -> None:
        """Note a buffer; they are kept in the order of their addresses."""
        insort(self._taken, (at, buffer), key=_address)

    def _lowest(self, buffer: Lifetime, floor: int = 0) -> int:
        at = floor
        for start, other in self._taken:
            if buffer.overlaps(other):
                if at + buffer.size <= start:
                    break
                at = max(at, start + other.size)
        return at

    def place_all(self, buffers: Mapping[int, Lifetime], limit: int) -> dict[int, int]:
        """Fill the memory from the bottom: what can lie lowest comes next.

        Of buffers that can lie equally low, the one that is needed in the fullest step comes first; of those the one
        with the greatest product of size and squared number of steps. Where something ends beyond ``limit`` so, other
        orders are tried; the first stays when none helps.
        """
        before = list(self._taken)
        official = self._from_the_bottom(buffers)
        if _end(official, buffers) <= limit:
            return official
        for order in _orders(buffers, limit, before):
            addresses = self._in_order(buffers, order, before)
            if _end(addresses, buffers) <= limit:
                return addresses
        self._taken = sorted([*before, *((official[key], buffer) for key, buffer in buffers.items())], key=_address)
        return official

    def _from_the_bottom(self, buffers: Mapping[int, Lifetime]) -> dict[int, int]:
        full = _fullness(buffers)
        weight = {k: (max(full[b.first:b.last + 1]), b.size * (b.last - b.first + 1) ** 2) for k, b in buffers.items()}
        lowest = {key: self._lowest(buffer) for key, buffer in buffers.items()}
        addresses: dict[int, int] = {}
        while lowest:
            key = min(lowest, key=lambda k: (lowest[k], -weight[k][0], -weight[k][1]))
            addresses[key], buffer = lowest.pop(key), buffers[key]
            self._take(addresses[key], buffer)
            for other in lowest:
                if buffers[other].overlaps(buffer):
                    lowest[other] = self._lowest(buffers[other])
        return addresses

    def _in_order(self, buffers: Mapping[int, Lifetime], order: Sequence[int], before: Sequence[tuple[int, Lifetime]],
                  ) -> dict[int, int]:
        self._taken = list(before)
        return {key: self.place(buffers[key]) for key in order}

    @property
    def used(self) -> int:
        """Bytes in use at most."""
        return max((start + buffer.size for start, buffer in self._taken), default=0)


def _end(addresses: Mapping[int, int], buffers: Mapping[int, Lifetime]) -> int:
    return max((at + buffers[key].size for key, at in addresses.items()), default=0)


def _orders(buffers: Mapping[int, Lifetime], limit: int, before: Sequence[tuple[int, Lifetime]]) -> Iterator[list[int]]:
    """Yield the order of the fullest steps, that of sizes, and both with what did not find room in front."""
    for order in (_by_fullness(buffers), sorted(buffers, key=lambda k: -buffers[k].size)):
        yield order
        for _ in range(_PROMOTIONS):
            memory = NarrowMemory()
            memory._taken = list(before)
            beyond = [key for key in order if memory.place(buffers[key]) + buffers[key].size > limit]
            order = [*beyond, *(key for key in order if key not in beyond)]
            yield order


def _fullness(buffers: Mapping[int, Lifetime]) -> list[int]:
    """Return the bytes that every step needs."""
    steps = range(max((b.last for b in buffers.values()), default=0) + 1)
    return [sum(b.size for b in buffers.values() if b.first <= s <= b.last) for s in steps]


def _by_fullness(buffers: Mapping[int, Lifetime]) -> list[int]:
    """Order buffers by the fullest step in which they are needed (of equally full ones the later), then by size."""
    full = _fullness(buffers)
    rank = {s: i for i, s in enumerate(sorted(range(len(full)), key=lambda s: (-full[s], -s)))}
    return sorted(buffers, key=lambda k: (min(rank[s] for s in range(buffers[k].first, buffers[k].last + 1)),
                                          -buffers[k].size))


def stack_wide(sizes: Sequence[int], top: int = WIDE_ROWS) -> list[int]:
    """Return the first rows of blocks that are stacked downwards from the top, the largest on top."""
    rows = [0] * len(sizes)
    for i in sorted(range(len(sizes)), key=lambda i: -sizes[i]):
        top -= sizes[i]
        rows[i] = top
    return rows
