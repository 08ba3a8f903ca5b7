"""Vectors brought together: slices of vectors and pixels of images on the tiles that go on with all of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from compiler.facts import TILES, WIDE_ROWS
from compiler.lowering.builder import LAYER_COUNTERS
from compiler.lowering.dense import gather, settle_rings
from compiler.lowering.parameters import Bytes
from compiler.lowering.pieces import ROWS, Slice
from compiler.lowering.spatial.emission import Emission, Leaves
from compiler.lowering.spatial.geometry import Activation, Image, Vector
from compiler.lowering.spatial.layer import Activations, Layer
from compiler.records import record


@record
class Gather(Layer):
    """Activations one behind the other on tiles 0, 1, ...; pixels in the order of the tiles that hold them.

    Attributes
    ----------
    in_order:
        Pixels in the order of the image instead.
    """

    name: str
    operands: tuple[int, ...]
    target: int
    in_order: bool = False

    banded: ClassVar[bool] = False
    leaves: ClassVar[Leaves] = Leaves.NOTHING
    below_top: ClassVar[bool] = True

    @property
    def sources(self) -> tuple[int, ...]:
        """What is brought together."""
        return self.operands

    def lowest_row(self, scenes: Sequence[Activations], top: int) -> int:
        """Return the row that an owner sends from."""
        del scenes
        return max(top, WIDE_ROWS - 1) - ROWS

    def emit(self, emission: Emission, activations: Activations) -> None:
        """Send every part to all tiles that collect."""
        emission.begin_vector()
        target = activations[self.target]
        slices: list[Slice] = []
        places: list[int] = []
        start = 0
        for operand in self.operands:
            parts = parts_of(activations[operand], in_order=self.in_order)
            slices += [s for s, _ in parts]
            places += [start + place for _, place in parts]
            start += sum(s.words for s, _ in parts)
        receivers = sum(target.pixels(t) > 0 for t in range(TILES))
        row = self.lowest_row((), emission.tops[self.name])
        gather(emission.b, slices, receivers, target.own_address(0) // 4, places, row=row)
        emission.settled()


@record
class Joint(Layer):
    """A vector whose parts have been written where they belong; only what official programs wait for remains."""

    name: str
    parts: tuple[int, ...]
    target: int

    banded: ClassVar[bool] = False
    leaves: ClassVar[Leaves] = Leaves.VECTOR
    on_identity: ClassVar[bool] = True
    below_top: ClassVar[bool] = True

    @property
    def sources(self) -> tuple[int, ...]:
        """The parts."""
        return self.parts

    def lowest_row(self, scenes: Sequence[Activations], top: int) -> int:
        """Nothing is moved."""
        del scenes
        return top

    def emit(self, emission: Emission, activations: Activations) -> None:
        """Wait as for copies of the parts."""
        del activations
        emission.begin_vector()
        settle_rings(emission.b)
        emission.b.tile_fence()
        emission.b.tile_fence()
        emission.b.tile_fence(reset=LAYER_COUNTERS)
        emission.settled()


def parts_of(source: Activation, *, in_order: bool) -> list[tuple[Slice, int]]:
    """Return the parts of an activation that are sent as one, tile after tile, and the words in front of each.

    Parameters
    ----------
    in_order:
        Parts follow each other in the image as well; words in front are those of the image.
    """
    found: list[tuple[Slice, int]] = []
    front = 0
    for tile in range(TILES):
        if not source.pixels(tile) or (isinstance(source, Vector) and source.copies and tile):
            continue
        slab, (rows, columns) = source.slab(tile), source.own(tile)
        words = slab.pixel // 4
        first = source.own_address(tile) - slab.offset(rows.start, columns.start)
        for y in range(rows.start, rows.stop):
            part = Slice(tile, (first + slab.offset(y, columns.start)) // 4, len(columns) * words)
            place = front
            if in_order and not isinstance(source, Vector):
                place = (y * source.image.width + columns.start) * words
            _append(found, part, place)
            front += part.words
    return found


def _append(parts: list[tuple[Slice, int]], part: Slice, place: int) -> None:
    """Add a part, to the one before it where memory and place go on."""
    if parts:
        last, at = parts[-1]
        if last.tile == part.tile and last.word + last.words == part.word and at + last.words == place:
            parts[-1] = Slice(last.tile, last.word, last.words + part.words), at
            return
    parts.append((part, place))


def flattened_weights(weights: Bytes, image: Image, zero_point: int) -> Bytes:
    """Give the columns of a dense layer on a flattened image the channels that fill up the words of gathered pixels.

    Parameters
    ----------
    weights:
        Shape (outputs, height * width * channels).
    zero_point:
        Weight of padded channels.
    """
    outputs = len(weights)
    pixels = weights.reshape(outputs, -1, image.channels)
    padded = np.full((*pixels.shape[:2], image.padded), zero_point, np.uint8)
    padded[..., :image.channels] = pixels
    return padded.reshape(outputs, -1)
