"""Vectors on the tiles: their way in, from tile to tile and out, and dense layers.

An input vector is cut into slices, one per tile, which the host's data reach over the ring bus.
Before a dense layer the slices are gathered: every owner sends its own over the ring and every tile
that computes writes all of them into its narrow memory. Weights lie in the wide memory of the
tile that uses them. The forms and their order follow the official compiler 16.0.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from compiler.beagle.isa.counters import DmaTag, ScalarCounter, TileCounter
from compiler.facts import (
    ACTIVATION_FIFO_WORDS,
    TILE_COLUMNS,
    TILES,
    WIDE_ROW_BYTES,
    WIDE_ROWS,
)
from compiler.lowering.builder import (
    ALL_TILES,
    LAYER_COUNTERS,
    ProgramBuilder,
    Values,
    address_pair,
    linear,
    signal,
    walk,
    watch,
)
from compiler.lowering.dense_layer import (
    ROW_WORDS,
    DenseLayer,
    by_groups,
    load_scaling,
    multiply,
    scaling_lines,
    tile_shapes,
    zero_points,
)
from compiler.lowering.dense_stream import over_ring, stream
from compiler.lowering.parameters import round_up
from compiler.package.model import BaseAddress

HALF_ACTIVATION_FIFO = ACTIVATION_FIFO_WORDS // 2
ACTIVATION_CREDITS = ACTIVATION_FIFO_WORDS - 4
"""Credits that the infeed may use up before entries are popped."""
SEND_ROW = WIDE_ROWS - 6
"""Wide row in which an owner collects what it sends."""
RECEIVE_ROW = WIDE_ROWS - 2
"""Wide row in which packets arrive; also the row results leave through."""
MIN_SLICE_BYTES = 64


@dataclass(frozen=True)
class Slice:
    """A part of a vector in the narrow memory of one tile, in words."""

    tile: int
    word: int
    words: int


def slice_bytes(inputs: int) -> int:
    """Bytes of the input vector that each tile receives from the host."""
    return max(MIN_SLICE_BYTES, round_up(-(-inputs // TILES), 4))


def begin(b: ProgramBuilder) -> None:
    """Prologue of execution programs."""
    b.reset_chip()
    low, high = address_pair(BaseAddress.PARAMETER)
    b.load(1, address=low)
    b.load(0, address=high)
    low, high = address_pair(BaseAddress.SCRATCH)
    b.load(3, address=low)
    b.load(2, address=high)
    b.scalar_fence(reset=1 << ScalarCounter.AVDATA_POP | 1 << ScalarCounter.AVDATA_INFEED, tiles=False)
    b.barrier()


def emit_vector_input(b: ProgramBuilder, inputs: int, name: str, size: int, staging: int) -> None:
    """Bring an input vector of so many bytes to its owners, each its slice at byte address ``staging``."""
    b.tile_fence(engines=1 << 5)
    low, high = address_pair(BaseAddress.INPUT, name)
    b.load(10, address=high)
    b.load(11, address=low)
    b.scalar_fence(reset=1 << ScalarCounter.AVDATA_INFEED, value=ACTIVATION_CREDITS, tiles=False)
    b.scalar_fence(reset=1 << ScalarCounter.AVDATA_POP, tiles=False)
    b.emit("infeed", linear("fifo", 0, size // 8, HALF_ACTIVATION_FIFO), signal("filled", 0),
           watch(0, ScalarCounter.AVDATA_INFEED, 0, level=0), stream=1)
    start_transfer(b, BaseAddress.INPUT, name, size, DmaTag.INPUT)
    rows = -(-inputs // WIDE_ROW_BYTES)
    base = WIDE_ROWS - 2 * rows
    slices = [Slice(tile, staging // 4, words) for tile, words in enumerate(input_words(inputs)) if words]
    _distribute(b, slices, base, inputs)
    for first in range(0, len(slices), TILE_COLUMNS):
        _pop_tile_row(b, slices[first:first + TILE_COLUMNS], first, base, rows, inputs)
    b.tile_fence()
    b.tile_fence(reset=LAYER_COUNTERS)
    b.barrier()


def input_words(inputs: int) -> tuple[int, ...]:
    """Return the words of an input vector that each tile owns."""
    step = slice_bytes(inputs)
    return tuple(-(-max(min(step, inputs - tile * step), 0) // 4) for tile in range(TILES))


def input_row(inputs: int) -> int:
    """Return the lowest wide row through which an input vector passes."""
    return WIDE_ROWS - 2 * -(-inputs // WIDE_ROW_BYTES)


def _distribute(b: ProgramBuilder, slices: Sequence[Slice], base: int, inputs: int) -> None:
    """Each tile takes its own words out of the rows that its tile row receives."""
    step = slice_bytes(inputs) // 4
    classes: dict[tuple[int, int, int], int] = {}
    for s in slices:
        offset = s.tile % TILE_COLUMNS * step
        key = (offset // ROW_WORDS, offset % ROW_WORDS, s.words)
        classes[key] = classes.get(key, 0) | 1 << s.tile
    word = slices[0].word
    for (row, skip, words), mask in classes.items():
        prefix = {}
        if skip:
            prefix = {"prefix.enable": 1, "prefix.level": 1, "prefix.start": word, "prefix.count_m1": skip - 1,
                      "prefix.last": word + skip - 1}
        lines = -(-(skip + words) // ROW_WORDS)
        b.tile("wide_to_narrow", mask, walk("src", base + row, [(lines, 1)], total_dims=4, mask=int(lines > 1)),
               walk("dst", word, [(words, 1)], total_dims=6, level=1, slot=ROW_WORDS), prefix,
               watch(0, TileCounter.RING_READ_A, 1), watch(1, TileCounter.AVDATA, -1, side=1), signal("done", 0),
               drop_level=2 if skip else 1)


def _pop_tile_row(b: ProgramBuilder, slices: Sequence[Slice], first: int, base: int, rows: int, inputs: int) -> None:
    """Send one tile row its part of the input."""
    mask = sum(1 << s.tile for s in slices)
    step = slice_bytes(inputs)
    size = min(inputs, (first + len(slices)) * step) - first * step
    lines = -(-size // WIDE_ROW_BYTES)
    b.tile("ring_receive_a", mask,
           walk("dst", base, [(lines, 1)], total_dims=4, mask=int(rows > 1), level=1, slot=rows),
           watch(0, TileCounter.WIDE_TO_NARROW, -ROW_WORDS * rows, step=ROW_WORDS * rows, side=1), signal("read", 1))
    word = first * step // 8
    b.emit("pop", linear("fifo", word, -(-size // 8), HALF_ACTIVATION_FIFO), signal("credit", 0),
           watch(0, ScalarCounter.AVDATA_POP, word + 1, level=0), source=1, constant392=1, receivers=mask,
           lanes_m1=ROW_WORDS - 1)


def gather(b: ProgramBuilder, slices: Sequence[Slice], receivers: int, base: int, places: Sequence[int] | None = None,
           ) -> None:
    """Collect parts of an activation in the narrow memory of tiles 0..receivers-1.

    Parameters
    ----------
    base:
        Narrow word address of the whole.
    places:
        Where each part goes, in words from there; by default one behind the other.
    """
    mask = (1 << receivers) - 1
    progress: Counter[int] = Counter()
    passed = lines = 0
    for number, s in enumerate(slices):
        first = passed if places is None else places[number]
        _gather_slice(b, s, mask, base + first, (lines, passed, progress[s.tile]))
        count = -(-s.words // ROW_WORDS)
        progress[s.tile] += count
        lines += count
        passed += s.words
    b.barrier()
    b.tile_fence(reset=LAYER_COUNTERS)
    b.scalar_fence(tiles=False)
    b.tile_fence(reset=LAYER_COUNTERS)


def _gather_slice(b: ProgramBuilder, piece: Slice, mask: int, place: int, before: tuple[int, int, int]) -> None:
    """Send a slice; ``before`` are the lines and words that all tiles sent so far, and the lines that this one sent."""
    lines, passed, earlier = before
    words, count = piece.words, -(-piece.words // ROW_WORDS)
    level = int(count == 1)
    rows = [(count, int(count == 1))]

    def turns(prefix: str, row: int) -> Values:
        return walk(prefix, row, rows, total_dims=4, mask=0, level=level, slot=1)

    b.tile("wide_to_narrow", mask, turns("src", RECEIVE_ROW),
           walk("dst", place, [(words, 1)], total_dims=6, mask=int(words > 1)),
           watch(0, TileCounter.RING_READ_A, lines + 1, level=level), signal("done", 0), drop_level=1)
    b.tile("ring_receive_a", mask, turns("dst", RECEIVE_ROW),
           watch(0, TileCounter.WIDE_TO_NARROW, passed - ROW_WORDS, step=ROW_WORDS, side=1, level=level),
           signal("read", level))
    sent = [(1, 1)] if count == 1 else [(1, 1), *rows]
    b.tile("ring_send", 1 << piece.tile, walk("src", SEND_ROW, sent, total_dims=4, mask=1, level=1, slot=1),
           ring_turn(b), watch(1, TileCounter.NARROW_TO_WIDE, earlier + 1), signal("write", 1), signal("producer", 2),
           receivers=mask)
    # A tile that sends several slices collects the next one only after the last has left.
    free = earlier if earlier else -1
    b.tile("narrow_to_wide", 1 << piece.tile, walk("src", piece.word, [(words, 1)], total_dims=6, mask=int(words > 1)),
           turns("dst", SEND_ROW), watch(0, TileCounter.RING_WRITE, free, side=1, level=level), signal("done", level),
           flush_level=1)


def finish_rings(b: ProgramBuilder) -> None:
    """Wait until everything sent has arrived, then reset the turns."""
    b.tile_fence(reset=LAYER_COUNTERS)
    reset, turns = 1 << ScalarCounter.PRODUCER_A, 1 << TileCounter.RING_PRODUCER_A
    waits: Values = {"wait5.value": b.producer_turns, "wait5.enable": 1}
    if b.ring_b_rows:
        waits |= {"wait6.value": b.ring_b_rows, "wait6.enable": 1}
        reset |= 1 << ScalarCounter.PRODUCER_B
        turns |= 1 << TileCounter.RING_PRODUCER_B
    b.emit("scalar_fence", waits, tiles=ALL_TILES, reset=reset, engines=0xC)
    b.barrier(reset=turns)


def ring_turn(b: ProgramBuilder) -> dict[str, int]:
    """Watch for this sender's turn on ring A."""
    turn = watch(0, TileCounter.RING_PRODUCER_A, b.producer_turns, level=2)
    b.producer_turns += 1
    return turn


