"""Convolutions: the weights travel over the ring, every tile computes its own pixels.

The owner of the weights sends them once; every tile receives chunk after chunk into two slots of
wide memory and applies each to all its pixels. Where not all input channels of a group fit a
chunk, partial sums wait in wide memory, a row per pixel.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from compiler.beagle.isa.counters import ScalarCounter, TileCounter
from compiler.facts import LANES, TILES, WIDE_ROW_BYTES, WIDE_ROWS
from compiler.lowering.builder import ProgramBuilder, Values, linear, signal, walk, watch
from compiler.lowering.dense import make_room_for_turns
from compiler.lowering.parameters import DenseParameters
from compiler.lowering.spatial.books import Books
from compiler.lowering.spatial.geometry import Activation, Dim, by_part, many, merge_dims
from compiler.lowering.spatial.streaming import stream_lines
from compiler.lowering.spatial.weights import Kernel
from compiler.memory.plan import Piece
from compiler.records import record

if TYPE_CHECKING:
    from compiler.lowering.spatial.families.convolution import Convolution, WideBlocks

RING_WORDS = 64
"""Words of a packet of the scalar core's FIFO, which has two."""
_FLOAT_ONE = 0x3F800000


@record
class Nest:
    """Loops of the tensor operation on one tile.

    Attributes
    ----------
    steps, pixels, chunks, groups:
        Counts; a loop of one step is left out, but one of the two innermost stays.
    """

    steps: int
    pixels: int
    chunks: int
    groups: int

    @property
    def counts(self) -> list[int]:
        """Loops that are there, innermost first."""
        inner = [n for n in (self.steps, self.pixels) if n > 1] or [1]
        return [*inner, *(n for n in (self.chunks, self.groups) if n > 1)]

    @property
    def weights_level(self) -> int:
        """Loops that one chunk of weights serves."""
        return int(self.steps > 1) + int(self.pixels > 1 or self.steps == 1)

    @property
    def group_level(self) -> int:
        """Loops inside a group of output channels."""
        return self.weights_level + int(self.chunks > 1)

    @property
    def reduction(self) -> int:
        """Mask of the loops that sum up."""
        chunk_bit = 1 << self.weights_level if self.chunks > 1 else 0
        return int(self.steps > 1) | chunk_bit

    def fields(self) -> Values:
        """Return the fields of the loops."""
        loops = {f"loop{i}": n - 1 for i, n in enumerate(self.counts)}
        return loops | {"channel_group_level": self.group_level, "reduction": self.reduction}

    def zeros(self) -> list[Dim]:
        """Dimensions of an operand that follows the loops without moving."""
        return [(n, 0) for n in self.counts]


def emit_convolution(b: ProgramBuilder, books: Books, layer: Convolution, source: Activation, target: Activation,
                     pieces: Sequence[Piece], top: int = WIDE_ROWS) -> None:
    """Emit a convolution.

    Parameters
    ----------
    pieces:
        Where its parameters are cached; empty when they are streamed.
    top:
        Wide rows from here on are left alone.
    """
    make_room_for_turns(b, sum(piece.rows for piece in pieces))
    ring = RingUse(layer.kernel, not pieces)
    parts = _parts(books, layer, ring, source, target)
    active = list(parts)
    mask = sum(1 << t for t in active)
    blocks = layer.blocks(layer.pixels(target), top)
    _receive(b, books, layer, ring, blocks, mask, active)
    _load_scaling(b, books, layer, ring, blocks, mask, active)
    for tiles, fields in by_part(parts, lambda part: _tensor_op(layer, ring, blocks, part),
                                 also=lambda part: (part.height > 1, part.width > 1)):
        b.tile("tensor_op", tiles, dict(fields))
    _count(books, layer.kernel, ring, active)
    if ring.streamed:
        stream_lines(b, books, layer.name, layer.kernel.lines, receivers=mask, lanes=layer.kernel.lanes)
    elif layer.kernel.packed:
        _send_packed(b, books, layer.kernel, pieces, mask)
    else:
        _send(b, pieces, mask)


