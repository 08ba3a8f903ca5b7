"""Writes programs: instructions by name, addresses as real strides, books of the sync counters."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from itertools import pairwise

from compiler.beagle.isa import WORD_BYTES, Form, encode_values
from compiler.beagle.isa.counters import IMMEDIATE, AluOperation, DmaTag, ScalarCounter, TileCounter
from compiler.facts import CHUNK_BITSTREAM_BYTES, TILES
from compiler.package.model import (
    BaseAddress,
    DescriptorHint,
    Direction,
    DmaHints,
    FieldOffset,
    Hint,
    InstructionChunk,
    InstructionHint,
    InterruptHint,
    Meta,
    Position,
)
from compiler.records import record

ALL_TILES = (1 << TILES) - 1
ALL_ENGINES = 0x3FF
ALL_COUNTERS = 0x7FFFF
LAYER_COUNTERS = 0x1FFFF
"""Counters reset between layers: all but RING_PRODUCER_A and B, whose turn numbers run on."""
_IMMEDIATE_BIT = 70
"""Low bit of the immediate of a scalar instruction, where the runtime writes addresses."""
_TRAILING_NOPS = 4
_FRAME = _TRAILING_NOPS + 2
"""Instructions around those of a stream: its begin, the trailing nops, its end."""
MOST_STEPS = 1 << 14
"""Steps of a dimension of the walk of a tensor operation."""
_MOST_DIMS = 8
"""Dimensions of the largest address generator."""
Dim = tuple[int, int]
Values = dict[str, int]


def walk(prefix: str, start: int, dims: Sequence[Dim], *, total_dims: int, mask: int | None = None, level: int = 0,
         slot: int = 0, epilogue: tuple[int, int, int] | None = None) -> Values:
    """Return the fields of an address generator.

    Parameters
    ----------
    prefix:
        Prefix of the field names, such as ``src``.
    dims:
        (count, stride) per dimension, innermost first; missing outer dimensions do not move.
    total_dims:
        Dimensions of the record.
    mask:
        Dimensions with a net stride; by default those of ``dims`` whose stride is not zero.
    level, slot:
        The address moves to the other ping-pong slot after each block of ``level`` dimensions.
    epilogue:
        (dimension, elements of dimension 0 in its last iteration, skipped addresses).
    """
    start_name, level_name, slot_name, mask_name, delta_names, limit_names = _walk_names(prefix)
    values = {start_name: start, level_name: level, slot_name: slot}
    inner = 0
    for d in range(total_dims):
        count, stride = dims[d] if d < len(dims) else (1, 0)
        values[delta_names[d]] = stride - inner
        values[limit_names[d]] = count - 1
        inner += stride * (count - 1)
    if mask is None:
        mask = sum([1 << d for d, (_, stride) in enumerate(dims) if stride])
    values[mask_name] = mask
    if epilogue is not None:
        dim, count, delta = epilogue
        values |= {f"{prefix}.epilogue_dim": dim, f"{prefix}.epilogue_limit": count - 1,
                   f"{prefix}.epilogue_delta": delta}
    return values


@cache
def _walk_names(prefix: str) -> tuple[str, str, str, str, list[str], list[str]]:
    """Names of the fields of an address generator: start, level, slot, mask, deltas and limits."""
    return (f"{prefix}.start", f"{prefix}.level", f"{prefix}.slot", f"{prefix}.mask",
            [f"{prefix}.delta{d}" for d in range(_MOST_DIMS)], [f"{prefix}.limit{d}" for d in range(_MOST_DIMS)])


def standing(*counts: int) -> list[Dim]:
    """Return dimensions without a stride for so many repetitions, as few as their fields hold.

    Examples
    --------
    >>> standing(10, 20, 3), standing(128, 128, 16)
    ([(600, 0)], [(16384, 0), (16, 0)])
    """
    dims: list[Dim] = []
    for count in counts:
        if dims and dims[-1][0] * count <= MOST_STEPS:
            dims[-1] = dims[-1][0] * count, 0
        else:
            dims.append((count, 0))
    return dims


def linear(prefix: str, start: int, count: int, block: int) -> Values:
    """Return the fields of a FIFO walk over ``count`` entries in blocks of half the FIFO."""
    blocks = -(-count // block)
    if count == 1:
        return walk(prefix, start, [(1, 1)], total_dims=3, mask=1, level=1, slot=block)
    rest = count % block
    epilogue = (1, rest, block - rest) if rest else None
    return walk(prefix, start, [(block, 1), (blocks, 0)], total_dims=3, mask=1, level=1, slot=block, epilogue=epilogue)


def watch(index: int, counter: int, count: int, *, step: int = 1, level: int = 1, side: int = 0) -> Values:
    """Return the fields of a watch: block i waits until the counter reaches count + step * i."""
    name = f"watch{index}"
    wrapped = ((count + 0x8000) & 0xFFFF) - 0x8000
    values = {f"{name}.counter": counter, f"{name}.level": level, f"{name}.count": wrapped, f"{name}.step": step,
              f"{name}.valid": 1}
    if side:
        values[f"{name}.side"] = side
    return values


def signal(name: str, level: int) -> Values:
    """Return the fields of a signal raised once per block of ``level`` dimensions."""
    return {f"{name}.valid": 1, f"{name}.level": level}


@record
class Program:
    """A finished program.

    Attributes
    ----------
    parts:
        Which instructions serve which operator: number of the first one, counted over all streams as they are
        decoded, and the operator's title; empty for what serves none.
    """

    chunks: tuple[InstructionChunk, ...]
    hints: DmaHints
    parts: tuple[tuple[int, str], ...] = ()


class ProgramBuilder:
    """Emits instructions one after the other.

    Attributes
    ----------
    producer_turns:
        Ring producer operations so far: every sender waits for its turn.
    streamed_to:
        Tiles, as a mask, that parameters from the host have been sent to which may still be on their way.
    """

    def __init__(self, *, first_trace: int = 0) -> None:
        self._instructions: list[tuple[Form, bytes]] = []
        self._addresses: dict[int, Meta] = {}
        self._hints: list[tuple[int, Hint]] = []
        self._trace = first_trace
        self._parts: list[tuple[int, str]] = []
        self.producer_turns = 0
        self.streamed_to = 0
        self.ring_b_rows = 0

    # -- plain emission ---------------------------------------------------------------------------

    def scalar_instruction(self, name: str, **values: int) -> None:
        """Emit an instruction of the scalar core; dots in field names are written ``__``."""
        self._instructions.append(encode_values(name, {k.replace("__", "."): v for k, v in values.items()}))

    def emit(self, name: str, *parts: Values, **values: int) -> None:
        """Emit an instruction from groups of fields."""
        fields: Values = {k.replace("__", "."): v for k, v in values.items()}
        for part in parts:
            fields |= part
        self._instructions.append(encode_values(name, fields))

    def tile(self, name: str, tiles: int, *parts: Values, **values: int) -> None:
        """Emit a tile instruction; trace ids count up by themselves."""
        self.emit(name, *parts, tiles=tiles, trace=self._trace, **values)
        self._trace += 1

    def serve(self, operator: str = "") -> None:
        """Remember that what follows serves an operator, or none."""
        self._parts.append((len(self._instructions), operator))

    # -- fences -----------------------------------------------------------------------------------

    def tile_fence(self, *, tiles: int = ALL_TILES, reset: int = 0, value: int = 0, engines: int = ALL_ENGINES,
                   notify: bool = False, final: bool = False) -> None:
        """Tiles (all of them) wait for engines, set counters to a value and notify the scalar core."""
        self.tile("tile_fence", tiles, reset=reset, value=value, engines=engines, notify=int(notify),
                  final=3 if final else 0)

    def scalar_fence(self, *, reset: int = 0, value: int = 0, wait_tiles: bool = False, engines: int = 0xC,
                     tiles: bool = True) -> None:
        """Scalar core: wait for the notification of all tiles and for engines, then set counters."""
        everyone = ALL_TILES if tiles else 0
        self.scalar_instruction("scalar_fence", tiles=everyone, reset=reset, value=value, wait_tiles=int(wait_tiles),
                                notified=ALL_TILES if wait_tiles else 0, engines=engines)

    def barrier(self, *, reset: int = 0, final: bool = False) -> None:
        """No tile goes on before all tiles have finished everything."""
        self.tile_fence(reset=reset, notify=True, final=final)
        self.scalar_fence(wait_tiles=True)
        self.streamed_to = 0

    # -- scalar registers and host transfers ----------------------------------------------------------

    def load(self, register: int, value: int = 0, address: Meta | None = None) -> None:
        """Load a constant; with ``address`` the runtime writes half of a buffer's address into it."""
        if address is not None:
            self._addresses[len(self._instructions)] = address
        self.scalar_instruction("scalar", operation=AluOperation.MOVE | IMMEDIATE, destination=register, immediate=value)

    def copy(self, register: int, source: int) -> None:
        """Copy a register."""
        self.scalar_instruction("scalar", operation=AluOperation.MOVE, destination=register, immediate=source)

    def point(self, low: int, high: int, offset: int = 0) -> None:
        """Registers 5 (low) and 4 (high) := the address in two registers plus an offset."""
        if not offset:
            self.copy(5, low)
            self.copy(4, high)
            return
        add, carry = AluOperation.ADD | IMMEDIATE, {"predicated": 1, "sense": 1}
        self.scalar_instruction("scalar", operation=AluOperation.LESS | IMMEDIATE, source=low)
        self.scalar_instruction("scalar", operation=AluOperation.NOT_EQUAL, destination=1, source=low, immediate=low)
        self.scalar_instruction("scalar", operation=AluOperation.AND | IMMEDIATE, destination=6, source=low,
                                immediate=0x7FFFFFFF)
        self.scalar_instruction("scalar", operation=add, destination=6, source=6, immediate=offset, **carry)
        self.scalar_instruction("scalar", operation=AluOperation.LESS | IMMEDIATE, destination=1, source=6, **carry)
        self.scalar_instruction("scalar", operation=add, destination=5, source=low, immediate=offset)
        self.scalar_instruction("scalar", operation=add, destination=4, source=high)
        self.scalar_instruction("scalar", operation=add, destination=4, source=4, immediate=1, predicate=1, **carry)

    def descriptor(self, low: int, high: int, size_register: int, size: int, tag: DmaTag) -> None:
        """Write a host transfer descriptor from registers and issue it."""
        write = {"vector_operation": 10}
        load = AluOperation.MOVE | IMMEDIATE
        self.scalar_instruction("scalar", **write, vector_source=low)
        self.scalar_instruction("scalar", **write, vector_offset=1, vector_source=high, operation=load,
                                destination=size_register, immediate=size)
        self.scalar_instruction("scalar", **write, vector_offset=2, vector_source=size_register, operation=load,
                                destination=size_register + 1, immediate=tag)
        self.scalar_instruction("scalar", **write, vector_offset=3, vector_source=size_register + 1)
        self.scalar_instruction("scalar", vector_operation=12)

    def hint(self, hint: Hint) -> None:
        """Remember a host transfer for the list of the runtime."""
        self._hints.append((len(self._instructions), hint))

    def transfer_hint(self, base: BaseAddress, name: str, offset: int, size: int) -> None:
        """Remember a transfer of a buffer."""
        direction = Direction.OUTFEED if base is BaseAddress.OUTPUT else Direction.INFEED
        self.hint(DescriptorHint(Meta(base, name), offset, size, direction))

    # -- frame ------------------------------------------------------------------------------------

    def reset_chip(self) -> None:
        """First instructions of every program: reset the counters of tiles and scalar core."""
        self.tile_fence(reset=ALL_COUNTERS, notify=True)
        self.scalar_fence(reset=0x1FF, wait_tiles=True, engines=0x1F)

    def finish(self, *, first_register: int) -> Program:
        """Interrupt the host, halt, and pack the instructions into streams.

        Parameters
        ----------
        first_register:
            Registers from here on are free for the last descriptor.
        """
        self.barrier(final=True)
        r = first_register
        self.load(r)
        self.load(r + 1)
        self.copy(r + 2, r + 1)
        self.copy(r + 3, r)
        self.hint(InterruptHint(0))
        self.descriptor(r + 2, r + 3, r + 4, 0, DmaTag.INTERRUPT)
        self.scalar_instruction("halt", code=16)
        chunks = self._split()
        hints: list[Hint] = []
        for index, (first, last, _) in enumerate(chunks):
            hints.append(InstructionHint(index))
            hints += [hint for at, hint in self._hints if first <= at < last]
        parts = tuple((at + 1 + _FRAME * sum(last <= at for _, last, _ in chunks), name) for at, name in self._parts)
        return Program(tuple(self._stream(first, last) for first, last, _ in chunks), DmaHints(tuple(_merge(hints))), parts)

    def _split(self) -> list[tuple[int, int, int]]:
        """Cut into streams at tile fences; returns (first, last, bytes)."""
        limit = CHUNK_BITSTREAM_BYTES // WORD_BYTES
        sections = [0] + [i for i, (form, _) in enumerate(self._instructions) if form.name == "tile_fence" and i]
        sections.append(len(self._instructions))
        chunks: list[tuple[int, int, int]] = []
        first = size = 0
        for a, b in pairwise(sections):
            words = sum(form.words for form, _ in self._instructions[a:b])
            if size and size + words > limit:
                chunks.append((first, a, size))
                first, size = a, 0
            size += words
        chunks.append((first, len(self._instructions), size))
        return chunks

    def _stream(self, first: int, last: int) -> InstructionChunk:
        body = self._instructions[first:last] + [encode_values("scalar", {})] * _TRAILING_NOPS
        data = b"".join(code for _, code in body)
        _, begin = encode_values("begin", {"bits": 8 * (len(data))})
        _, end = encode_values("end", {"bits": 128})
        offsets, word = [], 1
        for i, (form, _) in enumerate(body):
            meta = self._addresses.get(first + i) if first + i < last else None
            if meta is not None:
                offsets.append(FieldOffset(meta, word * 8 * WORD_BYTES + _IMMEDIATE_BIT))
            word += form.words
        return InstructionChunk(begin + data + end, tuple(offsets))


def _merge(hints: Iterable[Hint]) -> list[Hint]:
    """Join transfers of one buffer that follow each other without a gap."""
    merged: list[Hint] = []
    for hint in hints:
        last = merged[-1] if merged else None
        if (isinstance(hint, DescriptorHint) and isinstance(last, DescriptorHint) and hint.meta == last.meta
                and hint.direction is last.direction and hint.offset == last.offset + last.size):
            merged[-1] = DescriptorHint(last.meta, last.offset, last.size + hint.size, last.direction)
        else:
            merged.append(hint)
    return merged


def address_pair(base: BaseAddress, name: str = "") -> tuple[Meta, Meta]:
    """Return lower and upper half of a buffer's address."""
    return Meta(base, name, 0, Position.LOWER), Meta(base, name, 0, Position.UPPER)


__all__ = ["ProgramBuilder", "ScalarCounter", "TileCounter", "address_pair", "linear", "signal", "standing", "walk", "watch"]
