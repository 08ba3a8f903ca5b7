"""Decides which layers run in bands.

A network is cut into single layers and strips so that everything fits and as little as possible is
computed twice: the cheapest way from the first layer to the last.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from compiler.facts import TILE_ROWS
from compiler.lowering.spatial.bands import Reading, Strip, Trace, stored, trace
from compiler.lowering.spatial.geometry import Activation, Span, split
from compiler.lowering.spatial.layer import Effort
from compiler.records import record

LONGEST_STRIP = 16
"""Layers of a strip at most; what is computed twice grows with it."""
_BAND_COUNTS = (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 32, 40, 48, 64, 96, 128)
_COLUMN_COUNTS = (1, 2, 4)
"""Parts of columns that bands are cut into where bands of whole rows do not help."""
_FENCES = 500
"""Cycles that the fences and the start of a layer take, about."""
_GATHERED = 20_000
"""Cycles for bringing an image to other tiles than neighbours, about."""
_CYCLES_PER_ROW = 4
"""Cycles for a row of weights to come over the ring, about."""


@record
class Work:
    """What a layer costs, and what it may do.

    Attributes
    ----------
    takeable:
        Operands whose memory the result may take over.
    banded:
        It may be part of a strip.
    """

    effort: Effort
    takeable: tuple[int, ...]
    banded: bool


@record
class Problem:
    """A network as far as its memory is concerned.

    Attributes
    ----------
    kept:
        Activations needed behind the last layer.
    """

    readings: Sequence[Reading]
    works: Sequence[Work]
    activations: Mapping[int, Activation]
    inputs: tuple[int, ...]
    kept: frozenset[int]


@record
class _Group:
    """What consecutive layers need in bands, as far as it does not depend on their number.

    Attributes
    ----------
    outputs, inner, outer:
        Activations that others read; that only they read; that they read of others.
    columns, whole:
        Columns of all, and rows of all bands together.
    fixed:
        Bytes of narrow memory beside inner activations.
    extra:
        Cycles to bring what lies on other tiles than neighbours.
    """

    outputs: frozenset[int]
    inner: tuple[int, ...]
    outer: frozenset[int]
    columns: Trace
    whole: Trace
    fixed: int
    extra: int


class StripPlanner:
    """Sizes and costs of strips of a network; what was found once is kept for other budgets.

    Parameters
    ----------
    problem:
        The network.
    """

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.last = {s: i for i, r in enumerate(problem.readings) for s, _ in r.sources}
        self.first = {r.target: i for i, r in enumerate(problem.readings)} | dict.fromkeys(problem.inputs, -1)
        self.sizes = {t: a.size for t, a in problem.activations.items()}
        self._pieces: tuple[int, ...] = _COLUMN_COUNTS[:1]
        self._groups: dict[tuple[int, int], _Group | None] = {}
        self._figures: dict[Strip, tuple[int, float | None]] = {}

    def choose(self, budget: int) -> tuple[Strip, ...] | None:
        """Cut the network so that no step needs more than ``budget`` bytes of narrow memory; None when there is no way."""
        self._pieces = _COLUMN_COUNTS[:1]
        best = self._cheapest_ways(budget)
        if best[-1][1] is None:
            self._pieces = _COLUMN_COUNTS
            best = self._cheapest_ways(budget)
        strips: list[Strip] = []
        at = len(best) - 1
        while at:
            strip = best[at][1]
            if strip is None:
                return None
            strips.append(strip)
            at = strip.first
        return tuple(reversed(strips))

    def stuck(self, budget: int) -> int | None:
        """Return the number of the first layer that no way reaches the end of; None when there is a way."""
        best = self._cheapest_ways(budget)
        reached = max(i for i, (cost, _) in enumerate(best) if cost < float("inf"))
        return reached if reached < len(best) - 1 else None

    def _cheapest_ways(self, budget: int) -> list[tuple[float, Strip | None]]:
        """Cost of all layers before each one, and the last strip of them."""
        works, count = self.problem.works, len(self.problem.readings)
        crowded = [self._fits(Strip(i, i + 1), budget) is None for i in range(count)]
        best: list[tuple[float, Strip | None]] = [(0, None)] + [(float("inf"), None)] * count
        for first in range(count):
            so_far = best[first][0]
            if so_far == float("inf"):
                continue
            for stop in range(first + 1, min(count, first + LONGEST_STRIP) + 1):
                if stop > first + 1 and not (works[first].banded and works[stop - 1].banded):
                    break
                if stop > first + 1 and not any(crowded[first:stop]):
                    continue
                found = self._cheapest(first, stop, budget)
                if found is not None and so_far + found[0] < best[stop][0]:
                    best[stop] = (so_far + found[0], found[1])
        return best

    def _cheapest(self, first: int, stop: int, budget: int) -> tuple[float, Strip] | None:
        """Return the cost of layers in the fewest bands that fit; None when no number of bands does."""
        group = self._group(first, stop)
        if group is None:
            return None
        images = [self.problem.activations[t].image for t in group.outputs]
        most = max(len(s) for image in images for s in split(image.height))
        widest = max(len(s) for image in images for s in split(image.width))
        for strip in (Strip(first, stop, bands, columns) for columns in self._pieces if columns <= widest
                      for bands in (*(n for n in _BAND_COUNTS if n < most), most)):
            if strip.whole and stop > first + 1:
                continue
            if not strip.whole and (not self.problem.works[first].banded or group.fixed > budget):
                return None
            found = self._fits(strip, budget)
            if found is not None:
                return found
        return None

    def _fits(self, strip: Strip, budget: int) -> tuple[float, Strip] | None:
        """Return the cost of a strip; None when it does not fit."""
        if strip not in self._figures:
            self._figures[strip] = self._measured(strip)
        size, cost = self._figures[strip]
        return None if cost is None or size > budget else (cost, strip)

    def _group(self, first: int, stop: int) -> _Group | None:
        """Return what layers need; None when one of them reads what another makes for others."""
        if (first, stop) not in self._groups:
            self._groups[first, stop] = self._traced(Strip(first, stop))
        return self._groups[first, stop]

    def _traced(self, strip: Strip) -> _Group | None:
        p = self.problem
        outputs = stored(p.readings, strip, p.kept)
        if any(s in outputs for i in strip.layers for s, _ in p.readings[i].sources):
            return None
        used = {t for i in strip.layers for t in (p.readings[i].target, *(s for s, _ in p.readings[i].sources))}
        columns = trace(p.readings, {t: p.activations[t].image.width for t in used}, strip, outputs, 1)
        whole = trace(p.readings, self._heights(used), strip, outputs, 0)
        outer = frozenset(used - set(whole.parts))
        extra = 0 if self._in_reach(outer, (whole, columns)) else _GATHERED
        inner = tuple(t for t in whole.parts if t not in outputs)
        return _Group(outputs, inner, outer, columns, whole, self._around(strip, outer, whole, columns), extra)

    def _heights(self, tensors: Iterable[int]) -> dict[int, int]:
        return {t: self.problem.activations[t].image.height for t in tensors}

    def _around(self, strip: Strip, outer: frozenset[int], whole: Trace, columns: Trace) -> int:
        """Bytes of what lives through a strip and of what it reads."""
        p, sizes = self.problem, dict(self.sizes)
        for t in outer:
            own = [split(n) for n in (p.activations[t].image.height, p.activations[t].image.width)]
            around = _longest(whole.needs[t], own[0]) * _longest(columns.needs[t], own[1])
            sizes[t] = max(sizes[t], around * p.activations[t].image.padded)
        return sum(sizes[t] for t, made in self.first.items()
                   if made < strip.first and (self.last.get(t, -1) >= strip.first or t in p.kept))

    def _in_reach(self, tensors: Iterable[int], traces: tuple[Trace, Trace]) -> bool:
        """Tell whether what is needed lies on neighbouring tiles."""
        for t in tensors:
            image = self.problem.activations[t].image
            for found, length in zip(traces, (image.height, image.width), strict=True):
                own = split(length)
                for i, need in enumerate(found.needs[t]):
                    inside = need.within(length)
                    low, high = own[max(i - 1, 0)].start, own[min(i + 1, TILE_ROWS - 1)].stop
                    if len(inside) and (inside.start < low or inside.stop > high):
                        return False
        return True

    def _measured(self, strip: Strip) -> tuple[int, float | None]:
        """Return bytes of narrow memory at the fullest step, and cycles; None where there is no way."""
        p, group = self.problem, self._group(strip.first, strip.stop)
        if group is None:
            return 0, None
        heights = self._heights([*group.whole.parts, *group.outer])
        rows = [trace(p.readings, heights, strip, group.outputs, 0, (band, strip.bands)) for band in _some(strip.bands)]
        columns = [group.columns]
        if strip.columns > 1:
            widths = {t: p.activations[t].image.width for t in heights}
            columns = [trace(p.readings, widths, strip, group.outputs, 1, (piece, strip.columns))
                       for piece in _some(strip.columns)]
        cost = self._cost(strip, columns, rows)
        return self._bytes(strip, group, columns, rows), None if cost is None else cost + group.extra

    def _bytes(self, strip: Strip, group: _Group, columns: Sequence[Trace], rows: Sequence[Trace]) -> int:
        p, sizes = self.problem, {}
        in_place = strip.whole and any(self.last[t] == strip.first and t not in p.kept
                                       for t in p.works[strip.first].takeable)
        alive = group.fixed + (0 if in_place else sum(self.sizes[t] for t in group.outputs))
        for t in group.inner:
            widest = max(_longest(r.needs[t], r.parts[t]) for r in rows)
            across = max(_longest(c.needs[t], c.parts[t]) for c in columns)
            sizes[t] = widest * across * p.activations[t].image.padded
        return alive + max(self._scratch(i, columns, rows)
                           + sum(sizes[t] for t in group.inner if self.first[t] <= i <= self.last[t]) for i in strip.layers)

    def _scratch(self, layer: int, columns: Sequence[Trace], rows: Sequence[Trace]) -> int:
        """Bytes that a layer needs for itself in the largest of some bands."""
        effort = self.problem.works[layer].effort
        return effort.fixed + effort.scratch * max(self._pixels(layer, columns, rows))

    def _pixels(self, layer: int, columns: Sequence[Trace], rows: Sequence[Trace]) -> list[int]:
        """Pixels that the fullest tile computes in each of some bands."""
        target = self.problem.readings[layer].target
        widest = max(len(part) for c in columns for part in c.parts[target])
        return [widest * max(map(len, r.parts[target])) for r in rows]

    def _cost(self, strip: Strip, columns: Sequence[Trace], rows: Sequence[Trace]) -> float | None:
        cost = 0.0
        for i in strip.layers:
            work, pixels = self.problem.works[i], self._pixels(i, columns, rows)
            if max(pixels) > work.effort.most_pixels:
                return None
            once = sum(pixels) / len(pixels) * work.effort.steps + _CYCLES_PER_ROW * work.effort.rows + _FENCES
            cost += strip.runs * once
        return cost


def _some(count: int) -> list[int]:
    """Return the first, the middle and the last of some parts."""
    return sorted({0, count // 2, count - 1})


def _longest(needs: Sequence[Span], own: Sequence[Span]) -> int:
    return max(len(a.hull(b)) for a, b in zip(needs, own, strict=True))


__all__ = ["Problem", "StripPlanner", "Work"]