def emit_dense(b: ProgramBuilder, layer: DenseLayer, source: int, out: int, lines: int, first: int) -> int:
    """Multiply a gathered vector with a layer, wherever its parameters lie; see :func:`stream`."""
    if layer.row is not None:
        compute(b, layer, layer.row, source, out)
    elif layer.pieces:
        over_ring(b, layer, source, out)
    else:
        return stream(b, layer, source, out, lines, first)
    return lines


def compute(b: ProgramBuilder, layer: DenseLayer, row: int, source: int, out: int) -> None:
    """Load scaling registers and multiply, on all tiles of a layer whose parameters are cached at ``row``."""
    p = layer.parameters
    shapes = tile_shapes(layer)
    for groups, mask in by_groups(shapes).items():
        header = p.header_rows
        src = [(scaling_lines(p), 1)] if groups == 1 else [(scaling_lines(p), 1), (groups, header)]
        load_scaling(b, p, mask, walk("src", row, src, total_dims=4), groups)
    for (groups, lanes), mask in shapes.items():
        base = row + groups * p.header_rows
        steps = p.main_rows
        size = round_up(p.inputs, 4)
        grouped = groups > 1
        first = row + p.header_rows - 1
        multiply(
            b, layer, out, groups, lanes, mask,
            {"loop0": steps - 1, "loop1": groups - 1, "channel_group_level": 1, "reduction": 1},
            walk("in", source, [(steps, 4), (1, size), (groups, 0 if grouped else size)], total_dims=8),
            walk("weights", 4 * base, [(steps, 4), (groups, 4 * steps)] if grouped else [(steps, 4)], total_dims=8),
            walk("partial", 0, [(steps, 0), (groups, 0)] if grouped else [(steps, 0)], total_dims=8),
            watch(0, TileCounter.WIDE_TO_SCALING, 1) if scaling_lines(p) else {},
            zero_points(p, first, p.header_rows if grouped else p.header_rows - 1, row + groups * p.header_rows - 1),
        )
    b.tile_fence(reset=LAYER_COUNTERS)
    b.barrier(reset=LAYER_COUNTERS)


