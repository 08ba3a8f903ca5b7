"""Reads a mapped subgraph as a network of image operators."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from compiler.beagle.isa.tables import LOGISTIC, LOGISTIC_LIMIT
from compiler.beagle.reference.elementwise import weights_of_sum
from compiler.facts import TILES
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
from compiler.lowering.dense import DenseLayer
from compiler.lowering.lowered import refusal
from compiler.lowering.network import (
    dense_layer,
    is_free,
    softmax_layer,
)
from compiler.lowering.parameters import DenseParameters
from compiler.lowering.refusal import LoweringRefusal
from compiler.lowering.softmax import SoftmaxLayer
from compiler.lowering.spatial.addition import Addition
from compiler.lowering.spatial.bands import align_operands, hull
from compiler.lowering.spatial.concatenation import Concatenation
from compiler.lowering.spatial.convolution import Convolution
from compiler.lowering.spatial.geometry import Activation, Image, Region, Span, Window, needed_by
from compiler.lowering.spatial.pooling import Pool
from compiler.lowering.spatial.program import Layer, SpatialNetwork, reading_of
from compiler.lowering.spatial.tail import Tail, flattened_weights
from compiler.lowering.spatial.unary import Unary
from compiler.lowering.spatial.weights import Kernel, convolution_kernel, depthwise_kernel
from compiler.mapping import Subgraph

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
        self.operators: dict[str, Operator] = {}
        self.dense: list[DenseLayer] = []
        self._origin: dict[int, int] = {}
        self._padding: dict[int, _Padding] = {}
        self._view: Tensor | None = None
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
            elif op.name in UNARY:
                layers.append(self._unary(op))
            elif op.name == "PAD" and self._is_absorbed(op):
                self._absorb_padding(op)
            elif op.name == "PAD":
                layers.append(self._pad(op))
            elif op.name in CONVOLUTIONS:
                layers.append(self._convolution(op))
            elif op.name in POOLS:
                layers.append(self._pool(op))
            elif op.name == "ADD":
                layers.append(self._addition(op))
            elif op.name == "CONCATENATION":
                layers.append(self._concatenation(op))
            else:
                raise LoweringRefusal(op.index, refusal(op, "code for this operator behind convolutions is not generated "
                                                            "yet.", "It runs on the CPU."))
        source = self.subgraph.inputs[0]
        tail = None
        if self._tail_source is not None:
            self._check_tail_is_last()
            tail = Tail(self._tail_source, _image(self.graph.tensors[self._tail_source]), self._mean, tuple(self.dense),
                        tuple(self._functions), self._softmax)
        outputs = {t: self._resolve(t) for t in self.subgraph.outputs if t not in self._vectors}
        self._check_outputs(outputs, {layer.target for layer in layers})
        if not layers and tail is None:
            first = self.graph.operators[self.subgraph.operators[0]]
            raise LoweringRefusal(first.index, refusal(first, "has nothing to compute beside it on the Edge TPU."))
        return SpatialNetwork(tuple(layers), self._activations(layers, source), source, outputs, tail)

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
        elif x != self._vectors[-1]:
            raise LoweringRefusal(op.index, refusal(op, f"reads {self.graph.tensors[x].name} beside another operator; only "
                                                        "one vector goes on behind the images."))
        if is_free(self.graph, op):
            pass
        elif self._softmax is not None:
            raise LoweringRefusal(op.index, refusal(op, f"computes with the result of {self._softmax.name}; nothing "
                                                        "behind a softmax is generated.", "It runs on the CPU."))
        elif op.name in UNARY and (self._mean is not None or self.dense):
            self._functions.append(self._unary(op))
        elif self._functions and op.name != "SOFTMAX":
            raise LoweringRefusal(op.index, refusal(op, f"computes with the result of {self._functions[-1].name}; only a "
                                                        "softmax is generated there.", "It runs on the CPU."))
        elif op.name == "SOFTMAX":
            if self._mean is None and not self.dense:
                raise LoweringRefusal(op.index, refusal(op, "over the pixels of an image is not generated yet."))
            self._softmax = softmax_layer(self.graph, op)
        elif op.name in POOLS or op.name == "MEAN":
            if self.dense or self._mean is not None:
                raise LoweringRefusal(op.index, refusal(op, "reduces a vector; that is not generated."))
            self._mean = self._whole_pool(op)
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
        if not self.dense and self._mean is None:
            assert self._tail_source is not None
            w = self.graph.tensors[op.inputs[1]]
            image = _image(self.graph.tensors[self._tail_source])
            weights = flattened_weights(unsigned_weights(w).reshape(w.shape[0], -1), image, zero_point(w))
        return dense_layer(self.graph, op, weights)

    def _one_input(self) -> None:
        if len(self.subgraph.inputs) > 1:
            users = self.graph.consumers[self.subgraph.inputs[1]]
            op = next(o for o in users if o.index in self.subgraph.operators)
            raise LoweringRefusal(op.index, refusal(op, "is fed by a second input; only one is generated so far."))

    def _resolve(self, tensor: int) -> int:
        """Return the tensor that holds the same bytes."""
        return self._origin.get(tensor, tensor)

    def _alias(self, op: Operator) -> None:
        x, y = self.graph.tensors[op.inputs[0]], self.graph.output(op)
        if op.name == "RESHAPE" and _extent(x) != _extent(y):
            if self._only_host_data(x):
                self._view = y
                self._origin[y.index] = self._resolve(x.index)
                return
            raise LoweringRefusal(op.index, refusal(op, f"turns {x.name} of shape {list(x.shape)} into {list(y.shape)}; "
                                                        "only changes that leave rows, columns and channels are generated."))
        self._origin[y.index] = self._resolve(x.index)

    def _only_host_data(self, x: Tensor) -> bool:
        """Tell whether a tensor is the input as it comes, and read in one way only: then its shape is free."""
        return self._resolve(x.index) == self.subgraph.inputs[0] and all(
            len(self.graph.consumers.get(t, ())) == 1 for t in (x.index, self.subgraph.inputs[0]))

    def _is_absorbed(self, op: Operator) -> bool:
        """Tell whether all that reads a padded image are convolutions."""
        y = op.outputs[0]
        users = self.graph.consumers.get(y, ())
        return y not in self.subgraph.outputs and all(
            u.name in CONVOLUTIONS and u.index in self.subgraph.operators for u in users)

    def _pads(self, op: Operator) -> list[list[int]]:
        pads: list[list[int]] = self.graph.tensors[op.inputs[1]].array().reshape(-1, 2).tolist()
        if len(pads) != 4 or any(pads[0]) or any(pads[3]):
            raise LoweringRefusal(op.index, refusal(op, f"pads by {pads}; only rows and columns are padded."))
        return pads

    def _absorb_padding(self, op: Operator) -> None:
        """Padding of rows and columns becomes part of the convolution behind it."""
        pads = self._pads(op)
        y = op.outputs[0]
        self._origin[y] = self._resolve(op.inputs[0])
        self._padding[y] = _Padding((pads[1][0], pads[1][1]), (pads[2][0], pads[2][1]))

    def _pad(self, op: Operator) -> Unary:
        """Padding by itself moves pixels between tiles."""
        pads = self._pads(op)
        x, y = self.graph.tensors[op.inputs[0]], self.graph.output(op)
        low, high = clamp(y, 0)
        return Unary(op.title, self._resolve(x.index), y.index, zero_point(x), zero_point(y), bits(unary_multiplier(x, y)),
                     low, high, windows=(Window(before=pads[1][0]), Window(before=pads[2][0])))

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

    def _concatenation(self, op: Operator) -> Concatenation:
        y = self.graph.output(op)
        low, high = clamp(y, 0)
        parts = []
        for i, t in enumerate(op.inputs):
            x = self.graph.tensors[t]
            parts.append(Unary(f"{op.title} operand {i}", self._resolve(t), y.index, zero_point(x), zero_point(y),
                               bits(unary_multiplier(x, y)), low, high))
        return Concatenation(op.title, tuple(parts), y.index)

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
            if isinstance(layer, Addition | Concatenation) or (isinstance(layer, Unary) and not layer.moves):
                continue
            regions = needed_by([layer.windows], _image(self.graph.tensors[layer.target]))
            needed[layer.source] = hull(needed.get(layer.source, nothing), regions)
            # Padding must not win a maximum.
            fill = 0 if isinstance(layer, Pool) and layer.maximum else layer.in_zero_point
            if self.reaches_out(layer) and fills.setdefault(layer.source, fill) != fill:
                op = self.operators[layer.name]
                raise LoweringRefusal(op.index, refusal(op, f"pads {self.graph.tensors[layer.source].name} with {fill}, "
                                                            "another operator with another value."))
        align_operands([reading_of(layer) for layer in layers if isinstance(layer, Addition)], needed)
        found = {}
        for t in (source, *(layer.target for layer in layers)):
            tensor = self.graph.tensors[t]
            if t == source and self._view is not None:
                tensor = self._view
            found[t] = Activation(tensor.name, _image(tensor), fills.get(t, zero_point(tensor)), needed.get(t, nothing))
        return found

    def reaches_out(self, layer: Convolution | Pool | Unary) -> bool:
        """Tell whether a window reaches beyond the image."""
        view = self._view if layer.source == self.subgraph.inputs[0] else None
        image, out = _image(view or self.graph.tensors[layer.source]), _image(self.graph.tensors[layer.target])
        for window, length, count in zip(layer.windows, (image.height, image.width), (out.height, out.width), strict=True):
            span = window.needed(Span(0, count))
            if span.start < 0 or span.stop > length:
                return True
        return False


def same_padding(extent: int, window: Window) -> int:
    """Return the rows in front that padding SAME adds."""
    total = max((-(-extent // window.stride) - 1) * window.stride + window.reach - extent, 0)
    return total // 2


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
