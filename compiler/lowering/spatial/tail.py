"""Behind the images: the whole image becomes one vector, for means and for dense layers.

Tiles send their pixels over the ring, one tile after the other, to the tiles that go on with them.
Pixels therefore lie in the order of the tiles, and weights are put into that order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from compiler.facts import TILES, WIDE_ROWS
from compiler.lowering.builder import LAYER_COUNTERS, ProgramBuilder
from compiler.lowering.dense import (
    SEND_ROW,
    DenseBuffers,
    Slice,
    allocate,
    emit_dense,
    emit_vector_output,
    gather,
)
from compiler.lowering.dense_layer import DenseLayer
from compiler.lowering.dense_stream import StreamBuffers
from compiler.lowering.parameters import Bytes, round_up
from compiler.lowering.softmax import SUM_ROW, Scratch, SoftmaxLayer, softmax_of
from compiler.lowering.spatial.books import Books
from compiler.lowering.spatial.families.pooling import Pool, Region, emit_pool, wide_rows_of
from compiler.lowering.spatial.families.unary import CONSTANT_WORDS, Unary, emit_vector_unary
from compiler.lowering.spatial.geometry import Activation, Image, Slab, Span


@dataclass(frozen=True)
class Tail:
    """What comes behind the images.

    Attributes
    ----------
    mean:
        Mean (or maximum) over all pixels; None when the pixels themselves are the vector.
    layers:
        Dense layers.
    functions:
        What is applied to each value of the result.
    softmax:
        What follows on tile 0.
    source, image:
        The image it begins with.
    """

    source: int
    image: Image
    mean: Pool | None
    layers: tuple[DenseLayer, ...]
    functions: tuple[Unary, ...] = ()
    softmax: SoftmaxLayer | None = None

    @property
    def gathered(self) -> int:
        """Bytes of the whole image."""
        return self.image.height * self.image.width * self.image.padded

    @property
    def pooled(self) -> int:
        """Byte address of the means."""
        return self.gathered + 4 * self.image.padded

    @property
    def ones(self) -> int:
        """Byte address of the constant of the means."""
        return self.pooled + self.image.padded

    @property
    def buffers(self) -> DenseBuffers:
        """Addresses of dense layers."""
        return allocate(self.layers)

    @property
    def size(self) -> int:
        """Bytes of narrow memory, from address 0."""
        before = self.constants + 4 * CONSTANT_WORDS
        if self.softmax is None:
            return before
        return Scratch(max(before, 4 * self.softmax.words), self.softmax.words).end

    @property
    def constants(self) -> int:
        """Byte address of the words that functions build."""
        dense = self.buffers.used if self.layers else 0
        return round_up(max(dense, self.ones + 4 if self.mean is not None else self.gathered), 4)

    @property
    def line(self) -> Slab:
        """The image as one row of pixels, on the tile that computes means."""
        return Slab(Span(0, 1), Span(0, self.image.height * self.image.width), self.image.padded)

    def lowest_row(self, arriving: Sequence[bool]) -> int:
        """Lowest wide row in use; parameters of some dense layers arrive while they are used."""
        rows = [SEND_ROW if self.softmax is None else SUM_ROW]
        if self.mean is not None:
            rows.append(WIDE_ROWS - wide_rows_of(self.line))
        rows += [StreamBuffers.of(layer.parameters).lowest for layer, s in zip(self.layers, arriving, strict=True) if s]
        return min(rows)


def tile_order(image: Image) -> list[int]:
    """Return pixel numbers (row by row) in the order in which the tiles send them."""
    order = []
    for tile in range(TILES):
        rows, columns = image.own(tile)
        order += [y * image.width + x for y in range(rows.start, rows.stop) for x in range(columns.start, columns.stop)]
    return order


def flattened_weights(weights: Bytes, image: Image, zero_point: int) -> Bytes:
    """Put the columns of a dense layer on a flattened image into the order of the gathered pixels.

    Parameters
    ----------
    weights:
        Shape (outputs, height * width * channels).
    zero_point:
        Weight of padded channels.
    """
    outputs = len(weights)
    pixels = weights.reshape(outputs, -1, image.channels)[:, tile_order(image)]
    padded = np.full((*pixels.shape[:2], image.padded), zero_point, np.uint8)
    padded[..., :image.channels] = pixels
    return padded.reshape(outputs, -1)


def emit_tail(b: ProgramBuilder, books: Books, tail: Tail, source: Activation, name: str, size: int) -> None:
    """Emit everything behind the images, the output included."""
    b.barrier()
    b.tile_fence(reset=LAYER_COUNTERS)
    books.counts.reset()
    slices = [Slice(t, source.address // 4, source.slab(t).size // 4) for t in range(TILES) if source.image.pixels(t)]
    if tail.mean is not None:
        slices = _mean(b, books, tail, slices)
        if tail.layers:
            b.tile_fence(reset=LAYER_COUNTERS)
    for i, layer in enumerate(tail.layers):
        if i:
            b.tile_fence(reset=LAYER_COUNTERS)
        b.serve(layer.name)
        gather(b, slices, layer.tiles)
        out = tail.buffers.outputs[i]
        books.streamed_lines = emit_dense(b, layer, out, books.streamed_lines, books.next_line)
        slices = [Slice(t, out // 4, layer.bytes_on(t) // 4) for t in range(layer.tiles)]
    for function in tail.functions:
        b.serve(function.name)
        emit_vector_unary(b, function, slices, tail.constants)
    if tail.softmax is not None:
        b.serve(tail.softmax.name)
        slices = [softmax_of(b, tail.softmax, slices, tail.size)]
    emit_vector_output(b, slices, name, size)


def _mean(b: ProgramBuilder, books: Books, tail: Tail, slices: Sequence[Slice]) -> list[Slice]:
    """Reduce the image on tile 0."""
    assert tail.mean is not None
    b.serve(tail.mean.name)
    gather(b, slices, 1)
    line = tail.line
    region = Region(0, tail.pooled, line, Slab(Span(0, 1), Span(0, 1), line.pixel), 1, len(line.columns), 1, 1)
    emit_pool(b, books, tail.mean, {0: region}, WIDE_ROWS - wide_rows_of(line), tail.ones)
    b.tile_fence(reset=LAYER_COUNTERS)
    books.counts.reset()
    return [Slice(0, tail.pooled // 4, line.pixel // 4)]
