"""Write quantized models: for examples and for tests on networks that nobody has compiled before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from compiler.graph.model import Graph, Model, Operator, Quantization, Tensor, TensorType

_INTEGERS = {TensorType.INT8: (-128, 127), TensorType.UINT8: (0, 255), TensorType.INT16: (-32768, 32767)}
_LEAST_RANGE = 1e-6
"""Weights that are all zero still need a scale."""
_NONE = (-1,)
Array = npt.NDArray[Any]
Pair = int | tuple[int, int]
"""Height and width; one number stands for both."""


class GraphBuilder:
    """Builds one graph operator by operator; tensors are referred to by index.

    Every operator method returns the index of its (first) output. Output quantization that is
    not given is that of the input, or what TensorFlow Lite prescribes for the operator.

    Parameters
    ----------
    type:
        Type of activations and weights: INT8 or UINT8.

    Examples
    --------
    >>> b = GraphBuilder()
    >>> x = b.add_input((1, 16), scale=0.1)
    >>> y = b.fully_connected(x, np.eye(16), np.zeros(16), scale=0.1, activation="RELU")
    >>> model = b.build(y)
    """

    def __init__(self, name: str = "main", *, type: TensorType = TensorType.INT8) -> None:
        import ai_edge_litert.schema_py_generated as schema

        self._schema = schema
        self.name = name
        self.type = type
        self.tensors: list[Tensor] = []
        self.operators: list[Operator] = []
        self.inputs: list[int] = []
        self.outputs: list[int] = []

    # -- tensors ------------------------------------------------------------------------------

    def tensor(self, shape: Sequence[int], *, scale: float | Sequence[float] | None = None,
               zero_point: int | Sequence[int] = 0, type: TensorType | None = None, name: str | None = None,
               data: Array | None = None, axis: int = 0, signature: Sequence[int] = (), variable: bool = False) -> int:
        """Add a tensor; returns its index. Integer data outside the type's range is clipped."""
        kind = self.type if type is None else type
        quantization = None
        if scale is not None:
            scales = np.atleast_1d(np.asarray(scale, np.float32))
            points = np.broadcast_to(np.asarray(zero_point, np.int64), scales.shape).copy()
            quantization = Quantization(scales, points, axis)
        index = len(self.tensors)
        self.tensors.append(Tensor(index, name or f"tensor_{index}", tuple(int(d) for d in shape), kind, quantization,
                                   None if data is None else _bytes_of(data, kind), tuple(signature), variable))
        return index

    def add_input(self, shape: Sequence[int], *, scale: float | None, zero_point: int = 0, name: str = "input",
                  type: TensorType | None = None, signature: Sequence[int] = ()) -> int:
        """Add a graph input; `scale` is None for a float one."""
        index = self.tensor(shape, scale=scale, zero_point=zero_point, name=name, type=type, signature=signature)
        self.inputs.append(index)
        return index

    def constant(self, data: Array, *, scale: float | None = None, zero_point: int = 0,
                 type: TensorType | None = None, name: str | None = None) -> int:
        """Add a constant tensor."""
        return self.tensor(data.shape, scale=scale, zero_point=zero_point, type=type, data=data, name=name)

    def quantized_weights(self, weights: npt.NDArray[np.floating[Any]], *, per_channel: bool = False, axis: int = 0,
                          name: str | None = None) -> int:
        """Add float weights as a constant, quantized symmetrically (int8) or affinely (uint8)."""
        if self.type is TensorType.UINT8:
            if per_channel:
                raise ValueError("uint8 weights are quantized per tensor only")
            low, high = min(float(weights.min()), 0.0), max(float(weights.max()), 0.0)
            scale = max(high - low, _LEAST_RANGE) / 255
            point = round(-low / scale)
            return self.constant(np.rint(weights / scale) + point, scale=scale, zero_point=point, name=name)
        others = tuple(i for i in range(weights.ndim) if i != axis) if per_channel else None
        scales = np.maximum(np.abs(weights).max(axis=others, keepdims=True), _LEAST_RANGE) / 127
        data = np.clip(np.rint(weights / scales), -127, 127)
        return self.tensor(weights.shape, scale=np.ravel(scales).tolist(), data=data, axis=axis, name=name)

    def bias(self, values: npt.NDArray[np.floating[Any]], x: int, weights: int, name: str | None = None) -> int:
        """Add a float bias as int32 with scale input scale times weight scale."""
        scales = self.quantization(x).scales * self.quantization(weights).scales
        return self.tensor(values.shape, scale=scales.tolist(), type=TensorType.INT32, data=np.rint(values / scales),
                           name=name)

    def quantization(self, index: int) -> Quantization:
        """Return the quantization of a tensor.

        Raises
        ------
        ValueError
            When it has none.
        """
        quantization = self.tensors[index].quantization
        if quantization is None:
            raise ValueError(f"{self.tensors[index].name} is not quantized")
        return quantization

    def shape(self, index: int) -> tuple[int, ...]:
        """Return the shape of a tensor."""
        return self.tensors[index].shape

    def rename(self, index: int, name: str) -> int:
        """Give a tensor another name; returns its index."""
        self.tensors[index] = replace(self.tensors[index], name=name)
        return index

    @property
    def limits(self) -> tuple[int, int]:
        """Least and greatest value of the activation type."""
        return _INTEGERS[self.type]

    # -- any operator -------------------------------------------------------------------------

    def op(self, name: str, inputs: Sequence[int], outputs: Sequence[int], options: str | None = None, *,
           version: int = 1, **fields: Any) -> int:
        """Add any builtin operator; ``options`` names its schema table. Returns the first output."""
        table = None
        if options is not None:
            table = getattr(self._schema, f"{options}T")()
            for key, value in fields.items():
                if not hasattr(table, key):
                    raise ValueError(f"{options} has no field {key}")
                setattr(table, key, value)
        code = getattr(self._schema.BuiltinOperator, name)
        self.operators.append(Operator(len(self.operators), name, tuple(inputs), tuple(outputs), table, code=code,
                                       version=version))
        return outputs[0]

    def custom(self, name: str, inputs: Sequence[int], outputs: Sequence[int], options: bytes = b"") -> int:
        """Add a custom operator. Returns the first output."""
        self.operators.append(Operator(
            len(self.operators), "CUSTOM", tuple(inputs), tuple(outputs), custom_name=name,
            custom_options=np.frombuffer(options, np.uint8), code=self._schema.BuiltinOperator.CUSTOM))
        return outputs[0]

    def unary(self, name: str, x: int, *, scale: float | None = None, zero_point: int | None = None,
              options: str | None = None, **fields: Any) -> int:
        """Add an operator that keeps the shape: RELU, RELU6, TANH, LEAKY_RELU, ..."""
        y = self._like(self.shape(x), x, scale, zero_point)
        return self.op(name, (x,), (y,), options, version=self._version(2), **fields)

    # -- layers -------------------------------------------------------------------------------

    def fully_connected(self, x: int, weights: int | Array, bias: int | Array | None = None, *, scale: float,
                        zero_point: int = 0, activation: str = "NONE", per_channel: bool = False,
                        keep_dims: bool = False) -> int:
        """Add FULLY_CONNECTED; weights of shape (outputs, inputs), float ones are quantized."""
        w, b = self._parameters(x, weights, bias, per_channel)
        outputs, inputs = self.shape(w)
        elements = int(np.prod(self.shape(x)))
        shape = (*self.shape(x)[:-1], outputs) if keep_dims else (elements // inputs, outputs)
        y = self.tensor(shape, scale=scale, zero_point=zero_point)
        return self.op("FULLY_CONNECTED", (x, w, b), (y,), "FullyConnectedOptions",
                       version=5 if keep_dims else self._version(4), keepNumDims=keep_dims,
                       fusedActivationFunction=self._activation(activation))

    def conv2d(self, x: int, weights: int | Array, bias: int | Array | None = None, *, scale: float,
               zero_point: int = 0, stride: Pair = 1, dilation: Pair = 1, padding: str = "SAME",
               activation: str = "NONE", per_channel: bool = False) -> int:
        """Add CONV_2D; weights of shape (outputs, height, width, inputs), float ones are quantized.

        The bias is zero unless given: TensorFlow Lite refuses quantized convolutions without.
        """
        w, b = self._parameters(x, weights, bias, per_channel, always_bias=True)
        outputs, kh, kw, _ = self.shape(w)
        y = self.tensor((*self._window(x, (kh, kw), stride, dilation, padding), outputs), scale=scale,
                        zero_point=zero_point)
        return self.op("CONV_2D", (x, w, b), (y,), "Conv2DOptions", version=self._version(3),
                       fusedActivationFunction=self._activation(activation),
                       **self._strides(stride, padding, dilation))

    def depthwise_conv2d(self, x: int, weights: int | Array, bias: int | Array | None = None, *, scale: float,
                         zero_point: int = 0, stride: Pair = 1, dilation: Pair = 1, padding: str = "SAME",
                         activation: str = "NONE", per_channel: bool = False) -> int:
        """Add DEPTHWISE_CONV_2D; weights of shape (1, height, width, channels * multiplier).

        The bias is zero unless given: the optimised kernels of TensorFlow Lite crash without.
        """
        w, b = self._parameters(x, weights, bias, per_channel, axis=3, always_bias=True)
        _, kh, kw, outputs = self.shape(w)
        y = self.tensor((*self._window(x, (kh, kw), stride, dilation, padding), outputs), scale=scale,
                        zero_point=zero_point)
        dilated = _pair(dilation) != (1, 1)
        return self.op("DEPTHWISE_CONV_2D", (x, w, b), (y,), "DepthwiseConv2DOptions",
                       version=max(self._version(3), 2 if dilated else 1),
                       depthMultiplier=outputs // self.shape(x)[-1],
                       fusedActivationFunction=self._activation(activation),
                       **self._strides(stride, padding, dilation))

    def transpose_conv(self, x: int, weights: int | Array, bias: int | Array | None = None, *, scale: float,
                       zero_point: int = 0, stride: Pair = 1, padding: str = "SAME", per_channel: bool = False) -> int:
        """Add TRANSPOSE_CONV; weights of shape (outputs, height, width, inputs)."""
        w, b = self._parameters(x, weights, bias, per_channel)
        outputs, kh, kw, _ = self.shape(w)
        n, h, width, _ = self.shape(x)
        sh, sw = _pair(stride)
        same = padding == "SAME"
        shape = (n, h * sh if same else (h - 1) * sh + kh, width * sw if same else (width - 1) * sw + kw, outputs)
        y = self.tensor(shape, scale=scale, zero_point=zero_point)
        return self.op("TRANSPOSE_CONV", _present(self._numbers(shape), w, x, b), (y,), "TransposeConvOptions",
                       version=3 if b >= 0 else self._version(2), **self._strides(stride, padding))

    def pool(self, name: str, x: int, size: Pair, *, stride: Pair | None = None, padding: str = "VALID",
             activation: str = "NONE") -> int:
        """Add AVERAGE_POOL_2D or MAX_POOL_2D; the stride is the size unless given."""
        stride = size if stride is None else stride
        y = self._like((*self._window(x, size, stride, 1, padding), self.shape(x)[-1]), x)
        height, width = _pair(size)
        return self.op(name, (x,), (y,), "Pool2DOptions", version=self._version(2), filterWidth=width,
                       filterHeight=height, fusedActivationFunction=self._activation(activation),
                       **self._strides(stride, padding))

    def average_pool(self, x: int, size: Pair, *, stride: Pair | None = None, padding: str = "VALID",
                     activation: str = "NONE") -> int:
        """Add AVERAGE_POOL_2D."""
        return self.pool("AVERAGE_POOL_2D", x, size, stride=stride, padding=padding, activation=activation)

    def max_pool(self, x: int, size: Pair, *, stride: Pair | None = None, padding: str = "VALID",
                 activation: str = "NONE") -> int:
        """Add MAX_POOL_2D."""
        return self.pool("MAX_POOL_2D", x, size, stride=stride, padding=padding, activation=activation)

    def unidirectional_sequence_lstm(self, x: int, weights: Array, recurrent: Array, bias: Array, *, scale: float,
                                     zero_point: int = 0) -> int:
        """Add UNIDIRECTIONAL_SEQUENCE_LSTM of int8 with a 16-bit cell, without peepholes and projection.

        Parameters
        ----------
        weights, recurrent, bias:
            float, shapes (4, units, inputs), (4, units, units), (4, units): gates in the order input, forget,
            cell, output.
        """
        n, steps, _ = self.shape(x)
        units = bias.shape[1]
        hidden = self.tensor((n, units), scale=scale, zero_point=zero_point, variable=True)
        cell = self.tensor((n, units), scale=2**-12, type=TensorType.INT16, variable=True)
        gates = [self.quantized_weights(w) for w in weights]
        biases = [self.bias(b, x, w) for b, w in zip(bias, gates, strict=True)]
        y = self.tensor((n, steps, units), scale=scale, zero_point=zero_point)
        inner = (*(self.tensor((0,), type=TensorType.FLOAT32) for _ in range(4)),
                 self.tensor((0,), scale=scale, zero_point=zero_point))
        operands = (x, *gates, *(self.quantized_weights(w) for w in recurrent), *_NONE * 3, *biases, *_NONE * 2, hidden,
                    cell, *_NONE * 4)
        self.op("UNIDIRECTIONAL_SEQUENCE_LSTM", operands, (y,), "UnidirectionalSequenceLSTMOptions",
                fusedActivationFunction=self._activation("TANH"), cellClip=8.0)
        self.operators[-1] = replace(self.operators[-1], intermediates=inner)
        return y

    # -- element by element -------------------------------------------------------------------

    def binary(self, name: str, a: int, b: int, *, scale: float, zero_point: int = 0, activation: str = "NONE") -> int:
        """Add ADD, SUB or MUL."""
        y = self.tensor(np.broadcast_shapes(self.shape(a), self.shape(b)), scale=scale, zero_point=zero_point)
        return self.op(name, (a, b), (y,), f"{name.capitalize()}Options", version=self._version(2),
                       fusedActivationFunction=self._activation(activation))

    def add(self, a: int, b: int, *, scale: float, zero_point: int = 0, activation: str = "NONE") -> int:
        """Add ADD."""
        return self.binary("ADD", a, b, scale=scale, zero_point=zero_point, activation=activation)

    def sub(self, a: int, b: int, *, scale: float, zero_point: int = 0, activation: str = "NONE") -> int:
        """Add SUB."""
        return self.binary("SUB", a, b, scale=scale, zero_point=zero_point, activation=activation)

    def mul(self, a: int, b: int, *, scale: float, zero_point: int = 0, activation: str = "NONE") -> int:
        """Add MUL."""
        return self.binary("MUL", a, b, scale=scale, zero_point=zero_point, activation=activation)

    def maximum(self, a: int, b: int) -> int:
        """Add MAXIMUM of tensors of equal quantization."""
        return self._extremum("MAXIMUM", a, b)

    def minimum(self, a: int, b: int) -> int:
        """Add MINIMUM of tensors of equal quantization."""
        return self._extremum("MINIMUM", a, b)

    def relu(self, x: int, *, scale: float | None = None, zero_point: int | None = None) -> int:
        """Add RELU."""
        return self.unary("RELU", x, scale=scale, zero_point=zero_point)

    def relu6(self, x: int, *, scale: float | None = None, zero_point: int | None = None) -> int:
        """Add RELU6."""
        return self.unary("RELU6", x, scale=scale, zero_point=zero_point)

    def relu_n1_to_1(self, x: int, *, scale: float | None = None, zero_point: int | None = None) -> int:
        """Add RELU_N1_TO_1; TensorFlow Lite registers it as version 1 for all types."""
        return self.op("RELU_N1_TO_1", (x,), (self._like(self.shape(x), x, scale, zero_point),))

    def leaky_relu(self, x: int, *, alpha: float, scale: float | None = None, zero_point: int | None = None) -> int:
        """Add LEAKY_RELU."""
        return self.unary("LEAKY_RELU", x, scale=scale, zero_point=zero_point, options="LeakyReluOptions", alpha=alpha)

    def prelu(self, x: int, alpha: int | Array, *, scale: float | None = None, zero_point: int | None = None) -> int:
        """Add PRELU; float `alpha` (broadcast to the input) is quantized."""
        slope = alpha if isinstance(alpha, int) else self.quantized_weights(alpha)
        return self.op("PRELU", (x, slope), (self._like(self.shape(x), x, scale, zero_point),))

    def logistic(self, x: int) -> int:
        """Add LOGISTIC."""
        return self.unary("LOGISTIC", x, scale=1 / 256, zero_point=self.limits[0])

    def tanh(self, x: int) -> int:
        """Add TANH."""
        return self.unary("TANH", x, scale=1 / 128, zero_point=sum(self.limits, 1) // 2)

    def softmax(self, x: int, *, beta: float = 1.0) -> int:
        """Add SOFTMAX."""
        return self.unary("SOFTMAX", x, scale=1 / 256, zero_point=self.limits[0], options="SoftmaxOptions", beta=beta)

    def l2_normalization(self, x: int) -> int:
        """Add L2_NORMALIZATION."""
        return self.unary("L2_NORMALIZATION", x, scale=1 / 128, zero_point=sum(self.limits, 1) // 2,
                          options="L2NormOptions", fusedActivationFunction=self._activation("NONE"))

    def squared_difference(self, a: int, b: int, *, scale: float, zero_point: int = 0) -> int:
        """Add SQUARED_DIFFERENCE; TensorFlow Lite has int8 kernels only."""
        y = self.tensor(np.broadcast_shapes(self.shape(a), self.shape(b)), scale=scale, zero_point=zero_point)
        return self.op("SQUARED_DIFFERENCE", (a, b), (y,), "SquaredDifferenceOptions", version=self._version(2))

    def quantize(self, x: int, *, type: TensorType, scale: float, zero_point: int = 0) -> int:
        """Add QUANTIZE."""
        y = self.tensor(self.shape(x), scale=scale, zero_point=zero_point, type=type)
        return self.op("QUANTIZE", (x,), (y,), "QuantizeOptions")

    def dequantize(self, x: int) -> int:
        """Add DEQUANTIZE to float32."""
        y = self.tensor(self.shape(x), type=TensorType.FLOAT32)
        return self.op("DEQUANTIZE", (x,), (y,), "DequantizeOptions", version=self._version(2))

    def cast(self, x: int, type: TensorType) -> int:
        """Add CAST."""
        y = self.tensor(self.shape(x), type=type)
        return self.op("CAST", (x,), (y,), "CastOptions", inDataType=int(self.tensors[x].type), outDataType=int(type))

    # -- along axes ---------------------------------------------------------------------------

    def mean(self, x: int, axes: Sequence[int], *, keep_dims: bool = True, scale: float | None = None,
             zero_point: int | None = None) -> int:
        """Add MEAN."""
        return self._reduce("MEAN", x, axes, keep_dims, scale, zero_point)

    def sum(self, x: int, axes: Sequence[int], *, scale: float, zero_point: int = 0, keep_dims: bool = True) -> int:
        """Add SUM."""
        return self._reduce("SUM", x, axes, keep_dims, scale, zero_point)

    def reduce_max(self, x: int, axes: Sequence[int], *, keep_dims: bool = True) -> int:
        """Add REDUCE_MAX."""
        return self._reduce("REDUCE_MAX", x, axes, keep_dims, None, None)

    def reduce_min(self, x: int, axes: Sequence[int], *, keep_dims: bool = True) -> int:
        """Add REDUCE_MIN."""
        return self._reduce("REDUCE_MIN", x, axes, keep_dims, None, None)

    def arg_max(self, x: int, *, axis: int = -1) -> int:
        """Add ARG_MAX with int32 indices."""
        shape = list(self.shape(x))
        del shape[axis]
        y = self.tensor(shape, type=TensorType.INT32)
        return self.op("ARG_MAX", (x, self._numbers(axis)), (y,), "ArgMaxOptions", version=self._version(2),
                       outputType=int(TensorType.INT32))

    def concatenation(self, xs: Sequence[int], *, axis: int = -1, scale: float | None = None,
                      zero_point: int | None = None) -> int:
        """Add CONCATENATION; int8 tensors must have equal quantization."""
        shape = list(self.shape(xs[0]))
        shape[axis] = sum(self.shape(x)[axis] for x in xs)
        y = self._like(shape, xs[0], scale, zero_point)
        return self.op("CONCATENATION", xs, (y,), "ConcatenationOptions", version=self._version(2), axis=axis,
                       fusedActivationFunction=self._activation("NONE"))

    def split(self, x: int, count: int, *, axis: int = -1) -> tuple[int, ...]:
        """Add SPLIT into equal parts; returns all of them."""
        shape = list(self.shape(x))
        shape[axis] //= count
        outputs = tuple(self._like(shape, x) for _ in range(count))
        self.op("SPLIT", (self._numbers(axis), x), outputs, "SplitOptions", version=self._version(2), numSplits=count)
        return outputs

    def split_v(self, x: int, sizes: Sequence[int], *, axis: int = -1) -> tuple[int, ...]:
        """Add SPLIT_V into parts of the given sizes; returns all of them."""
        shape = list(self.shape(x))
        outputs = []
        for size in sizes:
            shape[axis] = size
            outputs.append(self._like(shape, x))
        self.op("SPLIT_V", (x, self._numbers(sizes), self._numbers(axis)), outputs, "SplitVOptions",
                version=self._version(2), numSplits=len(sizes))
        return tuple(outputs)

    def unpack(self, x: int, *, axis: int = 0) -> tuple[int, ...]:
        """Add UNPACK: slices along an axis that goes away; returns all of them."""
        shape = list(self.shape(x))
        count = shape.pop(axis)
        outputs = tuple(self._like(shape, x) for _ in range(count))
        self.op("UNPACK", (x,), outputs, "UnpackOptions", version=self._version(2), num=count, axis=axis)
        return outputs

    def pack(self, xs: Sequence[int], *, axis: int = 0) -> int:
        """Add PACK: stack along a new axis."""
        shape = list(self.shape(xs[0]))
        shape.insert(axis if axis >= 0 else axis + len(shape) + 1, len(xs))
        return self.op("PACK", xs, (self._like(shape, xs[0]),), "PackOptions", version=self._version(2),
                       valuesCount=len(xs), axis=axis)

    # -- shape and place ----------------------------------------------------------------------

    def reshape(self, x: int, shape: Sequence[int]) -> int:
        """Add RESHAPE."""
        return self.op("RESHAPE", (x, self._numbers(shape)), (self._like(shape, x),), "ReshapeOptions",
                       newShape=np.asarray(shape, np.int32))

    def squeeze(self, x: int, axes: Sequence[int] = ()) -> int:
        """Add SQUEEZE of the given axes, of all of size one when none is given."""
        dropped = _positive(axes, len(self.shape(x)))
        shape = [d for i, d in enumerate(self.shape(x)) if (i not in dropped if dropped else d != 1)]
        return self.op("SQUEEZE", (x,), (self._like(shape, x),), "SqueezeOptions",
                       squeezeDims=np.asarray(axes, np.int32))

    def expand_dims(self, x: int, axis: int) -> int:
        """Add EXPAND_DIMS."""
        shape = list(self.shape(x))
        shape.insert(axis if axis >= 0 else axis + len(shape) + 1, 1)
        return self.op("EXPAND_DIMS", (x, self._numbers(axis)), (self._like(shape, x),), "ExpandDimsOptions")

    def transpose(self, x: int, permutation: Sequence[int]) -> int:
        """Add TRANSPOSE."""
        shape = [self.shape(x)[i] for i in permutation]
        return self.op("TRANSPOSE", (x, self._numbers(permutation)), (self._like(shape, x),), "TransposeOptions",
                       version=self._version(2))

    def slice(self, x: int, begin: Sequence[int], size: Sequence[int]) -> int:
        """Add SLICE."""
        y = self._like(size, x)
        return self.op("SLICE", (x, self._numbers(begin), self._numbers(size)), (y,), "SliceOptions",
                       version=self._version(2))

    def strided_slice(self, x: int, begin: Sequence[int], end: Sequence[int], strides: Sequence[int] | None = None, *,
                      begin_mask: int = 0, end_mask: int = 0, shrink_mask: int = 0) -> int:
        """Add STRIDED_SLICE; masks have one bit per dimension."""
        strides = [1] * len(begin) if strides is None else strides
        shape = []
        for i, extent in enumerate(self.shape(x)):
            window = slice(None if begin_mask >> i & 1 else begin[i], None if end_mask >> i & 1 else end[i], strides[i])
            if not shrink_mask >> i & 1:
                shape.append(len(range(*window.indices(extent))))
        operands = [self._numbers(v) for v in (begin, end, strides)]
        return self.op("STRIDED_SLICE", (x, *operands), (self._like(shape, x),), "StridedSliceOptions",
                       version=self._version(2), beginMask=begin_mask, endMask=end_mask, shrinkAxisMask=shrink_mask)

    def pad(self, x: int, pads: Sequence[Sequence[int]]) -> int:
        """Add PAD; pads of shape (rank, 2)."""
        return self.op("PAD", (x, self._numbers(pads)), (self._padded(x, pads),), "PadOptions", version=self._version(2))

    def padv2(self, x: int, pads: Sequence[Sequence[int]], value: int) -> int:
        """Add PADV2 with a quantized value."""
        q = self.quantization(x)
        constant = self.constant(np.asarray([value]), scale=q.scale, zero_point=q.zero_point)
        return self.op("PADV2", (x, self._numbers(pads), constant), (self._padded(x, pads),), "PadV2Options",
                       version=self._version(2))

    def mirror_pad(self, x: int, pads: Sequence[Sequence[int]], *, symmetric: bool = False) -> int:
        """Add MIRROR_PAD; ``symmetric`` repeats the edge."""
        return self.op("MIRROR_PAD", (x, self._numbers(pads)), (self._padded(x, pads),), "MirrorPadOptions",
                       version=self._version(2), mode=int(symmetric))

    def tile(self, x: int, multiples: Sequence[int]) -> int:
        """Add TILE."""
        y = self._like([d * m for d, m in zip(self.shape(x), multiples, strict=True)], x)
        return self.op("TILE", (x, self._numbers(multiples)), (y,), "TileOptions")

    def space_to_batch(self, x: int, block: Sequence[int], pads: Sequence[Sequence[int]]) -> int:
        """Add SPACE_TO_BATCH_ND; pads of shape (2, 2)."""
        n, *extents, c = self.shape(x)
        shape = [(e + sum(p)) // k for e, p, k in zip(extents, pads, block, strict=True)]
        y = self._like((n * int(np.prod(block)), *shape, c), x)
        return self.op("SPACE_TO_BATCH_ND", (x, self._numbers(block), self._numbers(pads)), (y,),
                       "SpaceToBatchNDOptions", version=self._version(2))

    def batch_to_space(self, x: int, block: Sequence[int], crops: Sequence[Sequence[int]]) -> int:
        """Add BATCH_TO_SPACE_ND; crops of shape (2, 2)."""
        n, *extents, c = self.shape(x)
        shape = [e * k - sum(p) for e, p, k in zip(extents, crops, block, strict=True)]
        y = self._like((n // int(np.prod(block)), *shape, c), x)
        return self.op("BATCH_TO_SPACE_ND", (x, self._numbers(block), self._numbers(crops)), (y,),
                       "BatchToSpaceNDOptions", version=self._version(2))

    def space_to_depth(self, x: int, block: int) -> int:
        """Add SPACE_TO_DEPTH."""
        n, h, w, c = self.shape(x)
        y = self._like((n, h // block, w // block, c * block * block), x)
        return self.op("SPACE_TO_DEPTH", (x,), (y,), "SpaceToDepthOptions", version=self._version(2), blockSize=block)

    def depth_to_space(self, x: int, block: int) -> int:
        """Add DEPTH_TO_SPACE."""
        n, h, w, c = self.shape(x)
        y = self._like((n, h * block, w * block, c // (block * block)), x)
        # The reference kernels are registered for version 1 only; they take int8 all the same.
        return self.op("DEPTH_TO_SPACE", (x,), (y,), "DepthToSpaceOptions", blockSize=block)

    def resize(self, name: str, x: int, height: int, width: int, *, align_corners: bool = False,
               half_pixel_centers: bool = False) -> int:
        """Add RESIZE_BILINEAR or RESIZE_NEAREST_NEIGHBOR."""
        n, _, _, c = self.shape(x)
        options = "ResizeBilinearOptions" if name == "RESIZE_BILINEAR" else "ResizeNearestNeighborOptions"
        version = 3 if align_corners or half_pixel_centers else self._version(2)
        return self.op(name, (x, self._numbers((height, width))), (self._like((n, height, width, c), x),), options,
                       version=version, alignCorners=align_corners, halfPixelCenters=half_pixel_centers)

    def resize_bilinear(self, x: int, height: int, width: int, *, align_corners: bool = False,
                        half_pixel_centers: bool = False) -> int:
        """Add RESIZE_BILINEAR."""
        return self.resize("RESIZE_BILINEAR", x, height, width, align_corners=align_corners,
                           half_pixel_centers=half_pixel_centers)

    def resize_nearest(self, x: int, height: int, width: int, *, align_corners: bool = False,
                       half_pixel_centers: bool = False) -> int:
        """Add RESIZE_NEAREST_NEIGHBOR."""
        return self.resize("RESIZE_NEAREST_NEIGHBOR", x, height, width, align_corners=align_corners,
                           half_pixel_centers=half_pixel_centers)

    # -- result -------------------------------------------------------------------------------

    def build(self, outputs: int | Sequence[int], *, description: str = "etpu") -> Model:
        """Return the model; ``outputs`` are the graph outputs."""
        self.outputs = [outputs] if isinstance(outputs, int) else list(outputs)
        graph = Graph(self.name, tuple(self.tensors), tuple(self.operators), tuple(self.inputs), tuple(self.outputs))
        return Model((graph,), description)

    # -- helpers ------------------------------------------------------------------------------

    def _like(self, shape: Sequence[int], x: int, scale: float | None = None, zero_point: int | None = None) -> int:
        """Add a tensor of the type of another, and of its quantization as far as none is given."""
        source = self.tensors[x]
        if source.quantization is None and scale is None:
            return self.tensor(shape, type=source.type)
        return self.tensor(shape, type=source.type,
                           scale=self.quantization(x).scale if scale is None else scale,
                           zero_point=self.quantization(x).zero_point if zero_point is None else zero_point)

    def _padded(self, x: int, pads: Sequence[Sequence[int]]) -> int:
        return self._like([d + before + after for d, (before, after) in zip(self.shape(x), pads, strict=True)], x)

    def _numbers(self, values: Any) -> int:
        return self.constant(np.asarray(values, np.int32), type=TensorType.INT32)

    def _parameters(self, x: int, weights: int | Array, bias: int | Array | None, per_channel: bool,
                    axis: int = 0, always_bias: bool = False) -> tuple[int, int]:
        w = weights if isinstance(weights, int) else self.quantized_weights(weights, per_channel=per_channel, axis=axis)
        if bias is None:
            return w, self.bias(np.zeros(self.shape(w)[axis]), x, w) if always_bias else -1
        return w, bias if isinstance(bias, int) else self.bias(bias, x, w)

    def _reduce(self, name: str, x: int, axes: Sequence[int], keep_dims: bool, scale: float | None,
                zero_point: int | None) -> int:
        shape, gone = self.shape(x), _positive(axes, len(self.shape(x)))
        kept = [1 if i in gone else d for i, d in enumerate(shape) if keep_dims or i not in gone]
        y = self._like(kept, x, scale, zero_point)
        return self.op(name, (x, self._numbers(list(axes))), (y,), "ReducerOptions", version=self._version(2),
                       keepDims=keep_dims)

    def _extremum(self, name: str, a: int, b: int) -> int:
        y = self._like(np.broadcast_shapes(self.shape(a), self.shape(b)), a)
        return self.op(name, (a, b), (y,), "MaximumMinimumOptions", version=self._version(2))

    def _version(self, int8: int) -> int:
        """Return the operator version that first took int8; uint8 came with version 1."""
        return 1 if self.type is TensorType.UINT8 else int8

    def _activation(self, name: str) -> int:
        value: int = getattr(self._schema.ActivationFunctionType, name)
        return value

    def _strides(self, stride: Pair, padding: str, dilation: Pair | None = None) -> dict[str, int]:
        height, width = _pair(stride)
        fields = {"padding": getattr(self._schema.Padding, padding), "strideH": height, "strideW": width}
        if dilation is not None:
            fields["dilationHFactor"], fields["dilationWFactor"] = _pair(dilation)
        return fields

    def _window(self, x: int, size: Pair, stride: Pair, dilation: Pair, padding: str) -> tuple[int, int, int]:
        """Return batch, height and width after a window slid over the input."""
        n, *extents = self.shape(x)[:3]
        result = []
        for extent, k, s, d in zip(extents, _pair(size), _pair(stride), _pair(dilation), strict=True):
            covered = extent if padding == "SAME" else extent - (k - 1) * d
            result.append(-(-covered // s))
        return n, result[0], result[1]


def _pair(value: Pair) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else value


def _positive(axes: Sequence[int], rank: int) -> set[int]:
    return {axis % rank for axis in axes}


def _present(*operands: int) -> tuple[int, ...]:
    return tuple(operand for operand in operands if operand >= 0)


def _bytes_of(data: Array, kind: TensorType) -> npt.NDArray[np.uint8]:
    dtype = kind.numpy
    if dtype is not None and dtype.kind in "iu":
        wide = data.astype(np.float64 if data.dtype.kind == "f" else np.int64)
        data = np.clip(wide, np.iinfo(dtype).min, np.iinfo(dtype).max)
    return np.frombuffer(np.ascontiguousarray(data, dtype).tobytes(), np.uint8)
