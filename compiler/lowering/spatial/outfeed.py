"""Results to the host, tile after tile; the host puts the parts together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from compiler.beagle.isa.counters import DmaTag, ScalarEngine, TileCounter
from compiler.facts import TILES
from compiler.lowering.builder import ProgramBuilder, Values, address_pair, signal, walk, watch
from compiler.lowering.dense import RECEIVE_ROW, issue_transfer
from compiler.lowering.pieces import ROW_WORDS, ring_turn
from compiler.lowering.scalar_memory import SCALAR_WORDS, push_words, push_zero
from compiler.lowering.spatial.geometry import Activation, by_content, many
from compiler.package.model import BaseAddress
from compiler.records import record

_PART_WORDS = 1024
"""Words of a part at most: 16 lines."""
_SCALAR_MEMORY = 1 << 4
"""Engine of a scalar fence that waits for the scalar memory."""


def emit_outfeed(b: ProgramBuilder, sources: Sequence[Activation], name: str, size: int, drain: Callable[[], None],
                 ) -> None:
    """Bring an image to the host, or several one behind the other.

    Parameters
    ----------
    drain:
        Waits until the rows that images leave through are free.
    """
    b.barrier()
    low, high = address_pair(BaseAddress.OUTPUT, name)
    b.load(10, address=high)
    b.load(11, address=low)
    b.copy(5, 11)
    b.copy(4, 10)
    _collect_image(b, sources[0])
    words = [_words(source) for source in sources]
    if any(n % 2 for found in words for n in found.values()):
        _through_scalar_memory(b, sources, name, size, drain)
        return
    issue_transfer(b, BaseAddress.OUTPUT, name, size, DmaTag.OUTPUT)
    for i, source in enumerate(sources):
        if i:
            _next(b, source, drain)
        for tile, count in words[i].items():
            b.emit("outfeed", walk("fifo", 0, [(count // 2, 0)], total_dims=3), signal("credit", 1), constant222=63,
                   to_host=1)
            _send(b, Part(tile, 0, count))


def _words(source: Activation) -> dict[int, int]:
    """Words that tiles have of an image."""
    return {t: source.image.pixels(t) * source.image.padded // 4 for t in range(TILES) if source.image.pixels(t)}


def _next(b: ProgramBuilder, source: Activation, drain: Callable[[], None]) -> None:
    """Collect another image behind the one that has left."""
    drain()
    b.barrier()
    _collect_image(b, source)


def _collect_image(b: ProgramBuilder, source: Activation) -> None:
    tiles = [t for t in range(TILES) if source.image.pixels(t)]
    shapes = {t: tuple(len(s) > 1 for s in source.image.own(t)) for t in tiles}
    for mask, fields in by_content({t: _collect(source, t) for t in tiles}, also=shapes):
        b.tile("narrow_to_wide", mask, dict(fields))


@record
class Part:
    """Some of what a tile sends.

    Attributes
    ----------
    first:
        Lines of 64 words that the tile has sent before.
    image:
        Of several that leave one behind the other.
    """

    tile: int
    first: int
    words: int
    image: int = 0


def _send(b: ProgramBuilder, part: Part) -> None:
    """A tile sends a part, in its turn."""
    lines = -(-part.words // ROW_WORDS)
    dims = [(1, 1)] if lines == 1 else [(1, 1), (lines, 0)]
    b.tile("ring_send", 1 << part.tile, walk("src", RECEIVE_ROW, dims, total_dims=4, mask=1, level=1, slot=1), ring_turn(b),
           watch(1, TileCounter.NARROW_TO_WIDE, part.first + 1), signal("write", 1), signal("producer", 2), to_scalar=1)


def batches(images: Sequence[Mapping[int, int]]) -> list[list[Part]]:
    """Cut what the tiles send of each image into batches that fit the scalar memory, of even length where that is possible.

    Parts of a tile but the last are an even number of lines, so that the two rows they pass through
    keep their turns.
    """
    parts = [Part(tile, at // ROW_WORDS, min(_PART_WORDS, count - at), image) for image, words in enumerate(images)
             for tile, count in words.items() for at in range(0, count, _PART_WORDS)]
    found = []
    while parts:
        count = next((i for i in range(1, len(parts)) if sum(p.words for p in parts[:i + 1]) > SCALAR_WORDS), len(parts))
        even = next((i for i in range(count, 0, -1) if sum(p.words for p in parts[:i]) % 2 == 0), count)
        count = count if count == len(parts) else even
        found.append(parts[:count])
        parts = parts[count:]
    return found


def _through_scalar_memory(b: ProgramBuilder, sources: Sequence[Activation], name: str, size: int,
                           drain: Callable[[], None]) -> None:
    """Join parts that are no multiple of 8 bytes: the scalar core collects them and passes them on."""
    words = [_words(source) for source in sources]
    collected = 0
    for i, batch in enumerate(batches(words)):
        at = 0
        for part in batch:
            if part.image > collected:
                _next(b, sources[part.image], drain)
                collected = part.image
            _send(b, part)
            b.scalar_fence(engines=_SCALAR_MEMORY, tiles=False)
            b.emit("outfeed", walk("fifo", at, [(part.words, 1)], total_dims=3), constant222=63)
            at += part.words
        b.scalar_fence(engines=1 << ScalarEngine.OUTFEED, tiles=False)
        if i == 0:
            issue_transfer(b, BaseAddress.OUTPUT, name, size, DmaTag.OUTPUT)
        push_words(b, 0, at)
    if sum(n for found in words for n in found.values()) % 2:
        push_zero(b)


def _collect(source: Activation, tile: int) -> Values:
    rows, columns = source.image.own(tile)
    slab = source.slab(tile)
    words = slab.pixel // 4
    dims = [(words, 1), *many([(len(columns), words), (len(rows), slab.pitch // 4)])]
    lines = -(-len(rows) * len(columns) * words // ROW_WORDS)
    level = int(lines == 1)
    fields = walk("src", source.own_address(tile) // 4, dims, total_dims=6)
    fields |= walk("dst", RECEIVE_ROW, [(lines, 1 if lines == 1 else 0)], total_dims=4, mask=0, level=level, slot=1)
    fields |= watch(0, TileCounter.RING_WRITE, -1, level=level, side=1) | signal("done", level)
    fields["flush_level"] = len(dims)
    return fields
