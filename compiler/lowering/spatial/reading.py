"""Reads a mapped subgraph as a network of image operators."""

from __future__ import annotations

from collections.abc import Mapping

from compiler.facts import TILES
from compiler.graph import Graph, Operator, Tensor
from compiler.lowering.arithmetic import unsigned_weights, zero_point
from compiler.lowering.dense_layer import DenseLayer
from compiler.lowering.lowered import refusal
from compiler.lowering.network import dense_layer, is_free, softmax_layer
from compiler.lowering.refusal import LoweringRefusal
from compiler.lowering.softmax import SoftmaxLayer
from compiler.lowering.spatial.bands import align_operands, hull
from compiler.lowering.spatial.context import Context, extent_of, is_flat, reaches_out
from compiler.lowering.spatial.families import FAMILIES
from compiler.lowering.spatial.families.pooling import Pool, read_whole_pool, reduces_all
from compiler.lowering.spatial.families.unary import UNARY, Unary, read_unary
from compiler.lowering.spatial.geometry import IDENTITY, NOWHERE, Activation, Region, needed_by, passed_on
from compiler.lowering.spatial.layer import Layer
from compiler.lowering.spatial.program import SpatialNetwork
from compiler.lowering.spatial.tail import Tail, flattened_weights
from compiler.mapping import Subgraph

_REDUCTIONS = ("MEAN", "REDUCE_MAX", "SUM")
_POOLS = ("AVERAGE_POOL_2D", "MAX_POOL_2D")


