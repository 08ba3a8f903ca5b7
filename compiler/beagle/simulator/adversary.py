"""A scheduler that means harm: it delays some engines as long as anything else can move."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from compiler.beagle.isa.counters import TileEngine
from compiler.facts import TILES


class Adversary:
    """Chooses which engines of which tiles advance next.

    A part of the engines, a part of the tiles, or single engines of single tiles are *lazy*: they
    move only when nothing else does. The others advance in random order, some tiles at a time.
    """

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        pairs = [(engine, tile) for engine in TileEngine for tile in range(TILES)]
        kind = seed % 4
        if kind == 0:
            lazy = {(engine, tile) for engine in self.random.sample(list(TileEngine), 2) for tile in range(TILES)}
        elif kind == 1:
            lazy = {(engine, tile) for tile in self.random.sample(range(TILES), 4) for engine in TileEngine}
        elif kind == 2:
            lazy = set(self.random.sample(pairs, len(pairs) // 4))
        else:
            lazy = set()
        self._lazy = lazy

    def order(self) -> list[TileEngine]:
        """Engines that are asked in this round, in order."""
        return self.random.sample(list(TileEngine), self.random.randint(1, len(TileEngine)))

    def choose(self, engine: int, waiting: Sequence[int]) -> list[int]:
        """Tiles that may advance."""
        eager = [tile for tile in waiting if (engine, tile) not in self._lazy]
        return self.random.sample(eager, self.random.randint(1, len(eager))) if eager else []
