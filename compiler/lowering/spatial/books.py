"""Books of the sync counters of every tile while a program is written."""

from __future__ import annotations

from dataclasses import dataclass, field

from compiler.beagle.isa.counters import TileCounter
from compiler.facts import TILES


@dataclass
class Counts:
    """Events so far, per tile, since the counters were last reset."""

    values: dict[TileCounter, list[int]] = field(default_factory=dict)

    def get(self, counter: TileCounter, tile: int) -> int:
        """Return the events of one tile."""
        return self.values[counter][tile] if counter in self.values else 0

    def add(self, counter: TileCounter, tile: int, events: int) -> None:
        """Record events that an instruction will raise."""
        self.values.setdefault(counter, [0] * TILES)[tile] += events

    def reset(self) -> None:
        """Forget: a fence has reset the counters."""
        self.values.clear()


@dataclass
class Books:
    """What has been sent so far, over all operators of a program.

    Attributes
    ----------
    counts:
        Counters of the tiles.
    packed_rows, packed_words:
        Rows and 4-byte words that have passed through the scalar core.
    streamed_lines:
        64-byte lines of parameters that came with this inference.
    fetched:
        First line of each streamed layer in the file, by name: layers in bands come several times.
    next_line:
        Line of the file behind those of all layers streamed so far.
    """

    counts: Counts = field(default_factory=Counts)
    packed_rows: int = 0
    packed_words: int = 0
    streamed_lines: int = 0
    fetched: dict[str, int] = field(default_factory=dict)
    next_line: int = 0

    def first_line(self, layer: str, count: int) -> int:
        """Return where the parameters of a streamed layer begin in the file, in lines."""
        if layer not in self.fetched:
            self.fetched[layer] = self.next_line
            self.next_line += count
        return self.fetched[layer]
