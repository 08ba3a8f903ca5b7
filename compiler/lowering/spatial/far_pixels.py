"""Pixels from far away: owners send them over the ring to the tiles that the mesh does not join them to.

What a tile lacks may lie further than on the next tile, or tiles in between may own nothing: small
images, large kernels, images that grow or shrink. Every owner sends each part that others lack once,
to all of them at the same time, in the form in which official programs gather vectors.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from math import prod

from compiler.beagle.isa.counters import TileCounter
from compiler.facts import TILES
from compiler.lowering.builder import LAYER_COUNTERS, ProgramBuilder, Values, signal, walk, watch
from compiler.lowering.dense import RECEIVE_ROW, SEND_ROW
from compiler.lowering.pieces import ROW_WORDS, ring_turn
from compiler.lowering.spatial.geometry import Activation, Dim, Image, Region, Span, by_content, many
from compiler.records import record


@record
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
    send(b, [Transfer(p.owner, _stretch(activation, p.owner, p.region),
                      {t: _stretch(activation, t, p.region) for t in p.receivers}) for p in parcels(activation)])


@record
class Stretch:
    """Words of narrow memory in some order.

    Attributes
    ----------
    start:
        Address of the first, in words.
    dims:
        Counts and distances, innermost first.
    """

    start: int
    dims: tuple[Dim, ...]

    @property
    def words(self) -> int:
        """How many."""
        return prod(count for count, _ in self.dims)

    def behind(self, words: int) -> Stretch:
        """Return the same so many words further."""
        return Stretch(self.start + words, self.dims)

    def walk(self, prefix: str, *, total_dims: int = 6) -> Values:
        """Return the fields of a walk over them."""
        return walk(prefix, self.start, self.dims, total_dims=total_dims)


@record
class Transfer:
    """Words that one tile sends to others, and where they go on each of them."""

    owner: int
    source: Stretch
    targets: Mapping[int, Stretch]

    def behind(self, source: int, target: int) -> Transfer:
        """Return the same so many words further on the sender and on the receivers."""
        return Transfer(self.owner, self.source.behind(source), {t: s.behind(target) for t, s in self.targets.items()})


def send(b: ProgramBuilder, transfers: Iterable[Transfer]) -> None:
    """Send words over the ring, one tile after the other; ends with a fence of all tiles that resets the counters."""
    progress = _Progress()
    for transfer in transfers:
        _emit_transfer(b, transfer, progress)
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


def _emit_transfer(b: ProgramBuilder, transfer: Transfer, progress: _Progress) -> None:
    words, targets = transfer.source.words, transfer.targets
    lines = -(-words // ROW_WORDS)
    for tiles, fields in by_content({t: _take(stretch, lines, progress.lines[t]) for t, stretch in targets.items()}):
        b.tile("wide_to_narrow", tiles, dict(fields))
    # A line may be overwritten when all words of the one before the last have been taken.
    reads = {t: _rows(RECEIVE_ROW, progress.lines[t], lines, "dst") | signal("read", 1) | watch(
        0, TileCounter.WIDE_TO_NARROW, progress.words[t] - (progress.last[t] or ROW_WORDS), step=ROW_WORDS, side=1)
        for t in targets}
    for tiles, fields in by_content(reads):
        b.tile("ring_receive_a", tiles, dict(fields))
    owner, sent = transfer.owner, progress.sent[transfer.owner]
    b.tile("ring_send", 1 << owner, _rows(SEND_ROW, sent, lines, "src", mask=1), ring_turn(b),
           watch(1, TileCounter.NARROW_TO_WIDE, sent + 1), signal("write", 1), signal("producer", 2),
           receivers=sum(1 << t for t in targets))
    b.tile("narrow_to_wide", 1 << owner, transfer.source.walk("src"), _rows(SEND_ROW, sent, lines, "dst"),
           watch(0, TileCounter.RING_WRITE, sent - 1, side=1), signal("done", 1), flush_level=len(transfer.source.dims))
    progress.sent[owner] += lines
    for t in targets:
        progress.lines[t] += lines
        progress.words[t] += words
        progress.last[t] = words - (lines - 1) * ROW_WORDS


def _take(target: Stretch, lines: int, before: int) -> Values:
    """A receiver takes the words out of the rows in which they arrive."""
    return (_rows(RECEIVE_ROW, before, lines, "src") | target.walk("dst") | watch(0, TileCounter.RING_READ_A, before + 1)
            | signal("done", 0) | {"drop_level": len(target.dims)})


def _stretch(activation: Activation, tile: int, region: Region) -> Stretch:
    slab = activation.slab(tile)
    words = activation.image.padded // 4
    dims = many([(words, 1), (len(region.columns), words), (len(region.rows), slab.pitch // 4)]) or [(1, 1)]
    return Stretch((activation.address + slab.offset(region.rows.start, region.columns.start)) // 4, tuple(dims))


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
    return _stretch(activation, tile, region).walk("dst", total_dims=4) | {
        "fill": 1, "fill_value": activation.zero_point * 0x01010101}


__all__ = ["Stretch", "Transfer", "emit_gather", "parcels", "send"]
