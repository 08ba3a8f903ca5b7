"""RESHAPE: free where the bytes stay as they are or weights can follow; of images words move; else tiles pick pixels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from compiler.facts import LANES, TILES
from compiler.graph import Graph, Operator, Tensor
from compiler.lowering.arithmetic import bits
from compiler.lowering.builder import Values, walk
from compiler.lowering.dense import input_words
from compiler.lowering.parameters import round_up
from compiler.lowering.spatial.context import Context, Share, extent_of, image_of, is_flat, same_bytes
from compiler.lowering.spatial.emission import Emission, Leaves
from compiler.lowering.spatial.families.dense import pick_channels
from compiler.lowering.spatial.families.family import Family
from compiler.lowering.spatial.families.flattening import Flattening
from compiler.lowering.spatial.families.move import gapped, same_words, with_gaps
from compiler.lowering.spatial.families.selection import move, select_channels
from compiler.lowering.spatial.families.unary import CONSTANT_WORDS, IDENTITY_ROW, build_identity
from compiler.lowering.spatial.geometry import IDENTITY, Activation, Image, by_content
from compiler.lowering.spatial.infeed import INFINITY, MINUS_INFINITY, pick_bytes
from compiler.lowering.spatial.layer import Activations, Layer
from compiler.mapping import Status, Verdict
from compiler.records import record

_COPY: Values = {"partial_from_zero": 1, "no_partial_sums": 1, "lanes_m1": 3, "lanes_last_m1": 3, "multiplier": bits(1.0),
                 "clamp_low": MINUS_INFINITY, "clamp_high": INFINITY}


@record
class Reshape(Layer):
    """Every tile has all pixels of an image in their order, and picks those that it owns in another shape.

    Attributes
    ----------
    source:
        Number of the gathered pixels.
    shape:
        Shape in which they lie there.
    """

    name: str
    source: int
    target: int
    shape: Image

    banded: ClassVar[bool] = False
    leaves: ClassVar[Leaves] = Leaves.VECTOR

    @property
    def sources(self) -> tuple[int, ...]:
        """The gathered pixels."""
        return (self.source,)

    def lowest_row(self, scenes: Sequence[Activations], top: int) -> int:
        """Return the row of the identity matrix."""
        del scenes, top
        return IDENTITY_ROW

    @property
    def _elements(self) -> int:
        return self.shape.height * self.shape.width * self.shape.channels

    @property
    def _padded(self) -> bool:
        """Channels are padded, so that bytes do not follow each other."""
        return self.shape.channels % 4 != 0

    def constant_bytes(self, scenes: Sequence[Activations]) -> int:
        """Return the bytes of the identity matrix, and of all elements without padding."""
        del scenes
        return 4 * CONSTANT_WORDS + (round_up(self._elements, 4) if self._padded else 0)

    def emit(self, emission: Emission, activations: Activations) -> None:
        """Drop padding and pick."""
        emission.begin_vector()
        b, target, source = emission.b, activations[self.target], activations[self.source].own_address(0)
        owners = [t for t in range(TILES) if target.pixels(t)]
        constants = emission.constants[self.name]
        build_identity(b, constants)
        if self._padded:
            flat = target.own_address(0) if target.is_vector else constants + 4 * CONSTANT_WORDS
            for fields in self._without_padding(source, flat):
                b.tile("tensor_op", sum(1 << t for t in owners), fields)
            b.tile_fence()
            source = flat
        if not self._padded or not target.is_vector:
            for tiles, picked in by_content({t: self._pick(target, t, source) for t in owners}):
                b.tile("tensor_op", tiles, dict(picked))
        emission.reset()

    def _without_padding(self, source: int, flat: int) -> list[Values]:
        """Four bytes to a word; what is left in the end by itself."""
        c, pad = self.shape.channels, self.shape.padded
        words, rest = divmod(self._elements, 4)
        found = []
        if words:
            whole = [(c, 1), (-(-4 * words // c), pad)] if c > 1 else [(4 * words, pad)]
            short = (1, 4 * words % c, c - 4 * words % c) if 4 * words % c else None
            found.append(_bytes_to_words(source, whole, flat, 4, words, short))
        if rest:
            first = self._elements - rest
            last = source + first // c * pad + first % c
            found.append(_bytes_to_words(last, [(rest, pad if c == 1 else 1)], flat + 4 * words, rest, 1))
        return found

    def _pick(self, target: Activation, tile: int, source: int) -> Values:
        rows, columns = target.own(tile)
        slab, image = target.slab(tile), target.image
        pitch = image.width * image.channels
        first = source + rows.start * pitch + columns.start * image.channels
        if image.channels % 4:
            return _COPY | pick_bytes(image.channels, IDENTITY_ROW, slab, (len(rows), len(columns)), [], (first, pitch),
                                      target.own_address(tile))
        counts = (image.channels // 4, len(columns), len(rows))
        stay = [(n, 0) for n in counts]
        places = list(zip(counts, (4, slab.pixel, slab.pitch), strict=True))
        return (_COPY | {f"loop{i + 1}": n - 1 for i, n in enumerate(counts)} | {"channel_group_level": 4}
                | walk("in", first, list(zip(counts, (4, image.channels, pitch), strict=True)), total_dims=8)
                | walk("out", target.own_address(tile), places, total_dims=8)
                | walk("weights", 4 * IDENTITY_ROW, stay, total_dims=8) | walk("partial", 0, stay, total_dims=8, slot=4))


def _bytes_to_words(source: int, dims: list[tuple[int, int]], out: int, steps: int, words: int,
                    short: tuple[int, int, int] | None = None) -> Values:
    """Take one byte per step, so many for every word."""
    stay = [(words, 0)]
    return (_COPY | {"slot1_off": 1, "slot2_off": 1, "slot3_off": 1, "channel_group_level": 2, "reduction": 1,
                     "loop0": steps - 1, "loop1": words - 1}
            | walk("in", source, dims, total_dims=8, epilogue=short) | walk("out", out, [(words, 4)], total_dims=8)
            | walk("weights", 4 * IDENTITY_ROW, [(steps, 1), *stay], total_dims=8, level=1)
            | walk("partial", 0, [(steps, 0), *stay], total_dims=8, level=1, slot=4))


def _read(context: Context, op: Operator) -> Layer | list[Layer] | None:
    if op.outputs[0] not in context.late:
        return _read_shape(context, op)
    return _read_head(context, op)


def _read_head(context: Context, op: Operator) -> Layer | list[Layer] | None:
    """Read a reshape whose result the host puts together: rows get words of their own, and stay on their tiles."""
    x, y = context.graph.tensors[op.inputs[0]], context.graph.output(op)
    count, size = per_pixel(x, y), y.shape[-1]
    layers: Layer | list[Layer] | None = None
    if not count or is_flat(x) or context.origin(x.index) in context.slices:
        layers, count = _read_shape(context, op), 1
        number = context.resolve(y.index)
    elif context.apart.get(x.index, (0, 0))[1] == size:
        number = context.apart[x.index][0]
    elif same_words(size, image_of(x)):
        number = context.resolve(x.index)
    else:
        apart = context.between(x, with_gaps(x, size), "apart")
        number, channels = apart.index, gapped(x.shape[-1], size)
        layers = select_channels(f"{op.title} apart", context.resolve(x.index), x, number, apart, channels,
                                 (IDENTITY, IDENTITY))
    context.shares[y.index] = (Share(number, count),)
    return layers


def per_pixel(x: Tensor, y: Tensor) -> int:
    """Return how many rows of a reshaped image each of its pixels makes; 0 when rows mix pixels."""
    height, width, channels = extent_of(x)
    rows, size = extent_of(y)[1:]
    return channels // size if height * width * channels == rows * size and channels % size == 0 else 0


def _read_shape(context: Context, op: Operator) -> Layer | list[Layer] | None:
    x, y = context.graph.tensors[op.inputs[0]], context.graph.output(op)
    origin = context.origin(x.index)
    if extent_of(context.tensor(origin)) == extent_of(y) or (
            is_flat(y) and context.image(origin).channels % 4 and _only_for_dense(context, y)):
        context.alias(y.index, x.index)
        return None
    if _only_host_data(context, x) and not (context.generation.moves_inputs and y.shape == (*x.shape, 1)):
        context.see(origin, y)
        context.alias(y.index, x.index)
        context.slices.pop(origin, None)
        if is_flat(y):
            context.lie(origin, input_words(y.elements))
        return None
    shape, target = context.image(origin), context.image(y.index)
    if is_flat(y) and origin not in context.slices and shape.height * shape.width > 1:
        if shape.channels % 4 == 0:
            context.lie(y.index, slice_words(y.elements), flattened=True)
            return Flattening(op.title, origin, y.index)
        if y.elements <= LANES:
            return _without_padding(context, op, shape)
        if LANES % shape.padded == 0 and shape.height * shape.width * shape.padded % LANES == 0:
            return _packed(context, op, shape)
    if not is_flat(y) and origin not in context.slices:
        origins = np.arange(y.elements).reshape(extent_of(y))
        return move(context, op.title, context.tensor(origin), y, origins)
    owners = [t for t in range(TILES) if target.pixels(t)]
    gathered = context.gather((origin,), owners[-1] + 1, in_order=True)
    if is_flat(y) and shape.channels % 4 == 0:
        context.alias(y.index, gathered)
        return None
    return Reshape(op.title, gathered, y.index, shape)


def _without_padding(context: Context, op: Operator, shape: Image) -> Layer:
    """Flatten words, and pick their channels."""
    x, y = context.graph.tensors[op.inputs[0]], context.graph.output(op)
    size = shape.height * shape.width * shape.padded
    flat = context.between(x, (1, size), "with padding").index
    context.lie(flat, slice_words(size))
    context.before.append(Flattening(f"{op.title} with padding", context.origin(x.index), flat))
    chosen = [i for i in range(size) if i % shape.padded < shape.channels]
    return pick_channels(context, op.title, (flat,), y, chosen)


def _packed(context: Context, op: Operator, shape: Image) -> list[Layer]:
    """Lay 64 channels of neighbouring pixels side by side, pick those that there are by a convolution, and flatten them."""
    x, y = context.graph.tensors[op.inputs[0]], context.graph.output(op)
    count = shape.height * shape.width * shape.padded // LANES
    channels = [i for i in range(LANES) if i % shape.padded < shape.channels]
    wide = context.between(x, (1, 1, count, LANES), "in groups")
    picked = context.between(x, (1, 1, count, len(channels)), "without padding")
    context.lie(y.index, slice_words(y.elements), flattened=True)
    return [Flattening(f"{op.title} in groups", context.origin(x.index), wide.index),
            select_channels(f"{op.title} without padding", wide.index, wide, picked.index, picked, channels,
                            (IDENTITY, IDENTITY)),
            Flattening(op.title, picked.index, y.index)]


def slice_words(size: int) -> tuple[int, ...]:
    """Return the words of a vector of so many bytes on every tile: whole groups of 64 channels, as of dense results."""
    step = LANES * -(-size // (LANES * TILES))
    return tuple(-(-max(min(step, size - tile * step), 0) // 4) for tile in range(TILES))


def _only_host_data(context: Context, x: Tensor) -> bool:
    """Tell whether a tensor is an input as it comes, and read in one way only: then its shape is free."""
    origin = context.origin(x.index)
    return origin in context.subgraph.inputs and all(
        len(context.graph.consumers.get(t, ())) == 1 and t not in context.subgraph.outputs for t in {x.index, origin})


def _only_for_dense(context: Context, y: Tensor) -> bool:
    """Tell whether a vector is only read by dense layers, whose weights take any order."""
    if y.index in context.subgraph.outputs:
        return False
    return all(u.name == "FULLY_CONNECTED" or (
        (same_bytes(context.graph, u) or u.name == "RESHAPE") and is_flat(context.graph.output(u))
        and _only_for_dense(context, context.graph.output(u))) for u in context.members(y.index))


def _objection(graph: Graph, op: Operator) -> Verdict | None:
    """The new shape is a constant."""
    return None if len(op.inputs) < 2 or graph.tensors[op.inputs[1]].is_constant else Verdict(
        Status.NOT_CONSTANT, f"{op.title}: the new shape must be a constant.", "Freeze the model before converting it.")


RESHAPE = Family(_objection, _read)
