"""Memory and programs of a network of layers."""

from __future__ import annotations

from copy import copy
from dataclasses import replace
from functools import cached_property

from compiler.errors import ProgramError
from compiler.facts import NARROW_BYTES, WIDE_ROWS
from compiler.generation import Generation
from compiler.graph import Graph, Operator
from compiler.lowering.builder import Program
from compiler.lowering.caching_program import caching_program
from compiler.lowering.lowered import LoweredNetwork, refusal
from compiler.lowering.parameters import round_up
from compiler.lowering.refusal import LoweringRefusal
from compiler.lowering.spatial.fitting import in_bands, largest_input
from compiler.lowering.spatial.gathering import Gather
from compiler.lowering.spatial.layer import Layer, Stored
from compiler.lowering.spatial.narrow import Memory
from compiler.lowering.spatial.planning import StripPlanner
from compiler.lowering.spatial.program import LayerProgramError, Port, spatial_program
from compiler.lowering.spatial.reading import NetworkReader
from compiler.lowering.spatial.spatial_network import SpatialNetwork
from compiler.mapping import Subgraph
from compiler.memory.demand import Kind, ModelDemand, ParameterTensor, for_generation
from compiler.memory.plan import ModelPlan, Piece, settled_plan


class Network:
    """A network of layers on images and vectors: demand first, programs when the memory is planned.

    Parameters
    ----------
    graph, subgraph:
        What the mapping chose.
    generation:
        Whose habits the programs have.

    Raises
    ------
    LoweringRefusal
        When an operator in it cannot be generated.
    """

    def __init__(self, graph: Graph, subgraph: Subgraph, generation: Generation,
                 late: frozenset[int] = frozenset()) -> None:
        self.graph = graph
        self.subgraph = subgraph
        self.reader = NetworkReader(graph, subgraph, generation, late)
        self.network = in_bands(self.reader.network)
        self._check()
        self.memory = self._place()

    # -- what cannot be generated ---------------------------------------------------------------------

    def _check(self) -> None:
        net = self.network
        for layer in net.layers:
            self._check_layer(self.reader.operators[layer.name], layer)

    def _check_layer(self, op: Operator, layer: Layer) -> None:
        net = self.network
        if (objection := layer.objection(net.activations)) is not None:
            raise LoweringRefusal(op.index, refusal(op, *objection))
        if net.lowest_row(layer) < 0:
            raise LoweringRefusal(op.index, refusal(
                op, f"with {net.pixels(layer)} pixels per tile it needs more than the {WIDE_ROWS} rows of wide memory of a "
                "tile.", self._way_out()), too_large=True)

    def _place(self) -> Memory:
        memory = self.network.memory
        if memory.used <= NARROW_BYTES:
            return memory
        layers = self.network.layers
        if not layers:
            op = self.graph.operators[self.subgraph.operators[-1]]
            names = ", ".join(self.network.activations[t].name for t in self.network.inputs)
            raise LoweringRefusal(op.index, refusal(
                op, f"passes {names} on, which needs {memory.used} bytes of each tile; the limit is {NARROW_BYTES}.",
                "Reshape a smaller tensor."), too_large=True)
        stuck = StripPlanner(self.network.problem).stuck(NARROW_BYTES)
        layer = max(layers, key=self._bytes_at) if stuck is None else layers[stuck]
        op = self.reader.operators[layer.name]
        if isinstance(layer, Gather):
            names = ", ".join(self.network.activations[t].name for t in layer.sources)
            size = self.network.activations[layer.target].size
            raise LoweringRefusal(op.index, refusal(
                op, f"gathers {names} on one tile, which needs {size} bytes there beside the parts; the limit is "
                f"{NARROW_BYTES} in all.", "Pool the image before."))
        source, target = (self.network.activations[t] for t in (layer.sources[0], layer.target))
        raise LoweringRefusal(op.index, refusal(
            op, f"its input {source.name} takes {source.size} bytes and its output {target.name} {target.size} bytes of "
            f"each tile; the network needs {memory.used} bytes there, the limit is {NARROW_BYTES}.",
            self._way_out()), too_large=True)

    def _way_out(self) -> str:
        """Name the largest input that fits, found by trying."""
        image = self.network.activations[self.network.inputs[0]].image
        found = largest_input(self.reader.network, self._written)
        if found is None:
            return "Use fewer channels or a smaller image."
        return f"An input of {found[0]} x {found[1]} would fit, this one has {image.height} x {image.width}."

    def _written(self, network: SpatialNetwork) -> bool:
        """Tell whether the program of the network for another input, which fits, can be written, alone on the chip."""
        other = copy(self)
        other.network, other.memory = network, network.memory
        generation = self.reader.context.generation
        try:
            other._check()
            (plan,) = settled_plan([lambda own: for_generation(other.demand("", own), generation)]).models
            other._check_stored(plan)
            other._write(plan)
        except LoweringRefusal:
            return False
        return True

    def _bytes_at(self, layer: Layer) -> int:
        return sum(self.network.activations[t].size for t in (*layer.sources, layer.target))

    # -- memory and programs ----------------------------------------------------------------------------

    def demand(self, name: str, plan: ModelPlan | None = None) -> ModelDemand:
        """Return what the network asks of parameter memory.

        Parameters
        ----------
        plan:
            A plan made before: local parameters that it streams need rows of wide memory to pass through.
        """
        network = self.network if plan is None else self._planned(plan)
        return ModelDemand(name, self._tensors, network.staging_row)

    def _planned(self, plan: ModelPlan) -> SpatialNetwork:
        """Return the network with what a plan makes of local parameters."""
        stored = ((layer, p) for layer, parts in zip(self.network.layers, self._stored, strict=True) for p in parts)
        arriving = frozenset(
            layer.name for i, (layer, p) in enumerate(stored) if p.tensor.kind is Kind.LOCAL and not plan.side_by_side(i))
        return self.network if arriving == self.network.arriving else replace(self.network, arriving=arriving)

    @cached_property
    def _tensors(self) -> tuple[ParameterTensor, ...]:
        """What all layers ask for; those in bands read theirs once per band."""
        return tuple(replace(p.tensor, reads=strip.runs) for strip in self.network.cuts for i in strip.layers
                     for p in self._stored[i])

    @cached_property
    def _stored(self) -> list[tuple[Stored, ...]]:
        """Parameters of each layer."""
        return [tuple(layer.parameters) for layer in self.network.layers]

    def lower(self, plan: ModelPlan) -> LoweredNetwork:
        """Write the programs for a memory plan.

        Raises
        ------
        LoweringRefusal
            When something cannot be written after all.
        """
        self._check_stored(plan)
        program = self._write(plan)
        stored, pieces, on_ring = self._laid(plan)
        segments = [p.segments(pieces[p.tensor.name], p.tensor.name in on_ring) for p in stored if pieces[p.tensor.name]]
        caching = caching_program(segments) if segments else None
        cached = b"".join(p.blob for p in stored if pieces[p.tensor.name])
        streamed = b"".join(blob for layer, parts in zip(self.network.layers, self._stored, strict=True) for blob in (
            *(p.blob for p in parts if not pieces[p.tensor.name]), layer.streamed))
        views = {t: self.reader.context.tensor(t).shape for t in self.subgraph.inputs}
        return LoweredNetwork(program, caching, cached, streamed, self.memory.used, self._shared(), views)

    def _laid(self, plan: ModelPlan) -> tuple[list[Stored], dict[str, tuple[Piece, ...]], frozenset[str]]:
        """Return all parameters, where they lie, and which of them lie on the ring, the latter by name."""
        stored = [p for parts in self._stored for p in parts]
        pieces = {p.tensor.name: found for p, found in zip(stored, plan.pieces, strict=True)}
        return stored, pieces, frozenset(stored[i].tensor.name for i in plan.on_ring)

    def _write(self, plan: ModelPlan) -> Program:
        """Write the program; what does not fit its instructions is refused."""
        _, pieces, on_ring = self._laid(plan)
        try:
            return spatial_program(self._planned(plan), self.memory, pieces, on_ring, *self._ports())
        except ProgramError as error:
            op = self.graph.operators[self.subgraph.operators[-1]]
            if isinstance(error, LayerProgramError):
                op = self.reader.operators.get(error.layer, op)
            raise LoweringRefusal(op.index, refusal(op, f"does not fit the fields of an instruction: {error}")) from error

    def _check_stored(self, plan: ModelPlan) -> None:
        """Refuse to stream what only the on-chip memory can serve."""
        all_stored = ((layer, p) for layer, parts in zip(self.network.layers, self._stored, strict=True) for p in parts)
        for i, (layer, stored) in enumerate(all_stored):
            if stored.only_cached and not plan.cached(i):
                op = self.reader.operators[layer.name]
                raise LoweringRefusal(op.index, refusal(op, f"{stored.only_cached}.", "Compile the model alone."))

    def _shared(self) -> dict[int, tuple[tuple[int, int, int], ...]]:
        """Of outputs that the host puts together: rows and columns of the images, and rows of the output per pixel."""
        shares = self.reader.context.shares
        found = {t: [(self.network.activations[s.number].image, s.per_pixel) for s in shares[t]]
                 for t in self.subgraph.outputs if t in shares}
        return {t: tuple((image.height, image.width, count) for image, count in parts) for t, parts in found.items()}

    def _ports(self) -> tuple[dict[int, Port], dict[int, Port]]:
        """Buffers of the host: inputs and outputs."""
        tensors = self.graph.tensors
        inputs = {}
        for t in self.subgraph.inputs:
            a = self.network.activations[t]
            inputs[t] = Port(tensors[t].name, round_up(tensors[t].elements if a.is_vector else a.image.elements, 8))
        outputs = {}
        for output, origins in self.network.outputs.items():
            images = [self.network.activations[origin].image for origin in origins]
            size = sum(image.height * image.width * image.padded for image in images)
            outputs[output] = Port(tensors[output].name, round_up(size, 8))
        return inputs, outputs
