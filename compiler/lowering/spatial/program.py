"""Puts a network of image operators together: memory first, then the program."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import field, replace
from functools import cached_property
from itertools import accumulate

from compiler.errors import ProgramError
from compiler.facts import NARROW_BYTES, TILES, WIDE_ROW_BYTES, WIDE_ROWS
from compiler.lowering.builder import Program
from compiler.lowering.dense import (
    RECEIVE_ROW,
    SEND_ROW,
    begin,
    emit_vector_input,
    emit_vector_output,
    finish_rings,
    input_rows,
)
from compiler.lowering.parameters import round_up
from compiler.lowering.pieces import ROWS
from compiler.lowering.scalar_softmax import ScalarSoftmax, emit_scalar_softmax
from compiler.lowering.spatial.bands import Reading, Strip, stored, stored_needs, views
from compiler.lowering.spatial.buffers import Lifetime, NarrowMemory, stack_wide
from compiler.lowering.spatial.emission import Emission, Leaves
from compiler.lowering.spatial.entry import Entry
from compiler.lowering.spatial.gathering import Gather, parts_of
from compiler.lowering.spatial.geometry import NOWHERE, Activation, Vector
from compiler.lowering.spatial.halo import too_far
from compiler.lowering.spatial.infeed import Infeed, emit_infeed, place_infeed, wide_rows
from compiler.lowering.spatial.layer import Activations, Layer, most_pixels
from compiler.lowering.spatial.outfeed import emit_outfeed
from compiler.lowering.spatial.planning import Problem, Work
from compiler.memory.plan import Piece
from compiler.records import record

_ENTRY_GAP = 2 * WIDE_ROW_BYTES
_ROOM = ""
"""Name of the room that a layer needs in all its steps."""


class LayerProgramError(ProgramError):
    """A layer does not fit the fields of its instructions.

    Attributes
    ----------
    layer:
        Its name.
    """

    def __init__(self, message: str, layer: str) -> None:
        super().__init__(message)
        self.layer = layer


@record
class SpatialNetwork:
    """Operators in their order, and the activations between them.

    Attributes
    ----------
    activations:
        Number -> image; the numbers are the tensors of the graph.
    inputs:
        Inputs, in their order.
    outputs:
        Output of the graph -> the activation that holds it, or those that hold it together.
    titles:
        Title of the operator that a layer serves, by name of the layer.
    strips:
        Layers that run in bands together, and those between them; empty when no layer runs in bands.
    ending:
        What the scalar core does with the only output on its way to the host.
    entries:
        Layers by which the inputs could come in bands.
    arriving:
        Names of layers whose parameters arrive while they are used, besides those that cannot be cached.
    parts:
        Vectors that are parts of others: number of the whole one and the byte where they begin.
    """

    layers: tuple[Layer, ...]
    activations: Mapping[int, Activation]
    inputs: tuple[int, ...]
    outputs: Mapping[int, tuple[int, ...]]
    titles: Mapping[str, str]
    strips: tuple[Strip, ...] = ()
    ending: ScalarSoftmax | None = None
    entries: tuple[Entry, ...] = ()
    arriving: frozenset[str] = frozenset()
    parts: Mapping[int, tuple[int, int]] = field(default_factory=dict)

    @cached_property
    def memory(self) -> Memory:
        """Its narrow memory, of which there may be too little."""
        return place(self)

    @property
    def entered(self) -> tuple[int, ...]:
        """Inputs that come as a whole, before the first layer."""
        made = {layer.target for layer in self.layers}
        return tuple(t for t in self.inputs if t not in made)

    def entering(self) -> SpatialNetwork:
        """Return the same network with layers by which its inputs come."""
        return replace(self, layers=(*self.entries, *self.layers), entries=(), strips=())

    @cached_property
    def readings(self) -> tuple[Reading, ...]:
        """What each layer reads."""
        return tuple(layer.reading for layer in self.layers)

    @cached_property
    def _places(self) -> dict[int, int]:
        """Place of every layer object; layers are not compared by their parameters."""
        return {id(layer): i for i, layer in enumerate(self.layers)}

    @cached_property
    def begins(self) -> tuple[int, ...]:
        """First step of each layer, and the step behind the last one."""
        return tuple(accumulate((layer.steps for layer in self.layers), initial=1))

    @property
    def kept(self) -> frozenset[int]:
        """Activations that something behind the last layer reads."""
        return frozenset(t for parts in self.outputs.values() for t in parts)

    @cached_property
    def cuts(self) -> tuple[Strip, ...]:
        """All layers as strips."""
        return self.strips or tuple(Strip(i, i + 1) for i in range(len(self.layers)))

    @cached_property
    def _whole(self) -> tuple[bool, ...]:
        """Per layer: it does not run in bands."""
        return tuple(strip.whole for strip in self.cuts for _ in strip.layers)

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
        return Problem(self.readings, tuple(self._work(layer) for layer in self.layers), self.activations, self.entered,
                       self.kept)

    def _work(self, layer: Layer) -> Work:
        target = self.activations[layer.target]
        return Work(layer.effort(target), _takeable(layer, self.activations), layer.banded)

    def scenes_of(self, layer: Layer) -> Sequence[Activations]:
        """Return the images as a layer sees them, band after band."""
        return self._scenes[self._places[id(layer)]]

    def pixels(self, layer: Layer) -> int:
        """Pixels of the result that a tile computes at once, at most."""
        return most_pixels(layer, self.scenes_of(layer))

    def top_row(self, layer: Layer) -> int:
        """Wide row from which on a layer finds them taken: the one behind it may already be filling its own.

        What is pushed down so lies below the identity matrix, too.
        """
        at = self._places[id(layer)] + 1
        on_top = self._on_top and at - 1 in self._with_identity
        highest = WIDE_ROWS - int(on_top or (layer.on_identity and not self._with_identity))
        if at == len(self.layers) or not (self._whole[at - 1] and self._whole[at]):
            return highest
        early = self.layers[at].first_row_early(self.activations)
        if early < WIDE_ROWS and at - 1 in self._with_identity:
            early = min(early, self.identity_row)
        return min(highest, early)

    @cached_property
    def _with_identity(self) -> range:
        """Layers from the first to the last that shares the identity matrix, strips as a whole."""
        users = [i for i, layer in enumerate(self.layers) if layer.on_identity]
        if not users or (self._on_top and not all(layer.below_top for layer in self.layers[users[0]:users[-1] + 1])):
            return range(0)
        strips = [s for s in self.cuts if s.first <= users[-1] and s.stop > users[0]]
        return range(strips[0].first, strips[-1].stop)

    @cached_property
    def _on_top(self) -> bool:
        """The identity matrix lies in the topmost row, and the rest below."""
        return any(layer.claims_identity_row for layer in self.layers)

    @property
    def identities(self) -> dict[str, int]:
        """Row of the identity matrix, by the names of the layers that share it."""
        return {self.layers[i].name: self.identity_row for i in self._with_identity if self.layers[i].on_identity}

    @cached_property
    def identity_row(self) -> int:
        """Wide row of the identity matrix: below all that is used while it lies there."""
        if self._on_top:
            return WIDE_ROWS - 1
        layers = [self.layers[i] for i in self._with_identity]
        rows = [layer.lowest_row(self.scenes_of(layer), WIDE_ROWS) for layer in layers]
        return min([*rows, *map(self._arrival_row, layers), self._far_row if layers else WIDE_ROWS]) - 1

    @cached_property
    def _far_row(self) -> int:
        """Lowest wide row through which pixels go that come from other tiles than neighbours."""
        return SEND_ROW if any(too_far(a) for a in self.activations.values()) else WIDE_ROWS

    def _arrival_row(self, layer: Layer) -> int:
        """Lowest wide row through which parameters of a layer arrive while they are used."""
        uncached = layer.name in self.arriving or not all(p.tensor.cacheable for p in layer.parameters)
        pushed = self._on_top and self._places[id(layer)] in self._with_identity
        return layer.arrival_row - int(pushed) if uncached else WIDE_ROWS

    def lowest_row(self, layer: Layer) -> int:
        """Lowest wide row that a layer uses; negative when there are not enough."""
        at = self._places[id(layer)]
        if at not in self._lowest_rows:
            self._lowest_rows[at] = layer.lowest_row(self.scenes_of(layer), self.top_row(layer))
        return self._lowest_rows[at]

    @cached_property
    def _lowest_rows(self) -> dict[int, int]:
        """Those known by now, by place of the layer."""
        return {}

    def input_row(self, number: int) -> int:
        """Return the first wide row of those that an input vector passes through."""
        return stack_wide(self._entry_rows(number))[0]

    def _entry_rows(self, number: int) -> list[int]:
        """Return how many wide rows an input vector needs, and then what gathers it while it may still be arriving."""
        a = self.activations[number]
        rows = [input_rows(a.image.channels)]
        return [*rows, ROWS] if isinstance(a, Vector) and a.in_place else rows

    @cached_property
    def staging_row(self) -> int:
        """Lowest wide row that the program uses for itself."""
        rows = [self.identity_row, *(self.lowest_row(layer) for layer in self.layers)]
        rows += [self._arrival_row(layer) for layer in self.layers]
        for t in self.entered:
            a = self.activations[t]
            rows += stack_wide(self._entry_rows(t)) if a.is_vector else wide_rows(a.image)
        return min([*rows, self._far_row, RECEIVE_ROW])


@record
class Memory:
    """Narrow memory of a network.

    Attributes
    ----------
    activations:
        With their addresses.
    constants, rooms:
        Byte addresses of what layers build for themselves, and of their room for steps in between, by name.
    buffers:
        Those of what some of their steps need besides, by the names of layer and buffer.
    infeeds:
        Buffers of the inputs that are images.
    used:
        Bytes per tile.
    """

    activations: Mapping[int, Activation]
    constants: Mapping[str, int]
    rooms: Mapping[str, int]
    buffers: Mapping[str, Mapping[str, int]]
    infeeds: Mapping[int, Infeed]
    used: int


def place(network: SpatialNetwork) -> Memory:
    """Place all activations: step 0 is the input, step i + 1 is layer i."""
    lives, owner = _lifetimes(network)
    memory = NarrowMemory()
    behind = _entering(network)
    # Room for steps in between competes with activations; its numbers are below zero.
    inner = [(layer, name, life.later(begin)) for layer, begin in zip(network.layers, network.begins, strict=False)
             for name, life in {_ROOM: Lifetime(layer.room_bytes(network.scenes_of(layer)), 0, layer.steps - 1),
                                **layer.buffers}.items() if life.size]
    addresses = memory.place_all({t: life for t, life in lives.items() if t not in behind}
                                 | {-1 - i: life for i, (_, _, life) in enumerate(inner)}, NARROW_BYTES)
    for t, floor in behind.items():
        addresses[t] = memory.place(lives[t], floor)
    placed = {t: a.at(addresses[owner[t]] + network.parts.get(t, (0, 0))[1])
              for t, a in network.activations.items()}
    infeeds = {t: place_infeed(network.activations[t].image, memory) for t in network.entered
               if not network.activations[t].is_vector}
    constants: dict[str, int] = {}
    for layer, first in zip(network.layers, network.begins, strict=False):
        size = layer.constant_bytes(network.scenes_of(layer))
        if size:
            constants[layer.name] = memory.place(Lifetime(size, first - int(layer.early_constants), first + layer.steps - 1))
    rooms: dict[str, int] = {}
    buffers: dict[str, dict[str, int]] = {}
    for i, (layer, name, _) in enumerate(inner):
        if name == _ROOM:
            rooms[layer.name] = addresses[-1 - i]
        else:
            buffers.setdefault(layer.name, {})[name] = addresses[-1 - i]
    return Memory(placed, constants, rooms, buffers, infeeds, memory.used)


def _entering(network: SpatialNetwork) -> dict[int, int]:
    """Inputs that are gathered at once lie behind everything gathered, some way off, as in official programs."""
    gathered = [network.activations[layer.target].size for layer in network.layers if isinstance(layer, Gather)]
    if not network.layers or not isinstance(network.layers[0], Gather):
        return {}
    return {t: round_up(max(gathered, default=0), WIDE_ROW_BYTES) + _ENTRY_GAP for t in network.layers[0].sources
            if t in network.inputs and network.activations[t].is_vector}


def _lifetimes(network: SpatialNetwork) -> tuple[dict[int, Lifetime], dict[int, int]]:
    """Lives of buffers, and the buffer of each activation: sums take over the memory of the operand made last."""
    starts = network.begins
    first = dict.fromkeys(network.inputs, 0) | {
        layer.target: start + layer.writes_from for layer, start in zip(network.layers, starts, strict=False)}
    last = dict(first)
    for layer, start in zip(network.layers, starts, strict=False):
        for t in layer.sources:
            last[t] = start + layer.reads_until(t)
    for t in network.kept:
        last[t] = starts[-1]
    sizes = {t: a.size for t, a in network.activations.items()}
    for strip in network.strips:
        if not strip.whole:
            _stretch(network, strip, first, last, sizes)
    owner = {t: network.parts.get(t, (t, 0))[0] for t in first}
    banded = {i for strip in network.strips if not strip.whole for i in strip.layers}
    for i, layer in enumerate(network.layers):
        if i not in banded:
            sizes |= {t: max(sizes[t], layer.reach(network.activations, t)) for t in layer.sources}
            free = [t for t in _takeable(layer, network.activations) if last[t] == starts[i]]
            if free:
                owner[layer.target] = owner[max(free, key=first.__getitem__)]
    lives: dict[int, Lifetime] = {}
    for t, root in owner.items():
        size = sizes[t]
        known = lives.get(root, Lifetime(size, first[t], last[t]))
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
            first[target] = network.begins[strip.first]
        else:
            sizes[target] = max(scene[target].size for scene in scenes)
    made = {network.readings[i].target for i in strip.layers}
    for t in {s for i in strip.layers for s, _ in network.readings[i].sources} - made:
        last[t] = max(last[t], network.begins[strip.stop] - 1)


def _takeable(layer: Layer, activations: Activations) -> tuple[int, ...]:
    """Operands whose memory the result may take over once nobody else needs them."""
    if not layer.takes_over:
        return ()
    return tuple(t for t in layer.sources if _same_slabs(activations[t], activations[layer.target]))


def _same_slabs(a: Activation, b: Activation) -> bool:
    return all(a.slab(t) == b.slab(t) for t in range(TILES))


@record
class Port:
    """A buffer of the host: name and bytes."""

    name: str
    size: int


def spatial_program(network: SpatialNetwork, memory: Memory, pieces: Mapping[str, Sequence[Piece]],
                    on_ring: frozenset[str], inputs: Mapping[int, Port], outputs: Mapping[int, Port]) -> Program:
    """Write the program of a network.

    Parameters
    ----------
    pieces:
        Where the parameters of each layer lie, by the name of their tensor.
    on_ring:
        Dense layers whose parameters lie on the ring, by name.
    inputs, outputs:
        The host's buffers.
    """
    tops = {layer.name: network.top_row(layer) for layer in network.layers}
    emission = Emission(pieces, memory.constants, memory.rooms, memory.buffers, tops, network.identities, on_ring)
    begin(emission.b)
    for i, t in enumerate(network.entered):
        if i:
            emission.b.barrier()
        _emit_input(emission, network, memory, t, inputs[t])
    for strip in network.cuts:
        if strip.whole:
            _emit_layer(emission, network, network.layers[strip.first], memory.activations)
        else:
            _emit_strip(emission, network, memory, strip)
    emission.b.serve()
    if network.ending is not None:
        _emit_ending(emission, network.ending, memory.activations[next(iter(network.outputs.values()))[0]],
                     next(iter(outputs.values())))
        return emission.b.finish(first_register=4)
    for i, (output, port) in enumerate(outputs.items()):
        emission.drain_rows(again=i > 0)
        sources = [memory.activations[t] for t in network.outputs[output]]
        if len(sources) == 1 and sources[0].is_vector:
            parts = [part for part, _ in parts_of(sources[0], in_order=False)]
            emit_vector_output(emission.b, parts, port.name, port.size)
        else:
            emit_outfeed(emission.b, sources, port.name, port.size, lambda: emission.drain_rows(again=True))
    finish_rings(emission.b)
    return emission.b.finish(first_register=4)


def _emit_input(emission: Emission, network: SpatialNetwork, memory: Memory, number: int, port: Port) -> None:
    target = memory.activations[number]
    if target.is_vector:
        in_place = isinstance(target, Vector) and target.in_place
        emit_vector_input(emission.b, target.image.channels, port.name, port.size, target.own_address(0),
                          network.input_row(number), in_place=in_place)
        if in_place:
            emission.arriving_rows = input_rows(target.image.channels)
        else:
            emission.b.barrier()
        emission.before = Leaves.NOTHING
    else:
        emit_infeed(emission.b, memory.infeeds[number], target, port.name, port.size)
        emission.before = Leaves.IMAGE


def _emit_layer(emission: Emission, network: SpatialNetwork, layer: Layer, activations: Activations) -> None:
    emission.b.serve(network.titles.get(layer.name, layer.name))
    try:
        layer.emit(emission, activations)
    except ProgramError as error:
        raise LayerProgramError(error.message, layer.name) from error
    emission.before, emission.arriving_rows = layer.leaves, 0


def _emit_ending(emission: Emission, ending: ScalarSoftmax, source: Activation, port: Port) -> None:
    emission.drain_rows(again=False)
    emission.b.serve(ending.name)
    parts = [part for part, _ in parts_of(source, in_order=False)]
    emit_scalar_softmax(emission.b, ending, parts, port.name, port.size)
    emission.b.serve()


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
            _emit_layer(emission, network, network.layers[i], scene)
    emission.in_bands = False
    emission.reset()


__all__ = ["Memory", "Port", "SpatialNetwork", "place", "spatial_program"]
