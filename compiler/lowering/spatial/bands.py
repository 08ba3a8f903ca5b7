"""Bands: layers whose results do not fit narrow memory run together, some rows at a time.

What a tile owns of the last result is cut into bands of rows, where that is not enough across the columns
as well. For each band the layers of a *strip*
run one after the other on what that band needs: rows and columns around it are computed again on
every tile, so that nothing but the input of the strip is exchanged between tiles, once. Results
inside a strip only take the memory of one band.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import product

from compiler.facts import TILE_COLUMNS, TILES
from compiler.lowering.spatial.geometry import NOWHERE, Activation, Region, Slab, Span, Window, passed_on, split
from compiler.records import record

Windows = tuple[Window, Window]


@record
class Reading:
    """What a layer computes from what.

    Attributes
    ----------
    target:
        Number of the activation that it makes.
    sources:
        Numbers of the activations that it reads, each with its windows over rows and columns.
    aligned:
        Operands are walked together: rows of their slabs have the same length.
    """

    target: int
    sources: tuple[tuple[int, Windows], ...]
    aligned: bool = False


@record
class Strip:
    """Layers ``first`` to ``stop`` (not included), run for one band after the other.

    Attributes
    ----------
    bands:
        Bands of rows.
    columns:
        Parts of columns into which each of them is cut again.
    """

    first: int
    stop: int
    bands: int = 1
    columns: int = 1

    @property
    def layers(self) -> range:
        """Numbers of the layers."""
        return range(self.first, self.stop)

    @property
    def whole(self) -> bool:
        """True for a layer that runs once."""
        return self.runs == 1

    @property
    def runs(self) -> int:
        """How often its layers run."""
        return self.bands * self.columns


@record
class Trace:
    """Rows (or columns) of every activation of a strip in one band, by the row (or column) of tiles.

    Attributes
    ----------
    parts:
        What is computed.
    needs:
        What is read, beyond the image as well.
    """

    parts: Mapping[int, tuple[Span, ...]]
    needs: Mapping[int, tuple[Span, ...]]


def stored(readings: Sequence[Reading], strip: Strip, kept: frozenset[int]) -> frozenset[int]:
    """Return what a strip makes for others: activations read behind it, read by nobody, or kept to the end."""
    inside = {s for i in strip.layers for s, _ in readings[i].sources}
    behind = {s for r in readings[strip.stop:] for s, _ in r.sources} | kept
    targets = {readings[i].target for i in strip.layers}
    return frozenset(t for t in targets if t in behind or t not in inside)


def trace(readings: Sequence[Reading], extents: Mapping[int, int], strip: Strip, outputs: frozenset[int], axis: int,
          part: tuple[int, int] | None = None) -> Trace:
    """Follow one axis of a band from the results of a strip back to its inputs.

    Parameters
    ----------
    extents:
        Height (or width) of each activation.
    axis:
        0 for rows, 1 for columns.
    part:
        Which one of how many parts of a tile's results; None for all of them together.
    """
    parts: dict[int, tuple[Span, ...]] = {}
    needs: dict[int, tuple[Span, ...]] = {}
    for i in reversed(strip.layers):
        target = readings[i].target
        if target in outputs:
            own = split(extents[target])
            parts[target] = own if part is None else tuple(s.part(*part) for s in own)
        else:
            parts[target] = tuple(s.within(extents[target]) for s in needs[target])
        for source, windows in readings[i].sources:
            need = [windows[axis].needed(s) for s in parts[target]]
            old = needs.get(source, (Span(0, 0),) * len(need))
            needs[source] = tuple(a.hull(b) for a, b in zip(old, need, strict=True))
    return Trace(parts, needs)


def views(readings: Sequence[Reading], activations: Mapping[int, Activation], strip: Strip, kept: frozenset[int],
          ) -> Iterator[dict[int, Activation]]:
    """Yield, band after band, the activations as the layers of a strip see them."""
    outputs = stored(readings, strip, kept)
    used = {t for i in strip.layers for t in (readings[i].target, *(s for s, _ in readings[i].sources))}
    heights = {t: activations[t].image.height for t in used}
    widths = {t: activations[t].image.width for t in used}
    for band, piece in product(range(strip.bands), range(strip.columns)):
        rows = trace(readings, heights, strip, outputs, 0, (band, strip.bands))
        columns = trace(readings, widths, strip, outputs, 1, (piece, strip.columns))
        seen = {t: activations[t] for t in used}
        for t in rows.parts:
            a = activations[t]
            parts = _regions(rows.parts[t], columns.parts[t])
            if t in outputs:
                seen[t] = replace(a, parts=parts, frames=tuple(a.slab(tile) for tile in range(TILES)))
            else:
                seen[t] = replace(a, parts=parts, needed=_regions(rows.needs[t], columns.needs[t]))
        _align(readings, strip, seen, outputs)
        yield seen


def _regions(rows: Sequence[Span], columns: Sequence[Span]) -> tuple[Region, ...]:
    found = (Region(rows[t // TILE_COLUMNS], columns[t % TILE_COLUMNS]) for t in range(TILES))
    return tuple(r if r else NOWHERE for r in found)


def _align(readings: Sequence[Reading], strip: Strip, seen: dict[int, Activation], outputs: frozenset[int]) -> None:
    """Give operands that are walked together rows of one length, where they are the strip's own."""
    targets = {readings[i].target for i in strip.layers}
    changed = True
    while changed:
        changed = False
        for i in strip.layers:
            if not readings[i].aligned:
                continue
            operands = [s for s, _ in readings[i].sources]
            slabs = {t: [seen[t].slab(tile) for tile in range(TILES)] for t in operands}
            for t in operands:
                wide = tuple(_widened(tile, slabs, t) for tile in range(TILES))
                if t in targets and t not in outputs and wide != tuple(slabs[t]):
                    seen[t] = replace(seen[t], frames=wide)
                    changed = True


