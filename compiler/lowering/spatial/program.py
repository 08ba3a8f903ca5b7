"""Puts a network of image operators together: memory first, then the program."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from compiler.beagle.isa.counters import TileCounter
from compiler.facts import TILES, WIDE_ROWS
from compiler.lowering.builder import LAYER_COUNTERS, Program, ProgramBuilder
from compiler.lowering.dense import RECEIVE_ROW, begin, finish_rings
from compiler.lowering.spatial.addition import CONSTANT_WORDS, FIRST_WIDE_ROW, Addition, emit_addition
from compiler.lowering.spatial.bands import Reading, Strip, stored, stored_needs, views
from compiler.lowering.spatial.buffers import Lifetime, NarrowMemory
from compiler.lowering.spatial.concatenation import Concatenation, emit_concatenation
from compiler.lowering.spatial.convolution import Convolution, emit_convolution
from compiler.lowering.spatial.geometry import IDENTITY, NOWHERE, Activation
from compiler.lowering.spatial.halo import Readiness, emit_halo
from compiler.lowering.spatial.infeed import Infeed, emit_infeed, place_infeed, wide_rows
from compiler.lowering.spatial.outfeed import emit_outfeed
from compiler.lowering.spatial.planning import Problem, Work
from compiler.lowering.spatial.pooling import Pool, emit_pool, first_wide_row, regions
from compiler.lowering.spatial.state import Books
from compiler.lowering.spatial.tail import Tail, emit_tail
from compiler.lowering.spatial.unary import CONSTANT_WORDS as UNARY_WORDS
from compiler.lowering.spatial.unary import IDENTITY_ROW, Unary, emit_unary
from compiler.memory.plan import Piece

Layer = Convolution | Pool | Addition | Unary | Concatenation


def sources_of(layer: Layer) -> tuple[int, ...]:
    """Activations that a layer reads."""
    return layer.sources if isinstance(layer, Addition | Concatenation) else (layer.source,)


def reading_of(layer: Layer) -> Reading:
    """Return what a layer reads, and through which windows."""
    windows = (IDENTITY, IDENTITY) if isinstance(layer, Addition | Concatenation) else layer.windows
    return Reading(layer.target, tuple((s, windows) for s in sources_of(layer)), isinstance(layer, Addition))


def _runs_in_bands(layer: Layer) -> bool:
    return isinstance(layer, Convolution | Pool | Addition) or (isinstance(layer, Unary) and not layer.moves)


def _in_place(layer: Layer) -> bool:
    """Tell whether a result may take over the memory of the first operand."""
    return isinstance(layer, Addition) or (isinstance(layer, Unary) and not layer.moves)


@dataclass(frozen=True)
class SpatialNetwork:
    """Operators in their order, and the activations between them.

    Attributes
    ----------
    activations:
        Number -> image; the numbers are the tensors of the graph.
    source:
        First image.
    outputs:
        Output of the graph -> the image that holds it.
    tail:
        What comes behind the images, for another output.
    strips:
        Layers that run in bands together, and those between them; empty when no layer runs in bands.
    """

    layers: tuple[Layer, ...]
    activations: Mapping[int, Activation]
    source: int
    outputs: Mapping[int, int]
    tail: Tail | None = None
    strips: tuple[Strip, ...] = ()

    @cached_property
    def readings(self) -> tuple[Reading, ...]:
        """What each layer reads."""
        return tuple(reading_of(layer) for layer in self.layers)

    @property
    def kept(self) -> frozenset[int]:
        """Activations that something behind the last layer reads."""
        return frozenset([*self.outputs.values(), *([self.tail.source] if self.tail is not None else [])])

    @property
    def cuts(self) -> tuple[Strip, ...]:
        """All layers as strips."""
        return self.strips or tuple(Strip(i, i + 1) for i in range(len(self.layers)))

    @cached_property
    def _scenes(self) -> tuple[tuple[Mapping[int, Activation], ...], ...]:
        """Per layer: the activations as it sees them, band after band."""
        found: list[tuple[Mapping[int, Activation], ...]] = []
        for strip in self.cuts:
            scenes = (self.activations,) if strip.whole else tuple(self.scenes(strip, self.activations))
            found += [scenes] * len(strip.layers)
        return tuple(found)

    def scenes(self, strip: Strip, activations: Mapping[int, Activation]) -> Iterator[dict[int, Activation]]:
        """Yield, band after band, the activations as the layers of a strip see them."""
        return views(self.readings, activations, strip, self.kept)

    def in_strips(self, strips: tuple[Strip, ...]) -> SpatialNetwork:
        """Return the same network with some layers in bands."""
        needed = stored_needs(self.readings, self.activations, strips, self.kept)
        activations = {t: replace(a, needed=needed.get(t, (NOWHERE,) * TILES)) for t, a in self.activations.items()}
        return replace(self, activations=activations, strips=strips)

    @property
    def problem(self) -> Problem:
        """What decides about bands."""
        return Problem(self.readings, tuple(self._work(layer) for layer in self.layers), self.activations, self.source,
                       self.kept)

    def _work(self, layer: Layer) -> Work:
        taken = sources_of(layer)[0]
        in_place = _in_place(layer) and _same_slabs(self.activations[taken], self.activations[layer.target])
        words = self.activations[layer.target].image.padded // 4
        steps, rows, most = words, 0, 1 << 30
        if isinstance(layer, Convolution):
            k = layer.kernel
            steps = rows = k.rows * k.chunks * k.groups
            fixed = WIDE_ROWS - layer.blocks(0).lowest
            most = WIDE_ROWS - fixed if k.chunks > 1 else most
        elif isinstance(layer, Pool):
            steps = layer.windows[0].size * layer.windows[1].size * -(-words // 16)
            most = 4 * WIDE_ROWS // (-(-words // 16) * layer.windows[0].stride * layer.windows[1].stride)
        return Work(steps, rows, most, in_place, _runs_in_bands(layer))

    @property
    def convolutions(self) -> tuple[Convolution, ...]:
        """Layers that have parameters."""
        return tuple(layer for layer in self.layers if isinstance(layer, Convolution))

    def pixels(self, layer: Layer) -> int:
        """Pixels of the result that a tile computes at once, at most."""
        return max(scene[layer.target].most_pixels for scene in self._scenes[self.layers.index(layer)])

    def top_row(self, layer: Layer) -> int:
        """Wide row from which on a layer finds them taken: a pool behind it is already filling its own."""
        at = self.layers.index(layer) + 1
        behind = self.layers[at] if at < len(self.layers) else None
        if not isinstance(behind, Pool) or not all(s.whole for s in self.cuts if {at - 1, at} & set(s.layers)):
            return WIDE_ROWS
        return first_wide_row(self.activations[behind.source])

    def lowest_row(self, layer: Layer) -> int:
        """Lowest wide row that a layer uses; negative when there are not enough."""
        if isinstance(layer, Convolution):
            return layer.blocks(self.pixels(layer), self.top_row(layer)).lowest
        if isinstance(layer, Unary | Concatenation):
            return IDENTITY_ROW
        if isinstance(layer, Addition):
            return FIRST_WIDE_ROW
        return min(first_wide_row(scene[layer.source]) for scene in self._scenes[self.layers.index(layer)])

    def staging_row(self, streamed: Sequence[bool]) -> int:
        """Lowest wide row that the program uses for itself, with these dense layers streamed."""
        rows = [self.lowest_row(layer) for layer in self.layers]
        if self.tail is not None:
            rows.append(self.tail.lowest_row(streamed))
        return min([*rows, *wide_rows(self.activations[self.source].image), RECEIVE_ROW])


@dataclass(frozen=True)
class Memory:
    """Narrow memory of a network.

    Attributes
    ----------
    activations:
        With their addresses.
    constants:
        Byte addresses of what layers build for themselves, by layer.
    used:
        Bytes per tile.
    """

    activations: Mapping[int, Activation]
    constants: Mapping[int, int]
    infeed: Infeed
    used: int


def place(network: SpatialNetwork) -> Memory:
    """Place all activations: step 0 is the input, step i + 1 is layer i."""
    lives, owner = _lifetimes(network)
    memory = NarrowMemory()
    if network.tail is not None:
        memory.place(Lifetime(network.tail.size, len(network.layers) + 1, len(network.layers) + 1))
    addresses = memory.place_all(lives)
    placed = {t: replace(a, address=addresses[owner[t]]) for t, a in network.activations.items()}
    infeed = place_infeed(network.activations[network.source].image, memory)
    constants = {}
    for i, layer in enumerate(network.layers):
        if isinstance(layer, Addition):
            constants[i] = memory.place(Lifetime(4 * CONSTANT_WORDS, i + 1, i + 1))
        elif isinstance(layer, Unary | Concatenation):
            constants[i] = memory.place(Lifetime(4 * UNARY_WORDS, i + 1, i + 1))
        elif isinstance(layer, Pool) and not layer.maximum:
            # They are written while the layer before still computes.
            constants[i] = memory.place(Lifetime(4 * network.pixels(layer), i, i + 1))
    return Memory(placed, constants, infeed, memory.used)


def _lifetimes(network: SpatialNetwork) -> tuple[dict[int, Lifetime], dict[int, int]]:
    """Lives of buffers, and the buffer of each activation: sums take over the memory of an operand."""
    first = {network.source: 0} | {layer.target: i + 1 for i, layer in enumerate(network.layers)}
    last = dict(first)
    for i, layer in enumerate(network.layers):
        for t in sources_of(layer):
            last[t] = i + 1
    for t in network.kept:
        last[t] = len(network.layers) + 1
    sizes = {t: a.size for t, a in network.activations.items()}
    for strip in network.strips:
        if not strip.whole:
            _stretch(network, strip, first, last, sizes)
    owner = {t: t for t in first}
    banded = {i for strip in network.strips if not strip.whole for i in strip.layers}
    for i, layer in enumerate(network.layers):
        if i not in banded and _in_place(layer):
            taken = sources_of(layer)[0]
            if last[taken] == i + 1 and _same_slabs(network.activations[taken], network.activations[layer.target]):
                owner[layer.target] = owner[taken]
    lives: dict[int, Lifetime] = {}
    for t, root in owner.items():
        size = sizes[t]
        known = lives.get(root, Lifetime(size, first[t], last[t]))
        lives[root] = Lifetime(max(size, known.size), min(first[t], known.first), max(last[t], known.last))
    return lives, owner


def _stretch(network: SpatialNetwork, strip: Strip, first: dict[int, int], last: dict[int, int], sizes: dict[int, int],
             ) -> None:
    """What a strip reads lives until its end, what it makes from its start; what is between takes a band's memory."""
    outputs = stored(network.readings, strip, network.kept)
    scenes = list(network.scenes(strip, network.activations))
    for i in strip.layers:
        target = network.readings[i].target
        if target in outputs:
            first[target] = strip.first + 1
        else:
            sizes[target] = max(scene[target].size for scene in scenes)
    made = {network.readings[i].target for i in strip.layers}
    for t in {s for i in strip.layers for s, _ in network.readings[i].sources} - made:
        last[t] = max(last[t], strip.stop)


