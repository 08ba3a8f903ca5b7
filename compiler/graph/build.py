"""Write quantized models: for examples and for tests on networks that nobody has compiled before."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from compiler.graph.model import Graph, Model, Operator, Quantization, Tensor, TensorType

_INTEGERS = {TensorType.INT8: (-128, 127), TensorType.UINT8: (0, 255), TensorType.INT16: (-32768, 32767)}
Array = npt.NDArray[Any]


class GraphBuilder:
    """Builds one graph operator by operator; tensors are referred to by index.

    Parameters
    ----------
    type:
        Type of activations and weights: INT8 or UINT8.
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
               data: Array | None = None, axis: int = 0) -> int:
        """Add a tensor; returns its index."""
        kind = self.type if type is None else type
        quantization = None
        if scale is not None:
            scales = np.atleast_1d(np.asarray(scale, np.float32))
            points = np.broadcast_to(np.asarray(zero_point, np.int64), scales.shape).copy()
            quantization = Quantization(scales, points, axis)
        blob = None
        if data is not None:
            blob = np.frombuffer(np.ascontiguousarray(data, kind.numpy).tobytes(), np.uint8)
        index = len(self.tensors)
        self.tensors.append(Tensor(index, name or f"tensor_{index}", tuple(int(d) for d in shape), kind, quantization,
                                   blob))
        return index

    def add_input(self, shape: Sequence[int], *, scale: float, zero_point: int = 0, name: str = "input",
                  type: TensorType | None = None) -> int:
        """Add a graph input."""
        index = self.tensor(shape, scale=scale, zero_point=zero_point, name=name, type=type)
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
            low, high = min(float(weights.min()), 0.0), max(float(weights.max()), 0.0)
            scale = max(high - low, 1e-6) / 255
            point = round(-low / scale)
            data = np.clip(np.rint(weights / scale) + point, 0, 255)
            return self.constant(data, scale=scale, zero_point=point, name=name)
        others = tuple(i for i in range(weights.ndim) if i != axis) if per_channel else None
        top = np.maximum(np.abs(weights).max(axis=others, keepdims=True), 1e-6)
        data = np.clip(np.rint(weights / (top / 127)), -127, 127)
        return self.tensor(weights.shape, scale=np.ravel(top / 127).tolist(), data=data, axis=axis, name=name)

    def bias(self, values: npt.NDArray[np.floating[Any]], x: int, weights: int, name: str | None = None) -> int:
        """Add a float bias as int32 with scale input scale times weight scale."""
        scales = self.quantization(x).scales * self.quantization(weights).scales
        data = np.rint(values / scales).astype(np.int64)
        return self.tensor(values.shape, scale=scales.tolist(), type=TensorType.INT32,
                           data=np.clip(data, -2**31, 2**31 - 1), name=name)

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

    # -- operators ----------------------------------------------------------------------------

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

    def _like(self, shape: Sequence[int], x: int, scale: float | None, zero_point: int | None) -> int:
        q = self.quantization(x)
        return self.tensor(shape, scale=q.scale if scale is None else scale,
                           zero_point=q.zero_point if zero_point is None else zero_point, type=self.tensors[x].type)

    def _activation(self, name: str) -> int:
        value: int = getattr(self._schema.ActivationFunctionType, name)
        return value

    def fully_connected(self, x: int, weights: int, bias: int | None = None, *, scale: float, zero_point: int = 0,
                        activation: str = "NONE") -> int:
        """Add FULLY_CONNECTED; weights of shape (outputs, inputs)."""
        y = self.tensor((1, self.tensors[weights].shape[0]), scale=scale, zero_point=zero_point)
        return self.op("FULLY_CONNECTED", (x, weights, -1 if bias is None else bias), (y,), "FullyConnectedOptions",
                       version=4, fusedActivationFunction=self._activation(activation))

    def conv2d(self, x: int, weights: int, bias: int | None = None, *, scale: float, zero_point: int = 0,
               stride: int = 1, dilation: int = 1, padding: str = "SAME", activation: str = "NONE") -> int:
        """Add CONV_2D; weights of shape (outputs, height, width, inputs)."""
        o, kh, kw, _ = self.tensors[weights].shape
        y = self.tensor((1, *self._window(x, kh, kw, stride, dilation, padding), o), scale=scale, zero_point=zero_point)
        inputs = (x, weights) if bias is None else (x, weights, bias)
        return self.op("CONV_2D", inputs, (y,), "Conv2DOptions", version=3, padding=self._padding(padding),
                       strideW=stride, strideH=stride, dilationWFactor=dilation, dilationHFactor=dilation,
                       fusedActivationFunction=self._activation(activation))

    def depthwise_conv2d(self, x: int, weights: int, bias: int | None = None, *, scale: float, zero_point: int = 0,
                         stride: int = 1, dilation: int = 1, padding: str = "SAME", activation: str = "NONE") -> int:
        """Add DEPTHWISE_CONV_2D; weights of shape (1, height, width, channels * multiplier)."""
        _, kh, kw, o = self.tensors[weights].shape
        y = self.tensor((1, *self._window(x, kh, kw, stride, dilation, padding), o), scale=scale, zero_point=zero_point)
        inputs = (x, weights) if bias is None else (x, weights, bias)
        return self.op("DEPTHWISE_CONV_2D", inputs, (y,), "DepthwiseConv2DOptions", version=3,
                       padding=self._padding(padding), strideW=stride, strideH=stride, dilationWFactor=dilation,
                       dilationHFactor=dilation, depthMultiplier=o // self.tensors[x].shape[-1],
                       fusedActivationFunction=self._activation(activation))

    def _padding(self, name: str) -> int:
        value: int = getattr(self._schema.Padding, name)
        return value

    def _window(self, x: int, kh: int, kw: int, stride: int, dilation: int, padding: str) -> tuple[int, int]:
        _, h, w, _ = self.tensors[x].shape
        if padding == "SAME":
            return -(-h // stride), -(-w // stride)
        return (h - (kh - 1) * dilation - 1) // stride + 1, (w - (kw - 1) * dilation - 1) // stride + 1

    def binary(self, name: str, a: int, b: int, *, scale: float, zero_point: int = 0, activation: str = "NONE") -> int:
        """Add ADD, SUB or MUL."""
        shape = np.broadcast_shapes(self.tensors[a].shape, self.tensors[b].shape)
        y = self.tensor(shape, scale=scale, zero_point=zero_point)
        return self.op(name, (a, b), (y,), f"{name.capitalize()}Options", version=2,
                       fusedActivationFunction=self._activation(activation))

    def pool(self, name: str, x: int, size: int, *, stride: int | None = None, padding: str = "VALID") -> int:
        """Add AVERAGE_POOL_2D or MAX_POOL_2D."""
        stride = size if stride is None else stride
        y = self._like((1, *self._window(x, size, size, stride, 1, padding), self.tensors[x].shape[-1]), x, None, None)
        return self.op(name, (x,), (y,), "Pool2DOptions", version=2, padding=self._padding(padding), strideW=stride,
                       strideH=stride, filterWidth=size, filterHeight=size,
                       fusedActivationFunction=self._activation("NONE"))

    def softmax(self, x: int, *, beta: float = 1.0) -> int:
        """Add SOFTMAX with the output quantization that TensorFlow Lite demands."""
        y = self._like(self.tensors[x].shape, x, 1 / 256, -128 if self.type is TensorType.INT8 else 0)
        return self.op("SOFTMAX", (x,), (y,), "SoftmaxOptions", version=2, beta=beta)

    def logistic(self, x: int) -> int:
        """Add LOGISTIC."""
        y = self._like(self.tensors[x].shape, x, 1 / 256, -128 if self.type is TensorType.INT8 else 0)
        return self.op("LOGISTIC", (x,), (y,), version=2)

    def unary(self, name: str, x: int, *, scale: float | None = None, zero_point: int | None = None,
              options: str | None = None, **fields: Any) -> int:
        """Add an operator that keeps the shape: RELU, RELU6, TANH, L2_NORMALIZATION, LEAKY_RELU, ..."""
        y = self._like(self.tensors[x].shape, x, scale, zero_point)
        return self.op(name, (x,), (y,), options, version=2, **fields)

    def reshape(self, x: int, shape: Sequence[int]) -> int:
        """Add RESHAPE."""
        y = self._like(shape, x, None, None)
        target = self.constant(np.asarray(shape, np.int32), type=TensorType.INT32)
        return self.op("RESHAPE", (x, target), (y,), "ReshapeOptions", newShape=np.asarray(shape, np.int32))

    def quantize(self, x: int, *, type: TensorType, scale: float, zero_point: int = 0) -> int:
        """Add QUANTIZE."""
        y = self.tensor(self.tensors[x].shape, scale=scale, zero_point=zero_point, type=type)
        return self.op("QUANTIZE", (x,), (y,), "QuantizeOptions")

    def dequantize(self, x: int) -> int:
        """Add DEQUANTIZE to float32."""
        y = self.tensor(self.tensors[x].shape, type=TensorType.FLOAT32)
        return self.op("DEQUANTIZE", (x,), (y,), "DequantizeOptions", version=2)

    def concatenation(self, xs: Sequence[int], *, axis: int = -1) -> int:
        """Add CONCATENATION of tensors of equal quantization."""
        shapes = [self.tensors[x].shape for x in xs]
        shape = list(shapes[0])
        shape[axis] = sum(s[axis] for s in shapes)
        return self.op("CONCATENATION", xs, (self._like(shape, xs[0], None, None),), "ConcatenationOptions", version=2,
                       axis=axis, fusedActivationFunction=self._activation("NONE"))

    def mean(self, x: int, axes: Sequence[int], *, keep_dims: bool = True) -> int:
        """Add MEAN."""
        shape = self.tensors[x].shape
        kept = [1 if i in axes else d for i, d in enumerate(shape) if keep_dims or i not in axes]
        target = self.constant(np.asarray(axes, np.int32), type=TensorType.INT32)
        return self.op("MEAN", (x, target), (self._like(kept, x, None, None),), "ReducerOptions", version=2,
                       keepDims=keep_dims)

    def pad(self, x: int, pads: Sequence[Sequence[int]]) -> int:
        """Add PAD; pads of shape (rank, 2)."""
        shape = [d + int(before) + int(after) for d, (before, after) in
                 zip(self.tensors[x].shape, pads, strict=True)]
        amount = self.constant(np.asarray(pads, np.int32), type=TensorType.INT32)
        return self.op("PAD", (x, amount), (self._like(shape, x, None, None),), "PadOptions", version=2)

    def resize(self, name: str, x: int, height: int, width: int, *, align_corners: bool = False,
               half_pixel_centers: bool = False) -> int:
        """Add RESIZE_BILINEAR or RESIZE_NEAREST_NEIGHBOR."""
        n, _, _, c = self.tensors[x].shape
        size = self.constant(np.asarray([height, width], np.int32), type=TensorType.INT32)
        options = "ResizeBilinearOptions" if name == "RESIZE_BILINEAR" else "ResizeNearestNeighborOptions"
        return self.op(name, (x, size), (self._like((n, height, width, c), x, None, None),), options, version=2,
                       alignCorners=align_corners, halfPixelCenters=half_pixel_centers)

    def strided_slice(self, x: int, begin: Sequence[int], end: Sequence[int]) -> int:
        """Add STRIDED_SLICE with strides of one."""
        shape = [e - b for b, e in zip(begin, end, strict=True)]
        operands = [self.constant(np.asarray(v, np.int32), type=TensorType.INT32)
                    for v in (begin, end, [1] * len(shape))]
        return self.op("STRIDED_SLICE", (x, *operands), (self._like(shape, x, None, None),), "StridedSliceOptions",
                       version=2)

    # -- result ---------------------------------------------------------------------------------

    def build(self, outputs: int | Sequence[int], *, description: str = "etpu") -> Model:
        """Return the model; ``outputs`` are the graph outputs."""
        self.outputs = [outputs] if isinstance(outputs, int) else list(outputs)
        graph = Graph(self.name, tuple(self.tensors), tuple(self.operators), tuple(self.inputs), tuple(self.outputs))
        return Model((graph,), description)

    @property
    def limits(self) -> tuple[int, int]:
        """Least and greatest value of the activation type."""
        return _INTEGERS[self.type]