class NetworkReader:
    """Turns operators into layers, one after the other.

    Parameters
    ----------
    graph, subgraph:
        What the mapping chose.

    Attributes
    ----------
    network:
        The result.
    operators:
        Operator of each layer, by name.
    dense:
        Dense layers behind the images.

    Raises
    ------
    LoweringRefusal
        When an operator in it cannot be generated.
    """

    def __init__(self, graph: Graph, subgraph: Subgraph) -> None:
        self.graph = graph
        self.subgraph = subgraph
        self.context = Context(graph, subgraph)
        self.operators: dict[str, Operator] = {}
        self.dense: list[DenseLayer] = []
        self._tail_source: int | None = None
        self._vectors: list[int] = []
        self._mean: Pool | None = None
        self._functions: list[Unary] = []
        self._softmax: SoftmaxLayer | None = None
        self.network = self._read()

    @property
    def first_of_tail(self) -> Operator:
        """Operator that makes a vector of the last image."""
        return self.graph.producers[self._vectors[0]]

    def _read(self) -> SpatialNetwork:
        self._one_input()
        layers: list[Layer] = []
        for index in self.subgraph.operators:
            op = self.graph.operators[index]
            self.operators[op.title] = op
            if self._behind_images(op):
                self._read_tail(op)
            elif is_free(self.graph, op):
                self._alias(op)
            elif op.name in FAMILIES:
                layers += self._layers(op)
            else:
                raise LoweringRefusal(op.index, refusal(op, "code for this operator behind convolutions is not generated "
                                                            "yet.", "It runs on the CPU."))
        source = self.subgraph.inputs[0]
        tail = None
        if self._tail_source is not None:
            self._check_tail_is_last()
            tail = Tail(self._tail_source, self.context.image(self._tail_source), self._mean, tuple(self.dense),
                        tuple(self._functions), self._softmax)
        outputs = {t: self.context.resolve(t) for t in self.subgraph.outputs if t not in self._vectors}
        self._check_outputs(outputs, {layer.target for layer in layers})
        if not layers and tail is None:
            first = self.graph.operators[self.subgraph.operators[0]]
            raise LoweringRefusal(first.index, refusal(first, "has nothing to compute beside it on the Edge TPU."))
        return SpatialNetwork(tuple(layers), self._activations(layers, source), source, outputs, tail)

    def _layers(self, op: Operator) -> list[Layer]:
        made = FAMILIES[op.name].read(self.context, op)
        found = [] if made is None else [made] if isinstance(made, Layer) else list(made)
        self.operators |= {layer.name: op for made in found for layer in (made, *made.convolutions)}
        return found

    # -- behind the images ----------------------------------------------------------------------------

    def _behind_images(self, op: Operator) -> bool:
        """Tell whether an operator works on a vector, or makes one of an image."""
        y = self.graph.output(op)
        if is_free(self.graph, op):
            return self._is_vector(op.inputs[0]) or (op.name == "RESHAPE" and is_flat(y))
        return self._is_vector(op.inputs[0]) or op.name == "FULLY_CONNECTED" or (
            op.name in _REDUCTIONS and is_flat(y)) or (
            op.name in _POOLS and reduces_all(self.graph, op))

    def _is_vector(self, tensor: int) -> bool:
        return self._tail_source is not None and tensor in self._vectors

    def _read_tail(self, op: Operator) -> None:
        x, y = op.inputs[0], self.graph.output(op)
        if self._tail_source is None:
            self._tail_source = self.context.resolve(x)
            if is_flat(self.graph.tensors[x]):
                raise LoweringRefusal(op.index, refusal(op, f"its input {self.graph.tensors[x].name} is a vector beside "
                                                            "images; that is not generated yet."))
        elif x != self._vectors[-1]:
            raise LoweringRefusal(op.index, refusal(op, f"reads {self.graph.tensors[x].name} beside another operator; only "
                                                        "one vector goes on behind the images."))
        if is_free(self.graph, op):
            pass
        elif self._softmax is not None:
            raise LoweringRefusal(op.index, refusal(op, f"computes with the result of {self._softmax.name}; nothing "
                                                        "behind a softmax is generated.", "It runs on the CPU."))
        elif FAMILIES.get(op.name) is UNARY and (self._mean is not None or self.dense):
            self._functions.append(read_unary(self.context, op))
        elif self._functions and op.name != "SOFTMAX":
            raise LoweringRefusal(op.index, refusal(op, f"computes with the result of {self._functions[-1].name}; only a "
                                                        "softmax is generated there.", "It runs on the CPU."))
        elif op.name == "SOFTMAX":
            if self._mean is None and not self.dense:
                raise LoweringRefusal(op.index, refusal(op, "over the pixels of an image is not generated yet."))
            self._softmax = softmax_layer(self.graph, op)
        elif op.name in (*_POOLS, *_REDUCTIONS):
            if self.dense or self._mean is not None:
                raise LoweringRefusal(op.index, refusal(op, "reduces a vector; that is not generated."))
            self._mean = read_whole_pool(self.context, op)
        elif op.name in ("FULLY_CONNECTED", "CONV_2D"):
            self.dense.append(self._dense_layer(op))
        else:
            raise LoweringRefusal(op.index, refusal(op, "code for this operator on a vector behind images is not generated "
                                                        "yet.", "It runs on the CPU."))
        self._vectors.append(y.index)

    def _check_outputs(self, outputs: Mapping[int, int], computed: set[int]) -> None:
        """Outputs are results of layers; the input itself or a vector on the way are not sent back."""
        early = [t for t in self.subgraph.outputs if t in self._vectors[:-1]]
        early += [t for t, origin in outputs.items() if origin not in computed]
        if early:
            op = self.graph.producers[early[0]]
            raise LoweringRefusal(op.index, refusal(op, f"gives {self.graph.tensors[early[0]].name}, an output that others "
                                                        "on the Edge TPU go on with; that is not generated."))

    def _check_tail_is_last(self) -> None:
        if self._vectors[-1] not in self.subgraph.outputs or (self._mean is None and not self.dense):
            op = self.graph.producers[self._vectors[-1]]
            raise LoweringRefusal(op.index, refusal(op, f"{self.graph.tensors[self._vectors[-1]].name} is a vector that "
                                                        "nothing on the Edge TPU computes with."))

    def _dense_layer(self, op: Operator) -> DenseLayer:
        weights = None
        if not self.dense and self._mean is None:
            assert self._tail_source is not None
            w = self.graph.tensors[op.inputs[1]]
            image = self.context.image(self._tail_source)
            weights = flattened_weights(unsigned_weights(w).reshape(w.shape[0], -1), image, zero_point(w))
        return dense_layer(self.graph, op, weights)

    # -- inputs and shapes ----------------------------------------------------------------------------

    def _one_input(self) -> None:
        if len(self.subgraph.inputs) > 1:
            op = self.context.members(self.subgraph.inputs[1])[0]
            raise LoweringRefusal(op.index, refusal(op, "is fed by a second input; only one is generated so far."))

    def _alias(self, op: Operator) -> None:
        x, y = self.graph.tensors[op.inputs[0]], self.graph.output(op)
        if op.name == "RESHAPE" and extent_of(x) != extent_of(y):
            if not self._only_host_data(x):
                raise LoweringRefusal(op.index, refusal(
                    op, f"turns {x.name} of shape {list(x.shape)} into {list(y.shape)}; only changes that leave rows, "
                    "columns and channels are generated."))
            self.context.view = y
        self.context.alias(y.index, x.index)

    def _only_host_data(self, x: Tensor) -> bool:
        """Tell whether a tensor is the input as it comes, and read in one way only: then its shape is free."""
        return self.context.resolve(x.index) == self.subgraph.inputs[0] and all(
            len(self.graph.consumers.get(t, ())) == 1 for t in (x.index, self.subgraph.inputs[0]))

    # -- images ---------------------------------------------------------------------------------------

    def _activations(self, layers: list[Layer], source: int) -> dict[int, Activation]:
        needed: dict[int, tuple[Region, ...]] = {}
        fills: dict[int, int] = {}
        nothing = (NOWHERE,) * TILES
        for layer in layers:
            for s in layer.sources:
                windows, image = layer.windows_of(s), self.context.image(layer.target)
                if windows != (IDENTITY, IDENTITY) or layer.moves:
                    needed[s] = hull(needed.get(s, nothing), needed_by([windows], image))
                if reaches_out(windows, self.context.image(s), image):
                    self._fill(layer, s, fills)
        needed = {t: passed_on(self.context.image(t), regions) for t, regions in needed.items()}
        align_operands([layer.reading for layer in layers if layer.aligned], needed)
        found = {}
        for t in (source, *(layer.target for layer in layers)):
            tensor = self.context.tensor(t)
            found[t] = Activation(tensor.name, self.context.image(t), fills.get(t, zero_point(tensor)),
                                  needed.get(t, nothing))
        return found

    def _fill(self, layer: Layer, source: int, fills: dict[int, int]) -> None:
        """Note what stands beyond the border of an image; all that read it must agree."""
        own = layer.fill(source)
        fill = zero_point(self.context.tensor(source)) if own is None else own
        if fills.setdefault(source, fill) != fill:
            op = self.operators[layer.name]
            raise LoweringRefusal(op.index, refusal(op, f"pads {self.context.tensor(source).name} with {fill}, another "
                                                        "operator with another value."))
