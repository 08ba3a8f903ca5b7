"""Decides which layers run in bands.

A network is cut into single layers and strips so that everything fits and as little as possible is
computed twice: the cheapest way from the first layer to the last.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from compiler.facts import TILE_ROWS
from compiler.lowering.spatial.bands import Reading, Strip, Trace, stored, trace
from compiler.lowering.spatial.geometry import Activation, Span, split
from compiler.lowering.spatial.layer import Effort

LONGEST_STRIP = 16
"""Layers of a strip at most; what is computed twice grows with it."""
_BAND_COUNTS = (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 32, 40, 48, 64, 96, 128)
_FENCES = 500
"""Cycles that the fences and the start of a layer take, about."""
_GATHERED = 20_000
"""Cycles for bringing an image to other tiles than neighbours, about."""
_CYCLES_PER_ROW = 4
"""Cycles for a row of weights to come over the ring, about."""


@dataclass(frozen=True)
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


@dataclass(frozen=True)
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
    source: int
    kept: frozenset[int]


def choose_strips(problem: Problem, budget: int) -> tuple[Strip, ...] | None:
    """Cut a network so that no step needs more than ``budget`` bytes of narrow memory; None when there is no way."""
    planner = _Planner(problem, budget)
    count = len(problem.readings)
    best: list[tuple[float, Strip | None]] = [(0, None)] + [(float("inf"), None)] * count
    for first in range(count):
        so_far = best[first][0]
        if so_far == float("inf"):
            continue
        for stop in range(first + 1, min(count, first + LONGEST_STRIP) + 1):
            if stop > first + 1 and not (problem.works[first].banded and problem.works[stop - 1].banded):
                break
            if stop > first + 1 and not any(planner.too_much(i) for i in range(first, stop)):
                continue
            found = planner.cheapest(first, stop)
            if found is not None and so_far + found[0] < best[stop][0]:
                best[stop] = (so_far + found[0], found[1])
    strips: list[Strip] = []
    at = count
    while at:
        strip = best[at][1]
        if strip is None:
            return None
        strips.append(strip)
        at = strip.first
    return tuple(reversed(strips))


class _Planner:
    """Sizes and costs of strips."""

    def __init__(self, problem: Problem, budget: int) -> None:
        self.problem, self.budget = problem, budget
        self.last = {s: i for i, r in enumerate(problem.readings) for s, _ in r.sources}
        self.first = {r.target: i for i, r in enumerate(problem.readings)} | {problem.source: -1}
        self.sizes = {t: a.size for t, a in problem.activations.items()}
        self._single: dict[int, tuple[float, Strip] | None] = {}

    def too_much(self, layer: int) -> bool:
        """Tell whether a layer cannot run by itself."""
        if layer not in self._single:
            self._single[layer] = self.fits(Strip(layer, layer + 1))
        return self._single[layer] is None

    def cheapest(self, first: int, stop: int) -> tuple[float, Strip] | None:
        """Return the cost of layers in the fewest bands that fit; None when no number of bands does."""
        most = max(len(s) for t in stored(self.problem.readings, Strip(first, stop), self.problem.kept)
                   for s in split(self.problem.activations[t].image.height))
        for bands in _BAND_COUNTS:
            if bands > most or (bands == 1 and stop > first + 1):
                continue
            if bands > 1 and not self.problem.works[first].banded:
                return None
            found = self.fits(Strip(first, stop, bands))
            if found is not None:
                return found
        return None

    def fits(self, strip: Strip) -> tuple[float, Strip] | None:
        """Return the cost of a strip; None when it does not fit."""
        p = self.problem
        outputs = stored(p.readings, strip, p.kept)
        if any(s in outputs for i in strip.layers for s, _ in p.readings[i].sources):
            return None
        used = {t for i in strip.layers for t in (p.readings[i].target, *(s for s, _ in p.readings[i].sources))}
        heights = {t: p.activations[t].image.height for t in used}
        columns = trace(p.readings, {t: p.activations[t].image.width for t in used}, strip, outputs, 1)
        whole = trace(p.readings, heights, strip, outputs, 0)
        outer = used - set(whole.parts)
        sample = sorted({0, strip.bands // 2, strip.bands - 1})
        rows = [trace(p.readings, heights, strip, outputs, 0, band) for band in sample]
        if self._bytes(strip, outputs, outer, whole, columns, rows) > self.budget:
            return None
        found = self._cost(strip, columns, rows)
        if found is None or self._in_reach(outer, (whole, columns)):
            return found
        return found[0] + _GATHERED, strip

    def _in_reach(self, tensors: set[int], traces: tuple[Trace, Trace]) -> bool:
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

    def _bytes(self, strip: Strip, outputs: frozenset[int], outer: set[int], whole: Trace, columns: Trace,
               rows: Sequence[Trace]) -> int:
        """Bytes of narrow memory at the fullest step."""
        p = self.problem
        sizes = dict(self.sizes)
        for t in outer:
            own = [split(n) for n in (p.activations[t].image.height, p.activations[t].image.width)]
            around = _longest(whole.needs[t], own[0]) * _longest(columns.needs[t], own[1])
            sizes[t] = max(sizes[t], around * p.activations[t].image.padded)
        alive = sum(sizes[t] for t, made in self.first.items()
                    if made < strip.first and (self.last.get(t, -1) >= strip.first or t in p.kept))
        in_place = strip.whole and any(self.last[t] == strip.first and t not in p.kept
                                       for t in p.works[strip.first].takeable)
        if not in_place:
            alive += sum(self.sizes[t] for t in outputs)
        inner = [t for t in whole.parts if t not in outputs]
        for t in inner:
            widest = max(_longest(r.needs[t], r.parts[t]) for r in rows)
            sizes[t] = widest * _longest(columns.needs[t], columns.parts[t]) * p.activations[t].image.padded
        return alive + max((sum(sizes[t] for t in inner if self.first[t] <= i <= self.last[t]) for i in strip.layers),
                           default=0)

    def _cost(self, strip: Strip, columns: Trace, rows: Sequence[Trace]) -> tuple[float, Strip] | None:
        cost = 0.0
        for i in strip.layers:
            work, target = self.problem.works[i], self.problem.readings[i].target
            pixels = [max(map(len, r.parts[target])) * max(map(len, columns.parts[target])) for r in rows]
            if max(pixels) > work.effort.most_pixels:
                return None
            once = sum(pixels) / len(pixels) * work.effort.steps + _CYCLES_PER_ROW * work.effort.rows + _FENCES
            cost += strip.bands * once
        return cost, strip


def _longest(needs: Sequence[Span], own: Sequence[Span]) -> int:
    return max(len(a.hull(b)) for a, b in zip(needs, own, strict=True))


__all__ = ["Problem", "Work", "choose_strips"]
