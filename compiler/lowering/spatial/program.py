"""Puts a network of image operators together: memory first, then the program."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from compiler.beagle.isa.counters import TileCounter
from compiler.facts import NARROW_BYTES, TILES
from compiler.lowering.builder import Program, ProgramBuilder
from compiler.lowering.dense import RECEIVE_ROW, begin
from compiler.lowering.spatial.buffers import Lifetime, NarrowMemory
from compiler.lowering.spatial.convolution import Convolution, emit_convolution
from compiler.lowering.spatial.geometry import Activation
from compiler.lowering.spatial.halo import Readiness, emit_halo
from compiler.lowering.spatial.infeed import Infeed, emit_infeed, place_infeed, wide_rows
from compiler.lowering.spatial.outfeed import emit_outfeed, finish
from compiler.lowering.spatial.state import Books
from compiler.memory.plan import Piece


@dataclass(frozen=True)
class SpatialNetwork:
    """Operators in their order, and the activations between them.

    Attributes
    ----------
    activations:
        Number -> image; the numbers are the tensors of the graph.
    source, target:
        Input and output of the whole network.
    """

    layers: tuple[Convolution, ...]
    activations: Mapping[int, Activation]
    source: int
    target: int

    def pixels(self, layer: Convolution) -> int:
        """Output pixels of the largest tile."""
        image = self.activations[layer.target].image
        return max(image.pixels(t) for t in range(TILES))

    @property
    def staging_row(self) -> int:
        """Lowest wide row that the program uses for itself."""
        rows = [layer.blocks(self.pixels(layer)).lowest for layer in self.layers]
        return min([*rows, *wide_rows(self.activations[self.source].image), RECEIVE_ROW])


@dataclass(frozen=True)
class Memory:
    """Narrow memory of a network.

    Attributes
    ----------
    activations:
        With their addresses.
    used:
        Bytes per tile.
    largest:
        Step at which most is needed.
    """

    activations: Mapping[int, Activation]
    infeed: Infeed
    used: int


def place(network: SpatialNetwork) -> Memory:
    """Place all activations: step 0 is the input, step i + 1 is layer i."""
    first = {network.source: 0} | {layer.target: i + 1 for i, layer in enumerate(network.layers)}
    last = dict(first)
    for i, layer in enumerate(network.layers):
        last[layer.source] = i + 1
    last[network.target] = len(network.layers) + 1
    memory = NarrowMemory()
    lives = {t: Lifetime(network.activations[t].size, first[t], last[t]) for t in first}
    addresses = memory.place_all(lives)
    placed = {t: replace(network.activations[t], address=at) for t, at in addresses.items()}
    infeed = place_infeed(network.activations[network.source].image, memory)
    return Memory(placed, infeed, memory.used)


def spatial_program(network: SpatialNetwork, memory: Memory, pieces: Sequence[Sequence[Piece]], *, input_name: str,
                    input_bytes: int, output_name: str, output_bytes: int) -> Program:
    """Write the program of a network of image operators."""
    b, books = ProgramBuilder(), Books()
    begin(b)
    emit_infeed(b, memory.infeed, memory.activations[network.source], input_name, input_bytes)
    ready: dict[int, Readiness | None] = {network.source: None}
    exchanged: set[int] = set()
    for layer, own in zip(network.layers, pieces, strict=True):
        source, target = memory.activations[layer.source], memory.activations[layer.target]
        if layer.source not in exchanged:
            emit_halo(b, books, source, ready[layer.source])
            exchanged.add(layer.source)
        b.barrier()
        ready[layer.target] = _readiness(books, layer)
        emit_convolution(b, books, layer, source, target, own)
    emit_outfeed(b, memory.activations[network.target], output_name, output_bytes)
    finish(b)
    return b.finish(first_register=4)


def _readiness(books: Books, layer: Convolution) -> Readiness:
    """When the blocks of 64 channels of a layer's result will be there."""
    groups, depthwise = layer.kernel.groups, layer.kernel.depthwise
    done = groups if depthwise else 1
    first = tuple(books.counts.get(TileCounter.AVDATA, t) + done for t in range(TILES))
    return Readiness(first, 0 if depthwise else 1)


__all__ = ["NARROW_BYTES", "Memory", "SpatialNetwork", "place", "spatial_program"]
