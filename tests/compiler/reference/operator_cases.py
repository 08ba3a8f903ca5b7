"""One or more small graphs per operator: every operator that the arithmetic reference knows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from compiler.graph import TensorType
from compiler.graph.build import GraphBuilder

SHAPE = (1, 16, 16, 16)
INT8, UINT8 = TensorType.INT8, TensorType.UINT8
Build = Callable[[GraphBuilder, int], int | Sequence[int]]


@dataclass(frozen=True)
class Case:
    """How an operator is compared with TensorFlow Lite.

    Attributes
    ----------
    build:
        Adds the operator behind the input; returns the outputs.
    scale:
        Of the input.
    types:
        Those that TensorFlow Lite has kernels for.
    tolerance:
        Largest difference: two for the functions that the chip computes by tables.
    share:
        Least share of equal values.
    reason:
        Why the two are not as equal as elsewhere.
    ties:
        Whether exact halves come up often. They are rounded to even here and away from zero there,
        and left out of the comparison; TensorFlow Lite's float kernel tells where they are.
    """

    build: Build
    scale: float = 0.04937
    types: tuple[TensorType, ...] = (INT8, UINT8)
    tolerance: int = 1
    share: float = 0.999
    reason: str = ""
    ties: bool = False


ROUNDED_TWICE = "TensorFlow Lite's fixed point rounds twice: it decides otherwise near halves"
CHANNEL_TABLE = "the chip adds constants per channel as whole steps of the other operand"


def _rng() -> np.random.Generator:
    return np.random.default_rng(12)


def _other(b: GraphBuilder, scale: float = 0.07177, shape: Sequence[int] = SHAPE, zero_point: int = 9) -> int:
    """Add a second input."""
    return b.add_input(shape, scale=scale, zero_point=zero_point + (128 if b.type is UINT8 else 0), name="second")


def _point(b: GraphBuilder, value: int) -> int:
    return value + (128 if b.type is UINT8 else 0)


def _conv(**options: object) -> Build:
    def build(b: GraphBuilder, x: int) -> int:
        rng = _rng()
        size = options.get("size", 3)
        return b.conv2d(x, rng.normal(size=(10, size, size, 16)), rng.normal(size=10), scale=0.37, zero_point=_point(b, 7),
                        per_channel=b.type is INT8, **{k: v for k, v in options.items() if k != "size"})  # type: ignore[arg-type]
    return build


def _depthwise(multiplier: int = 1, **options: object) -> Build:
    def build(b: GraphBuilder, x: int) -> int:
        rng = _rng()
        outputs = 16 * multiplier
        return b.depthwise_conv2d(x, rng.normal(size=(1, 3, 3, outputs)), rng.normal(size=outputs), scale=0.11,
                                  zero_point=_point(b, 3), per_channel=b.type is INT8, **options)  # type: ignore[arg-type]
    return build


def _transpose_conv(size: int, stride: int, padding: str) -> Build:
    def build(b: GraphBuilder, x: int) -> int:
        rng = _rng()
        return b.transpose_conv(x, rng.normal(size=(6, size, size, 16)), rng.normal(size=6), scale=0.23,
                                zero_point=_point(b, -4), stride=stride, padding=padding, per_channel=b.type is INT8)
    return build


def _dense(activation: str) -> Build:
    def build(b: GraphBuilder, x: int) -> int:
        rng = _rng()
        rows = b.reshape(x, (256, 16))
        return b.fully_connected(rows, rng.normal(size=(24, 16)), rng.normal(size=24), scale=0.13, zero_point=_point(b, 1),
                                 activation=activation)
    return build


def _binary(name: str, shape: Sequence[int] = SHAPE, activation: str = "NONE", scale: float = 0.09071) -> Build:
    return lambda b, x: b.binary(name, x, _other(b, shape=shape), scale=scale, zero_point=_point(b, -5),
                                 activation=activation)


def _with_constant(name: str, shape: Sequence[int], *, first: bool = False) -> Build:
    def build(b: GraphBuilder, x: int) -> int:
        low, high = b.limits
        data = _rng().integers(low, high, shape, endpoint=True)
        constant = b.constant(data, scale=0.05219 if name != "MUL" else 0.01137, zero_point=_point(b, 3))
        operands = (constant, x) if first else (x, constant)
        return b.binary(name, *operands, scale=0.09071, zero_point=_point(b, -5))
    return build


def _extremum(name: str, shape: Sequence[int] = SHAPE) -> Build:
    def build(b: GraphBuilder, x: int) -> int:
        q = b.quantization(x)
        other = b.add_input(shape, scale=q.scale, zero_point=q.zero_point, name="second")
        return b.maximum(x, other) if name == "MAXIMUM" else b.minimum(x, other)
    return build


def _prelu(shape: Sequence[int]) -> Build:
    return lambda b, x: b.prelu(x, _rng().uniform(-0.1, 0.6, shape), scale=0.061, zero_point=_point(b, -20))


def _positive(b: GraphBuilder, x: int) -> int:
    """Bring the input above zero, as a network does before it takes roots."""
    return b.relu(x, scale=b.quantization(x).scale, zero_point=b.limits[0])


def _requantize(type: TensorType) -> Build:
    return lambda b, x: b.quantize(x, type=type, scale=0.083, zero_point=5 if type is INT8 else 133)


def _resize(name: str, height: int, width: int, **options: bool) -> Case:
    return Case(lambda b, x: b.resize(name, x, height, width, **options), ties=name == "RESIZE_BILINEAR")


def _lstm(b: GraphBuilder, x: int) -> int:
    rng = _rng()
    rows = b.reshape(x, (1, 256, 16))
    return b.unidirectional_sequence_lstm(rows, rng.normal(size=(4, 20, 16)) * 0.01, rng.normal(size=(4, 20, 20)) * 0.1,
                                          rng.normal(size=(4, 20)) * 0.1, scale=1 / 128)


CASES: dict[str, Case] = {
    "CONV_2D": Case(_conv(stride=2, activation="RELU")),
    "CONV_2D dilated": Case(_conv(dilation=2)),
    "CONV_2D valid 5x5": Case(_conv(size=5, padding="VALID", activation="RELU6")),
    "CONV_2D strides": Case(_conv(stride=(1, 3), activation="RELU_N1_TO_1")),
    "DEPTHWISE_CONV_2D": Case(_depthwise(activation="RELU6")),
    "DEPTHWISE_CONV_2D multiplier": Case(_depthwise(2, stride=2)),
    "DEPTHWISE_CONV_2D dilated": Case(_depthwise(1, dilation=3, padding="VALID")),
    "TRANSPOSE_CONV": Case(_transpose_conv(3, 2, "SAME")),
    "TRANSPOSE_CONV valid": Case(_transpose_conv(4, 2, "VALID")),
    "TRANSPOSE_CONV gaps": Case(_transpose_conv(2, 3, "SAME"), share=0.997, reason=ROUNDED_TWICE),
    "FULLY_CONNECTED": Case(_dense("NONE")),
    "FULLY_CONNECTED RELU": Case(_dense("RELU")),
    "ADD": Case(_binary("ADD")),
    "ADD RELU": Case(_binary("ADD", activation="RELU")),
    "ADD row": Case(_binary("ADD", (1, 1, 1, 16))),
    "ADD constants": Case(_with_constant("ADD", (16,)), share=0.8, reason=CHANNEL_TABLE),
    "SUB": Case(_binary("SUB")),
    "SUB column": Case(_binary("SUB", (1, 16, 1, 16))),
    "SUB constants": Case(_with_constant("SUB", (16,)), share=0.8, reason=CHANNEL_TABLE),
    "SUB from constants": Case(_with_constant("SUB", (16,), first=True), share=0.8, reason=CHANNEL_TABLE),
    "MUL": Case(_binary("MUL", scale=0.2143)),
    "MUL pixel": Case(_binary("MUL", (1, 16, 16, 1), scale=0.2143)),
    "MUL RELU": Case(_binary("MUL", activation="RELU", scale=0.2143)),
    "MUL constants": Case(_with_constant("MUL", (16,))),
    "MAXIMUM": Case(_extremum("MAXIMUM")),
    "MAXIMUM row": Case(_extremum("MAXIMUM", (1, 1, 1, 16))),
    "MINIMUM": Case(_extremum("MINIMUM")),
    "SQUARED_DIFFERENCE": Case(lambda b, x: b.squared_difference(x, _other(b), scale=0.9, zero_point=-128), types=(INT8,),
                               share=0.996, reason=ROUNDED_TWICE),
    "AVERAGE_POOL_2D": Case(lambda b, x: b.average_pool(x, 3)),
    "AVERAGE_POOL_2D padded": Case(lambda b, x: b.average_pool(x, 3, stride=2, padding="SAME"), ties=True),
    "AVERAGE_POOL_2D even": Case(lambda b, x: b.average_pool(x, 2), ties=True),
    "MAX_POOL_2D": Case(lambda b, x: b.max_pool(x, 3, stride=2)),
    "MAX_POOL_2D padded": Case(lambda b, x: b.max_pool(x, (2, 3), stride=1, padding="SAME", activation="RELU6")),
    "MEAN": Case(lambda b, x: b.mean(x, (1, 2), scale=0.0041, zero_point=_point(b, 2))),
    "MEAN channels": Case(lambda b, x: b.mean(x, (3,), keep_dims=False, scale=0.013, zero_point=_point(b, 2))),
    "SUM": Case(lambda b, x: b.sum(x, (1, 2), scale=0.91, zero_point=_point(b, 2))),
    "SUM channels": Case(lambda b, x: b.sum(x, (3,), scale=0.31, zero_point=_point(b, 2))),
    "REDUCE_MAX": Case(lambda b, x: b.reduce_max(x, (1, 2))),
    "REDUCE_MAX channels": Case(lambda b, x: b.reduce_max(x, (3,), keep_dims=False)),
    "REDUCE_MIN": Case(lambda b, x: b.reduce_min(x, (1,))),
    "ARG_MAX": Case(lambda b, x: b.arg_max(x)),
    "SOFTMAX": Case(lambda b, x: b.softmax(x), tolerance=2),
    "LOGISTIC": Case(lambda b, x: b.logistic(x), tolerance=2, share=0.994, reason="the table is off at one of 256 codes"),
    "TANH": Case(lambda b, x: b.tanh(x), scale=0.02, tolerance=2),
    "RSQRT": Case(lambda b, x: b.unary("RSQRT", _positive(b, x), scale=0.05, zero_point=-128), types=(INT8,), tolerance=2),
    "L2_NORMALIZATION": Case(lambda b, x: b.l2_normalization(x), tolerance=2, share=0.96, reason=ROUNDED_TWICE),
    "RELU": Case(lambda b, x: b.relu(x, scale=0.031, zero_point=b.limits[0])),
    "RELU6": Case(lambda b, x: b.relu6(x, scale=6 / 255, zero_point=b.limits[0])),
    "RELU_N1_TO_1": Case(lambda b, x: b.relu_n1_to_1(x)),
    "PRELU": Case(_prelu((1, 1, 16)), share=0.998, reason=ROUNDED_TWICE),
    "PRELU full": Case(_prelu((16, 16, 16))),
    "LEAKY_RELU": Case(lambda b, x: b.leaky_relu(x, alpha=0.23, scale=0.047, zero_point=_point(b, -30)),
                       share=0.96, reason=ROUNDED_TWICE),
    "QUANTIZE int8": Case(_requantize(INT8)),
    "QUANTIZE uint8": Case(_requantize(UINT8)),
    "DEQUANTIZE": Case(lambda b, x: b.dequantize(x)),
    "QUANTIZE floats": Case(lambda b, x: b.quantize(b.dequantize(x), type=b.type, scale=0.019, zero_point=_point(b, 0))),
    "CAST": Case(lambda b, x: b.cast(b.dequantize(x), TensorType.INT32)),
    "CONCATENATION": Case(lambda b, x: b.concatenation([x, b.max_pool(x, 3, stride=1, padding="SAME")])),
    "CONCATENATION rows": Case(lambda b, x: b.concatenation([x, x, x], axis=1)),
    "CONCATENATION scales": Case(lambda b, x: b.concatenation([x, _other(b)]), types=(UINT8,)),
    "SPLIT": Case(lambda b, x: b.split(x, 4)),
    "SPLIT rows": Case(lambda b, x: b.split(x, 2, axis=1)),
    "SPLIT_V": Case(lambda b, x: b.split_v(x, (3, 5, 8), axis=3)),
    "PACK": Case(lambda b, x: b.pack([b.reshape(x, (256, 16)), b.reshape(x, (256, 16))], axis=1)),
    "UNPACK": Case(lambda b, x: b.unpack(b.reshape(x, (4, 1024)), axis=0)),
    "SLICE": Case(lambda b, x: b.slice(x, (0, 3, 0, 4), (1, 7, 16, 11))),
    "STRIDED_SLICE": Case(lambda b, x: b.strided_slice(x, (0, 1, 0, 2), (1, 16, 15, 16), (1, 2, 3, 1))),
    "STRIDED_SLICE masks": Case(lambda b, x: b.strided_slice(x, (0, 0, 5, 3), (0, 8, 0, 0), (1, 1, 1, 1), begin_mask=1,
                                                             end_mask=5, shrink_mask=8)),
    "STRIDED_SLICE backwards": Case(lambda b, x: b.strided_slice(x, (0, 15, 15, 0), (1, 2, -17, 16), (1, -1, -2, 1))),
    "PAD": Case(lambda b, x: b.pad(x, ((0, 0), (1, 2), (0, 1), (0, 0)))),
    "PAD channels": Case(lambda b, x: b.pad(x, ((0, 0), (0, 0), (0, 0), (2, 3)))),
    "PADV2": Case(lambda b, x: b.padv2(x, ((0, 0), (1, 2), (0, 1), (0, 0)), _point(b, -9))),
    "MIRROR_PAD": Case(lambda b, x: b.mirror_pad(x, ((0, 0), (2, 1), (0, 3), (0, 0)))),
    "MIRROR_PAD symmetric": Case(lambda b, x: b.mirror_pad(x, ((0, 0), (2, 1), (0, 3), (0, 0)), symmetric=True)),
    "RESHAPE": Case(lambda b, x: b.reshape(x, (64, 64))),
    "SQUEEZE": Case(lambda b, x: b.squeeze(x)),
    "EXPAND_DIMS": Case(lambda b, x: b.expand_dims(x, 2)),
    "TRANSPOSE": Case(lambda b, x: b.transpose(x, (0, 2, 1, 3))),
    "TRANSPOSE channels": Case(lambda b, x: b.transpose(x, (0, 3, 1, 2))),
    "TILE": Case(lambda b, x: b.tile(x, (1, 2, 1, 3))),
    "SPACE_TO_DEPTH": Case(lambda b, x: b.space_to_depth(x, 2)),
    "DEPTH_TO_SPACE": Case(lambda b, x: b.depth_to_space(x, 2)),
    "SPACE_TO_BATCH_ND": Case(lambda b, x: b.space_to_batch(x, (2, 3), ((0, 0), (1, 1)))),
    "BATCH_TO_SPACE_ND": Case(lambda b, x: b.batch_to_space(b.space_to_batch(x, (2, 2), ((0, 0), (0, 0))), (2, 2),
                                                            ((1, 0), (0, 3)))),
    "RESIZE_NEAREST_NEIGHBOR": _resize("RESIZE_NEAREST_NEIGHBOR", 32, 48),
    "RESIZE_NEAREST_NEIGHBOR odd": _resize("RESIZE_NEAREST_NEIGHBOR", 21, 13),
    "RESIZE_NEAREST_NEIGHBOR aligned": _resize("RESIZE_NEAREST_NEIGHBOR", 31, 46, align_corners=True),
    "RESIZE_NEAREST_NEIGHBOR half": _resize("RESIZE_NEAREST_NEIGHBOR", 32, 23, half_pixel_centers=True),
    "RESIZE_BILINEAR": _resize("RESIZE_BILINEAR", 32, 48),
    "RESIZE_BILINEAR odd": replace(_resize("RESIZE_BILINEAR", 23, 37), share=0.98,
                                   reason="TensorFlow Lite weighs int8 neighbours in steps of 1/1024"),
    "RESIZE_BILINEAR aligned": _resize("RESIZE_BILINEAR", 31, 46, align_corners=True),
    "RESIZE_BILINEAR half": _resize("RESIZE_BILINEAR", 32, 32, half_pixel_centers=True),
    "UNIDIRECTIONAL_SEQUENCE_LSTM": Case(_lstm, types=(INT8,), tolerance=2, share=0.85,
                                         reason="the chip adds gates in 8 bits, TensorFlow Lite in 16"),
}
"""The operator's name comes first; words behind it tell what is special."""
