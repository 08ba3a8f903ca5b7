"""The program of a network of layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from compiler.errors import ProgramError
from compiler.lowering.builder import Program
from compiler.lowering.dense import (
    begin,
    emit_vector_input,
    emit_vector_output,
    finish_rings,
    input_rows,
)
from compiler.lowering.spatial.bands import Strip
from compiler.lowering.spatial.emission import Emission, Leaves
from compiler.lowering.spatial.gathering import parts_of
from compiler.lowering.spatial.geometry import Activation, Vector
from compiler.lowering.spatial.infeed import emit_infeed
from compiler.lowering.spatial.layer import Activations, Layer
from compiler.lowering.spatial.narrow import Memory
from compiler.lowering.spatial.outfeed import emit_outfeed
from compiler.lowering.spatial.spatial_network import SpatialNetwork
from compiler.memory.plan import Piece
from compiler.records import record

if TYPE_CHECKING:
    from compiler.lowering.scalar_softmax import ScalarSoftmax


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
    from compiler.lowering.scalar_softmax import emit_scalar_softmax

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
