"""The order in which compiler 1.0 gives local tensors their rows: by size, equals as an unstable sort leaves them.

A published chain of 100 equal dense layers shows it: layer 50 lies lowest, then 1 to 49, 99, 51 to 77. That is what
the partition of a quicksort around the median of first, middle and last makes of it (``std::sort`` of libc++). Where
no item is larger than the first, the order of equals behind it is a guess: as they come.
"""

from __future__ import annotations

from collections.abc import Sequence

_INSERTION_LIMIT = 30


def by_size(sizes: Sequence[int]) -> list[int]:
    """Return the numbers of the items, the largest first."""
    order = list(range(len(sizes)))
    _sort(order, sizes, 0, len(order))
    return order


def _sort(order: list[int], sizes: Sequence[int], first: int, last: int) -> None:
    while last - first > _INSERTION_LIMIT:
        middle = first + (last - first) // 2
        _sort3(order, sizes, first, middle, last - 1)
        pivot = _partition(order, sizes, first, middle, last)
        if pivot < 0:
            return
        if pivot - first < last - pivot:
            _sort(order, sizes, first, pivot)
            first = pivot + 1
        else:
            _sort(order, sizes, pivot + 1, last)
            last = pivot
    order[first:last] = sorted(order[first:last], key=lambda i: -sizes[i])


def _sort3(order: list[int], sizes: Sequence[int], x: int, y: int, z: int) -> None:
    """Sort three places, the middle one last as libc++ does."""

    def less(a: int, b: int) -> bool:
        return sizes[order[a]] > sizes[order[b]]

    def swap(a: int, b: int) -> None:
        order[a], order[b] = order[b], order[a]

    if not less(y, x):
        if less(z, y):
            swap(y, z)
            if less(y, x):
                swap(x, y)
    elif less(z, y):
        swap(x, z)
    else:
        swap(x, y)
        if less(z, y):
            swap(y, z)


def _partition(order: list[int], sizes: Sequence[int], first: int, middle: int, last: int) -> int:
    """Bring what is larger than the middle item before it; returns its place, -1 when nothing is left to sort."""
    size = [sizes[i] for i in order]
    i, j, m = first, last - 1, middle
    if not size[i] > size[m]:
        j = next((k for k in range(last - 2, first, -1) if size[k] > size[m]), -1)
        if j < 0:
            order[first:last] = sorted(order[first:last], key=lambda k: -sizes[k])
            return -1
        _swap(order, size, i, j)
    i += 1
    while i < j:
        while size[i] > size[m]:
            i += 1
        j -= 1
        while not size[j] > size[m]:
            j -= 1
        if i > j:
            break
        _swap(order, size, i, j)
        if m == i:
            m = j
        i += 1
    if i != m and size[m] > size[i]:
        _swap(order, size, i, m)
    return i


def _swap(order: list[int], size: list[int], a: int, b: int) -> None:
    order[a], order[b] = order[b], order[a]
    size[a], size[b] = size[b], size[a]
