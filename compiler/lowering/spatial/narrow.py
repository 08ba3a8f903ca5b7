"""Places of a network in the narrow memory of the tiles: activations by their lives, and what layers need besides."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from compiler.facts import NARROW_BYTES, TILES, WIDE_ROW_BYTES
from compiler.lowering.parameters import round_up
from compiler.lowering.spatial.bands import Strip, stored
from compiler.lowering.spatial.buffers import Lifetime, NarrowMemory
from compiler.lowering.spatial.gathering import Gather
from compiler.lowering.spatial.geometry import Activation, Vector
from compiler.lowering.spatial.infeed import Infeed, place_infeed
from compiler.lowering.spatial.layer import Activations, Layer
from compiler.records import record

if TYPE_CHECKING:
    from compiler.lowering.spatial.spatial_network import SpatialNetwork

_ENTRY_GAP = 2 * WIDE_ROW_BYTES
_ROOM = ""
"""Name of the room that a layer needs in all its steps."""


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
            free = [t for t in takeable(layer, network.activations) if last[t] == starts[i]]
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


def takeable(layer: Layer, activations: Activations) -> tuple[int, ...]:
    """Operands whose memory the result may take over once nobody else needs them."""
    if not layer.takes_over:
        return ()
    return tuple(t for t in layer.sources if _same_memory(activations[t], activations[layer.target]))


def _same_memory(a: Activation, b: Activation) -> bool:
    """Tell whether slabs are the same on every tile, or parts of the whole vector that the other is."""
    if isinstance(a, Vector) and a.in_place and b.image.height * b.image.width == 1:
        return a.size == b.size
    return all(a.slab(t) == b.slab(t) for t in range(TILES))