def _same_slabs(a: Activation, b: Activation) -> bool:
    return all(a.slab(t) == b.slab(t) for t in range(TILES))


@dataclass(frozen=True)
class Port:
    """A buffer of the host: name and bytes."""

    name: str
    size: int


def spatial_program(network: SpatialNetwork, memory: Memory, pieces: Mapping[str, Sequence[Piece]], source: Port,
                    outputs: Mapping[int, Port], tail: Port | None) -> Program:
    """Write the program of a network of image operators.

    Parameters
    ----------
    pieces:
        Where the parameters of each convolution lie, by name.
    source, outputs, tail:
        The host's buffers: input, outputs that are images, output of the tail.
    """
    writer = _Writer(network, memory, pieces)
    begin(writer.b)
    emit_infeed(writer.b, memory.infeed, memory.activations[network.source], source.name, source.size)
    for strip in network.cuts:
        writer.strip(strip)
    for i, (output, port) in enumerate(outputs.items()):
        writer.settle(again=i > 0)
        emit_outfeed(writer.b, memory.activations[network.outputs[output]], port.name, port.size)
    if network.tail is not None and tail is not None:
        emit_tail(writer.b, writer.books, network.tail, memory.activations[network.tail.source], tail.name, tail.size)
    finish_rings(writer.b)
    return writer.b.finish(first_register=4)


