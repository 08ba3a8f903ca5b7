"""Pixels from far away: owners send them over the ring to the tiles that the mesh does not join them to.

What a tile lacks may lie further than on the next tile, or tiles in between may own nothing: small
images, large kernels, images that grow or shrink. Every owner sends each part that others lack once,
to all of them at the same time, in the form in which official programs gather vectors.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from compiler.beagle.isa.counters import TileCounter
from compiler.facts import TILES
from compiler.lowering.builder import LAYER_COUNTERS, ProgramBuilder, Values, signal, walk, watch
from compiler.lowering.dense import RECEIVE_ROW, SEND_ROW, ring_turn
from compiler.lowering.dense_layer import ROW_WORDS
from compiler.lowering.spatial.geometry import Activation, Image, Region, Span, by_content, many


@dataclass(frozen=True)
class Parcel:
    """Pixels that one tile sends to others.

    Attributes
    ----------
    receivers:
        Tiles that lack all of them.
    """

    owner: int
    region: Region
    receivers: tuple[int, ...]

    @property
    def mask(self) -> int:
        """Receivers as a mask."""
        return sum(1 << t for t in self.receivers)


def parcels(activation: Activation) -> list[Parcel]:
    """Return what has to be sent so that every tile has what it needs of an image."""
    image = activation.image
    found: dict[tuple[int, Region], list[int]] = {}
    for tile in range(TILES):
        need = activation.needed[tile]
        inside = Region(need.rows.within(image.height), need.columns.within(image.width))
        if inside:
            for owner in range(TILES):
                rows, columns = activation.own(owner)
                part = Region(_common(inside.rows, rows), _common(inside.columns, columns))
                if owner != tile and part:
                    found.setdefault((owner, part), []).append(tile)
    return [Parcel(owner, region, tuple(found[owner, region])) for owner, region in sorted(
        found, key=lambda key: (key[0], key[1].rows.start, key[1].columns.start))]


def _common(a: Span, b: Span) -> Span:
    start = max(a.start, b.start)
    return Span(start, max(min(a.stop, b.stop), start))


def emit_gather(b: ProgramBuilder, activation: Activation) -> None:
    """Bring every tile what it needs of an image; begins and ends with a fence of all tiles that resets the counters."""
    b.barrier(reset=LAYER_COUNTERS)
    borders = {t: beyond(activation.needed[t], activation.image) for t in range(TILES)}
    for i in range(max(map(len, borders.values()))):
        fills = {t: _fill(activation, t, regions[i]) for t, regions in borders.items() if i < len(regions)}
        for tiles, fields in by_content(fills):
            b.tile("mesh_from_south", tiles, dict(fields))
    progress = _Progress()
    for parcel in parcels(activation):
        _emit_parcel(b, activation, parcel, progress)
    b.barrier()
    b.tile_fence(reset=LAYER_COUNTERS)
    b.scalar_fence(tiles=False)
    b.tile_fence(reset=LAYER_COUNTERS)


class _Progress:
    """Lines and words that tiles have sent and received since the counters were reset."""

    def __init__(self) -> None:
        self.sent: Counter[int] = Counter()
        self.lines: Counter[int] = Counter()
        self.words: Counter[int] = Counter()
        self.last: Counter[int] = Counter()


def _rows(base: int, before: int, lines: int, prefix: str, *, mask: int = 0) -> Values:
    """Walk over lines in two rows that take turns, ``before`` of them having passed."""
    dims = [(1, 1)] if lines == 1 else [(1, 1), (lines, 0)]
    odd = before % 2
    return walk(prefix, base + odd, dims, total_dims=4, mask=mask, level=1, slot=-1 if odd else 1)


def _emit_parcel(b: ProgramBuilder, activation: Activation, parcel: Parcel, progress: _Progress) -> None:
    region, owner = parcel.region, parcel.owner
    words = len(region.rows) * len(region.columns) * activation.image.padded // 4
    lines = -(-words // ROW_WORDS)
    writes = {t: _take(activation, t, region, lines, progress) for t in parcel.receivers}
    for tiles, fields in by_content(writes):
        b.tile("wide_to_narrow", tiles, dict(fields))
    reads = {t: _rows(RECEIVE_ROW, progress.lines[t], lines, "dst") | signal("read", 1) | watch(
        0, TileCounter.WIDE_TO_NARROW, progress.words[t] - (progress.last[t] or ROW_WORDS), step=ROW_WORDS, side=1)
        for t in parcel.receivers}
    for tiles, fields in by_content(reads):
        b.tile("ring_receive_a", tiles, dict(fields))
    sent = progress.sent[owner]
    b.tile("ring_send", 1 << owner, _rows(SEND_ROW, sent, lines, "src", mask=1), ring_turn(b),
           watch(1, TileCounter.NARROW_TO_WIDE, sent + 1), signal("write", 1), signal("producer", 2),
           receivers=parcel.mask)
    dims = _dims(activation, owner, region)
    b.tile("narrow_to_wide", 1 << owner, _walk("src", activation, owner, region), _rows(SEND_ROW, sent, lines, "dst"),
           watch(0, TileCounter.RING_WRITE, sent - 1, side=1), signal("done", 1), flush_level=len(dims))
    progress.sent[owner] += lines
    for t in parcel.receivers:
        progress.lines[t] += lines
        progress.words[t] += words
        progress.last[t] = words - (lines - 1) * ROW_WORDS


def _take(activation: Activation, tile: int, region: Region, lines: int, progress: _Progress) -> Values:
    """A receiver takes the words out of the rows in which they arrive."""
    before = progress.lines[tile]
    return (_rows(RECEIVE_ROW, before, lines, "src", mask=0) | _walk("dst", activation, tile, region)
            | watch(0, TileCounter.RING_READ_A, before + 1) | signal("done", 0)
            | {"drop_level": len(_dims(activation, tile, region))})


def _dims(activation: Activation, tile: int, region: Region) -> list[tuple[int, int]]:
    words = activation.image.padded // 4
    pitch = activation.slab(tile).pitch // 4
    return many([(words, 1), (len(region.columns), words), (len(region.rows), pitch)]) or [(1, 1)]


def _walk(prefix: str, activation: Activation, tile: int, region: Region, *, total_dims: int = 6) -> Values:
    slab = activation.slab(tile)
    start = (activation.address + slab.offset(region.rows.start, region.columns.start)) // 4
    return walk(prefix, start, _dims(activation, tile, region), total_dims=total_dims)


def beyond(need: Region, image: Image) -> list[Region]:
    """Return the parts of a region that lie beyond the border: above, below, left and right of the image.

    Examples
    --------
    >>> beyond(Region(Span(-1, 2), Span(0, 4)), Image(2, 4, 1))
    [Region(rows=Span(start=-1, stop=0), columns=Span(start=0, stop=4))]
    """
    inside = need.rows.within(image.height)
    found = [Region(part, need.columns) for part in _outside(need.rows, image.height)]
    found += [Region(inside, part) for part in _outside(need.columns, image.width)]
    return [region for region in found if region]


def _outside(need: Span, length: int) -> tuple[Span, Span]:
    return Span(need.start, max(min(need.stop, 0), need.start)), Span(min(max(need.start, length), need.stop), need.stop)


def _fill(activation: Activation, tile: int, region: Region) -> Values:
    return _walk("dst", activation, tile, region, total_dims=4) | {
        "fill": 1, "fill_value": activation.zero_point * 0x01010101}


__all__ = ["emit_gather", "parcels"]
