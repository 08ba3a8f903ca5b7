"""The order of an unstable sort: what the official compilers sort by size keeps no order among equals.

Published files show it: a chain of 100 equal dense layers of compiler 1.0, of which layer 50 lies lowest, then 1 to 49,
99, 51 to 77; and the owners of all 52 convolutions of a MobileNet v2 of compiler 16.0. Both are what ``std::sort`` of
libc++ (of 2021) makes of them: networks for up to five items, insertion up to thirty, else a quicksort around the
median of the first, the middle and the last item.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

_INSERTION_LIMIT = 30
_MOST_MOVES = 8
"""Insertions after which a sort of what seemed sorted already is given up."""


def by_size(sizes: Sequence[int]) -> list[int]:
    """Return the numbers of the items, the largest first."""
    return unstable_order([-size for size in sizes])


def unstable_order(keys: Sequence[object]) -> list[int]:
    """Return the numbers of the items by rising keys, equals as the sort leaves them.

    Examples
    --------
    >>> unstable_order([2, 1, 1, 1, 1, 1, 1])
    [1, 2, 3, 4, 5, 6, 0]
    """
    order = list(range(len(keys)))
    _Sort(order, lambda a, b: keys[a] < keys[b]).run(0, len(order))  # type: ignore[operator]
    return order


class _Sort:
    """Sorts stretches of a list in place; places are given by number."""

    def __init__(self, items: list[int], less: Callable[[int, int], bool]) -> None:
        self._items, self._less = items, less

    def run(self, first: int, last: int) -> None:
        """Sort from ``first`` to ``last`` (not included)."""
        while last - first > _INSERTION_LIMIT:
            middle = first + (last - first) // 2
            swaps = self._network([first, middle, last - 1])
            place, more = self._partition(first, middle, last)
            if place < 0:
                first = -place - 1
                if first == last:
                    return
                continue
            if not swaps + more:
                left, right = self._nearly(first, place), self._nearly(place + 1, last)
                if left and right:
                    return
                if right:
                    last = place
                    continue
                if left:
                    first = place + 1
                    continue
            if place - first < last - place:
                self.run(first, place)
                first = place + 1
            else:
                self.run(place + 1, last)
                last = place
        if last - first <= 5:
            self._network(list(range(first, last)))
        else:
            self._insert(first, last)

    def _swap(self, a: int, b: int) -> None:
        items = self._items
        items[a], items[b] = items[b], items[a]

    def _before(self, a: int, b: int) -> bool:
        return self._less(self._items[a], self._items[b])

    def _network(self, places: Sequence[int]) -> int:
        """Sort up to five places; returns how many swaps that took."""
        if len(places) < 3:
            swap = len(places) == 2 and self._before(places[1], places[0])
            if swap:
                self._swap(*places)
            return int(swap)
        swaps = self._three(*places[:3])
        for at in range(3, len(places)):
            while at and self._before(places[at], places[at - 1]):
                self._swap(places[at], places[at - 1])
                at, swaps = at - 1, swaps + 1
        return swaps

    def _three(self, x: int, y: int, z: int) -> int:
        if not self._before(y, x):
            if not self._before(z, y):
                return 0
            self._swap(y, z)
            if not self._before(y, x):
                return 1
            self._swap(x, y)
            return 2
        if self._before(z, y):
            self._swap(x, z)
            return 1
        self._swap(x, y)
        if not self._before(z, y):
            return 1
        self._swap(y, z)
        return 2

    def _insert(self, first: int, last: int, most: int | None = None) -> bool:
        """Sort by insertion; False when it was given up after so many moves."""
        items, moves = self._items, 0
        self._three(first, first + 1, first + 2)
        for i in range(first + 3, last):
            if not self._before(i, i - 1):
                continue
            item, at = items.pop(i), i - 1
            while at > first and self._less(item, items[at - 1]):
                at -= 1
            items.insert(at, item)
            moves += 1
            if moves == most:
                return i + 1 == last
        return True

    def _nearly(self, first: int, last: int) -> bool:
        """Sort what may be sorted already; False when it was given up."""
        if last - first <= 5:
            self._network(list(range(first, last)))
            return True
        return self._insert(first, last, _MOST_MOVES)

    def _partition(self, first: int, middle: int, last: int) -> tuple[int, int]:
        """Bring what is less than the middle item before it.

        Returns
        -------
        Its place and how many swaps that took; -1 - n where all before place n are equal and the rest is not less.
        """
        before, i, j, swaps = self._before, first, last - 1, 0
        if not before(i, middle):
            j = next((k for k in range(last - 2, first, -1) if before(k, middle)), first)
            if j == first:
                return -1 - self._behind_equals(first, last), 0
            self._swap(i, j)
            swaps = 1
        i += 1
        while i < j:
            while before(i, middle):
                i += 1
            j -= 1
            while not before(j, middle):
                j -= 1
            if i > j:
                break
            self._swap(i, j)
            swaps += 1
            if middle == i:
                middle = j
            i += 1
        if i != middle and before(middle, i):
            self._swap(i, middle)
            swaps += 1
        return i, swaps

    def _behind_equals(self, first: int, last: int) -> int:
        """Bring what equals the first item, the least, to the front; returns the place behind."""
        before, i, j = self._before, first + 1, last - 1
        if not before(first, j):
            i = next((k for k in range(i, j) if before(first, k)), j)
            if i == j:
                return last
            self._swap(i, j)
            i += 1
        if i == j:
            return last
        while True:
            while not before(first, i):
                i += 1
            j -= 1
            while before(first, j):
                j -= 1
            if i >= j:
                return i
            self._swap(i, j)
            i += 1