def active_tiles(layer: Convolution, target: Activation) -> list[int]:
    """Return the tiles that compute results."""
    return [t for t in range(TILES) if all(len(span) for span in layer.results(target, t))]


@record
class RingUse:
    """How the parameters of a kernel come: over ring B from their owners, or over ring A from the scalar core."""

    kernel: Kernel
    streamed: bool

    @property
    def a(self) -> bool:
        """True for ring A."""
        return self.streamed or self.kernel.packed

    @property
    def counter(self) -> TileCounter:
        """Counter of chunks received."""
        return TileCounter.RING_READ_A if self.a else TileCounter.RING_READ_B


def _header_dims(kernel: Kernel) -> list[Dim]:
    """Chunks and groups as dimensions that do not move."""
    dims = [(kernel.chunks, 0)] if kernel.chunks > 1 else []
    if kernel.groups > 1:
        dims += ([] if kernel.rows == 1 and not dims else [(1, 0)]) + [(kernel.groups, 0)]
    return dims


def _receive(b: ProgramBuilder, books: Books, layer: Convolution, ring: RingUse, blocks: WideBlocks, mask: int,
             active: Sequence[int]) -> None:
    """Receive header and weights into their slots; a chunk may come when its slot has been used."""
    k = layer.kernel
    header = k.parameters.header_rows
    dims = [(k.rows, 1), *_header_dims(k)]
    level = int(k.rows > 1 or len(dims) == 1)
    prefix: Values = {}
    if header:
        prefix = {"prefix.enable": 1, "prefix.level": level + int(k.chunks > 1), "prefix.start": blocks.header,
                  "prefix.count_m1": header - 1, "prefix.last": blocks.header + k.slots * header - 1,
                  "prefix.step": header}
    name = "ring_receive_a" if ring.a else "ring_receive_b"
    free = books.counts.get(TileCounter.PARAMETERS, active[0]) - (k.slots - 1)
    b.tile(name, mask, prefix,
           walk("dst", blocks.weights, dims, total_dims=4, mask=int(k.rows > 1), level=level,
                slot=k.rows if k.slots > 1 else 0),
           watch(0, TileCounter.PARAMETERS, free, level=level, side=1), signal("read", level))


def _scaling_lines(p: DenseParameters) -> int:
    return int(p.has_factor_row) + int(p.bias is not None)


