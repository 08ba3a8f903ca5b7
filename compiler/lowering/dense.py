"""Fully connected networks: every tile computes output channels of its own.

The input vector is cut into slices, one per tile, which the host's data reach over the ring bus.
Before each layer the slices are gathered: every owner sends its own over the ring and every tile
that computes writes all of them into its narrow memory. Weights lie in the wide memory of the
tile that uses them. The forms and their order follow the official compiler 16.0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby

from compiler.beagle.isa.counters import IMMEDIATE, AluOperation, DmaTag, ScalarCounter, TileCounter
from compiler.errors import CompilationError
from compiler.facts import (
    ACTIVATION_FIFO_WORDS,
    LANES,
    NARROW_BYTES,
    PARAMETER_FIFO_LINES,
    PARAMETER_LINE_BYTES,
    TILE_COLUMNS,
    TILES,
    WIDE_ROW_BYTES,
    WIDE_ROWS,
)
from compiler.lowering.builder import (
    ALL_TILES,
    LAYER_COUNTERS,
    Program,
    ProgramBuilder,
    Values,
    address_pair,
    linear,
    signal,
    walk,
    watch,
)
from compiler.lowering.parameters import DenseParameters, round_up
from compiler.package.model import BaseAddress

ROW_WORDS = WIDE_ROW_BYTES // 4
HALF_ACTIVATION_FIFO = ACTIVATION_FIFO_WORDS // 2
ACTIVATION_CREDITS = ACTIVATION_FIFO_WORDS - 4
"""Credits that the infeed may use up before entries are popped."""
SEND_ROW = WIDE_ROWS - 6
"""Wide row in which an owner collects what it sends."""
RECEIVE_ROW = WIDE_ROWS - 2
"""Wide row in which packets arrive; also the row results leave through."""
MIN_SLICE_BYTES = 64
STREAM_CHUNK_ROWS = 32
"""Rows of streamed weights that arrive together."""
HEADER_GAP_ROWS = 32
"""Rows that official programs leave free between header slots and weight slots."""
PARAMETER_CREDITS = PARAMETER_FIFO_LINES - 4
"""Lines that the infeed may run ahead of the pops."""
_FLOAT_ONE = 0x3F800000


@dataclass(frozen=True)
class DenseLayer:
    """A fully connected layer ready for code generation.

    Attributes
    ----------
    row:
        First wide row of its parameters, the same on all its tiles; None when they are streamed.
    in_zero_point, out_zero_point:
        Unsigned domain.
    clamp_low, clamp_high:
        Bit patterns of float32 bounds.
    """

    name: str
    parameters: DenseParameters
    row: int | None
    in_zero_point: int
    out_zero_point: int
    clamp_low: int
    clamp_high: int

    @property
    def groups_per_tile(self) -> int:
        """Groups of 64 output channels on each tile (the last may have fewer)."""
        return -(-self.parameters.groups // TILES)

    @property
    def tiles(self) -> int:
        """Number of tiles that compute: tiles 0, 1, ..."""
        return -(-self.parameters.groups // self.groups_per_tile)

    def groups_on(self, tile: int) -> int:
        """Groups of one tile."""
        q = self.groups_per_tile
        return min(q, self.parameters.groups - tile * q)

    def lanes_of_last_group(self, tile: int) -> int:
        """Active lanes of the last group of a tile, a multiple of four."""
        first = (tile * self.groups_per_tile + self.groups_on(tile) - 1) * LANES
        return min(LANES, round_up(self.parameters.outputs - first, 4))

    def bytes_on(self, tile: int) -> int:
        """Output bytes of one tile."""
        return (self.groups_on(tile) - 1) * LANES + self.lanes_of_last_group(tile)


@dataclass(frozen=True)
class Slice:
    """A part of a vector in the narrow memory of one tile, in words."""

    tile: int
    word: int
    words: int


@dataclass(frozen=True)
class DenseBuffers:
    """Byte addresses in narrow memory.

    Attributes
    ----------
    outputs:
        Result of each layer.
    staging:
        Slices from the host.
    used:
        Bytes used in all.
    """

    outputs: tuple[int, ...]
    staging: int
    used: int


def allocate(layers: Sequence[DenseLayer]) -> DenseBuffers:
    """Place vectors in narrow memory: gathered inputs at 0, results behind them.

    Raises
    ------
    CompilationError
        When they do not fit.
    """
    inputs = [round_up(layer.parameters.inputs, 4) for layer in layers]
    outputs = []
    end = 0
    for i, layer in enumerate(layers):
        at = max(inputs[i], inputs[i + 1] if i + 1 < len(layers) else 0)
        outputs.append(at)
        end = max(end, at + layer.bytes_on(0))
    staging = round_up(max(inputs), 256) + 512
    used = max(staging + min(slice_bytes(layers[0].parameters.inputs), inputs[0]), end)
    if used > NARROW_BYTES:
        widest = max(layers, key=lambda layer: layer.parameters.inputs)
        raise CompilationError(
            f"{widest.name}: its input of {widest.parameters.inputs} elements needs {used} bytes of narrow memory on "
            f"each tile, the limit is {NARROW_BYTES}.", advice=f"At most about {NARROW_BYTES - 1024} inputs fit.")
    return DenseBuffers(tuple(outputs), staging, used)


def slice_bytes(inputs: int) -> int:
    """Bytes of the input vector that each tile receives from the host."""
    return max(MIN_SLICE_BYTES, round_up(-(-inputs // TILES), 4))


def staging_row(layers: Sequence[DenseLayer], streamed: Sequence[bool]) -> int:
    """Lowest wide row that a dense program uses for itself."""
    lowest = min(WIDE_ROWS - 2 * -(-layers[0].parameters.inputs // WIDE_ROW_BYTES), SEND_ROW)
    for layer, is_streamed in zip(layers, streamed, strict=True):
        if is_streamed:
            lowest = min(lowest, StreamBuffers.of(layer.parameters).lowest)
    return lowest


def dense_program(layers: Sequence[DenseLayer], input_name: str, output_name: str, *, input_bytes: int, output_bytes: int,
                  behind: Callable[[ProgramBuilder, Sequence[Slice]], Sequence[Slice]] | None = None) -> Program:
    """Write the program of a chain of dense layers.

    Parameters
    ----------
    input_bytes, output_bytes:
        Host transfers, bytes.
    behind:
        Emits what follows the layers; takes and gives the slices of a vector.
    """
    b = ProgramBuilder()
    buffers = allocate(layers)
    begin(b)
    slices = _input(b, layers[0], input_name, input_bytes, buffers.staging)
    lines = 0
    for i, layer in enumerate(layers):
        if i:
            b.tile_fence(reset=LAYER_COUNTERS)
        gather(b, slices, layer.tiles)
        if layer.row is None:
            lines = stream(b, layer, buffers.outputs[i], lines)
        else:
            compute(b, layer, layer.row, buffers.outputs[i])
        slices = [Slice(t, buffers.outputs[i] // 4, layer.bytes_on(t) // 4) for t in range(layer.tiles)]
    emit_vector_output(b, slices if behind is None else behind(b, slices), output_name, output_bytes)
    finish_rings(b)
    return b.finish(first_register=4)


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


def _input(b: ProgramBuilder, layer: DenseLayer, name: str, size: int, staging: int) -> list[Slice]:
    """Bring the input vector to its owners; returns their slices."""
    b.tile_fence(engines=1 << 5)
    low, high = address_pair(BaseAddress.INPUT, name)
    b.load(10, address=high)
    b.load(11, address=low)
    b.scalar_fence(reset=1 << ScalarCounter.AVDATA_INFEED, value=ACTIVATION_CREDITS, tiles=False)
    b.scalar_fence(reset=1 << ScalarCounter.AVDATA_POP, tiles=False)
    b.emit("infeed", linear("fifo", 0, size // 8, HALF_ACTIVATION_FIFO), signal("filled", 0),
           watch(0, ScalarCounter.AVDATA_INFEED, 0, level=0), stream=1)
    start_transfer(b, BaseAddress.INPUT, name, size, DmaTag.INPUT)
    inputs = layer.parameters.inputs
    rows = -(-inputs // WIDE_ROW_BYTES)
    base = WIDE_ROWS - 2 * rows
    slices = _slices(inputs, staging)
    _distribute(b, slices, base, inputs)
    for first in range(0, len(slices), TILE_COLUMNS):
        _pop_tile_row(b, slices[first:first + TILE_COLUMNS], first, base, rows, inputs)
    b.tile_fence()
    b.tile_fence(reset=LAYER_COUNTERS)
    b.barrier()
    return slices


def _slices(inputs: int, staging: int) -> list[Slice]:
    step = slice_bytes(inputs)
    return [Slice(tile, staging // 4, -(-min(step, inputs - at) // 4)) for tile, at in
            enumerate(range(0, inputs, step))]


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


def gather(b: ProgramBuilder, slices: Sequence[Slice], receivers: int) -> None:
    """Collect the slices of a vector in the narrow memory of tiles 0..receivers-1, from address 0 on."""
    mask = (1 << receivers) - 1
    pieces = [(s.tile, s.word + at, min(ROW_WORDS, s.words - at), at // ROW_WORDS)
              for s in slices for at in range(0, s.words, ROW_WORDS)]
    place = 0
    for index, (tile, word, words, earlier) in enumerate(pieces):
        b.tile("wide_to_narrow", mask, walk("src", RECEIVE_ROW, [(1, 1)], total_dims=4, mask=0, level=1, slot=1),
               walk("dst", place, [(words, 1)], total_dims=6, mask=int(words > 1)),
               watch(0, TileCounter.RING_READ_A, index + 1), signal("done", 0), drop_level=1)
        b.tile("ring_receive_a", mask, walk("dst", RECEIVE_ROW, [(1, 1)], total_dims=4, mask=0, level=1, slot=1),
               watch(0, TileCounter.WIDE_TO_NARROW, place - ROW_WORDS, step=ROW_WORDS, side=1), signal("read", 1))
        b.tile("ring_send", 1 << tile, walk("src", SEND_ROW, [(1, 1)], total_dims=4, mask=1, level=1, slot=1),
               ring_turn(b), watch(1, TileCounter.NARROW_TO_WIDE, earlier + 1), signal("write", 1), signal("producer", 2),
               receivers=mask)
        # A tile that sends several pieces collects the next one only after the last has left.
        free = earlier if earlier else -1
        b.tile("narrow_to_wide", 1 << tile, walk("src", word, [(words, 1)], total_dims=6, mask=int(words > 1)),
               walk("dst", SEND_ROW, [(1, 1)], total_dims=4, mask=0, level=1, slot=1),
               watch(0, TileCounter.RING_WRITE, free, side=1), signal("done", 1), flush_level=1)
        place += words
    b.barrier()
    b.tile_fence(reset=LAYER_COUNTERS)
    b.scalar_fence(tiles=False)
    b.tile_fence(reset=LAYER_COUNTERS)


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


def compute(b: ProgramBuilder, layer: DenseLayer, row: int, out: int) -> None:
    """Load scaling registers and multiply, on all tiles of a layer whose parameters are cached at ``row``."""
    p = layer.parameters
    shapes = _shapes(layer)
    for groups, mask in _by_groups(shapes).items():
        header = p.header_rows
        src = [(_scaling_lines(p), 1)] if groups == 1 else [(_scaling_lines(p), 1), (groups, header)]
        _load_scaling(b, p, mask, walk("src", row, src, total_dims=4), groups)
    for (groups, lanes), mask in shapes.items():
        base = row + groups * p.header_rows
        steps = p.main_rows
        size = round_up(p.inputs, 4)
        grouped = groups > 1
        first = row + p.header_rows - 1
        _multiply(
            b, layer, out, groups, lanes, mask,
            {"loop0": steps - 1, "loop1": groups - 1, "channel_group_level": 1, "reduction": 1},
            walk("in", 0, [(steps, 4), (1, size), (groups, 0 if grouped else size)], total_dims=8),
            walk("weights", 4 * base, [(steps, 4), (groups, 4 * steps)] if grouped else [(steps, 4)], total_dims=8),
            walk("partial", 0, [(steps, 0), (groups, 0)] if grouped else [(steps, 0)], total_dims=8),
            watch(0, TileCounter.WIDE_TO_SCALING, 1) if _scaling_lines(p) else {},
            _zero_points(p, first, p.header_rows if grouped else p.header_rows - 1, row + groups * p.header_rows - 1),
        )
    b.tile_fence(reset=LAYER_COUNTERS)
    b.barrier(reset=LAYER_COUNTERS)


@dataclass(frozen=True)
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
    def of(cls, p: DenseParameters) -> StreamBuffers:
        """Work out the buffers of a layer."""
        rows = min(STREAM_CHUNK_ROWS, p.main_rows)
        weights = WIDE_ROWS - 2 * rows
        return cls(rows, -(-p.main_rows // rows), weights, weights - HEADER_GAP_ROWS - 2 * p.header_rows)

    @property
    def lowest(self) -> int:
        """Lowest row in use."""
        return self.header


def stream(b: ProgramBuilder, layer: DenseLayer, out: int, lines: int, first: int | None = None) -> int:
    """Multiply with parameters that arrive from the host during the inference.

    Parameters
    ----------
    lines:
        64-byte lines of parameters streamed so far in this inference.
    first:
        Where the layer's own begin in the parameters, in lines; by default behind those.

    Returns
    -------
    int
        Lines streamed after this layer.
    """
    p, s = layer.parameters, StreamBuffers.of(layer.parameters)
    shapes = _shapes(layer)
    rest = p.main_rows - (s.chunks - 1) * s.rows
    short = rest if rest < s.rows else 0
    b.tile_fence()
    for groups, mask in _by_groups(shapes).items():
        _receive_stream(b, p, s, groups, short, mask)
    for groups, mask in _by_groups(shapes).items():
        src = walk("src", s.header, [(_scaling_lines(p), 1), (groups, 0)], total_dims=4, mask=1, level=1, slot=p.header_rows)
        _load_scaling(b, p, mask, src, groups, watch(0, TileCounter.RING_READ_A, 1, step=s.chunks))
    for (groups, lanes), mask in shapes.items():
        _multiply_stream(b, layer, s, out, groups, lanes, short, mask)
    count = round_up(p.groups * p.group_bytes, PARAMETER_LINE_BYTES) // PARAMETER_LINE_BYTES
    fetch_parameters(b, lines, lines if first is None else first, count)
    for tile in range(layer.tiles):
        part = layer.groups_on(tile) * p.group_bytes // PARAMETER_LINE_BYTES
        b.emit("pop", linear("fifo", lines % PARAMETER_FIFO_LINES, part, PARAMETER_FIFO_LINES // 2), signal("credit", 0),
               watch(0, ScalarCounter.PARAMETER_POP, lines + 1, level=0), constant392=1, receivers=1 << tile,
               lanes_m1=p.lanes - 1)
        lines += part
    b.tile_fence(reset=LAYER_COUNTERS)
    b.barrier(reset=LAYER_COUNTERS)
    return lines


def _receive_stream(b: ProgramBuilder, p: DenseParameters, s: StreamBuffers, groups: int, short: int, mask: int) -> None:
    prefix = {}
    if p.header_rows:
        prefix = {"prefix.enable": 1, "prefix.level": 2, "prefix.start": s.header, "prefix.count_m1": p.header_rows - 1,
                  "prefix.last": s.header + 2 * p.header_rows - 1, "prefix.step": p.header_rows}
    dims = [(s.rows, 1), (s.chunks, 0)] if groups == 1 else [(s.rows, 1), (s.chunks, 0), (1, 0), (groups, 0)]
    b.tile("ring_receive_a", mask,
           walk("dst", s.weights, dims, total_dims=4, mask=1, level=1, slot=s.rows,
                epilogue=(1, short, s.rows - short) if short else None), prefix,
           watch(0, TileCounter.PARAMETERS, -1, side=1), signal("read", 1))


def _multiply_stream(b: ProgramBuilder, layer: DenseLayer, s: StreamBuffers, out: int, groups: int, lanes: int,
                     short: int, mask: int) -> None:
    p = layer.parameters
    tail = [] if groups == 1 else [(groups, 0)]
    skipped = s.rows - short
    loops = {"loop0": s.rows - 1, "loop1": s.chunks - 1, "loop2": groups - 1, "channel_group_level": 2, "reduction": 3}
    if short:
        loops |= {"loop_epilogue_dim": 1, "loop_epilogue_limit": short - 1}
    _multiply(
        b, layer, out, groups, lanes, mask, loops,
        walk("in", 0, [(s.rows, 4), (1, round_up(p.inputs, 4)), (s.chunks, 4 * s.rows), *tail], total_dims=8,
             epilogue=(2, short, 4 * skipped) if short else None),
        walk("weights", 4 * s.weights, [(s.rows, 4), (s.chunks, 0), *tail], total_dims=8, level=1, slot=4 * s.rows,
             epilogue=(1, short, 4 * skipped) if short else None),
        walk("partial", 0, [(s.rows, 0), (s.chunks, 0), *tail], total_dims=8,
             epilogue=(1, short, 0) if short else None),
        watch(0, TileCounter.RING_READ_A, 1),
        watch(1, TileCounter.WIDE_TO_SCALING, 1, level=2) if _scaling_lines(p) else {},
        _zero_points(p, s.header + p.header_rows - 1, p.header_rows, s.header + 2 * p.header_rows - 1),
    )


def fetch_parameters(b: ProgramBuilder, lines: int, first: int, count: int) -> None:
    """Bring 64-byte lines of parameters from the host, ``first`` to ``first + count``; ``lines`` have come before."""
    parameter_pointer(b, first * PARAMETER_LINE_BYTES)
    b.copy(6, 5)
    b.copy(7, 4)
    total = count * PARAMETER_LINE_BYTES
    b.transfer_hint(BaseAddress.PARAMETER, "", first * PARAMETER_LINE_BYTES, total)
    b.descriptor(6, 7, 8, total, DmaTag.PARAMETERS)
    b.emit("infeed", linear("fifo", lines % PARAMETER_FIFO_LINES, count, PARAMETER_FIFO_LINES // 2), signal("filled", 0),
           watch(0, ScalarCounter.PARAMETER_INFEED, lines - PARAMETER_CREDITS, level=0))


def parameter_pointer(b: ProgramBuilder, offset: int) -> None:
    """Registers 5 (low) and 4 (high) := address of the parameters (registers 1 and 0) plus an offset."""
    if not offset:
        b.copy(5, 1)
        b.copy(4, 0)
        return
    add, carry = AluOperation.ADD | IMMEDIATE, {"predicated": 1, "sense": 1}
    b.scalar_instruction("scalar", operation=AluOperation.LESS | IMMEDIATE, source=1)
    b.scalar_instruction("scalar", operation=AluOperation.NOT_EQUAL, destination=1, source=1, immediate=1)
    b.scalar_instruction("scalar", operation=AluOperation.AND | IMMEDIATE, destination=6, source=1, immediate=0x7FFFFFFF)
    b.scalar_instruction("scalar", operation=add, destination=6, source=6, immediate=offset, **carry)
    b.scalar_instruction("scalar", operation=AluOperation.LESS | IMMEDIATE, destination=1, source=6, **carry)
    b.scalar_instruction("scalar", operation=add, destination=5, source=1, immediate=offset)
    b.scalar_instruction("scalar", operation=add, destination=4)
    b.scalar_instruction("scalar", operation=add, destination=4, source=4, immediate=1, predicate=1, **carry)


def _shapes(layer: DenseLayer) -> dict[tuple[int, int], int]:
    """Tiles by (groups, lanes of the last group): each kind needs an instruction of its own."""
    shapes: dict[tuple[int, int], int] = {}
    for tile in range(layer.tiles):
        key = (layer.groups_on(tile), layer.lanes_of_last_group(tile))
        shapes[key] = shapes.get(key, 0) | 1 << tile
    return shapes


def _by_groups(shapes: dict[tuple[int, int], int]) -> dict[int, int]:
    """Tiles by number of groups."""
    masks: dict[int, int] = {}
    for (groups, _), mask in shapes.items():
        masks[groups] = masks.get(groups, 0) | mask
    return masks


def _scaling_lines(p: DenseParameters) -> int:
    """Header rows that go into the scaling registers."""
    return int(p.has_factor_row) + int(p.bias is not None)


def _load_scaling(b: ProgramBuilder, p: DenseParameters, mask: int, src: Values, groups: int,
                  arrival: Values | None = None) -> None:
    """Copy multipliers and bias of each group into the scaling registers, half a bank ahead."""
    lines = _scaling_lines(p)
    if not lines:
        return
    entries = ROW_WORDS // 2
    dst = [(entries, 1), (lines, LANES)] if groups == 1 else [(entries, 1), (lines, LANES), (groups, 0)]
    watches = watch(0, TileCounter.AVDATA, -1, level=2, side=1)
    if arrival is not None:
        watches = arrival | watch(1, TileCounter.AVDATA, -1, level=2, side=1)
    b.tile("wide_to_narrow", mask, src,
           walk("dst", 0 if p.has_factor_row else LANES, dst, total_dims=6, level=2, slot=entries),
           watches, signal("done", 2), to_scaling=1, drop_level=1)


def _multiply(b: ProgramBuilder, layer: DenseLayer, out: int, groups: int, lanes: int, mask: int, *parts: Values) -> None:
    """Emit the tensor operation; ``parts`` are loops, operands and watches."""
    p = layer.parameters
    first_lanes = LANES if groups > 1 else lanes
    epilogue = (2, lanes // 4, LANES - lanes) if groups > 1 and lanes < LANES else None
    b.tile(
        "tensor_op", mask, *parts,
        walk("out", out, [(first_lanes // 4, 4), (1, first_lanes), (groups, first_lanes)], total_dims=8,
             epilogue=epilogue),
        signal("avdata", 2), signal("parameters", 1),
        flag1843=1, partial_from_zero=1, no_partial_sums=1, in_zero_point=layer.in_zero_point, lanes_last_m1=lanes - 1,
        lanes_m1=first_lanes - 1, clamp_high=layer.clamp_high, clamp_low=layer.clamp_low,
        out_zero_point=layer.out_zero_point, use_bias=int(p.bias is not None), use_multiplier=int(p.has_factor_row),
        multiplier=_FLOAT_ONE if p.has_factor_row else int(p.factors[:1].view("uint32")[0]),
    )


def _zero_points(p: DenseParameters, first: int, step: int, last: int) -> Values:
    """Weight zero points: an immediate, or rows of int32 per group."""
    if not p.per_channel:
        return {"weights_zero_point": p.zero_point}
    return {"zero_points_per_channel": 1, "zero_point_row.start": first, "zero_point_row.step": step,
            "zero_point_row.last": last}


def start_transfer(b: ProgramBuilder, base: BaseAddress, name: str, size: int, tag: DmaTag) -> None:
    """Issue a host transfer of a whole buffer whose address is in registers 10 (high) and 11 (low)."""
    b.copy(5, 11)
    b.copy(4, 10)
    issue_transfer(b, base, name, size, tag)


def issue_transfer(b: ProgramBuilder, base: BaseAddress, name: str, size: int, tag: DmaTag) -> None:
    """Issue a host transfer whose address is in registers 4 (high) and 5 (low)."""
    b.copy(6, 5)
    b.copy(7, 4)
    b.transfer_hint(base, name, 0, size)
    b.descriptor(6, 7, 8, size, tag)


def emit_vector_output(b: ProgramBuilder, slices: Sequence[Slice], name: str, size: int) -> None:
    """Bring a vector to the host, tile by tile."""
    b.barrier()
    low, high = address_pair(BaseAddress.OUTPUT, name)
    b.load(10, address=high)
    b.load(11, address=low)
    b.copy(5, 11)
    b.copy(4, 10)
    for words, group in groupby(slices, key=lambda s: s.words):
        members = list(group)
        rows = -(-words // ROW_WORDS)
        dims = [(1, 1)] if rows == 1 else [(1, 1), (rows, 0)]
        b.tile("narrow_to_wide", sum(1 << s.tile for s in members),
               walk("src", members[0].word, [(words, 1)], total_dims=6, mask=int(words > 1)),
               walk("dst", RECEIVE_ROW, dims, total_dims=4, mask=0, level=1, slot=1),
               watch(0, TileCounter.RING_WRITE, -1, side=1), signal("done", 1), flush_level=1)
    issue_transfer(b, BaseAddress.OUTPUT, name, size, DmaTag.OUTPUT)
    for s in slices:
        rows = -(-s.words // ROW_WORDS)
        b.emit("outfeed", walk("fifo", 0, [(-(-s.words // 2), 0)], total_dims=3), signal("credit", 1),
               constant222=63, to_host=1)
        dims = [(1, 1)] if rows == 1 else [(1, 1), (rows, 0)]
        b.tile("ring_send", 1 << s.tile, walk("src", RECEIVE_ROW, dims, total_dims=4, mask=1, level=1, slot=1),
               ring_turn(b), watch(1, TileCounter.NARROW_TO_WIDE, 1), signal("write", 1), signal("producer", 2), to_scalar=1)
