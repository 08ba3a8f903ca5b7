"""Which part of an image lies on which tile.

Rows go over the four rows of tiles, columns over the four columns, at ceil(i * length / 4). What a
tile owns and what it needs of its neighbours for the next operator lie together in narrow memory,
its *slab*: row by row, channels innermost and rounded up to four.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, lru_cache
from itertools import pairwise
from typing import TypeVar

from compiler.facts import TILE_COLUMNS, TILE_ROWS, TILES
from compiler.records import record, replaced

Dim = tuple[int, int]
T = TypeVar("T")


@record
class Span:
    """Rows or columns ``start`` to ``stop`` (not included); empty when they are equal."""

    start: int
    stop: int

    def __len__(self) -> int:
        """Count of rows or columns."""
        return self.stop - self.start

    def hull(self, other: Span) -> Span:
        """Return the smallest span around both; empty ones do not count."""
        if other.start >= other.stop:
            return self
        if self.start >= self.stop:
            return other
        return Span(min(self.start, other.start), max(self.stop, other.stop))

    def covers(self, other: Span) -> bool:
        """Tell whether all of another one lies inside."""
        return other.start >= other.stop or (self.start <= other.start and other.stop <= self.stop)

    def within(self, length: int) -> Span:
        """Return what of it lies inside an image of this extent."""
        start = min(max(self.start, 0), length)
        return Span(start, max(min(self.stop, length), start))

    def part(self, index: int, count: int) -> Span:
        """Return one of several parts of about the same length."""
        start, stop = (self.start - (-i * len(self) // count) for i in (index, index + 1))
        return Span(start, stop)


EMPTY = Span(0, 0)
ONE_PIXEL = Span(0, 1)


@lru_cache(maxsize=4096)
def split(length: int) -> tuple[Span, ...]:
    """Split rows or columns over four tiles.

    Examples
    --------
    >>> [len(s) for s in split(14)]
    [4, 3, 4, 3]
    """
    cuts = [-(-i * length // TILE_ROWS) for i in range(TILE_ROWS + 1)]
    return tuple(Span(a, b) for a, b in pairwise(cuts))


@record
class Window:
    """How an output row (or column) reads input rows.

    Attributes
    ----------
    before:
        Rows of padding in front.
    """

    size: int = 1
    stride: int = 1
    before: int = 0
    dilation: int = 1

    @property
    def reach(self) -> int:
        """Input rows under one output row, gaps included."""
        return (self.size - 1) * self.dilation + 1

    def later(self, rows: int) -> Window:
        """Return a window behind so many more rows of padding."""
        return replace(self, before=self.before + rows)

    def needed(self, out: Span) -> Span:
        """Input rows for output rows; may stick out of the image."""
        if not len(out):
            return EMPTY
        first = out.start * self.stride - self.before
        return Span(first, (out.stop - 1) * self.stride - self.before + self.reach)


@record
class Several(Window):
    """What several windows read together."""

    windows: tuple[Window, ...] = ()

    def needed(self, out: Span) -> Span:
        """Input rows for output rows."""
        need = EMPTY
        for window in self.windows:
            need = need.hull(window.needed(out))
        return need


@record
class Lane(Window):
    """Every ``period``-th row (or column) of a result, and where it comes from.

    Attributes
    ----------
    phase, period:
        Rows phase, phase + period, ... of the result.
    start, stride:
        Come from rows start, start + stride, ... of the operand.
    """

    phase: int = 0
    period: int = 1
    start: int = 0

    def indices(self, out: Span) -> Span:
        """Return which of them lie in a part of the result."""
        if self.period == 1 and not self.phase:
            return out
        first, last = (-(-(place - self.phase) // self.period) for place in (out.start, out.stop))
        return Span(first, max(first, last))

    def needed(self, out: Span) -> Span:
        """Return the rows that they come from."""
        found = self.indices(out)
        if not len(found):
            return EMPTY
        return Span(self.start + self.stride * found.start, self.start + self.stride * (found.stop - 1) + 1)

    def place(self, index: int) -> int:
        """Return one of the rows of the result."""
        return self.phase + self.period * index


@record
class OnLane(Window):
    """A window whose outputs are the rows of a lane."""

    lane: Lane = Lane()
    window: Window = Window()

    def needed(self, out: Span) -> Span:
        """Input rows for output rows."""
        return self.window.needed(self.lane.indices(out))


IDENTITY = Window()
EVERY = Lane()


@record
class Image:
    """Extent of an activation."""

    height: int
    width: int
    channels: int

    @property
    def elements(self) -> int:
        """Bytes of the host's buffer of an input."""
        return self.height * self.width * self.channels

    @cached_property
    def padded(self) -> int:
        """Bytes of a pixel: channels rounded up to a multiple of four."""
        return -(-self.channels // 4) * 4

    def own(self, tile: int) -> tuple[Span, Span]:
        """Rows and columns of a tile."""
        return split(self.height)[tile // TILE_COLUMNS], split(self.width)[tile % TILE_COLUMNS]

    def pixels(self, tile: int) -> int:
        """Pixels of a tile."""
        rows, columns = self.own(tile)
        return len(rows) * len(columns)


@record
class Slab:
    """Part of an image in the narrow memory of one tile."""

    rows: Span
    columns: Span
    pixel: int

    @cached_property
    def pitch(self) -> int:
        """Bytes of a row."""
        return len(self.columns) * self.pixel

    @property
    def size(self) -> int:
        """Bytes in all."""
        return len(self.rows) * self.pitch

    def offset(self, row: int, column: int) -> int:
        """Bytes in front of a pixel."""
        return (row - self.rows.start) * self.pitch + (column - self.columns.start) * self.pixel


@record
class Region:
    """Rows and columns, possibly beyond the border of the image."""

    rows: Span
    columns: Span

    def __bool__(self) -> bool:
        """Tell whether there is a pixel in it."""
        return len(self.rows) > 0 and len(self.columns) > 0

    def __hash__(self) -> int:
        """Hash at once: layouts are looked up by many regions."""
        return hash((self.rows.start, self.rows.stop, self.columns.start, self.columns.stop))

    def hull(self, other: Region) -> Region:
        """Return the smallest region around both."""
        return Region(self.rows.hull(other.rows), self.columns.hull(other.columns))


NOWHERE = Region(EMPTY, EMPTY)


class Layout:
    """Which part of an image lies on which tile; images that lie alike share one, compared by identity.

    Attributes
    ----------
    height, width:
        Extent of the image.
    own:
        Per tile: rows and columns that the producer computes there.
    needed:
        Per tile: what the consumers read.
    slabs, size:
        Per tile: the memory of both; bytes of the largest.
    pixels:
        Per tile: how many the producer computes there.
    """

    def __init__(self, image: Image, own: Sequence[tuple[Span, Span]], needed: Sequence[Region],
                 slabs: Sequence[Slab]) -> None:
        self.height, self.width = image.height, image.width
        self.own, self.needed, self.slabs = tuple(own), tuple(needed), tuple(slabs)
        self.pixels = tuple(len(rows) * len(columns) for rows, columns in own)
        self.size = max(slab.size for slab in slabs)


@lru_cache(maxsize=4096)
def _layout(image: Image, needed: tuple[Region, ...], parts: tuple[Region, ...] | None,
            frames: tuple[Slab, ...] | None) -> Layout:
    """Return the layout of an image; see :class:`Activation` for parts and frames."""
    own = [image.own(t) for t in range(TILES)] if parts is None else [(part.rows, part.columns) for part in parts]
    return Layout(image, own, needed, frames or _slabs(image, own, needed))


def _slabs(image: Image, own: Sequence[tuple[Span, Span]], needed: Sequence[Region]) -> list[Slab]:
    """Return what every tile sets aside for what it owns and needs."""
    # Tiles that need nothing have the rows of those beside them, and the columns of those above and below.
    rows, columns = [EMPTY] * TILE_ROWS, [EMPTY] * TILE_COLUMNS
    for tile, need in enumerate(needed):
        row, column = divmod(tile, TILE_COLUMNS)
        rows[row], columns[column] = rows[row].hull(need.rows), columns[column].hull(need.columns)
    return [Slab(own[tile][0].hull(rows[tile // TILE_COLUMNS]), own[tile][1].hull(columns[tile % TILE_COLUMNS]),
                 image.padded) for tile in range(TILES)]


@record
class Activation:
    """An image spread over the tiles.

    Attributes
    ----------
    address:
        Byte address of the slab, the same on all tiles.
    needed:
        Per tile: what the consumers read.
    zero_point:
        Unsigned domain; also what padding is filled with.
    parts:
        Per tile: what its producer computes there; by default what the tile owns. Bands compute parts
        of it, or beyond it what the next operator needs.
    frames:
        Per tile: the slab, where it is more than that.
    joint_bytes:
        Bytes of the vector that it is a part of; zero when it stands by itself.
    """

    name: str
    image: Image
    zero_point: int
    needed: tuple[Region, ...]
    address: int = 0
    parts: tuple[Region, ...] | None = None
    frames: tuple[Slab, ...] | None = None
    joint_bytes: int = 0

    def at(self, address: int) -> Activation:
        """Return the same at another address."""
        return replaced(self, ("layout", "size"), address=address)

    @cached_property
    def layout(self) -> Layout:
        """How it lies on the tiles."""
        return _layout(self.image, self.needed, self.parts, self.frames)

    def own(self, tile: int) -> tuple[Span, Span]:
        """Rows and columns that the producer computes on a tile."""
        return self.layout.own[tile]

    def pixels(self, tile: int) -> int:
        """Pixels that the producer computes on a tile."""
        return self.layout.pixels[tile]

    @property
    def is_vector(self) -> bool:
        """True for a single pixel."""
        return self.image.height * self.image.width == 1

    @property
    def most_pixels(self) -> int:
        """Pixels that the producer computes on the tile with the most of them."""
        return max(self.layout.pixels)

    def slab(self, tile: int) -> Slab:
        """Memory of a tile: what it owns and what it needs."""
        return self.layout.slabs[tile]

    @cached_property
    def size(self) -> int:
        """Bytes set aside on every tile: those of the largest slab."""
        return self.layout.size

    def own_address(self, tile: int) -> int:
        """Byte address of the first pixel that the producer computes on a tile."""
        rows, columns = self.own(tile)
        return self.address + self.slab(tile).offset(rows.start, columns.start)


@record
class Vector(Activation):
    """A single pixel whose channels lie on several tiles, or on each of several tiles as a whole.

    Every slice looks like an image of one pixel to what works channel by channel.

    Attributes
    ----------
    words:
        Per tile: words of its slice.
    copies:
        The slices are all the same.
    whole:
        Every tile sets memory aside for the whole vector.
    in_place:
        Every slice lies where it does in the whole vector.
    """

    words: tuple[int, ...] = ()
    copies: bool = False
    whole: bool = False
    in_place: bool = False

    @cached_property
    def layout(self) -> Layout:
        """One pixel on every tile that has a slice."""
        spans = [ONE_PIXEL if words else EMPTY for words in self.words]
        slabs = [Slab(span, span, 4 * words) for span, words in zip(spans, self.words, strict=True)]
        return Layout(self.image, list(zip(spans, spans, strict=True)), self.needed, slabs)

    @cached_property
    def size(self) -> int:
        """Bytes set aside on every tile."""
        return 4 * (sum(self.words) if self.whole else max(self.words))

    def own_address(self, tile: int) -> int:
        """Byte address of a tile's slice."""
        return self.address + (4 * sum(self.words[:tile]) if self.in_place else 0)


def needed_by(windows: Iterable[tuple[Window, Window]], output: Image) -> tuple[Region, ...]:
    """Return what each tile needs of an input for an operator's output."""
    rows, columns = next(iter(windows))
    regions = []
    for tile in range(TILES):
        own_rows, own_columns = output.own(tile)
        if len(own_rows) and len(own_columns):
            regions.append(Region(rows.needed(own_rows), columns.needed(own_columns)))
        else:
            regions.append(NOWHERE)
    return tuple(regions)


def passed_on(image: Image, needed: Sequence[Region]) -> tuple[Region, ...]:
    """Extend what tiles need by the rows that they only pass on to the tiles beside them."""
    found = list(needed)
    for tile, need in enumerate(needed):
        for beside in (tile - 1, tile + 1):
            if not need or beside // TILE_COLUMNS != tile // TILE_COLUMNS:
                continue
            columns = image.own(beside)[1]
            if max(columns.start, need.columns.start) < min(columns.stop, need.columns.stop):
                found[beside] = found[beside].hull(Region(need.rows, columns))
    return tuple(found)


def reaches_out(windows: tuple[Window, Window], source: Image, target: Image) -> bool:
    """Tell whether windows reach beyond an image."""
    for window, length, count in zip(windows, (source.height, source.width), (target.height, target.width), strict=True):
        span = window.needed(Span(0, count))
        if span.start < 0 or span.stop > length:
            return True
    return False


def merge_dims(dims: Sequence[Dim]) -> list[Dim]:
    """Join neighbouring dimensions that walk on without a jump.

    Examples
    --------
    >>> merge_dims([(16, 4), (16, 64), (3, 4096)])
    [(256, 4), (3, 4096)]
    """
    merged: list[Dim] = []
    for count, stride in dims:
        if merged and stride == merged[-1][0] * merged[-1][1]:
            merged[-1] = (merged[-1][0] * count, merged[-1][1])
        else:
            merged.append((count, stride))
    return merged


def many(dims: Sequence[Dim]) -> list[Dim]:
    """Drop dimensions of one step."""
    return [d for d in dims if d[0] > 1]


def by_content(values: Mapping[int, Mapping[str, int]], *, also: Mapping[int, object] | None = None,
               ) -> list[tuple[int, Mapping[str, int]]]:
    """Group tiles whose instruction would be the same: (mask, fields), in the order of their first tiles.

    Parameters
    ----------
    also:
        What must agree besides the fields.
    """
    groups: dict[object, list[int]] = {}
    contents: dict[int, frozenset[tuple[str, int]]] = {}
    for tile in sorted(values):
        extra = also[tile] if also else None
        content = contents.get(id(values[tile]))
        if content is None:
            content = contents[id(values[tile])] = frozenset(values[tile].items())
        groups.setdefault((content, extra), []).append(tile)
    return [(sum(1 << t for t in tiles), values[tiles[0]]) for tiles in groups.values()]


def by_part(parts: Mapping[int, T], fields: Callable[[T], Mapping[str, int]], *, also: Callable[[T], object] | None = None,
            ) -> list[tuple[int, Mapping[str, int]]]:
    """Group tiles as :func:`by_content` does, by what distinguishes their work: many tiles have the same part.

    Parameters
    ----------
    fields:
        Makes the fields for a part.
    also:
        What must agree besides the fields.
    """
    made = {part: fields(part) for part in set(parts.values())}
    extras = None if also is None else {tile: also(part) for tile, part in parts.items()}
    return by_content({tile: made[part] for tile, part in parts.items()}, also=extras)
