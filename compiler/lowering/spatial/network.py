"""From a mapped subgraph to a network of image operators."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from compiler.beagle.isa.tables import LOGISTIC, LOGISTIC_LIMIT
from compiler.beagle.reference.elementwise import weights_of_sum
from compiler.errors import ProgramError
from compiler.facts import LANES, NARROW_BYTES, TILES, WIDE_ROWS
from compiler.graph import Graph, Operator, Tensor
from compiler.lowering.arithmetic import (
    bias_values,
    bits,
    clamp,
    mean_multiplier,
    multipliers,
    quantization,
    sum_multiplier,
    unary_multiplier,
    unsigned_weights,
    zero_point,
)
from compiler.lowering.caching_program import CacheSegment, caching_program
from compiler.lowering.dense import DenseLayer
from compiler.lowering.lowered import LoweredNetwork, refusal
from compiler.lowering.network import (
    dense_layer,
    dense_segments,
    is_free,
    parameter_tensor,
    placed_softmax,
    softmax_layer,
    softmax_segments,
    softmax_tensors,
)
from compiler.lowering.parameters import DenseParameters, dense_blob, round_up
from compiler.lowering.refusal import LoweringRefusal
from compiler.lowering.softmax import SoftmaxLayer
from compiler.lowering.spatial.addition import Addition
from compiler.lowering.spatial.convolution import Convolution
from compiler.lowering.spatial.geometry import Activation, Image, Region, Span, Window, needed_by
from compiler.lowering.spatial.halo import too_far
from compiler.lowering.spatial.outfeed import batches
from compiler.lowering.spatial.pooling import Pool
from compiler.lowering.spatial.program import Layer, Memory, SpatialNetwork, place, sources_of, spatial_program
from compiler.lowering.spatial.tail import Tail, flattened_weights
from compiler.lowering.spatial.unary import Unary
from compiler.lowering.spatial.weights import Kernel, convolution_kernel, depthwise_kernel
from compiler.mapping import Subgraph
from compiler.memory.demand import Kind, ModelDemand, ParameterTensor
from compiler.memory.plan import ModelPlan, Piece

CONVOLUTIONS = ("CONV_2D", "DEPTHWISE_CONV_2D")
POOLS = ("AVERAGE_POOL_2D", "MAX_POOL_2D")
UNARY = {"QUANTIZE": 0, "RELU": 1, "RELU_N1_TO_1": 2, "RELU6": 3, "LOGISTIC": 0}
"""Functions of single values, with the activation that limits them."""
_VALID = 1


@dataclass(frozen=True)
class _Padding:
    """Rows and columns that a PAD in front of a convolution adds before and after."""

    rows: tuple[int, int] = (0, 0)
    columns: tuple[int, int] = (0, 0)


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
        self._origin: dict[int, int] = {}
        self._padding: dict[int, _Padding] = {}
        self._tail_source: int | None = None
        self._vectors: set[int] = set()
        self._last_vector = -1
        self._mean: Pool | None = None
        self._dense: list[DenseLayer] = []
        self._functions: list[Unary] = []
        self._softmax: SoftmaxLayer | None = None
        self._operators: dict[str, Operator] = {}
        self.network = self._read()
        self._check()
        self.memory = self._place()

    # -- reading ------------------------------------------------------------------------------------

    def _read(self) -> SpatialNetwork:
        self._one_input_one_output()
        layers: list[Layer] = []
        for index in self.subgraph.operators:
            op = self.graph.operators[index]
            self._operators[op.title] = op
            if self._behind_images(op):
                self._read_tail(op)
            elif is_free(self.graph, op):
                self._alias(op)
            elif op.name in UNARY:
                layers.append(self._unary(op))
            elif op.name == "PAD":
                self._absorb_padding(op)
            elif op.name in CONVOLUTIONS:
                layers.append(self._convolution(op))
            elif op.name in POOLS:
                layers.append(self._pool(op))
            elif op.name == "ADD":
                layers.append(self._addition(op))
            else:
                raise LoweringRefusal(op.index, refusal(op, "code for this operator behind convolutions is not generated "
                                                            "yet.", "It runs on the CPU."))
        source = self.subgraph.inputs[0]
        target = self._resolve(self.subgraph.outputs[0])
        tail = None
        if self._tail_source is not None:
            self._check_tail_is_last()
            target = self._tail_source
            tail = Tail(_image(self.graph.tensors[target]), self._mean, tuple(self._dense), tuple(self._functions),
                        self._softmax)
        if not layers and tail is None:
            first = self.graph.operators[self.subgraph.operators[0]]
            raise LoweringRefusal(first.index, refusal(first, "has nothing to compute beside it on the Edge TPU."))
        return SpatialNetwork(tuple(layers), self._activations(layers, source), source, target, tail)

    # -- behind the images ----------------------------------------------------------------------------

    def _behind_images(self, op: Operator) -> bool:
        """Tell whether an operator works on a vector, or makes one of an image."""
        y = self.graph.output(op)
        if is_free(self.graph, op):
            return self._is_vector(op.inputs[0]) or (op.name == "RESHAPE" and _is_flat(y))
        return self._is_vector(op.inputs[0]) or op.name in ("FULLY_CONNECTED", "MEAN") or (
            op.name in POOLS and _is_flat(y))

    def _is_vector(self, tensor: int) -> bool:
        return self._tail_source is not None and tensor in self._vectors

    def _read_tail(self, op: Operator) -> None:
        x, y = op.inputs[0], self.graph.output(op)
        if self._tail_source is None:
            self._tail_source = self._resolve(x)
            if _is_flat(self.graph.tensors[x]):
                raise LoweringRefusal(op.index, refusal(op, f"its input {self.graph.tensors[x].name} is a vector beside "
                                                            "images; that is not generated yet."))
        elif x not in self._vectors or x != self._last_vector:
            raise LoweringRefusal(op.index, refusal(op, f"reads {self.graph.tensors[x].name} beside another operator; only "
                                                        "one vector goes on behind the images."))
        if is_free(self.graph, op):
            pass
        elif self._softmax is not None:
            raise LoweringRefusal(op.index, refusal(op, f"computes with the result of {self._softmax.name}; nothing "
                                                        "behind a softmax is generated.", "It runs on the CPU."))
        elif op.name in UNARY and (self._mean is not None or self._dense):
            self._functions.append(self._unary(op))
        elif self._functions and op.name != "SOFTMAX":
            raise LoweringRefusal(op.index, refusal(op, f"computes with the result of {self._functions[-1].name}; only a "
                                                        "softmax is generated there.", "It runs on the CPU."))
        elif op.name == "SOFTMAX":
            if self._mean is None and not self._dense:
                raise LoweringRefusal(op.index, refusal(op, "over the pixels of an image is not generated yet."))
            self._softmax = softmax_layer(self.graph, op)
        elif op.name in POOLS or op.name == "MEAN":
            if self._dense or self._mean is not None:
                raise LoweringRefusal(op.index, refusal(op, "reduces a vector; that is not generated."))
            self._mean = self._whole_pool(op)
        elif op.name in ("FULLY_CONNECTED", "CONV_2D"):
            self._dense.append(self._dense_layer(op))
        else:
            raise LoweringRefusal(op.index, refusal(op, "code for this operator on a vector behind images is not generated "
                                                        "yet.", "It runs on the CPU."))
        self._vectors.add(y.index)
        self._last_vector = y.index

    def _check_tail_is_last(self) -> None:
        last = self.subgraph.outputs[0]
        if last != self._last_vector or (self._mean is None and not self._dense and self._softmax is None):
            op = self.graph.producers[self._last_vector]
            raise LoweringRefusal(op.index, refusal(op, f"{self.graph.tensors[self._last_vector].name} is a vector that "
                                                        "nothing on the Edge TPU computes with."))

    def _whole_pool(self, op: Operator) -> Pool:
        """A mean or maximum over the whole image."""
        x, y = self.graph.tensors[op.inputs[0]], self.graph.output(op)
        image = _image(x)
        count = image.height * image.width
        maximum = op.name == "MAX_POOL_2D"
        low, high = clamp(y, getattr(op.options, "fusedActivationFunction", 0))
        multiplier = bits(unary_multiplier(x, y) if maximum else mean_multiplier(x, y, count))
        return Pool(op.title, maximum, self._resolve(x.index), y.index, (Window(1), Window(count)), zero_point(x),
                    zero_point(y), multiplier, low, high)

    def _dense_layer(self, op: Operator) -> DenseLayer:
        weights = None
        if not self._dense and self._mean is None:
            assert self._tail_source is not None
            w = self.graph.tensors[op.inputs[1]]
            image = _image(self.graph.tensors[self._tail_source])
            weights = flattened_weights(unsigned_weights(w).reshape(w.shape[0], -1), image, zero_point(w))
        return dense_layer(self.graph, op, weights)

    def _one_input_one_output(self) -> None:
        if len(self.subgraph.inputs) > 1:
            users = self.graph.consumers[self.subgraph.inputs[1]]
            op = next(o for o in users if o.index in self.subgraph.operators)
            raise LoweringRefusal(op.index, refusal(op, "is fed by a second input; only one is generated so far."))
        if len(self.subgraph.outputs) > 1:
            last = max((self.graph.producers[t] for t in self.subgraph.outputs), key=lambda op: op.index)
            raise LoweringRefusal(last.index, refusal(last, f"gives {self.graph.output(last).name}, a second output; only "
                                                            "one output is generated so far."))

    def _resolve(self, tensor: int) -> int:
        """Return the tensor that holds the same bytes."""
        return self._origin.get(tensor, tensor)

    def _alias(self, op: Operator) -> None:
        x, y = self.graph.tensors[op.inputs[0]], self.graph.output(op)
        if op.name == "RESHAPE" and _extent(x) != _extent(y):
            raise LoweringRefusal(op.index, refusal(op, f"turns {x.name} of shape {list(x.shape)} into {list(y.shape)}; "
                                                        "only changes that leave rows, columns and channels are generated."))
        self._origin[y.index] = self._resolve(x.index)

    def _absorb_padding(self, op: Operator) -> None:
        """Padding of rows and columns becomes part of the convolution behind it."""
        x, y = self.graph.tensors[op.inputs[0]], self.graph.output(op)
        amounts = self.graph.tensors[op.inputs[1]]
        users = self.graph.consumers.get(y.index, ())
        simple = amounts.is_constant and y.index not in self.subgraph.outputs and all(
            u.name in CONVOLUTIONS and u.index in self.subgraph.operators for u in users)
        pads = amounts.array().reshape(-1, 2).tolist() if amounts.is_constant else []
        if not simple or len(pads) != 4 or any(pads[0]) or any(pads[3]):
            raise LoweringRefusal(op.index, refusal(op, "is only generated for rows and columns in front of a convolution."))
        self._origin[y.index] = self._resolve(x.index)
        self._padding[y.index] = _Padding((pads[1][0], pads[1][1]), (pads[2][0], pads[2][1]))

    def _convolution(self, op: Operator) -> Convolution:
        x, w, y = self.graph.tensors[op.inputs[0]], self.graph.tensors[op.inputs[1]], self.graph.output(op)
        low, high = clamp(y, op.options.fusedActivationFunction)
        kernel = kernel_of(self.graph, op)
        return Convolution(op.title, kernel, self._resolve(x.index), y.index, self._windows(op, x, w), zero_point(x),
                           zero_point(y), low, high)

    def _pool(self, op: Operator) -> Pool:
        x, y, o = self.graph.tensors[op.inputs[0]], self.graph.output(op), op.options
        low, high = clamp(y, o.fusedActivationFunction)
        sizes, strides = (o.filterHeight, o.filterWidth), (o.strideH, o.strideW)
        windows = [Window(sizes[axis], strides[axis]) for axis in (0, 1)]
        if o.padding != _VALID:
            windows = [replace(w, before=same_padding(x.shape[1 + axis], w)) for axis, w in enumerate(windows)]
        maximum = op.name == "MAX_POOL_2D"
        multiplier = bits(unary_multiplier(x, y) if maximum else mean_multiplier(x, y, sizes[0] * sizes[1]))
        return Pool(op.title, maximum, self._resolve(x.index), y.index, (windows[0], windows[1]), zero_point(x),
                    zero_point(y), multiplier, low, high)

    def _unary(self, op: Operator) -> Unary:
        x, y = self.graph.tensors[op.inputs[0]], self.graph.output(op)
        if op.name == "LOGISTIC":
            limit = bits(LOGISTIC_LIMIT), bits(-LOGISTIC_LIMIT)
            return Unary(op.title, self._resolve(x.index), y.index, zero_point(x), 0, bits(quantization(x).scales[0]),
                         limit[1], limit[0], LOGISTIC)
        low, high = clamp(y, UNARY[op.name])
        return Unary(op.title, self._resolve(x.index), y.index, zero_point(x), zero_point(y), bits(unary_multiplier(x, y)),
                     low, high)

    def _addition(self, op: Operator) -> Addition:
        a, b = (self.graph.tensors[t] for t in op.inputs)
        y = self.graph.output(op)
        weights = weights_of_sum(quantization(a).scale, quantization(b).scale)
        low, high = clamp(y, op.options.fusedActivationFunction)
        constant = -(weights[0] * zero_point(a) + weights[1] * zero_point(b))
        return Addition(op.title, (self._resolve(b.index), self._resolve(a.index)), y.index, (weights[1], weights[0]),
                        constant, zero_point(y), bits(sum_multiplier(a, b, y, weights)), low, high)

    def _windows(self, op: Operator, x: Tensor, w: Tensor) -> tuple[Window, Window]:
        o = op.options
        pad = self._padding.get(x.index, _Padding())
        strides, dilations = (o.strideH, o.strideW), (o.dilationHFactor, o.dilationWFactor)
        windows = []
        for axis, extra in ((0, pad.rows), (1, pad.columns)):
            window = Window(w.shape[1 + axis], strides[axis], 0, dilations[axis])
            before = extra[0] + (0 if o.padding == _VALID else same_padding(x.shape[1 + axis], window))
            windows.append(replace(window, before=before))
        return windows[0], windows[1]

    def _activations(self, layers: list[Layer], source: int) -> dict[int, Activation]:
        needed: dict[int, tuple[Region, ...]] = {}
        fills: dict[int, int] = {}
        nothing = (Region(Span(0, 0), Span(0, 0)),) * TILES
        for layer in layers:
            if isinstance(layer, Addition | Unary):
                continue
            regions = needed_by([layer.windows], _image(self.graph.tensors[layer.target]))
            needed[layer.source] = _hull(needed.get(layer.source, nothing), regions)
            # Padding must not win a maximum.
            fill = 0 if isinstance(layer, Pool) and layer.maximum else layer.in_zero_point
            if self._reaches_out(layer) and fills.setdefault(layer.source, fill) != fill:
                op = self._operators[layer.name]
                raise LoweringRefusal(op.index, refusal(op, f"pads {self.graph.tensors[layer.source].name} with {fill}, "
                                                            "another operator with another value."))
        _align_operands(layers, needed, nothing)
        found = {}
        for t in (source, *(layer.target for layer in layers)):
            tensor = self.graph.tensors[t]
            found[t] = Activation(tensor.name, _image(tensor), fills.get(t, zero_point(tensor)), needed.get(t, nothing))
        return found

    def _reaches_out(self, layer: Convolution | Pool) -> bool:
        image, out = _image(self.graph.tensors[layer.source]), _image(self.graph.tensors[layer.target])
        for window, length, count in zip(layer.windows, (image.height, image.width), (out.height, out.width), strict=True):
            span = window.needed(Span(0, count))
            if span.start < 0 or span.stop > length:
                return True
        return False

    # -- what cannot be generated ---------------------------------------------------------------------

    def _check(self) -> None:
        net = self.network
        image = net.activations[net.target].image
        words = {t: image.pixels(t) * image.padded // 4 for t in range(TILES) if image.pixels(t)}
        if net.tail is None and any(n % 2 for n in words.values()) and not batches(words):
            last = self.graph.producers[net.target]
            raise LoweringRefusal(last.index, refusal(
                last, f"tiles hold odd numbers of words of its result {net.activations[net.target].name}, more than the "
                "scalar memory can join.", "Use a number of channels that is a multiple of 8."))
        for layer in net.layers:
            self._check_layer(self._operators[layer.name], layer)

    def _check_layer(self, op: Operator, layer: Layer) -> None:
        net = self.network
        if not isinstance(layer, Addition | Unary):
            activation = net.activations[layer.source]
            if why := too_far(activation):
                raise LoweringRefusal(op.index, refusal(
                    op, f"needs {why} of {activation.name}, which no neighbouring tile holds: it has "
                    f"{activation.image.height} x {activation.image.width} pixels over 4 x 4 tiles.",
                    "Use a larger image or a smaller kernel."))
        if isinstance(layer, Pool) and not layer.maximum and self._reaches_out(layer):
            raise LoweringRefusal(op.index, refusal(
                op, "averages over fewer pixels at the border; only pools without padding are generated.",
                "Use padding VALID."))
        if net.lowest_row(layer) < 0:
            raise LoweringRefusal(op.index, refusal(
                op, f"with {net.pixels(layer)} pixels per tile it needs more than the {WIDE_ROWS} rows of wide memory of a "
                "tile.", "Use fewer channels or a smaller image."))

    def _place(self) -> Memory:
        memory = place(self.network)
        if memory.used <= NARROW_BYTES:
            return memory
        if self.network.tail is not None and self.network.tail.size > NARROW_BYTES // 2:
            op = self.graph.producers[min(self._vectors, key=lambda t: self.graph.producers[t].index)]
            raise LoweringRefusal(op.index, refusal(
                op, f"gathers {self.graph.tensors[self.network.target].name} on one tile, which needs "
                f"{self.network.tail.size} bytes there beside the image; the limit is {NARROW_BYTES} in all.",
                "Pool the image before."))
        layer = max(self.network.layers, key=self._bytes_at)
        op = self._operators[layer.name]
        source, target = (self.network.activations[t] for t in (sources_of(layer)[0], layer.target))
        share = (NARROW_BYTES / memory.used) ** 0.5
        raise LoweringRefusal(op.index, refusal(
            op, f"its input {source.name} takes {source.size} bytes and its output {target.name} {target.size} bytes of "
            f"each tile; the network needs {memory.used} bytes there, the limit is {NARROW_BYTES}.",
            f"Images of about {int(source.image.height * share)} x {int(source.image.width * share)} would fit."))

    def _bytes_at(self, layer: Layer) -> int:
        return sum(self.network.activations[t].size for t in (*sources_of(layer), layer.target))

    # -- memory and programs ----------------------------------------------------------------------------

    def demand(self, name: str, plan: ModelPlan | None = None) -> ModelDemand:
        """Return what the network asks of parameter memory.

        Parameters
        ----------
        plan:
            A plan made before: dense layers that it streams need rows of wide memory to pass through.
        """
        tensors = [ParameterTensor(layer.name, Kind.RING, layer.kernel.cached_rows, 64 * layer.kernel.lines,
                                   depthwise=layer.kernel.depthwise) for layer in self.network.convolutions]
        tensors += [parameter_tensor(layer) for layer in self._dense]
        tensors += softmax_tensors(self._softmax)
        first = len(self.network.convolutions)
        streamed = [plan is not None and not plan.cached(first + i) for i in range(len(self._dense))]
        return ModelDemand(name, tuple(tensors), self.network.staging_row(streamed))

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
                op = self._operators[layer.name]
                raise LoweringRefusal(op.index, refusal(
                    op, f"its {64 * layer.kernel.lines} bytes of parameters do not fit the on-chip memory, and rows of "
                    "16 bytes that do not fill lines of 64 are not streamed.", "Compile the model alone."))
        pieces_of = {layer.name: pieces for layer, pieces in zip(convolutions, plan.pieces[:count], strict=True)}
        network, dense = self._with_rows(plan.pieces[count:])
        softmax = network.tail.softmax if network.tail is not None else None
        tables = softmax.tables if softmax is not None else ()
        source, target = self.graph.tensors[self.subgraph.inputs[0]], self.graph.tensors[self.subgraph.outputs[0]]
        image = self.network.activations[self.network.target].image
        output = sum(image.pixels(t) for t in range(TILES)) * image.padded
        if network.tail is not None:
            output = round_up(target.shape[-1] if network.tail.layers else image.channels, 4)
        try:
            program = spatial_program(network, self.memory, pieces_of, input_name=source.name,
                                      input_bytes=round_up(source.elements, 8), output_name=target.name,
                                      output_bytes=round_up(output, 8))
        except ProgramError as error:
            op = self.graph.operators[self.subgraph.operators[-1]]
            raise LoweringRefusal(op.index, refusal(op, f"does not fit the fields of an instruction: {error}")) from error
        kernels = [(layer.kernel, p) for layer, p in zip(convolutions, plan.pieces[:count], strict=True)]
        segments = [cache_segments(k, p) for k, p in kernels if p]
        segments += [dense_segments(layer, layer.row) for layer in dense if layer.row is not None]
        segments += softmax_segments(softmax)
        caching = caching_program(segments) if segments else None
        cached = [k.blob for k, p in kernels if p]
        cached += [*(dense_blob(layer.parameters) for layer in dense if layer.row is not None), *tables]
        streamed = b"".join(k.blob for k, p in kernels if not p)
        streamed += b"".join(dense_blob(layer.parameters) for layer in dense if layer.row is None)
        return LoweredNetwork(program, caching, b"".join(cached), streamed, self.memory.used)

    def _with_rows(self, pieces: Sequence[Sequence[Piece]]) -> tuple[SpatialNetwork, list[DenseLayer]]:
        """Give the dense layers their rows in wide memory."""
        own = pieces[:len(self._dense)]
        dense = [replace(layer, row=p[0].row if p else None) for layer, p in zip(self._dense, own, strict=True)]
        tail = self.network.tail
        if tail is None:
            return self.network, dense
        softmax = placed_softmax(self.graph, tail.softmax, pieces[len(self._dense):])
        return replace(self.network, tail=replace(tail, layers=tuple(dense), softmax=softmax)), dense


def cache_segments(kernel: Kernel, pieces: tuple[Piece, ...]) -> list[CacheSegment]:
    """Return where the lines of a blob go."""
    lanes = LANES if kernel.packed else kernel.lanes
    left, segments = kernel.lines, []
    for piece in pieces:
        lines = min(left, piece.rows * lanes // 16)
        segments.append(CacheSegment(piece.tile, piece.row, lines, lanes))
        left -= lines
    return segments


def same_padding(extent: int, window: Window) -> int:
    """Return the rows in front that padding SAME adds."""
    total = max((-(-extent // window.stride) - 1) * window.stride + window.reach - extent, 0)
    return total // 2


def _hull(a: tuple[Region, ...], b: tuple[Region, ...]) -> tuple[Region, ...]:
    return tuple(x.hull(y) for x, y in zip(a, b, strict=True))


def _align_operands(layers: list[Layer], needed: dict[int, tuple[Region, ...]], nothing: tuple[Region, ...]) -> None:
    """Operands of a sum are walked together: their slabs get the same shape."""
    changed = True
    while changed:
        changed = False
        for layer in layers:
            if isinstance(layer, Addition):
                a, b = (needed.get(t, nothing) for t in layer.sources)
                if a != b:
                    needed[layer.sources[0]] = needed[layer.sources[1]] = _hull(a, b)
                    changed = True


def _is_flat(t: Tensor) -> bool:
    """Tell whether a tensor is a vector."""
    return t.elements == (t.shape[-1] if t.shape else 1)


def _extent(t: Tensor) -> tuple[int, ...]:
    return (1, 1, 1, *t.shape)[-3:]


def _image(t: Tensor) -> Image:
    height, width, channels = _extent(t)
    return Image(height, width, channels)


def kernel_of(graph: Graph, op: Operator) -> Kernel:
    """Put the parameters of a convolution into the order of the chip."""
    x, w, bias = (graph.input(op, i) for i in range(3))
    y = graph.output(op)
    assert x is not None and w is not None and w.quantization is not None  # checked by the objection
    outputs = y.shape[-1]
    base = DenseParameters(np.zeros((outputs, 0), np.uint8), zero_point(w), w.quantization.per_channel,
                           multipliers(x, w, y), bias_values(bias, outputs))
    image = _image(y)
    pixels = max(image.pixels(t) for t in range(TILES))
    filters = unsigned_weights(w)
    if op.name == "CONV_2D":
        return convolution_kernel(filters, base, pixels=pixels)
    if x.shape[-1] == 1:
        return convolution_kernel(filters.transpose(3, 1, 2, 0), base, pixels=pixels)
    return depthwise_kernel(filters[0], base)
