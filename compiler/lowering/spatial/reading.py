"""Reads a mapped subgraph as a network of layers on images and vectors."""

from __future__ import annotations

from compiler.facts import TILES
from compiler.generation import Generation
from compiler.graph import Graph, Operator, Tensor
from compiler.lowering.arithmetic import zero_point
from compiler.lowering.dense import input_words
from compiler.lowering.lowered import refusal
from compiler.lowering.order import in_turn
from compiler.lowering.parameters import round_up
from compiler.lowering.refusal import LoweringRefusal
from compiler.lowering.spatial.bands import align_operands, hull
from compiler.lowering.spatial.context import Context, is_flat, same_bytes
from compiler.lowering.spatial.entry import Entry
from compiler.lowering.spatial.families import family_of
from compiler.lowering.spatial.geometry import (
    IDENTITY,
    NOWHERE,
    Activation,
    Region,
    Vector,
    needed_by,
    passed_on,
    reaches_out,
)
from compiler.lowering.spatial.infeed import straddles
from compiler.lowering.spatial.layer import Layer
from compiler.lowering.spatial.spatial_network import SpatialNetwork
from compiler.mapping import Subgraph


class NetworkReader:
    """Turns operators into layers, one after the other.

    Parameters
    ----------
    graph, subgraph:
        What the mapping chose.
    generation:
        Whose habits the programs have.
    late:
        Tensors that the host puts together, see :mod:`compiler.lowering.spatial.late`.

    Attributes
    ----------
    network:
        The result.
    operators:
        Operator that each layer serves, by name of the layer.

    Raises
    ------
    LoweringRefusal
        When an operator in it cannot be generated.
    """

    def __init__(self, graph: Graph, subgraph: Subgraph, generation: Generation,
                 late: frozenset[int] = frozenset()) -> None:
        self.graph = graph
        self.subgraph = subgraph
        self.context = Context(graph, subgraph, generation, late)
        self.operators: dict[str, Operator] = {}
        self.network = self._read()

    def _read(self) -> SpatialNetwork:
        for t in self.subgraph.inputs:
            self._enter(self.graph.tensors[t])
        layers: list[Layer] = []
        for index in in_turn(self.graph, self.subgraph):
            layers += self._layers_of(self.graph.operators[index])
        for t in self.subgraph.inputs:
            self._check_rows(self.graph.tensors[t])
        outputs = {t: self._leaving(t) for t in self.subgraph.outputs}
        layers += self._drain(self.graph.operators[self.subgraph.operators[-1]])
        activations = self._activations(layers)
        entries = tuple(self._entry(self.graph.tensors[t]) for t in self.subgraph.inputs if not activations[t].is_vector)
        titles = {name: op.title for name, op in self.operators.items()}
        return SpatialNetwork(tuple(layers), activations, tuple(self.subgraph.inputs), outputs, titles,
                              ending=self.context.ending, entries=entries, parts=self.context.parts)

    def _entry(self, x: Tensor) -> Entry:
        """Return the layer by which an image could come in bands; it serves the first operator that reads it."""
        entry = Entry(f"entry of {x.name}", x.index, x.name, round_up(x.elements, 8))
        self.operators[entry.name] = self.context.members(x.index)[0]
        return entry

    def _leaving(self, output: int) -> tuple[int, ...]:
        """Return the activations that are sent to the host: parts of a vector but the last end at 8 bytes."""
        if output in self.context.shares:
            return tuple(share.number for share in self.context.shares[output])
        origin = self.context.origin(output)
        if self.context.ending is not None and origin not in self.context.copies:
            return (origin,)
        words = [w for w in self.context.slices.get(origin, ()) if w]
        gathered = origin in self.context.copies or any(w % 2 for w in words[:-1])
        return (self.context.resolve(output) if gathered else origin,)

    def _enter(self, x: Tensor) -> None:
        """Note how an input lies on the tiles."""
        if is_flat(x):
            self.context.lie(x.index, input_words(x.elements))

    def _check_rows(self, x: Tensor) -> None:
        """Refuse images so narrow that a tile's rows begin and end within words."""
        image = self.context.image(x.index)
        if image.height * image.width > 1 and straddles(image):
            op = self.context.members(x.index)[0]
            raise LoweringRefusal(op.index, refusal(
                op, f"its input {x.name} has rows of {image.width * image.channels} bytes, which tiles would begin within a "
                "word of four.", "Use wider images, or four channels."))

    def _layers_of(self, op: Operator) -> list[Layer]:
        if same_bytes(self.graph, op):
            self.context.alias(op.outputs[0], op.inputs[0])
            if op.inputs[0] in self.context.shares:
                self.context.shares[op.outputs[0]] = self.context.shares[op.inputs[0]]
            return []
        family = family_of(op.name)
        assert family is not None, f"{op.title} was let through without a family"
        made = family.read(self.context, op)
        found = [] if made is None else [made] if isinstance(made, Layer) else list(made)
        self.operators |= {layer.name: op for made in found for layer in (made, *made.convolutions)}
        return [*self._drain(op), *found]

    def _drain(self, op: Operator) -> list[Layer]:
        """Return the layers that have to come before an operator."""
        found, self.context.before = self.context.before, []
        self.operators |= {layer.name: op for layer in found}
        return found

    # -- images ---------------------------------------------------------------------------------------

    def _activations(self, layers: list[Layer]) -> dict[int, Activation]:
        needed: dict[int, tuple[Region, ...]] = {}
        fills: dict[int, int | None] = {}
        nothing = (NOWHERE,) * TILES
        for layer in layers:
            for s in layer.sources:
                windows, image = layer.windows_of(s), self.context.image(layer.target)
                if windows != (IDENTITY, IDENTITY) or layer.moves:
                    needed[s] = hull(needed.get(s, nothing), needed_by([windows], image))
                if reaches_out(windows, self.context.image(s), image):
                    fills.setdefault(s, layer.fill(s))
        needed = {t: passed_on(self.context.image(t), regions) for t, regions in needed.items()}
        align_operands([layer.reading for layer in layers if layer.aligned], needed)
        made = (*self.subgraph.inputs, *(layer.target for layer in layers))
        return {t: self._activation(t, fills.get(t), needed.get(t, nothing)) for t in made}

    def _activation(self, number: int, fill: int | None, needed: tuple[Region, ...]) -> Activation:
        tensor, image = self.context.tensor(number), self.context.image(number)
        fill = zero_point(tensor) if fill is None else fill
        joint = 4 * self.context.words(self.context.parts[number][0]) if number in self.context.parts else 0
        if number in self.context.slices:
            return Vector(tensor.name, image, fill, needed, words=self.context.slices[number],
                          copies=number in self.context.copies, whole=number in self.context.whole,
                          in_place=number in self.context.whole - self.context.flattened)
        return Activation(tensor.name, image, fill, needed, joint_bytes=joint)