class _Writer:
    """Emits layer after layer."""

    def __init__(self, network: SpatialNetwork, memory: Memory, pieces: Mapping[str, Sequence[Piece]]) -> None:
        self.b, self.books = ProgramBuilder(), Books()
        self.network, self.memory, self.pieces = network, memory, pieces
        self.ready: dict[int, Readiness] = {}
        self.exchanged: set[int] = set()

    def strip(self, strip: Strip) -> None:
        """Emit a layer, or several in bands."""
        if strip.whole:
            self.layer(strip.first, self.memory.activations)
            return
        made = {self.network.readings[i].target for i in strip.layers}
        for i in strip.layers:
            for source, _ in self.network.readings[i].sources:
                if source not in made and source not in self.exchanged:
                    emit_halo(self.b, self.books, self.memory.activations[source], self.ready.get(source))
                    self.exchanged.add(source)
        for scene in self.network.scenes(strip, self.memory.activations):
            self.exchanged -= made
            for i in strip.layers:
                self.reset()
                self.layer(i, scene)
        self.reset()

    def layer(self, index: int, activations: Mapping[int, Activation]) -> None:
        """Emit one layer with the exchange of borders in front of it."""
        layer = self.network.layers[index]
        if isinstance(layer, Addition):
            operands = (activations[layer.sources[0]], activations[layer.sources[1]])
            emit_addition(self.b, self.books, layer, operands, activations[layer.target], self.memory.constants[index])
            self.ready.clear()
            return
        if isinstance(layer, Concatenation):
            emit_concatenation(self.b, self.books, layer, [activations[t] for t in layer.sources],
                               activations[layer.target], self.memory.constants[index])
            self.ready.clear()
            return
        source, target = activations[layer.source], activations[layer.target]
        if isinstance(layer, Unary) and not layer.moves:
            self._unary(index, layer, activations)
            return
        if layer.source not in self.exchanged:
            emit_halo(self.b, self.books, source, self.ready.get(layer.source))
            self.exchanged.add(layer.source)
        if isinstance(layer, Unary):
            self.b.barrier()
            self._unary(index, layer, activations)
        elif isinstance(layer, Convolution):
            self.b.barrier()
            self.ready[layer.target] = self._readiness(layer.kernel.groups, layer.kernel.depthwise)
            emit_convolution(self.b, self.books, layer, source, target, self.pieces[layer.name],
                             self.network.top_row(layer))
        else:
            self._pool(index, layer, source, target)

    def _unary(self, index: int, layer: Unary, activations: Mapping[int, Activation]) -> None:
        emit_unary(self.b, self.books, layer, activations[layer.source], activations[layer.target],
                   self.memory.constants[index])
        self.ready.clear()

    def _pool(self, index: int, layer: Pool, source: Activation, target: Activation) -> None:
        self.ready[layer.target] = self._readiness(-(-target.image.padded // 64), False)
        emit_pool(self.b, self.books, layer, regions(layer, source, target), first_wide_row(source),
                  self.memory.constants.get(index, 0))
        if not layer.maximum:
            self.reset()

    def reset(self) -> None:
        """Fence with reset of the layers' counters."""
        self.b.tile_fence(reset=LAYER_COUNTERS)
        self.books.counts.reset()
        self.ready.clear()

    def settle(self, *, again: bool) -> None:
        """Before each output the counter of lines in wide memory must be zero."""
        if again or any(self.books.counts.get(TileCounter.NARROW_TO_WIDE, t) for t in range(TILES)):
            self.reset()

    def _readiness(self, groups: int, at_end: bool) -> Readiness:
        """When the blocks of 64 channels of the next result will be there."""
        done = groups if at_end else 1
        first = tuple(self.books.counts.get(TileCounter.AVDATA, t) + done for t in range(TILES))
        return Readiness(first, 0 if at_end else 1)


__all__ = ["Layer", "Memory", "SpatialNetwork", "place", "sources_of", "spatial_program"]
