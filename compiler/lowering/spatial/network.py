"""Memory and programs of a network of image operators."""

from __future__ import annotations

from dataclasses import replace

from compiler.errors import ProgramError
from compiler.facts import LANES, NARROW_BYTES, TILES, WIDE_ROWS
from compiler.graph import Graph, Operator
from compiler.lowering.caching_program import CacheSegment, caching_program
from compiler.lowering.dense_layer import DenseLayer
from compiler.lowering.lowered import LoweredNetwork, refusal
from compiler.lowering.network import (
    arriving,
    dense_segments,
    parameter_tensor,
    placed_dense,
    placed_softmax,
    softmax_segments,
    softmax_tensors,
)
from compiler.lowering.parameters import dense_blob, round_up
from compiler.lowering.refusal import LoweringRefusal
from compiler.lowering.spatial.families.convolution import ring_tensor
from compiler.lowering.spatial.layer import Layer
from compiler.lowering.spatial.planning import StripPlanner
from compiler.lowering.spatial.program import Memory, Port, SpatialNetwork, place, spatial_program
from compiler.lowering.spatial.reading import NetworkReader
from compiler.lowering.spatial.weights import Kernel
from compiler.mapping import Subgraph
from compiler.memory.demand import ModelDemand
from compiler.memory.placement import Piece
from compiler.memory.plan import ModelPlan

_SLACK = (0, 1 / 24, 1 / 12, 1 / 6)
"""Parts of narrow memory left free in further attempts, when buffers do not fit side by side."""


