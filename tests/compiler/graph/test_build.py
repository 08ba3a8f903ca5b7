"""Every operator of the builder: TensorFlow Lite runs the file and agrees with the stated output."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from compiler.graph import TensorType, parse_model, serialize_model
from compiler.graph.build import GraphBuilder
from compiler.graph.interpreter import TfliteModel

Recipe = Callable[[GraphBuilder], "int | tuple[int, ...]"]


def image(b: GraphBuilder, shape: tuple[int, ...] = (1, 8, 6, 4), name: str = "input") -> int:
    return b.add_input(shape, scale=0.05, zero_point=sum(b.limits, 1) // 2 + 3, name=name)


def vector(b: GraphBuilder, *shape: int) -> int:
    return image(b, shape or (1, 12))


def weights(*shape: int) -> np.ndarray:
    return np.random.default_rng(len(shape)).normal(size=shape)


def mid(b: GraphBuilder) -> int:
    return sum(b.limits, 1) // 2


RECIPES: dict[str, Recipe] = {
    "fully_connected": lambda b: b.fully_connected(vector(b), weights(5, 12), weights(5), scale=0.3, zero_point=mid(b)),
    "fully_connected without bias": lambda b: b.fully_connected(vector(b), weights(5, 12), scale=0.3),
    "fully_connected relu6": lambda b: b.fully_connected(vector(b), weights(5, 12), scale=0.1, activation="RELU6"),
    "fully_connected batch": lambda b: b.fully_connected(vector(b, 3, 12), weights(5, 12), scale=0.3),
    "fully_connected keep_dims": lambda b: b.fully_connected(vector(b, 1, 3, 12), weights(5, 12), scale=0.3,
                                                             keep_dims=True),
    "conv2d": lambda b: b.conv2d(image(b), weights(7, 3, 3, 4), weights(7), scale=0.3, zero_point=mid(b)),
    "conv2d strided": lambda b: b.conv2d(image(b), weights(7, 3, 1, 4), scale=0.3, stride=(2, 3), activation="RELU"),
    "conv2d valid dilated": lambda b: b.conv2d(image(b), weights(7, 3, 3, 4), weights(7), scale=0.3, dilation=2,
                                               padding="VALID"),
    "depthwise": lambda b: b.depthwise_conv2d(image(b), weights(1, 3, 3, 4), weights(4), scale=0.2),
    "depthwise multiplied": lambda b: b.depthwise_conv2d(image(b), weights(1, 3, 3, 8), scale=0.2, stride=2),
    "depthwise dilated": lambda b: b.depthwise_conv2d(image(b), weights(1, 3, 3, 4), weights(4), scale=0.2, dilation=2,
                                                      padding="VALID"),
    "transpose_conv": lambda b: b.transpose_conv(image(b), weights(5, 3, 3, 4), weights(5), scale=0.3, stride=2),
    "transpose_conv valid": lambda b: b.transpose_conv(image(b), weights(5, 3, 2, 4), scale=0.3, stride=(2, 1),
                                                       padding="VALID"),
    "add": lambda b: b.add(image(b), image(b, name="second"), scale=0.1, zero_point=mid(b)),
    "add broadcast": lambda b: b.add(image(b), image(b, (1, 1, 1, 4), "second"), scale=0.1, activation="RELU"),
    "sub": lambda b: b.sub(image(b), image(b, name="second"), scale=0.1, zero_point=mid(b)),
    "mul": lambda b: b.mul(image(b), image(b, name="second"), scale=0.2, zero_point=mid(b)),
    "maximum": lambda b: b.maximum(image(b), image(b, name="second")),
    "minimum": lambda b: b.minimum(image(b), image(b, name="second")),
    "average_pool": lambda b: b.average_pool(image(b), 2),
    "average_pool same": lambda b: b.average_pool(image(b), (3, 2), stride=2, padding="SAME", activation="RELU"),
    "max_pool": lambda b: b.max_pool(image(b), (2, 3)),
    "mean": lambda b: b.mean(image(b), (1, 2), scale=0.03, zero_point=mid(b)),
    "mean dropped": lambda b: b.mean(image(b), (-2, -3), keep_dims=False),
    "sum": lambda b: b.sum(image(b), (1,), scale=0.4, zero_point=mid(b)),
    "reduce_max": lambda b: b.reduce_max(image(b), (-1,), keep_dims=False),
    "softmax": lambda b: b.softmax(vector(b), beta=0.5),
    "logistic": lambda b: b.logistic(image(b)),
    "tanh": lambda b: b.tanh(image(b)),
    "relu": lambda b: b.relu(image(b)),
    "relu6": lambda b: b.relu6(image(b), scale=6 / 255, zero_point=b.limits[0]),
    "leaky_relu": lambda b: b.leaky_relu(image(b), alpha=0.2),
    "prelu": lambda b: b.prelu(image(b), weights(1, 1, 4)),
    "l2_normalization": lambda b: b.l2_normalization(vector(b)),
    "concatenation": lambda b: b.concatenation((image(b), image(b, (1, 8, 6, 2), "second"))),
    "concatenation of rows": lambda b: b.concatenation((image(b), image(b, name="second")), axis=1),
    "split": lambda b: b.split(image(b), 3, axis=2),
    "slice": lambda b: b.slice(image(b), (0, 1, 2, 0), (1, 4, 3, 4)),
    "strided_slice": lambda b: b.strided_slice(image(b), (0, 1, 0, 0), (1, 8, 6, 4), (1, 2, 4, 1)),
    "pad": lambda b: b.pad(image(b), ((0, 0), (1, 2), (0, 3), (0, 0))),
    "reshape": lambda b: b.reshape(image(b), (1, 48, 4)),
    "squeeze": lambda b: b.squeeze(image(b, (1, 8, 1, 4)), (2,)),
    "squeeze all": lambda b: b.squeeze(image(b, (1, 8, 1, 4))),
    "expand_dims": lambda b: b.expand_dims(vector(b), -1),
    "pack": lambda b: b.pack((vector(b), vector(b)), axis=-1),
    "transpose": lambda b: b.transpose(image(b), (0, 2, 3, 1)),
    "space_to_depth": lambda b: b.space_to_depth(image(b), 2),
    "depth_to_space": lambda b: b.depth_to_space(image(b), 2),
    "resize_bilinear": lambda b: b.resize_bilinear(image(b), 16, 11, half_pixel_centers=True),
    "resize_bilinear corners": lambda b: b.resize_bilinear(image(b), 5, 3, align_corners=True),
    "resize_nearest": lambda b: b.resize_nearest(image(b), 16, 12),
    "quantize": lambda b: b.quantize(image(b), type=TensorType.INT8, scale=0.1, zero_point=5),
    "quantize float": lambda b: b.quantize(b.add_input((1, 4), scale=None, type=TensorType.FLOAT32),
                                           type=b.type, scale=0.02, zero_point=mid(b)),
    "dequantize": lambda b: b.dequantize(image(b)),
    "arg_max": lambda b: b.arg_max(vector(b)),
    "any operator": lambda b: b.op("FLOOR_DIV", (i := b.add_input((3,), scale=None, type=TensorType.INT32), i),
                                   (b.tensor((3,), type=TensorType.INT32),)),
}
PER_CHANNEL: dict[str, Recipe] = {
    "conv2d": lambda b: b.conv2d(image(b), weights(7, 3, 3, 4), weights(7), scale=0.3, per_channel=True),
    "depthwise": lambda b: b.depthwise_conv2d(image(b), weights(1, 3, 3, 4), weights(4), scale=0.2, per_channel=True),
    "transpose_conv": lambda b: b.transpose_conv(image(b), weights(5, 3, 3, 4), weights(5), scale=0.3, stride=2,
                                                 per_channel=True),
    "fully_connected": lambda b: b.fully_connected(vector(b), weights(5, 12), weights(5), scale=0.3, per_channel=True),
}


def check(recipe: Recipe, kind: TensorType) -> list[np.ndarray]:
    builder = GraphBuilder(type=kind)
    model = builder.build(recipe(builder))
    data = serialize_model(model)
    interpreter = TfliteModel(data, reference_kernels=True)
    rng = np.random.default_rng(7)
    inputs = [rng.integers(1, 100, p.shape).astype(p.dtype) for p in interpreter.inputs]
    results = interpreter.run(inputs)
    optimised = TfliteModel(data).run(inputs)
    for a, b in zip(results, optimised, strict=True):
        assert np.abs(a.astype(float) - b.astype(float)).max() <= 1
    stated = [model.main.tensors[t] for t in model.main.outputs]
    assert [r.shape for r in results] == [t.shape for t in stated]
    assert [r.dtype for r in results] == [t.type.numpy for t in stated]
    for port, tensor in zip(interpreter.outputs, stated, strict=True):
        if tensor.quantization is not None:
            assert (port.scale, port.zero_point) == (tensor.quantization.scale, tensor.quantization.zero_point)
    return results


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("kind", [TensorType.INT8, TensorType.UINT8])
def test_operator_runs(name: str, kind: TensorType) -> None:
    check(RECIPES[name], kind)


@pytest.mark.parametrize("name", PER_CHANNEL)
def test_per_channel_operator_runs(name: str) -> None:
    check(PER_CHANNEL[name], TensorType.INT8)


@pytest.mark.parametrize("kind", [TensorType.INT8, TensorType.UINT8])
@pytest.mark.parametrize("per_channel", [False, True])
def test_dense_layer_computes_what_the_floats_do(kind: TensorType, per_channel: bool) -> None:
    if kind is TensorType.UINT8 and per_channel:
        with pytest.raises(ValueError, match="per tensor only"):
            GraphBuilder(type=kind).quantized_weights(weights(4, 4), per_channel=True)
        return
    rng = np.random.default_rng(3)
    w, bias, x = rng.normal(size=(9, 16)), rng.normal(size=9), rng.normal(size=(1, 16))
    builder = GraphBuilder(type=kind)
    point = mid(builder)
    y = builder.fully_connected(builder.add_input((1, 16), scale=0.03, zero_point=point), w, bias, scale=0.15,
                                zero_point=point, per_channel=per_channel)
    interpreter = TfliteModel(serialize_model(builder.build(y)), reference_kernels=True)
    stored = np.clip(np.rint(x / 0.03) + point, *builder.limits).astype(kind.numpy)
    (result,) = interpreter.run([stored])
    assert np.abs((result.astype(float) - point) * 0.15 - (x @ w.T + bias)).max() < 0.4


def test_split_returns_all_parts() -> None:
    first, second = check(lambda b: b.split(image(b), 2), TensorType.INT8)
    assert first.shape == second.shape == (1, 8, 6, 2)


def test_data_outside_the_type_is_clipped() -> None:
    builder = GraphBuilder()
    index = builder.constant(np.asarray([-1e12, -129, 3, 128]), scale=1.0)
    bias = builder.constant(np.asarray([1e12, -1e12], np.float32), scale=1.0, type=TensorType.INT32)
    assert builder.tensors[index].array().tolist() == [-128, -128, 3, 127]
    assert builder.tensors[bias].array().tolist() == [2**31 - 1, -2**31]


def test_names_and_open_batch_reach_the_file() -> None:
    builder = GraphBuilder()
    x = builder.add_input((1, 4), scale=0.1, signature=(-1, 4), name="picture")
    y = builder.rename(builder.relu(x), "answer")
    graph = parse_model(serialize_model(builder.build(y))).main
    assert [graph.tensors[t].name for t in (*graph.inputs, *graph.outputs)] == ["picture", "answer"]
    assert graph.tensors[x].signature == (-1, 4)


def test_custom_operator() -> None:
    builder = GraphBuilder()
    x = builder.add_input((1, 4), scale=0.1)
    y = builder.custom("my-operator", (x,), (builder.tensor((1, 4), scale=0.1),), b"\x01\x02")
    (op,) = parse_model(serialize_model(builder.build(y))).main.operators
    assert (op.name, op.custom_name) == ("CUSTOM", "my-operator")
    assert op.custom_options is not None
    assert op.custom_options.tobytes() == b"\x01\x02"


def test_unknown_option_and_missing_quantization() -> None:
    builder = GraphBuilder()
    x = builder.add_input((1, 4), scale=None, type=TensorType.FLOAT32)
    with pytest.raises(ValueError, match="SoftmaxOptions has no field gamma"):
        builder.op("SOFTMAX", (x,), (x,), "SoftmaxOptions", gamma=1)
    with pytest.raises(ValueError, match="input is not quantized"):
        builder.fully_connected(x, weights(2, 4), weights(2), scale=1.0)
