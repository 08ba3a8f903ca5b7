"""Vectors brought together: slices of vectors and pixels of images on the tiles that go on with all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np

from compiler.beagle.isa.counters import TileCounter
from compiler.errors import ProgramError
from compiler.facts import TILE_COLUMNS, TILE_ROWS, TILES, WIDE_ROWS
from compiler.lowering.builder import LAYER_COUNTERS
from compiler.lowering.dense import gather, make_room_for_turns, settle_rings
from compiler.lowering.parameters import Bytes
from compiler.lowering.pieces import ROWS, Route, Slice, send
from compiler.lowering.spatial.emission import Emission, Leaves
from compiler.lowering.spatial.far_pixels import Stretch
from compiler.lowering.spatial.geometry import Activation, Image, Vector
from compiler.lowering.spatial.layer import Activations, Layer
from compiler.lowering.spatial.mesh import FROM_EAST, FROM_SOUTH, PASSING_WORDS, Course, Hop, MeshMoves
from compiler.records import record

MESH_COUNTERS = sum(1 << c for c in TileCounter if c.name.startswith("MESH_"))
_ALL_BUT_PARAMETER_POP = 0xD
"""Engines of the scalar core that must be idle: pop of activations, infeed, outfeed."""


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
class GatherInPlace(Layer):
    """Slices that lie as parts of their vector come together on tile 0, which sends the whole to the others.

    They go over the mesh, row by row to the first column and there to tile 0, as in programs of compiler 1.0. Every
    tile goes on as soon as it has what it needs: whoever sends has finished what the receiver waits for.
    """

    name: str
    source: int
    target: int

    banded: ClassVar[bool] = False
    takes_over: ClassVar[bool] = True
    leaves: ClassVar[Leaves] = Leaves.NOTHING
    below_top: ClassVar[bool] = True

    @property
    def sources(self) -> tuple[int, ...]:
        """The slices."""
        return (self.source,)

    def lowest_row(self, scenes: Sequence[Activations], top: int) -> int:
        """Return the row that tile 0 sends from."""
        del scenes
        return max(top, WIDE_ROWS - 1) - ROWS

    def constant_bytes(self, scenes: Sequence[Activations]) -> int:
        """Return the bytes for words that are passed on."""
        slices = scenes[0][self.source]
        return 4 * PASSING_WORDS * any(hop.passed for hops in _to_first_tile(slices) for hop in hops)

    def emit(self, emission: Emission, activations: Activations) -> None:
        """Collect and send."""
        b, slices, target = emission.b, activations[self.source], activations[self.target]
        if slices.own_address(0) != target.own_address(0):
            raise ProgramError(f"{self.name}: slices and the whole do not share their memory")
        make_room_for_turns(b, 1)
        if b.streamed_to & ~sum(1 << t for t in range(TILES) if slices.pixels(t)):
            # Parameters may still be on their way to tiles without a slice when all slices are there.
            b.barrier()
        b.streamed_to = 0
        b.tile_fence(reset=LAYER_COUNTERS)
        moves = MeshMoves(b, emission.constants.get(self.name, 0) // 4)
        along, down = _to_first_tile(slices)
        for hop in along:
            moves.emit(hop)
        moves.settle()
        b.tile_fence()
        for hop in down:
            moves.emit(hop)
        moves.settle()
        b.tile_fence(reset=MESH_COUNTERS)
        b.scalar_fence(tiles=False, engines=_ALL_BUT_PARAMETER_POP)
        b.tile_fence(reset=LAYER_COUNTERS)
        others = sum(1 << t for t in range(1, TILES) if target.pixels(t))
        if others:
            words = target.own_address(0) // 4
            row = self.lowest_row((), emission.tops[self.name])
            send(b, Slice(0, words, slices.size // 4), Route(row, others), words)
        b.tile_fence(reset=LAYER_COUNTERS)
        emission.settled()


def _to_first_tile(slices: Activation) -> tuple[list[Hop], list[Hop]]:
    """Return the hops of slices in place along the rows of tiles, then down the first column; the nearest comes first."""
    spans = {t: (slices.own_address(t) // 4, slices.slab(t).size // 4) for t in range(TILES) if slices.pixels(t)}
    along: list[Hop] = []
    for distance in range(1, TILE_COLUMNS):
        far = [t for t in spans if t % TILE_COLUMNS == distance]
        passed = {t - step: spans[t][1] for t in far for step in range(distance - 1, 0, -1)}
        along += _hop(FROM_EAST, {t: spans[t] for t in far}, {t - distance: spans[t] for t in far}, passed)
    down: list[Hop] = []
    for row in range(1, TILE_ROWS):
        first = row * TILE_COLUMNS
        words = sum(size for t, (_, size) in spans.items() if t // TILE_COLUMNS == row)
        if words:
            whole = spans[first][0], words
            passed = {step * TILE_COLUMNS: words for step in range(row - 1, 0, -1)}
            down += _hop(FROM_SOUTH, {first: whole}, {0: whole}, passed)
    return along, down


def _hop(course: Course, sources: Mapping[int, tuple[int, int]], targets: Mapping[int, tuple[int, int]],
         passed: Mapping[int, int]) -> list[Hop]:
    """Return the hop of words at addresses, if there are any."""
    def stretches(spans: Mapping[int, tuple[int, int]]) -> dict[int, Stretch]:
        return {t: Stretch(start, ((words, 1),)) for t, (start, words) in spans.items()}
    return [Hop(course, stretches(sources), stretches(targets), passed, {})] if sources else []


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