def start_transfer(b: ProgramBuilder, base: BaseAddress, name: str, size: int, tag: DmaTag, offset: int = 0) -> None:
    """Issue a host transfer, so far behind the start of a buffer whose address is in registers 10 (high) and 11 (low)."""
    b.point(11, 10, offset)
    issue_transfer(b, base, name, size, tag, offset)


def issue_transfer(b: ProgramBuilder, base: BaseAddress, name: str, size: int, tag: DmaTag, offset: int = 0) -> None:
    """Issue a host transfer whose address is in registers 4 (high) and 5 (low)."""
    b.copy(6, 5)
    b.copy(7, 4)
    b.transfer_hint(base, name, offset, size)
    b.descriptor(6, 7, 8, size, tag)


def emit_vector_output(b: ProgramBuilder, slices: Sequence[Slice], name: str, size: int) -> None:
    """Bring a vector to the host, tile by tile."""
    b.serve()
    b.barrier()
    low, high = address_pair(BaseAddress.OUTPUT, name)
    b.load(10, address=high)
    b.load(11, address=low)
    b.copy(5, 11)
    b.copy(4, 10)
    collect_vector(b, slices)
    issue_transfer(b, BaseAddress.OUTPUT, name, size, DmaTag.OUTPUT)
    for s in slices:
        entries = -(-s.words // 2)
        b.emit("outfeed", walk("fifo", 0, [(entries, int(entries == 1))], total_dims=3, mask=0), signal("credit", 1),
               constant222=63, to_host=1)
        send_vector(b, s)


def collect_vector(b: ProgramBuilder, slices: Sequence[Slice]) -> None:
    """Owners collect their parts of a vector in the rows that results leave through."""
    for words, group in groupby(slices, key=lambda s: s.words):
        members = list(group)
        rows = -(-words // ROW_WORDS)
        dims = [(1, 1)] if rows == 1 else [(1, 1), (rows, 0)]
        b.tile("narrow_to_wide", sum(1 << s.tile for s in members),
               walk("src", members[0].word, [(words, 1)], total_dims=6, mask=int(words > 1)),
               walk("dst", RECEIVE_ROW, dims, total_dims=4, mask=0, level=1, slot=1),
               watch(0, TileCounter.RING_WRITE, -1, side=1), signal("done", 1), flush_level=1)


def send_vector(b: ProgramBuilder, part: Slice) -> None:
    """The owner sends its part to the scalar core, in its turn."""
    rows = -(-part.words // ROW_WORDS)
    dims = [(1, 1)] if rows == 1 else [(1, 1), (rows, 0)]
    b.tile("ring_send", 1 << part.tile, walk("src", RECEIVE_ROW, dims, total_dims=4, mask=1, level=1, slot=1),
           ring_turn(b), watch(1, TileCounter.NARROW_TO_WIDE, 1), signal("write", 1), signal("producer", 2), to_scalar=1)