class ImageNetwork:
    """A network of image operators: demand first, programs when the memory is planned.

    Parameters
    ----------
    graph, subgraph:
        What the mapping chose.

    Raises
    ------
    LoweringRefusal
        When an operator in it cannot be generated.
    """

    def __init__(self, graph: Graph, subgraph: Subgraph) -> None:
        self.graph = graph
        self.subgraph = subgraph
        self.reader = NetworkReader(graph, subgraph)
        self.network = _in_bands(self.reader.network)
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
                "tile.", "Use fewer channels or a smaller image."), too_large=True)

    def _place(self) -> Memory:
        memory = place(self.network)
        if memory.used <= NARROW_BYTES:
            return memory
        if self.network.tail is not None and self.network.tail.size > NARROW_BYTES // 2:
            op = self.reader.first_of_tail
            raise LoweringRefusal(op.index, refusal(
                op, f"gathers {self.graph.tensors[self.network.tail.source].name} on one tile, which needs "
                f"{self.network.tail.size} bytes there beside the image; the limit is {NARROW_BYTES} in all.",
                "Pool the image before."))
        layer = max(self.network.layers, key=self._bytes_at)
        op = self.reader.operators[layer.name]
        source, target = (self.network.activations[t] for t in (layer.sources[0], layer.target))
        share = (NARROW_BYTES / memory.used) ** 0.5
        raise LoweringRefusal(op.index, refusal(
            op, f"its input {source.name} takes {source.size} bytes and its output {target.name} {target.size} bytes of "
            f"each tile; the network needs {memory.used} bytes there, the limit is {NARROW_BYTES}.",
            f"Images of about {int(source.image.height * share)} x {int(source.image.width * share)} would fit."),
            too_large=True)

    def _bytes_at(self, layer: Layer) -> int:
        return sum(self.network.activations[t].size for t in (*layer.sources, layer.target))

    # -- memory and programs ----------------------------------------------------------------------------

    def demand(self, name: str, plan: ModelPlan | None = None) -> ModelDemand:
        """Return what the network asks of parameter memory.

        Parameters
        ----------
        plan:
            A plan made before: dense layers that it streams need rows of wide memory to pass through.
        """
        bands = {c.name: strip.bands for strip in self.network.cuts for i in strip.layers
                 for c in self.network.layers[i].convolutions}
        tensors = [ring_tensor(layer.name, layer.kernel, reads=bands[layer.name]) for layer in self.network.convolutions]
        tensors += [parameter_tensor(layer) for layer in self.reader.dense]
        tensors += softmax_tensors(self.network.tail.softmax if self.network.tail is not None else None)
        first = len(self.network.convolutions)
        dense = arriving(plan, range(first, first + len(self.reader.dense)))
        return ModelDemand(name, tuple(tensors), self.network.staging_row(dense))

    def lower(self, plan: ModelPlan) -> LoweredNetwork:
        """Write the programs for a memory plan.

        Raises
        ------
        LoweringRefusal
            When something cannot be written after all.
        """
        convolutions = self.network.convolutions
        count = len(convolutions)
        for pieces, layer in zip(plan.pieces[:count], convolutions, strict=True):
            if not pieces and layer.kernel.ragged:
                op = self.reader.operators[layer.name]
                raise LoweringRefusal(op.index, refusal(
                    op, f"its {64 * layer.kernel.lines} bytes of parameters do not fit the on-chip memory, and rows of "
                    "16 bytes that do not fill lines of 64 are not streamed.", "Compile the model alone."))
        pieces_of = {layer.name: pieces for layer, pieces in zip(convolutions, plan.pieces[:count], strict=True)}
        network, dense = self._with_rows(plan)
        softmax = network.tail.softmax if network.tail is not None else None
        tables = softmax.tables if softmax is not None else ()
        try:
            program = spatial_program(network, self.memory, pieces_of, *self._ports())
        except ProgramError as error:
            op = self.graph.operators[self.subgraph.operators[-1]]
            raise LoweringRefusal(op.index, refusal(op, f"does not fit the fields of an instruction: {error}")) from error
        kernels = [(layer.kernel, p) for layer, p in zip(convolutions, plan.pieces[:count], strict=True)]
        segments = [cache_segments(k, p) for k, p in kernels if p]
        segments += [dense_segments(layer) for layer in dense if not layer.streamed]
        segments += softmax_segments(softmax)
        caching = caching_program(segments) if segments else None
        cached = [k.blob for k, p in kernels if p]
        cached += [*(dense_blob(layer.parameters) for layer in dense if not layer.streamed), *tables]
        coming = {layer.name: layer.kernel.blob for layer in convolutions if not pieces_of[layer.name]}
        streamed = b"".join(coming.get(layer.name, layer.streamed) for layer in self.network.layers)
        streamed += b"".join(dense_blob(layer.parameters) for layer in dense if layer.streamed)
        return LoweredNetwork(program, caching, b"".join(cached), streamed, self.memory.used)

    def _ports(self) -> tuple[Port, dict[int, Port], Port | None]:
        """Buffers of the host: input, images, vector."""
        source = self.graph.tensors[self.subgraph.inputs[0]]
        ports = {}
        for output, origin in self.network.outputs.items():
            image = self.network.activations[origin].image
            size = sum(image.pixels(t) for t in range(TILES)) * image.padded
            ports[output] = Port(self.graph.tensors[output].name, round_up(size, 8))
        vector = next((self.graph.tensors[t] for t in self.subgraph.outputs if t not in ports), None)
        tail = None if vector is None else Port(vector.name, round_up(vector.shape[-1], 8))
        return Port(source.name, round_up(source.elements, 8)), ports, tail

    def _with_rows(self, plan: ModelPlan) -> tuple[SpatialNetwork, list[DenseLayer]]:
        """Give the dense layers their rows in wide memory."""
        first = len(self.network.convolutions)
        dense = [placed_dense(layer, plan.pieces[first + i], on_ring=first + i in plan.on_ring)
                 for i, layer in enumerate(self.reader.dense)]
        tail = self.network.tail
        if tail is None:
            return self.network, dense
        softmax = placed_softmax(self.graph, tail.softmax, plan.pieces[first + len(dense):])
        return replace(self.network, tail=replace(tail, layers=tuple(dense), softmax=softmax)), dense


def _in_bands(network: SpatialNetwork) -> SpatialNetwork:
    """Run layers in bands where that makes the network fit; the network as it is where nothing does."""
    found, planner = network, None
    for slack in _SLACK:
        if place(found).used <= NARROW_BYTES and all(found.lowest_row(layer) >= 0 for layer in found.layers):
            return found
        planner = planner or StripPlanner(network.problem)
        strips = planner.choose(int(NARROW_BYTES * (1 - slack)))
        if strips is None:
            break
        found = network.in_strips(strips)
    return found if place(found).used <= NARROW_BYTES else network


def cache_segments(kernel: Kernel, pieces: tuple[Piece, ...]) -> list[CacheSegment]:
    """Return where the lines of a blob go."""
    lanes = LANES if kernel.packed else kernel.lanes
    left, segments = kernel.lines, []
    for piece in pieces:
        lines = min(left, piece.rows * lanes // 16)
        segments.append(CacheSegment(piece.tile, piece.row, lines, lanes))
        left -= lines
    return segments