def _load_scaling(b: ProgramBuilder, books: Books, layer: Convolution, ring: RingUse, blocks: WideBlocks, mask: int,
                  active: Sequence[int]) -> None:
    """Copy multipliers and bias of each group into the scaling registers, one group ahead."""
    k = layer.kernel
    p = k.parameters
    lines = _scaling_lines(p)
    if not lines:
        return
    groups = [(k.groups, 0)] if k.groups > 1 else []
    chunks = books.counts.get(ring.counter, active[0])
    done = books.counts.get(TileCounter.AVDATA, active[0])
    b.tile("wide_to_narrow", mask,
           walk("src", blocks.header, [(lines, 1), *groups], total_dims=4, mask=1, level=int(k.slots > 1),
                slot=p.header_rows if k.slots > 1 else 0),
           walk("dst", 0 if p.has_factor_row else LANES, [(k.lanes // 2, 1), (lines, LANES), *groups], total_dims=6,
                level=2, slot=LANES // 2),
           watch(0, ring.counter, chunks + 1, step=k.chunks), watch(1, TileCounter.AVDATA, done - 1, level=2, side=1),
           signal("done", 2), to_scaling=1, drop_level=1)


class Part(NamedTuple):
    """What distinguishes the work of a tile from that of others.

    Attributes
    ----------
    height, width:
        Rows and columns of results.
    source, target:
        Byte addresses of the first pixels read and written.
    source_pixel, source_pitch, target_pixel, target_pitch:
        Bytes of a pixel and of a row.
    chunks, scalings:
        Chunks of weights and groups of scaling factors that have come before.
    """

    height: int
    width: int
    source: int
    source_pixel: int
    source_pitch: int
    target: int
    target_pixel: int
    target_pitch: int
    chunks: int
    scalings: int


def _parts(books: Books, layer: Convolution, ring: RingUse, source: Activation, target: Activation) -> dict[int, Part]:
    """Return the parts of the tiles that compute results."""
    found = {}
    down, across = layer.lanes
    read_rows, read_columns = layer.windows
    for tile in range(TILES):
        rows, columns = layer.results(target, tile)
        if rows.start < rows.stop and columns.start < columns.stop:
            read, written = source.slab(tile), target.slab(tile)
            found[tile] = Part(
                len(rows), len(columns),
                source.address + read.offset(read_rows.needed(rows).start, read_columns.needed(columns).start),
                read.pixel, read.pitch,
                target.address + written.offset(down.place(rows.start), across.place(columns.start)),
                written.pixel, written.pitch,
                books.counts.get(ring.counter, tile), books.counts.get(TileCounter.WIDE_TO_SCALING, tile))
    return found


def _tensor_op(layer: Convolution, ring: RingUse, blocks: WideBlocks, part: Part) -> Values:
    """Fields of the tensor operation on a tile."""
    k = layer.kernel
    p = k.parameters
    nest = Nest(k.rows, part.height * part.width, k.chunks, k.groups)
    last = min(p.group_outputs, -(-(p.outputs - (k.groups - 1) * p.group_outputs) // 4) * 4)
    lanes = p.group_outputs if k.groups > 1 else last
    partial = nest.chunks > 1
    fields: Values = {
        "partial_from_zero": 1, "flag1843": int(nest.steps > 1), "no_partial_sums": int(not partial or nest.pixels == 1),
        "in_zero_point": layer.in_zero_point, "out_zero_point": layer.out_zero_point, "lanes_m1": lanes - 1,
        "lanes_last_m1": last - 1, "clamp_low": layer.clamp_low, "clamp_high": layer.clamp_high,
        "use_bias": int(p.bias is not None), "use_multiplier": int(p.has_factor_row),
        "multiplier": _FLOAT_ONE if p.has_factor_row else int(p.factors[:1].view("uint32")[0]),
    }
    fields |= nest.fields() | _zero_points(layer, blocks)
    fields |= _input_walk(layer, part, nest)
    fields |= _output_walk(layer, part, lanes, last)
    level = nest.weights_level
    weights = ([(nest.steps, 4)] if nest.steps > 1 else []) + nest.zeros()[int(nest.steps > 1):]
    fields |= walk("weights", 4 * blocks.weights, weights, total_dims=8, level=level if k.slots > 1 else 0,
                   slot=4 * k.rows if k.slots > 1 else 0)
    fields |= _partial_walk(blocks, nest)
    fields |= signal("parameters", level)
    fields |= watch(0, ring.counter, part.chunks + 1, level=level)
    if _scaling_lines(p):
        fields |= watch(1, TileCounter.WIDE_TO_SCALING, part.scalings + 1, level=nest.group_level)
    return fields


def _zero_points(layer: Convolution, blocks: WideBlocks) -> Values:
    k = layer.kernel
    p = k.parameters
    if not p.per_channel:
        return {"weights_zero_point": p.zero_point}
    header = p.header_rows
    return {"zero_points_per_channel": 1, "zero_point_row.start": blocks.header + header - 1,
            "zero_point_row.step": header if k.slots > 1 else 1, "zero_point_row.last": blocks.header + k.slots * header - 1}


def _input_walk(layer: Convolution, part: Part, nest: Nest) -> Values:
    k = layer.kernel
    rows, columns = layer.windows
    c, pitch = part.source_pixel, part.source_pitch
    taps = merge_dims([(k.blocks, 4), *many([(columns.size, c * columns.dilation), (rows.size, pitch * rows.dilation)])])
    pixels = merge_dims(many([(part.width, c * columns.stride), (part.height, pitch * rows.stride)]))
    if k.depthwise:
        dims = [*taps, *pixels, *many([(nest.groups, 4)])]
    else:
        dims = [*taps, *([(1, 4 * k.blocks)] if nest.chunks == 1 else []), *pixels,
                *many([(nest.chunks, 4 * k.blocks), (nest.groups, 0)])]
    return walk("in", part.source, dims, total_dims=8)


def _output_walk(layer: Convolution, part: Part, lanes: int, last: int) -> Values:
    k = layer.kernel
    down, across = layer.lanes
    pixels = merge_dims(many([(part.width, part.target_pixel * across.period),
                              (part.height, part.target_pitch * down.period)]))
    dims = [(lanes // 4, 4), *pixels]
    if not k.depthwise:
        dims.append((k.groups, lanes))
    elif k.groups > 1:
        dims.append((k.groups, 4))
    level = 1 + len(pixels)
    epilogue = (level, last // 4, lanes - last) if last != lanes else None
    return walk("out", part.target, dims, total_dims=8, epilogue=epilogue) | signal("avdata", level)


def _partial_walk(blocks: WideBlocks, nest: Nest) -> Values:
    """Where partial sums wait; without them the generator only counts the steps of a sum."""
    if nest.chunks > 1 and nest.pixels > 1:
        dims = [(n, 0) for n in (nest.steps, nest.pixels, nest.chunks, nest.groups)]
        dims[1] = (nest.pixels, 4)
        return walk("partial", 4 * blocks.partial, [d for d in dims if d[0] > 1], total_dims=8)
    level = nest.group_level if nest.chunks > 1 else int(nest.steps > 1)
    base = 4 * blocks.partial if nest.chunks > 1 else 0
    if nest.chunks > 1 and nest.groups == 1:
        # The sums of a single pixel and a single group never move.
        return walk("partial", base, nest.zeros(), total_dims=8)
    return walk("partial", base, nest.zeros(), total_dims=8, level=level, slot=4)


def _count(books: Books, kernel: Kernel, ring: RingUse, active: Sequence[int]) -> None:
    groups, chunks = kernel.groups, kernel.groups * kernel.chunks
    scalings = groups if _scaling_lines(kernel.parameters) else 0
    for tile in active:
        books.counts.add(TileCounter.AVDATA, tile, groups)
        books.counts.add(TileCounter.PARAMETERS, tile, chunks)
        books.counts.add(ring.counter, tile, chunks)
        if scalings:
            books.counts.add(TileCounter.WIDE_TO_SCALING, tile, scalings)


def _send(b: ProgramBuilder, pieces: Sequence[Piece], mask: int) -> None:
    """The owners send the parameters, each in its turn."""
    for piece in pieces:
        b.tile("ring_send", 1 << piece.tile, walk("src", piece.row, [(piece.rows, 1)], total_dims=4,
                                                  mask=int(piece.rows > 1)),
               watch(0, TileCounter.RING_PRODUCER_B, b.ring_b_rows), signal("producer", 0), ring=1, receivers=mask)
        b.ring_b_rows += piece.rows


def _send_packed(b: ProgramBuilder, books: Books, kernel: Kernel, pieces: Sequence[Piece], mask: int) -> None:
    """Parameters of four lanes: whole rows go to the scalar core, which sends them as small packets."""
    p = kernel.parameters
    words = p.groups * p.group_bytes // 4
    rows = sum(piece.rows for piece in pieces)
    b.emit("pop", linear("fifo", 0, words, RING_WORDS), signal("producer", 1), signal("credit", 0),
           watch(0, ScalarCounter.RING_OUTFEED, 1 + RING_WORDS * books.packed_rows, level=0), source=2, constant392=1,
           receivers=mask, lanes_m1=kernel.lanes - 1)
    sent = rows * WIDE_ROW_BYTES // 4
    b.emit("outfeed", linear("fifo", 0, sent, RING_WORDS), signal("credit", 0),
           watch(0, ScalarCounter.SCALAR_INFEED, books.packed_words - 2 * RING_WORDS + 1, level=0), constant222=63)
    for piece in pieces:
        b.tile("ring_send", 1 << piece.tile, walk("src", piece.row, [(1, 1), *many([(piece.rows, 1)])], total_dims=4),
               watch(0, TileCounter.RING_PRODUCER_A, b.producer_turns - 1),
               watch(1, TileCounter.RING_PRODUCER_B, b.ring_b_rows), signal("producer", 1), ring=1, to_scalar=1)
        b.producer_turns += piece.rows
        b.ring_b_rows += piece.rows
    books.packed_rows += rows
    books.packed_words += words
