"""Small quantized networks, and the check that what compiles computes the right values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from compiler.beagle.judge import try_executables
from compiler.beagle.reference import Generation as Arithmetic
from compiler.beagle.reference import evaluate
from compiler.beagle.simulator import Machine
from compiler.compile import CompiledModel, CompileOptions, compile_model
from compiler.generation import CURRENT, Generation
from compiler.graph import Model, Tensor, TensorType, parse_model, serialize_model
from compiler.graph.build import GraphBuilder
from compiler.memory.sharing import WHOLE, Sharing
from compiler.package import Package, decode_output, encode_input
from compiler.package.container import packages_of


class Net:
    """Builds small quantized networks with seeded random weights."""

    def __init__(self, shape: tuple[int, int, int], kind: TensorType = TensorType.INT8, *, per_channel: bool = True,
                 seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        self.per_channel = per_channel and kind is TensorType.INT8
        self.kind = kind
        self.b = GraphBuilder(type=kind)
        self.zero = -7 if kind is TensorType.INT8 else 121
        self.x = self.b.add_input((1, *shape), scale=0.05, zero_point=self.zero)

    def conv(self, outputs: int, kernel: tuple[int, int] | int = 3, *, stride: int = 1, padding: str = "SAME",
             activation: str = "RELU6", bias: bool = True, dilation: int = 1) -> Net:
        kh, kw = (kernel, kernel) if isinstance(kernel, int) else kernel
        channels = self.b.shape(self.x)[-1]
        w = self.b.quantized_weights(self.rng.normal(size=(outputs, kh, kw, channels)), per_channel=self.per_channel)
        bias_values = self.rng.normal(size=outputs) * (1 if bias else 0)
        self.x = self.b.conv2d(self.x, w, self.b.bias(bias_values, self.x, w), scale=0.05 * np.sqrt(kh * kw * channels),
                               zero_point=self.zero, stride=stride, padding=padding, activation=activation,
                               dilation=dilation)
        return self

    def depthwise(self, kernel: int = 3, *, multiplier: int = 1, stride: int = 1, padding: str = "SAME",
                  activation: str = "RELU") -> Net:
        channels = self.b.shape(self.x)[-1]
        w = self.b.quantized_weights(self.rng.normal(size=(1, kernel, kernel, channels * multiplier)), axis=3,
                                     per_channel=self.per_channel)
        bias = self.b.bias(self.rng.normal(size=channels * multiplier), self.x, w)
        self.x = self.b.depthwise_conv2d(self.x, w, bias, scale=0.05 * kernel, zero_point=self.zero, stride=stride,
                                         padding=padding, activation=activation)
        return self

    def pad(self, rows: tuple[int, int], columns: tuple[int, int]) -> Net:
        self.x = self.b.pad(self.x, ((0, 0), rows, columns, (0, 0)))
        return self

    def residual(self, activation: str = "NONE") -> Net:
        """Add two layers and what went in."""
        before = self.x
        self.depthwise().conv(self.b.shape(before)[-1], 1, activation="NONE")
        self.x = self.b.add(before, self.x, scale=0.07, zero_point=self.zero + 2, activation=activation)
        return self

    def binary(self, name: str, *, activation: str = "NONE", scale: float = 0.4, same: bool = False) -> Net:
        """Two layers on what there is, put together; or one with itself."""
        first = self.conv(self.b.shape(self.x)[-1], 1, activation="NONE").x
        second = first if same else self.depthwise(activation="NONE").x
        if name == "SQUARED_DIFFERENCE":
            self.x = self.b.squared_difference(first, second, scale=scale, zero_point=self.zero - 121)
        else:
            self.x = self.b.binary(name, first, second, scale=scale, zero_point=self.zero + 3, activation=activation)
        return self

    def spread(self, name: str, size: tuple[int, int] | None = None, *, channel: bool = False, first: bool = False) -> Net:
        """A layer and the maxima of its rows or columns, or one channel of them."""
        whole = self.conv(self.b.shape(self.x)[-1], 1, activation="NONE").x
        if size is not None:
            self.pool("MAX_POOL_2D", size, size)
        if channel:
            self.conv(1, 1, activation="NONE")
        operands = (self.x, whole) if first else (whole, self.x)
        self.x = self.b.binary(name, *operands, scale=0.5, zero_point=self.zero)
        return self

    def extremum(self, name: str, *, value: int | None = None) -> Net:
        """MAXIMUM or MINIMUM of what there is and a tenth of it, or of one value."""
        if value is None:
            tenth = self.b.constant(np.asarray([10], self.kind.numpy), scale=0.01)
            other = self.b.mul(self.x, tenth, scale=0.05, zero_point=self.zero)
        else:
            other = self.b.constant(np.asarray([value], self.kind.numpy), scale=0.05, zero_point=self.zero)
        self.x = (self.b.maximum if name == "MAXIMUM" else self.b.minimum)(self.x, other)
        return self

    def prelu(self, slopes: int, lowest: int = 0) -> Net:
        """PRELU with so many random slopes, from some hundredths on."""
        zero = 0 if self.kind is TensorType.INT8 else 128
        steps = self.rng.integers(lowest, max(lowest + 40, 127), slopes) + zero
        alpha = self.b.constant(steps.astype(self.kind.numpy), scale=0.01, zero_point=zero)
        self.x = self.b.prelu(self.x, alpha, scale=0.06, zero_point=self.zero + 9)
        return self

    def l2_normalization(self) -> Net:
        self.x = self.b.l2_normalization(self.x)
        return self

    def tanh(self) -> Net:
        self.x = self.b.tanh(self.x)
        return self

    def constant(self, name: str, values: int | None = None, *, first: bool = False, activation: str = "NONE",
                 channels: int | None = None) -> Net:
        """An operator on what there is and a constant, with random values per channel by default."""
        low = -128 if self.kind is TensorType.INT8 else 0
        channels = channels or self.b.shape(self.x)[-1]
        numbers = self.rng.integers(low, low + 256, channels) if values is None else [low + values]
        c = self.b.constant(np.asarray(numbers).astype(self.kind.numpy), scale=0.01, zero_point=low + 133)
        operands = (c, self.x) if first else (self.x, c)
        self.x = self.b.binary(name, *operands, scale=0.3, zero_point=self.zero, activation=activation)
        return self

    def pool(self, kind: str, size: int | tuple[int, int], stride: int | tuple[int, int], padding: str = "VALID") -> Net:
        self.x = self.b.pool(kind, self.x, size, stride=stride, padding=padding)
        return self

    def pool_all(self, kind: str = "AVERAGE_POOL_2D") -> Net:
        self.x = self.b.pool(kind, self.x, self.b.shape(self.x)[1:3], stride=(2, 2), padding="VALID")
        return self

    def mean(self, keep: bool = True) -> Net:
        self.x = self.b.mean(self.x, (1, 2), keep_dims=keep)
        return self

    def reduce(self, name: str, *axes: int, keep: bool = True) -> Net:
        """MEAN, SUM, REDUCE_MAX or REDUCE_MIN."""
        build = {"MEAN": self.b.mean, "REDUCE_MAX": self.b.reduce_max, "REDUCE_MIN": self.b.reduce_min}
        scale = {} if name in build else {"scale": 2.5, "zero_point": self.zero}
        self.x = build.get(name, self.b.sum)(self.x, axes, keep_dims=keep, **scale)
        return self

    def layer_normalization(self) -> Net:
        """A layer minus the mean of its channels, over the root of their variance."""
        x, small = self.conv(self.b.shape(self.x)[-1], 1, activation="NONE").x, self.zero - 121
        mean = self.b.mean(x, (3,))
        variance = self.b.mean(self.b.squared_difference(x, mean, scale=0.3, zero_point=small), (3,))
        epsilon = self.b.constant(np.asarray([3], self.kind.numpy), scale=0.01)
        self.x = self.b.add(variance, epsilon, scale=0.3, zero_point=small)
        centred = self.b.sub(x, mean, scale=0.2, zero_point=self.zero)
        self.x = self.b.mul(centred, self.unary("RSQRT", 0.02).x, scale=0.1, zero_point=self.zero)
        return self

    def dense(self, outputs: int, activation: str = "NONE") -> Net:
        """FULLY_CONNECTED, behind images of all their pixels."""
        inputs = int(np.prod(self.b.shape(self.x)))
        flat = self.x if len(self.b.shape(self.x)) == 2 else self.b.reshape(self.x, (1, inputs))
        w = self.b.quantized_weights(self.rng.normal(size=(outputs, inputs)), per_channel=self.per_channel)
        self.x = self.b.fully_connected(flat, w, self.b.bias(self.rng.normal(size=outputs), flat, w),
                                        scale=0.05 * float(np.sqrt(inputs)), zero_point=self.zero, activation=activation)
        return self

    def dense_per_pixel(self, outputs: int, keep: bool = True, activation: str = "NONE") -> Net:
        """FULLY_CONNECTED of every pixel, as an image or as rows."""
        inputs = self.b.shape(self.x)[-1]
        w = self.b.quantized_weights(self.rng.normal(size=(outputs, inputs)), per_channel=False)
        bias = self.b.bias(self.rng.normal(size=outputs), self.x, w)
        self.x = self.b.fully_connected(self.x, w, bias, scale=0.05 * float(np.sqrt(inputs)), zero_point=self.zero,
                                        activation=activation, keep_dims=keep)
        return self

    def products(self, size: int) -> Net:
        """Every pixel times the pixels that a pool of a size leaves: weights that are computed."""
        channels, before = self.b.shape(self.x)[-1], self.x
        pooled = self.pool("MAX_POOL_2D", size, size).x
        weights = self.b.reshape(pooled, (int(np.prod(self.b.shape(pooled)[1:3])), channels))
        self.x = self.b.fully_connected(before, weights, scale=0.05 * float(np.sqrt(channels)), zero_point=self.zero,
                                        keep_dims=True)
        return self

    def reshape(self, *shape: int) -> Net:
        self.x = self.b.reshape(self.x, shape)
        return self

    def inception(self) -> Net:
        """Three branches, joined."""
        before = self.x
        first = self.conv(12, 1).x
        self.x = before
        second = self.conv(8, 3).conv(16, (3, 1)).x
        self.x = before
        third = self.depthwise().conv(7, 1).x
        self.x = self.b.concatenation([first, second, third], scale=0.9, zero_point=self.zero + 1)
        return self

    def joined(self, axis: int) -> Net:
        """Two layers on what there is, joined along rows, columns or channels."""
        before = self.x
        parts = [self.depthwise().x, self.at(before).conv(self.b.shape(before)[-1], 1).x]
        self.x = self.b.concatenation(parts, axis=axis, scale=0.5, zero_point=self.zero + 1)
        return self

    def cut(self, first: tuple[int, int], size: tuple[int, int]) -> Net:
        """Rows and columns from some on."""
        self.x = self.b.slice(self.x, (0, *first, 0), (1, *size, self.b.shape(self.x)[-1]))
        return self

    def larger(self, times: int) -> Net:
        """Nearest neighbours."""
        height, width = self.b.shape(self.x)[1:3]
        self.x = self.b.resize_nearest(self.x, times * height, times * width)
        return self

    def pool_branch(self) -> Net:
        """A convolution, a maximum and another convolution of one image, joined."""
        before = self.x
        parts = [self.conv(8, 3).x, self.at(before).pool("MAX_POOL_2D", 3, 1, "SAME").x, self.at(before).conv(8, 5).x]
        self.x = self.b.concatenation(parts, scale=0.9, zero_point=self.zero + 1)
        return self

    def unary(self, name: str, scale: float | None = None) -> Net:
        self.x = self.b.unary(name, self.x, scale=scale, zero_point=self.zero if scale else None)
        return self

    def logistic(self) -> Net:
        self.x = self.b.logistic(self.x)
        return self

    def rescale(self, scale: float) -> Net:
        self.x = self.b.quantize(self.x, type=self.kind, scale=scale, zero_point=self.zero + 3)
        return self

    def softmax(self) -> Net:
        self.x = self.b.softmax(self.x)
        return self

    def transpose_conv(self, outputs: int, kernel: int, *, stride: int) -> Net:
        channels = self.b.shape(self.x)[-1]
        weights = self.rng.normal(size=(outputs, kernel, kernel, channels))
        self.x = self.b.transpose_conv(self.x, weights, self.rng.normal(size=outputs), scale=0.05 * np.sqrt(channels),
                                       zero_point=self.zero, stride=stride)
        return self

    def at(self, x: int) -> Net:
        """Go on from another tensor."""
        self.x = x
        return self

    def model(self) -> Model:
        return self.finish([self.x])

    def finish(self, outputs: Sequence[int]) -> Model:
        return parse_model(serialize_model(self.b.build(outputs)))


def run(package: Package, values: Mapping[str, np.ndarray], seed: int | None = None) -> dict[str, np.ndarray]:
    """Outputs of a package on the simulator, by name."""
    machine = Machine(seed)
    if package.caching is not None:
        assert machine.run(package.caching).findings == ()
    inputs = {layer.name: encode_input(layer, values[layer.name]) for layer in package.execution.inputs}
    result = machine.run(package.execution, inputs)
    assert result.findings == ()
    return {layer.name: decode_output(layer, result.outputs[layer.name]) for layer in package.execution.outputs}


def check(model: Model, *, seeds: tuple[int | None, ...] = (None,), judge: bool = False,
          generation: Generation = CURRENT, sharing: Sharing = WHOLE) -> CompiledModel:
    """Compile, and compare every value of every output with the arithmetic reference."""
    compiled = compile_model(model, CompileOptions(generation=generation, sharing=sharing))
    assert compiled.on_cpu == 0, [v.reason for v in compiled.mapped.verdicts]
    ((_, package),) = packages_of(parse_model(compiled.data))
    graph = model.main
    values = {t: random_values(graph.tensors[t]) for t in graph.inputs}
    named = {graph.tensors[t].name: array for t, array in values.items()}
    arithmetic = Arithmetic.EARLY if generation.early_arithmetic else Arithmetic.LATER
    want = evaluate(graph, values, generation=arithmetic)
    for seed in seeds:
        outputs = run(package, named, seed)
        assert len(outputs) == len(graph.outputs)
        for tensor in graph.outputs:
            name = graph.tensors[tensor].name
            assert np.array_equal(outputs[name].reshape(-1), want[tensor].reshape(-1)), name
    if judge:
        data = {layer.name: encode_input(layer, named[layer.name]) for layer in package.execution.inputs}
        report = try_executables([e for e in (package.caching, package.execution) if e is not None], data)
        assert not report.findings
    return compiled


def random_values(tensor: Tensor, seed: int = 3) -> np.ndarray:
    """Values over the whole range of a tensor's type."""
    info = np.iinfo(tensor.type.numpy)
    return np.random.default_rng(seed).integers(info.min, info.max + 1, tensor.shape).astype(tensor.type.numpy)
