"""Images that are constants: they come with every inference, each tile's part by itself.

An official program brings constants of a whole image over ring A as rows of 64 words into as many wide
rows as they need, and from there into narrow memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from compiler.beagle.isa.counters import TileCounter
from compiler.facts import PARAMETER_LINE_BYTES, TILES
from compiler.graph import Tensor
from compiler.lowering.arithmetic import unsigned_weights
from compiler.lowering.builder import LAYER_COUNTERS, signal, walk, watch
from compiler.lowering.spatial.context import extent_of
from compiler.lowering.spatial.emission import Emission
from compiler.lowering.spatial.families.unary import IDENTITY_ROW
from compiler.lowering.spatial.geometry import Image
from compiler.lowering.spatial.layer import Activations, Effort, Layer
from compiler.lowering.spatial.streaming import stream_lines
from compiler.records import record

_ROW_WORDS = 64
_ROW_BYTES = 4 * _ROW_WORDS


@record
class Provision(Layer):
    """A constant of the shape of an image, ready for code generation.

    Attributes
    ----------
    parts:
        Bytes of every tile's pixels, row by row, channels rounded up to four; empty where a tile has none.
    """

    name: str
    target: int
    parts: tuple[bytes, ...]

    banded: ClassVar[bool] = False

    @property
    def sources(self) -> tuple[int, ...]:
        """Nothing."""
        return ()

    @property
    def streamed(self) -> bytes:
        """Parts one behind the other, in whole rows."""
        return b"".join(part.ljust(_rows(part) * _ROW_BYTES, b"\0") for part in self.parts)

    def effort(self, target: object) -> Effort:
        """Return what a pixel takes on its way."""
        del target
        return Effort(1)

    def lowest_row(self, scenes: Sequence[Activations], top: int) -> int:
        """Return the first row that the largest part passes through."""
        del scenes, top
        return IDENTITY_ROW - max(map(_rows, self.parts))

    def emit(self, emission: Emission, activations: Activations) -> None:
        """Receive every tile's part."""
        b, target = emission.b, activations[self.target]
        row = self.lowest_row((), 0)
        b.barrier(reset=LAYER_COUNTERS)
        for tile in (t for t in range(TILES) if self.parts[t]):
            words, rows = len(self.parts[tile]) // 4, _rows(self.parts[tile])
            row_words, pitch = words // len(target.own(tile)[0]), target.slab(tile).pitch // 4
            there = [(words, 1)] if row_words == pitch else [(row_words, 1), (words // row_words, pitch)]
            b.tile("wide_to_narrow", 1 << tile, walk("src", row, [(rows, 1)], total_dims=4, level=1, slot=rows),
                   walk("dst", target.own_address(tile) // 4, there, total_dims=6, level=len(there), slot=words),
                   watch(0, TileCounter.RING_READ_A, 1), signal("done", 0), drop_level=len(there))
            b.tile("ring_receive_a", 1 << tile, walk("dst", row, [(rows, 1)], total_dims=4, level=1, slot=rows),
                   watch(0, TileCounter.WIDE_TO_NARROW, -words, step=words, side=1), signal("read", 1))
            stream_lines(b, emission.books, f"{self.name} on tile {tile}", rows * _ROW_BYTES // PARAMETER_LINE_BYTES,
                         receivers=1 << tile, lanes=_ROW_WORDS)
        emission.reset()


def provided(name: str, constant: Tensor, target: int, image: Image) -> Provision:
    """Read a constant, of which dimensions of one element are repeated.

    Parameters
    ----------
    image:
        Extent of the operands that it meets.
    """
    values = np.broadcast_to(unsigned_weights(constant).reshape(extent_of(constant)),
                             (image.height, image.width, image.channels))
    padded = np.zeros((image.height, image.width, image.padded), np.uint8)
    padded[..., :image.channels] = values
    spans = (image.own(t) for t in range(TILES))
    return Provision(name, target, tuple(padded[r.start:r.stop, c.start:c.stop].tobytes() for r, c in spans))


def _rows(part: bytes) -> int:
    return -(-len(part) // _ROW_BYTES)
