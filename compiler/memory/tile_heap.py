"""The least filled tile, with the tie order of the official compiler.

Which of several equally filled tiles gets the next tensor does not matter for correctness; it
does for programs that are to be identical to official ones. The order seen in published programs
is that of a binary heap whose removal sinks the hole to a leaf (taking the left child on ties)
and then lifts the last element: tiles of an empty chip are taken in the order
0, 1, 3, 7, 15, 8, 4, 9, 10, 2, 5, 11, 12, 6, 13, 14.
"""

from __future__ import annotations

from collections.abc import Iterable


class TileHeap:
    """Tiles ordered by the wide rows in use.

    Parameters
    ----------
    rows_used:
        Wide rows in use on tile 0, 1, ...
    """

    def __init__(self, rows_used: Iterable[int]) -> None:
        self._heap: list[tuple[int, int]] = []
        for tile, rows in enumerate(rows_used):
            self.push(tile, rows)

    def __len__(self) -> int:
        return len(self._heap)

    @property
    def least_filled(self) -> int:
        """The tile that is taken next."""
        return self._heap[0][1]

    def push(self, tile: int, rows: int) -> None:
        """Add a tile with the given rows in use."""
        self._heap.append((rows, tile))
        self._lift(len(self._heap) - 1)

    def pop(self) -> tuple[int, int]:
        """Remove the least filled tile; returns (tile, rows in use)."""
        rows, tile = self._heap[0]
        hole = self._sink_hole()
        last = self._heap.pop()
        if hole < len(self._heap):
            self._heap[hole] = last
            self._lift(hole)
        return tile, rows

    def _sink_hole(self) -> int:
        heap, hole = self._heap, 0
        while (child := 2 * hole + 1) < len(heap):
            if child + 1 < len(heap) and heap[child][0] > heap[child + 1][0]:
                child += 1
            heap[hole] = heap[child]
            hole = child
        return hole

    def _lift(self, at: int) -> None:
        heap = self._heap
        item = heap[at]
        while at and heap[(at - 1) // 2][0] > item[0]:
            heap[at] = heap[(at - 1) // 2]
            at = (at - 1) // 2
        heap[at] = item
