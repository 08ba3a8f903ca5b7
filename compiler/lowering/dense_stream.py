"""Parameters of dense layers that arrive while they are used: from the host, or from owner tiles over the ring."""

from __future__ import annotations

from collections.abc import Iterator

from compiler.beagle.isa.counters import DmaTag, ScalarCounter, TileCounter
from compiler.facts import PARAMETER_FIFO_LINES, PARAMETER_LINE_BYTES, WIDE_ROWS
from compiler.lowering.builder import ProgramBuilder, linear, signal, walk, watch
from compiler.lowering.dense_layer import (
    DenseLayer,
    by_groups,
    load_scaling,
    multiply,
    scaling_lines,
    tile_shapes,
    zero_points,
)
from compiler.lowering.parameters import DenseParameters, round_up
from compiler.package.model import BaseAddress
from compiler.records import record

STREAM_CHUNK_ROWS = 32
"""Rows of weights that arrive together."""
HEADER_GAP_ROWS = 32
"""Rows that official programs leave free between header slots and weight slots."""
_EARLY_CHUNK_ROWS, _EARLY_STAGING_ROWS = 12, 2
"""Compiler 1.0: rows of weights that arrive together at most, and rows above the header slots."""
PARAMETER_CREDITS = PARAMETER_FIFO_LINES - 4
"""Lines that the infeed may run ahead of the pops."""


