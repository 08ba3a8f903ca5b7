"""Parameters that come with every inference: from the host over ring A to all tiles that compute."""

from __future__ import annotations

from collections.abc import Sequence

from compiler.beagle.isa.counters import ScalarCounter
from compiler.facts import PARAMETER_FIFO_LINES
from compiler.lowering.builder import ProgramBuilder, linear, signal, watch
from compiler.lowering.dense_stream import fetch_parameters
from compiler.lowering.spatial.books import Books


def stream_lines(b: ProgramBuilder, books: Books, layer: str, count: int, *, receivers: int, lanes: int) -> None:
    """Let the host send the lines of a layer, and the scalar core pass them on.

    Parameters
    ----------
    count:
        Lines of 64 bytes.
    lanes:
        4-byte lanes of a packet.
    """
    stream_parts(b, books, layer, [(receivers, count)], lanes=lanes)


def stream_parts(b: ProgramBuilder, books: Books, layer: str, parts: Sequence[tuple[int, int]], *, lanes: int) -> None:
    """The same for parts that go to tiles of their own: pairs of receivers and lines."""
    count = sum(lines for _, lines in parts)
    fetch_parameters(b, books.streamed_lines, books.first_line(layer, count), count)
    # Several parts come where the rings are at rest.
    turn = watch(1, ScalarCounter.PRODUCER_A, b.producer_turns, step=0, level=2) if len(parts) == 1 else {}
    for receivers, part in parts:
        lines = books.streamed_lines
        b.emit("pop", linear("fifo", lines % PARAMETER_FIFO_LINES, part, PARAMETER_FIFO_LINES // 2), signal("credit", 0),
               watch(0, ScalarCounter.PARAMETER_POP, lines + 1, level=0), turn, constant392=1, receivers=receivers,
               lanes_m1=lanes - 1)
        b.streamed_to |= receivers
        books.streamed_lines += part