def _widened(tile: int, slabs: Mapping[int, Sequence[Slab]], tensor: int) -> Slab:
    slab = slabs[tensor][tile]
    columns = slab.columns
    for other in slabs.values():
        if len(slab.rows):
            columns = columns.hull(other[tile].columns)
    return replace(slab, columns=columns)


def stored_needs(readings: Sequence[Reading], activations: Mapping[int, Activation], strips: Sequence[Strip],
                 kept: frozenset[int]) -> dict[int, tuple[Region, ...]]:
    """Return what is needed around each activation that lies in memory as a whole."""
    nothing = (NOWHERE,) * TILES
    needed: dict[int, tuple[Region, ...]] = {}
    inner: set[int] = set()
    for strip in strips:
        outputs = stored(readings, strip, kept)
        targets = {readings[i].target for i in strip.layers}
        inner |= targets - outputs
        used = {t for i in strip.layers for t in (readings[i].target, *(s for s, _ in readings[i].sources))}
        traces = [trace(readings, {t: _extent(activations[t], axis) for t in used}, strip, outputs, axis) for axis in (0, 1)]
        for t in used - targets:
            if any(_looks_around(readings[i], t) for i in strip.layers) or not strip.whole:
                needed[t] = hull(needed.get(t, nothing), _regions(traces[0].needs[t], traces[1].needs[t]))
    needed = {t: passed_on(activations[t].image, regions) for t, regions in needed.items()}
    align_operands([r for r in readings if r.aligned and not inner & {s for s, _ in r.sources}], needed)
    return needed


def _extent(activation: Activation, axis: int) -> int:
    return activation.image.width if axis else activation.image.height


def _looks_around(reading: Reading, tensor: int) -> bool:
    return any(s == tensor and windows != (Window(), Window()) for s, windows in reading.sources)


def hull(a: tuple[Region, ...], b: tuple[Region, ...]) -> tuple[Region, ...]:
    """Return, per tile, the smallest region around both."""
    return tuple(x.hull(y) for x, y in zip(a, b, strict=True))


def align_operands(readings: Sequence[Reading], needed: dict[int, tuple[Region, ...]]) -> None:
    """Operands that are walked together get slabs of the same shape."""
    nothing = (NOWHERE,) * TILES
    changed = True
    while changed:
        changed = False
        for reading in readings:
            a, b = (needed.get(s, nothing) for s, _ in reading.sources)
            if a != b:
                for s, _ in reading.sources:
                    needed[s] = hull(a, b)
                changed = True


__all__ = ["Reading", "Strip", "align_operands", "hull", "stored", "stored_needs", "trace", "views"]