@record
class StreamBuffers:
    """Wide rows through which a streamed layer's parameters pass: two slots of rows, two of headers.

    Attributes
    ----------
    rows:
        Rows of a chunk.
    chunks:
        Chunks of a group; the last may be shorter.
    weights, header:
        First rows of the slots.
    """

    rows: int
    chunks: int
    weights: int
    header: int

    @classmethod
    def of(cls, layer: DenseLayer) -> StreamBuffers:
        """Work out the buffers of a layer.

        Chunks of compiler 1.0 have equal lengths, its weight slots room for the longest, and the header slots lie
        above them (two chains of dense layers).
        """
        p = layer.parameters
        if layer.early:
            rows = max(n for n in range(1, _EARLY_CHUNK_ROWS + 1) if p.main_rows % n == 0)
            header = WIDE_ROWS - _EARLY_STAGING_ROWS - 2 * p.header_rows
            return cls(rows, p.main_rows // rows, header - 2 * _EARLY_CHUNK_ROWS, header)
        rows = min(STREAM_CHUNK_ROWS, p.main_rows)
        weights = layer.top_row - 2 * rows
        gap = HEADER_GAP_ROWS if p.header_rows else 0
        return cls(rows, -(-p.main_rows // rows), weights, weights - gap - 2 * p.header_rows)

    @property
    def lowest(self) -> int:
        """Lowest row in use."""
        return min(self.weights, self.header)


def stream(b: ProgramBuilder, layer: DenseLayer, source: int, out: int, lines: int, first: int) -> int:
    """Multiply with parameters that arrive from the host during the inference.

    Parameters
    ----------
    source, out:
        Narrow byte addresses of the gathered vector and of the result.
    lines:
        64-byte lines of parameters streamed so far in this inference.
    first:
        Where the layer's own begin in the parameters, in lines.

    Returns
    -------
    int
        Lines streamed after this layer.
    """
    p = layer.parameters
    _arrive(b, layer, source, out, TileCounter.RING_READ_A)
    count = round_up(p.groups * p.group_bytes, PARAMETER_LINE_BYTES) // PARAMETER_LINE_BYTES
    fetch_parameters(b, lines, first, count)
    # Between early dense layers the scalar core waits for no tile: what tile 0 still sends must come before.
    turn = watch(1, ScalarCounter.PRODUCER_A, b.producer_turns, step=0, level=2) if layer.early else {}
    for tile in range(layer.tiles):
        part = layer.groups_on(tile) * p.group_bytes // PARAMETER_LINE_BYTES
        b.emit("pop", linear("fifo", lines % PARAMETER_FIFO_LINES, part, PARAMETER_FIFO_LINES // 2), signal("credit", 0),
               watch(0, ScalarCounter.PARAMETER_POP, lines + 1, level=0), turn, constant392=1, receivers=1 << tile,
               lanes_m1=p.lanes - 1)
        b.streamed_to |= 1 << tile
        lines += part
    return lines


def over_ring(b: ProgramBuilder, layer: DenseLayer, source: int, out: int) -> None:
    """Multiply with parameters that owner tiles send, each tile that computes getting its own groups."""
    _arrive(b, layer, source, out, TileCounter.RING_READ_B)
    for tile, owner, row, rows in _sends(layer):
        b.tile("ring_send", 1 << owner, walk("src", row, [(rows, 1)], total_dims=4, mask=int(rows > 1)),
               watch(0, TileCounter.RING_PRODUCER_B, b.ring_b_rows), signal("producer", 0), ring=1, receivers=1 << tile)
        b.ring_b_rows += rows


def _sends(layer: DenseLayer) -> Iterator[tuple[int, int, int, int]]:
    """Yield (tile that computes, owner, first wide row, rows) in the order of the groups."""
    group = layer.parameters.group_rows
    for tile in range(layer.tiles):
        start = tile * layer.groups_per_tile * group
        stop = start + layer.groups_on(tile) * group
        for piece in layer.pieces:
            low, high = max(start, piece.first), min(stop, piece.first + piece.rows)
            if low < high:
                yield tile, piece.tile, piece.row + low - piece.first, high - low


def _arrive(b: ProgramBuilder, layer: DenseLayer, source: int, out: int, ring: TileCounter) -> None:
    """Everything but the sending: tiles receive parameters over a ring and multiply with them."""
    p, s = layer.parameters, StreamBuffers.of(layer)
    shapes = tile_shapes(layer)
    rest = p.main_rows - (s.chunks - 1) * s.rows
    short = rest if rest < s.rows else 0
    b.tile_fence()
    for groups, mask in by_groups(shapes).items():
        _receive(b, p, s, groups, short, mask, ring)
    for groups, mask in by_groups(shapes).items():
        src = walk("src", s.header, [(scaling_lines(p), 1), (groups, 0)], total_dims=4, mask=1, level=1, slot=p.header_rows)
        load_scaling(b, p, mask, src, groups, watch(0, ring, 1, step=s.chunks))
    for (groups, lanes, offset), mask in shapes.items():
        _multiply(b, layer, s, (source, out + offset), groups, lanes, short, mask, ring)


def _receive(b: ProgramBuilder, p: DenseParameters, s: StreamBuffers, groups: int, short: int, mask: int,
             ring: TileCounter) -> None:
    prefix = {}
    if p.header_rows:
        prefix = {"prefix.enable": 1, "prefix.level": 2, "prefix.start": s.header, "prefix.count_m1": p.header_rows - 1,
                  "prefix.last": s.header + 2 * p.header_rows - 1, "prefix.step": p.header_rows}
    dims = [(s.rows, 1), (s.chunks, 0)] if groups == 1 else [(s.rows, 1), (s.chunks, 0), (1, 0), (groups, 0)]
    b.tile("ring_receive_a" if ring is TileCounter.RING_READ_A else "ring_receive_b", mask,
           walk("dst", s.weights, dims, total_dims=4, mask=1, level=1, slot=s.rows,
                epilogue=(1, short, s.rows - short) if short else None), prefix,
           watch(0, TileCounter.PARAMETERS, -1, side=1), signal("read", 1))


def _multiply(b: ProgramBuilder, layer: DenseLayer, s: StreamBuffers, places: tuple[int, int], groups: int, lanes: int,
              short: int, mask: int, ring: TileCounter) -> None:
    p, (source, out) = layer.parameters, places
    tail = [] if groups == 1 else [(groups, 0)]
    skipped = s.rows - short
    loops = {"loop0": s.rows - 1, "loop1": s.chunks - 1, "loop2": groups - 1, "channel_group_level": 2, "reduction": 3}
    if short:
        loops |= {"loop_epilogue_dim": 1, "loop_epilogue_limit": short - 1}
    multiply(
        b, layer, out, groups, lanes, mask, loops,
        walk("in", source, [(s.rows, 4), (1, round_up(p.inputs, 4)), (s.chunks, 4 * s.rows), *tail], total_dims=8,
             epilogue=(2, short, 4 * skipped) if short else None),
        walk("weights", 4 * s.weights, [(s.rows, 4), (s.chunks, 0), *tail], total_dims=8, level=1, slot=4 * s.rows,
             epilogue=(1, short, 4 * skipped) if short else None),
        walk("partial", 0, [(s.rows, 0), (s.chunks, 0), *tail], total_dims=8,
             epilogue=(1, short, 0) if short else None),
        watch(0, ring, 1),
        watch(1, TileCounter.WIDE_TO_SCALING, 1, level=2) if scaling_lines(p) else {},
        zero_points(p, s.header + p.header_rows - 1, p.header_rows, s.header + 2 * p.header_rows - 1),
    )


def fetch_parameters(b: ProgramBuilder, lines: int, first: int, count: int) -> None:
    """Bring 64-byte lines of parameters from the host, ``first`` to ``first + count``; ``lines`` have come before."""
    b.point(1, 0, first * PARAMETER_LINE_BYTES)
    b.copy(6, 5)
    b.copy(7, 4)
    total = count * PARAMETER_LINE_BYTES
    b.transfer_hint(BaseAddress.PARAMETER, "", first * PARAMETER_LINE_BYTES, total)
    b.descriptor(6, 7, 8, total, DmaTag.PARAMETERS)
    b.emit("infeed", linear("fifo", lines % PARAMETER_FIFO_LINES, count, PARAMETER_FIFO_LINES // 2), signal("filled", 0),
           watch(0, ScalarCounter.PARAMETER_INFEED, lines - PARAMETER_CREDITS, level=0))
