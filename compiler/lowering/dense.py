"""Vectors on the tiles: their way in, from tile to tile and out, and dense layers.

An input vector is cut into slices, one per tile, which the host's data reach over the ring bus.
Before a dense layer the slices are gathered: every owner sends its own over the ring and every tile
that computes writes all of them into its narrow memory. Weights lie in the wide memory of the
tile that uses them. The forms and their order follow the official compiler 16.0.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
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
from compiler.lowering.pieces import ROW_WORDS, ROWS, Route, Slice, await_transfers, ring_turn, send
from compiler.package.model import BaseAddress

HALF_ACTIVATION_FIFO = ACTIVATION_FIFO_WORDS // 2
ACTIVATION_CREDITS = ACTIVATION_FIFO_WORDS - 4
"""Credits that the infeed may use up before entries are popped."""
SEND_ROW = WIDE_ROWS - ROWS
"""Wide row in which an owner collects what it sends."""
RECEIVE_ROW = WIDE_ROWS - 2
"""Wide row in which packets arrive; also the row results leave through."""
MIN_SLICE_BYTES = 64
MOST_TURNS = (1 << 15) - 1
"""Turns that a watch can wait for: it compares the signed difference of 16 bits."""


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


def emit_vector_input(b: ProgramBuilder, inputs: int, name: str, size: int, start: int, base: int, *, in_place: bool,
                      ) -> None:
    """Bring an input vector of so many bytes to its owners.

    Parameters
    ----------
    start:
        Byte address of its buffer.
    base:
        First of the wide rows through which it passes.
    in_place:
        Every slice lies where it does in the whole vector; otherwise all of them lie at ``start``.
    """
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
    step = slice_bytes(inputs) * in_place
    slices = [Slice(tile, (start + tile * step) // 4, words) for tile, words in enumerate(input_words(inputs)) if words]
    _distribute(b, slices, base, inputs)
    for first in range(0, len(slices), TILE_COLUMNS):
        _pop_tile_row(b, slices[first:first + TILE_COLUMNS], first, base, rows, inputs)
    b.tile_fence()
    b.tile_fence(reset=LAYER_COUNTERS)


def input_words(inputs: int) -> tuple[int, ...]:
    """Return the words of an input vector that each tile owns."""
    step = slice_bytes(inputs)
    return tuple(-(-max(min(step, inputs - tile * step), 0) // 4) for tile in range(TILES))


def input_rows(inputs: int) -> int:
    """Return how many wide rows an input vector passes through."""
    return 2 * -(-inputs // WIDE_ROW_BYTES)


def _distribute(b: ProgramBuilder, slices: Sequence[Slice], base: int, inputs: int) -> None:
    """Each tile takes its own words out of the rows that its tile row receives."""
    step = slice_bytes(inputs) // 4
    classes: dict[tuple[int, int, int, int], int] = {}
    for s in slices:
        offset = s.tile % TILE_COLUMNS * step
        key = (offset // ROW_WORDS, offset % ROW_WORDS, s.word, s.words)
        classes[key] = classes.get(key, 0) | 1 << s.tile
    first = slices[0].word
    for (row, skip, word, words), mask in classes.items():
        prefix = {}
        if skip:
            prefix = {"prefix.enable": 1, "prefix.level": 1, "prefix.start": first, "prefix.count_m1": skip - 1,
                      "prefix.last": first + skip - 1}
        lines = -(-(skip + words) // ROW_WORDS)
        b.tile("wide_to_narrow", mask, walk("src", base + row, [(lines, 1)], total_dims=4, mask=int(lines > 1)),
               walk("dst", word, [(words, 1)], total_dims=6, level=1, slot=lines * ROW_WORDS), prefix,
               watch(0, TileCounter.RING_READ_A, 1), watch(1, TileCounter.AVDATA, -1, side=1), signal("done", 0),
               drop_level=2 if skip else 1)


def _pop_tile_row(b: ProgramBuilder, slices: Sequence[Slice], first: int, base: int, rows: int, inputs: int) -> None:
    """Send one tile row its part of the input."""
    mask = sum(1 << s.tile for s in slices)
    step = slice_bytes(inputs)
    size = min(inputs, (first + len(slices)) * step) - first * step
    lines = -(-size // WIDE_ROW_BYTES)
    short = 1 < lines < rows
    b.tile("ring_receive_a", mask,
           walk("dst", base, [(rows if short else lines, 1)], total_dims=4, mask=int(rows > 1), level=1, slot=rows,
                epilogue=(1, lines, rows - lines) if short else None),
           watch(0, TileCounter.WIDE_TO_NARROW, -ROW_WORDS * rows, step=ROW_WORDS * rows, side=1), signal("read", 1))
    word = first * step // 8
    b.emit("pop", linear("fifo", word, -(-size // 8), HALF_ACTIVATION_FIFO), signal("credit", 0),
           watch(0, ScalarCounter.AVDATA_POP, word + 1, level=0), source=1, constant392=1, receivers=mask,
           lanes_m1=ROW_WORDS - 1)


def gather(b: ProgramBuilder, slices: Sequence[Slice], receivers: int, base: int, places: Sequence[int] | None = None,
           *, row: int = SEND_ROW) -> None:
    """Collect parts of an activation in the narrow memory of tiles 0..receivers-1.

    Parameters
    ----------
    row:
        First of the wide rows through which they pass.
    base:
        Narrow word address of the whole.
    places:
        Where each part goes, in words from there; by default one behind the other.
    """
    route = Route(row, (1 << receivers) - 1)
    packed: Counter[int] = Counter()
    for number, s in enumerate(slices):
        place = route.words if places is None else places[number]
        # A tile that sends several pieces packs the next one only after the last has left.
        send(b, s, route, base + place, packed=packed[s.tile], left=packed[s.tile] or -1)
        packed[s.tile] += s.rows
    b.barrier()
    b.tile_fence(reset=LAYER_COUNTERS)
    b.scalar_fence(tiles=False)
    b.tile_fence(reset=LAYER_COUNTERS)


def finish_rings(b: ProgramBuilder) -> None:
    """Wait until everything sent has arrived, then reset the turns."""
    b.tile_fence(reset=LAYER_COUNTERS)
    settle_rings(b)


def settle_rings(b: ProgramBuilder) -> None:
    """Reset the turns of the rings in use, once everything sent has arrived."""
    used = [(n, value, *counters) for n, value, *counters in (
        (5, b.producer_turns, ScalarCounter.PRODUCER_A, TileCounter.RING_PRODUCER_A),
        (6, b.ring_b_rows, ScalarCounter.PRODUCER_B, TileCounter.RING_PRODUCER_B)) if value]
    if not used:
        return
    waits: Values = {}
    for n, value, _, _ in used:
        waits |= {f"wait{n}.value": value, f"wait{n}.enable": 1}
    b.emit("scalar_fence", waits, tiles=ALL_TILES, reset=sum(1 << scalar for _, _, scalar, _ in used), engines=0xC)
    b.barrier(reset=sum(1 << tile for _, _, _, tile in used))
    b.producer_turns = b.ring_b_rows = 0


def make_room_for_turns(b: ProgramBuilder, turns: int) -> None:
    """Reset the turns of ring B where so many more would be too many to wait for.

    An official program that works in parts of its image (64 x 64 x 400) has such a fence behind every part, between layers.
    """
    if b.ring_b_rows + turns > MOST_TURNS:
        settle_rings(b)


def reuse_gathering(b: ProgramBuilder) -> None:
    """What a dense layer does instead of gathering what is there already."""
    settle_rings(b)
    b.scalar_fence(tiles=False)
    b.tile_fence(reset=LAYER_COUNTERS)


def emit_dense(b: ProgramBuilder, layer: DenseLayer, source: int, out: int, lines: int, first: int) -> int:
    """Multiply a gathered vector with a layer, wherever its parameters lie; see :func:`stream`."""
    if layer.row is not None:
        compute(b, layer, layer.row, source, out)
    elif layer.pieces:
        over_ring(b, layer, source, out)
    else:
        lines = stream(b, layer, source, out, lines, first)
    b.tile_fence(reset=LAYER_COUNTERS)
    if layer.joint_bytes:
        b.tile_fence()
        await_transfers(b)
    if not layer.early:
        b.barrier(reset=LAYER_COUNTERS)
    return lines


def compute(b: ProgramBuilder, layer: DenseLayer, row: int, source: int, out: int) -> None:
    """Load scaling registers and multiply, on all tiles of a layer whose parameters are cached at ``row``."""
    p = layer.parameters
    shapes = tile_shapes(layer)
    for groups, mask in by_groups(shapes).items():
        header = p.header_rows
        src = [(scaling_lines(p), 1)] if groups == 1 else [(scaling_lines(p), 1), (groups, header)]
        load_scaling(b, p, mask, walk("src", row, src, total_dims=4), groups)
    for (groups, lanes, offset), mask in shapes.items():
        base = row + groups * p.header_rows
        steps = p.main_rows
        size = round_up(p.inputs, 4)
        grouped = groups > 1
        first = row + p.header_rows - 1
        multiply(
            b, layer, out + offset, groups, lanes, mask,
            {"loop0": steps - 1, "loop1": groups - 1, "channel_group_level": 1, "reduction": 1},
            walk("in", source, [(steps, 4), (1, size), (groups, 0 if grouped else size)], total_dims=8),
            walk("weights", 4 * base, [(steps, 4), (groups, 4 * steps)] if grouped else [(steps, 4)], total_dims=8),
            walk("partial", 0, [(steps, 0), (groups, 0)] if grouped else [(steps, 0)], total_dims=8),
            watch(0, TileCounter.WIDE_TO_SCALING, 1) if scaling_lines(p) else {},
            zero_points(p, first, p.header_rows if grouped else p.header_rows - 1, row + groups * p.header_rows - 1),
        )


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
        packets = -(-s.words // 2)
        b.emit("outfeed", walk("fifo", 0, [(1, 1)] if packets == 1 else [(packets, 0)], total_dims=3, mask=0),
               signal("credit", 1), constant222=63, to_host=1)
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
