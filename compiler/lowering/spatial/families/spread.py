"""Copies whose result is put together from several, each with a fixed distance between its pixels.

RESIZE_NEAREST_NEIGHBOR, TILE and DEPTH_TO_SPACE: every n-th row and column of the result comes from
rows and columns of the operand at another fixed distance.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from compiler.facts import TILES
from compiler.lowering.builder import LAYER_COUNTERS, Values
from compiler.lowering.spatial.bands import Windows
from compiler.lowering.spatial.emission import Emission
from compiler.lowering.spatial.families.unary import OnIdentity, Unary, apply_to_words, build_identity
from compiler.lowering.spatial.geometry import Activation, Lane, Several, by_content
from compiler.lowering.spatial.layer import Activations
from compiler.records import record


@record
class Part:
    """A copy: lanes of rows and columns, and the first channel taken, a multiple of four."""

    rows: Lane
    columns: Lane
    channel: int = 0


@record
class Spread(OnIdentity):
    """Copies to one result, ready for code generation.

    Attributes
    ----------
    copy:
        How values are rescaled.
    """

    name: str
    copy: Unary
    parts: tuple[Part, ...]

    moves: ClassVar[bool] = True

    @property
    def target(self) -> int:  # type: ignore[override]
        """The result."""
        return self.copy.target

    @property
    def sources(self) -> tuple[int, ...]:
        """The operand."""
        return (self.copy.source,)

    def windows_of(self, source: int) -> Windows:
        """Return what all copies read."""
        del source
        rows, columns = (dict.fromkeys(lanes) for lanes in ([p.rows for p in self.parts], [p.columns for p in self.parts]))
        return Several(windows=tuple(rows)), Several(windows=tuple(columns))

    def emit(self, emission: Emission, activations: Activations) -> None:
        """Exchange borders, copy part after part."""
        b, source, target = emission.b, activations[self.copy.source], activations[self.target]
        emission.exchange(self.copy.source, source)
        emission.b.barrier()
        b.tile_fence(reset=LAYER_COUNTERS)
        build_identity(b, emission.constants[self.name])
        for part in self.parts:
            values = {t: self._copy(part, source, target, t) for t in range(TILES)}
            for tiles, fields in by_content({t: v for t, v in values.items() if v}):
                b.tile("tensor_op", tiles, dict(fields))
        emission.reset()

    def _copy(self, part: Part, source: Activation, target: Activation, tile: int) -> Values:
        own = target.own(tile)
        lanes = part.rows, part.columns
        rows, columns = (lane.indices(span) for lane, span in zip(lanes, own, strict=True))
        if not len(rows) or not len(columns):
            return {}
        a, c = source.slab(tile), target.slab(tile)
        read = [lane.needed(span).start for lane, span in zip(lanes, own, strict=True)]
        write = [lane.phase + lane.period * found.start for lane, found in zip(lanes, (rows, columns), strict=True)]
        return apply_to_words(
            self.copy, source.address + a.offset(*read) + part.channel,
            (4, lanes[1].stride * a.pixel, lanes[0].stride * a.pitch), target.address + c.offset(*write),
            (4, lanes[1].period * c.pixel, lanes[0].period * c.pitch), (c.pixel // 4, len(columns), len(rows)))


def lanes_of(places: Sequence[int], period: int) -> tuple[Lane, ...] | None:
    """Return lanes of a period that read these rows of an operand; None when there are none.

    Examples
    --------
    >>> [(lane.phase, lane.start, lane.stride) for lane in lanes_of([0, 0, 1, 1], 2) or ()]
    [(0, 0, 1), (1, 0, 1)]
    """
    found = []
    for phase in range(min(period, len(places))):
        part = places[phase::period]
        stride = part[1] - part[0] if len(part) > 1 else 0
        if stride < 0 or min(part) < 0 or any(p != part[0] + stride * i for i, p in enumerate(part)):
            return None
        found.append(Lane(phase=phase, period=period, start=part[0], stride=stride))
    return tuple(found)
