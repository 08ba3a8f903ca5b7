"""Parameters that come with every inference: from the host over ring A to all tiles that compute."""

from __future__ import annotations

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
    lines = books.streamed_lines
    fetch_parameters(b, lines, books.first_line(layer, count), count)
    b.emit("pop", linear("fifo", lines % PARAMETER_FIFO_LINES, count, PARAMETER_FIFO_LINES // 2), signal("credit", 0),
           watch(0, ScalarCounter.PARAMETER_POP, lines + 1, level=0),
           watch(1, ScalarCounter.PRODUCER_A, b.producer_turns, step=0, level=2), constant392=1, receivers=receivers,
           lanes_m1=lanes - 1)
    books.streamed_lines += count
