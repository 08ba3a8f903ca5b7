"""The program that fills the parameter cache."""

from __future__ import annotations

from collections.abc import Sequence

from compiler.beagle.isa.counters import DmaTag, ScalarCounter
from compiler.facts import PARAMETER_FIFO_LINES, PARAMETER_LINE_BYTES
from compiler.lowering.builder import Program, ProgramBuilder, address_pair, linear, signal, walk, watch
from compiler.package.model import BaseAddress
from compiler.records import record

HALF_FIFO = PARAMETER_FIFO_LINES // 2
_TRACE_FLAG = 0x8000
"""Trace ids of caching programs carry the top bit."""


@record
class CacheSegment:
    """Rows of one parameter tensor on one tile.

    The blob holds, per output group, the header rows and then the main rows. In wide memory the
    headers of all groups come first.

    Attributes
    ----------
    tile:
        Owner.
    row:
        First wide row.
    lines:
        64-byte lines of the blob, in all.
    lanes:
        Lanes stored per row: 16, 32, 48 or 64.
    header_rows:
        Rows of each group's header (bias, multipliers, zero points).
    groups:
        Groups of output channels.
    """

    tile: int
    row: int
    lines: int
    lanes: int
    header_rows: int = 0
    groups: int = 1

    @property
    def rows(self) -> int:
        """Wide rows filled."""
        return -(-self.lines * 16 // self.lanes)

    @property
    def main_rows(self) -> int:
        """Rows of one group without its header."""
        return self.rows // self.groups - self.header_rows


def caching_program(tensors: Sequence[Sequence[CacheSegment]]) -> Program:
    """Write the parameter-caching program.

    Parameters
    ----------
    tensors:
        Segments of each cached tensor, in the order of the parameter blob.
    """
    b = ProgramBuilder(first_trace=_TRACE_FLAG)
    lines = sum(s.lines for tensor in tensors for s in tensor)
    low, high = address_pair(BaseAddress.PARAMETER)
    b.reset_chip()
    b.load(1, address=low)
    b.load(0, address=high)
    b.copy(3, 1)
    b.copy(2, 0)
    b.copy(4, 3)
    b.copy(5, 2)
    b.transfer_hint(BaseAddress.PARAMETER, "", 0, lines * PARAMETER_LINE_BYTES)
    b.descriptor(4, 5, 6, lines * PARAMETER_LINE_BYTES, DmaTag.PARAMETERS)
    b.emit("infeed", linear("fifo", 0, lines, HALF_FIFO), signal("filled", 0),
           watch(0, ScalarCounter.PARAMETER_INFEED, 1 - min(lines, PARAMETER_FIFO_LINES), level=0))
    sent = 0
    for tensor in tensors:
        for segment in tensor:
            _receive(b, segment)
        for segment in tensor:
            b.emit("pop", linear("fifo", sent % PARAMETER_FIFO_LINES, segment.lines, HALF_FIFO), signal("credit", 0),
                   watch(0, ScalarCounter.PARAMETER_POP, sent + 1, level=0), constant392=1,
                   receivers=1 << segment.tile, lanes_m1=segment.lanes - 1)
            sent += segment.lines
    return b.finish(first_register=2)


def _receive(b: ProgramBuilder, segment: CacheSegment) -> None:
    tile = 1 << segment.tile
    if not segment.header_rows:
        rows = segment.rows
        b.tile("ring_receive_a", tile, walk("dst", segment.row, [(rows, 1)], total_dims=4, mask=int(rows > 1)))
        return
    header = segment.header_rows * segment.groups
    main = segment.main_rows
    dims = [(main, 1)] if segment.groups == 1 else [(main, 1), (segment.groups, main)]
    prefix = {"prefix.enable": 1, "prefix.start": segment.row, "prefix.count_m1": segment.header_rows - 1,
              "prefix.last": segment.row + header - 1, "prefix.step": segment.header_rows}
    b.tile("ring_receive_a", tile, walk("dst", segment.row + header, dims, total_dims=4), prefix)
