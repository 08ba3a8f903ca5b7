"""Puts a network of image operators together: memory first, then the program."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from compiler.facts import TILES, WIDE_ROWS
from compiler.lowering.builder import Program
from compiler.lowering.dense import RECEIVE_ROW, SEND_ROW, begin, finish_rings
from compiler.lowering.spatial.bands import Reading, Strip, stored, stored_needs, views
from compiler.lowering.spatial.buffers import Lifetime, NarrowMemory
from compiler.lowering.spatial.emission import Emission
from compiler.lowering.spatial.families.convolution import Convolution
from compiler.lowering.spatial.geometry import NOWHERE, Activation
from compiler.lowering.spatial.halo import too_far
from compiler.lowering.spatial.infeed import Infeed, emit_infeed, place_infeed, wide_rows
from compiler.lowering.spatial.layer import Activations, Layer, most_pixels
from compiler.lowering.spatial.outfeed import emit_outfeed
from compiler.lowering.spatial.planning import Problem, Work
from compiler.lowering.spatial.tail import Tail, emit_tail
from compiler.memory.plan import Piece


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
        return tuple(layer.reading for layer in self.layers)

    @property
    def kept(self) -> frozenset[int]:
        """Activations that something behind the last layer reads."""
        return frozenset([*self.outputs.values(), *([self.tail.source] if self.tail is not None else [])])

    @property
    def cuts(self) -> tuple[Strip, ...]:
        """All layers as strips."""
        return self.strips or tuple(Strip(i, i + 1) for i in range(len(self.layers)))

    @cached_property
    def _scenes(self) -> tuple[tuple[Activations, ...], ...]:
        """Per layer: the activations as it sees them, band after band."""
        found: list[tuple[Activations, ...]] = []
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
        target = self.activations[layer.target]
        return Work(layer.effort(target), _takeable(layer, self.activations), layer.banded)

    @property
    def convolutions(self) -> tuple[Convolution, ...]:
        """Layers that have parameters."""
        return tuple(c for layer in self.layers for c in layer.convolutions if isinstance(c, Convolution))

    def scenes_of(self, layer: Layer) -> Sequence[Activations]:
        """Return the images as a layer sees them, band after band."""
        return self._scenes[self.layers.index(layer)]

    def pixels(self, layer: Layer) -> int:
        """Pixels of the result that a tile computes at once, at most."""
        return most_pixels(layer, self.scenes_of(layer))

    def top_row(self, layer: Layer) -> int:
        """Wide row from which on a layer finds them taken: the one behind it may already be filling its own."""
        at = self.layers.index(layer) + 1
        if at == len(self.layers) or not all(s.whole for s in self.cuts if {at - 1, at} & set(s.layers)):
            return WIDE_ROWS
        return self.layers[at].first_row_early(self.activations)

    def lowest_row(self, layer: Layer) -> int:
        """Lowest wide row that a layer uses; negative when there are not enough."""
        return layer.lowest_row(self.scenes_of(layer), self.top_row(layer))

    def staging_row(self, streamed: Sequence[bool]) -> int:
        """Lowest wide row that the program uses for itself, with these dense layers streamed."""
        rows = [self.lowest_row(layer) for layer in self.layers]
        if self.tail is not None:
            rows.append(self.tail.lowest_row(streamed))
        if any(too_far(a) for a in self.activations.values()):
            rows.append(SEND_ROW)
        return min([*rows, *wide_rows(self.activations[self.source].image), RECEIVE_ROW])


@dataclass(frozen=True)
class Memory:
    """Narrow memory of a network.

    Attributes
    ----------
    activations:
        With their addresses.
    constants:
        Byte addresses of what layers build for themselves, by name.
    used:
        Bytes per tile.
    """

    activations: Mapping[int, Activation]
    constants: Mapping[str, int]
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
        size = layer.constant_bytes(network.scenes_of(layer))
        if size:
            constants[layer.name] = memory.place(Lifetime(size, i if layer.early_constants else i + 1, i + 1))
    return Memory(placed, constants, infeed, memory.used)


def _lifetimes(network: SpatialNetwork) -> tuple[dict[int, Lifetime], dict[int, int]]:
    """Lives of buffers, and the buffer of each activation: sums take over the memory of the operand made last."""
    first = {network.source: 0} | {layer.target: i + 1 for i, layer in enumerate(network.layers)}
    last = dict(first)
    for i, layer in enumerate(network.layers):
        for t in layer.sources:
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
        if i not in banded:
            free = [t for t in _takeable(layer, network.activations) if last[t] == i + 1]
            if free:
                owner[layer.target] = owner[max(free, key=first.__getitem__)]
    late = {layer.target for layer in network.layers if layer.placed_late}
    lives: dict[int, Lifetime] = {}
    for t, root in owner.items():
        size = sizes[t]
        known = lives.get(root, Lifetime(size, first[t], last[t], root in late))
        lives[root] = replace(known, size=max(size, known.size), first=min(first[t], known.first),
                              last=max(last[t], known.last))
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


def _takeable(layer: Layer, activations: Activations) -> tuple[int, ...]:
    """Operands whose memory the result may take over once nobody else needs them."""
    if not layer.takes_over:
        return ()
    return tuple(t for t in layer.sources if _same_slabs(activations[t], activations[layer.target]))


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
    tops = {layer.name: network.top_row(layer) for layer in network.layers}
    emission = Emission(pieces, memory.constants, tops)
    begin(emission.b)
    emit_infeed(emission.b, memory.infeed, memory.activations[network.source], source.name, source.size)
    for strip in network.cuts:
        if strip.whole:
            emission.b.serve(network.layers[strip.first].name)
            network.layers[strip.first].emit(emission, memory.activations)
        else:
            _emit_strip(emission, network, memory, strip)
    emission.b.serve()
    for i, (output, port) in enumerate(outputs.items()):
        emission.drain_rows(again=i > 0)
        emit_outfeed(emission.b, memory.activations[network.outputs[output]], port.name, port.size)
    if network.tail is not None and tail is not None:
        emit_tail(emission.b, emission.books, network.tail, memory.activations[network.tail.source], tail.name, tail.size)
    finish_rings(emission.b)
    return emission.b.finish(first_register=4)


def _emit_strip(emission: Emission, network: SpatialNetwork, memory: Memory, strip: Strip) -> None:
    """Emit layers in bands."""
    made = {network.readings[i].target for i in strip.layers}
    for i in strip.layers:
        for source in network.layers[i].sources:
            if source not in made:
                emission.exchange(source, memory.activations[source])
    emission.in_bands = True
    for scene in network.scenes(strip, memory.activations):
        emission.made_anew(made)
        for i in strip.layers:
            emission.reset()
            emission.b.serve(network.layers[i].name)
            network.layers[i].emit(emission, scene)
    emission.in_bands = False
    emission.reset()


__all__ = ["Memory", "Port", "SpatialNetwork", "place", "spatial_program"]
