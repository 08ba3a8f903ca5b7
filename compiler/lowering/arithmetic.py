"""Numbers that go into instructions: multipliers, clamps, zero points, as the chip wants them.

All data on the chip is unsigned: int8 tensors are stored with 128 added. The formulas are those
that reproduce the constants of official programs bit for bit.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from compiler.errors import CompilationError
from compiler.graph import Quantization, Tensor, TensorType

_OFFSETS = {TensorType.INT8: 128, TensorType.UINT8: 0}
_ACTIVATION_RANGES: dict[int, tuple[float | None, float | None]] = {
    0: (None, None), 1: (0.0, None), 2: (-1.0, 1.0), 3: (0.0, 6.0)}
"""Fused activation function of the schema -> real range (none, RELU, RELU_N1_TO_1, RELU6)."""


def bits(value: np.float32 | float) -> int:
    """Return the bit pattern of a float32."""
    return int(np.float32(value).view(np.uint32))


def quantization(tensor: Tensor) -> Quantization:
    """Return the quantization of a tensor.

    Raises
    ------
    CompilationError
        When it has none.
    """
    if tensor.quantization is None:
        raise CompilationError(f"tensor {tensor.name} is not quantized.")
    return tensor.quantization


def zero_point(tensor: Tensor) -> int:
    """Return the zero point in the unsigned domain of the chip."""
    return quantization(tensor).zero_point + _OFFSETS[tensor.type]


def multipliers(x: Tensor, weights: Tensor, y: Tensor) -> npt.NDArray[np.float32]:
    """Return the requantization factors f32(f32(s_x * s_w) * f32(1 / s_y)), one per weight scale."""
    scale = quantization(x).scales[:1] * quantization(weights).scales
    factors: npt.NDArray[np.float32] = (scale * (np.float32(1) / quantization(y).scales[0])).astype(np.float32)
    return factors


def unary_multiplier(x: Tensor, y: Tensor) -> np.float32:
    """Return the factor from one scale to another, f32(s_x * f32(1 / s_y))."""
    return np.float32(quantization(x).scales[0] * (np.float32(1) / quantization(y).scales[0]))


def product_multiplier(a: Tensor, b: Tensor, y: Tensor) -> np.float32:
    """Return the factor of a product of two activations, f32(f32(s_a * s_b) * f32(1 / s_y))."""
    return np.float32(quantization(a).scales[0] * quantization(b).scales[0] * (np.float32(1) / quantization(y).scales[0]))


def mean_multiplier(x: Tensor, y: Tensor, count: int, *, early_pool: bool = False) -> np.float32:
    """Return the factor of a mean, f32(f32(s_x * f32(1 / count)) * f32(1 / s_y)).

    A pool of early compilers that keeps the scale multiplies by f32(1 / count).
    """
    if early_pool and quantization(x).scales[0] == quantization(y).scales[0]:
        return np.float32(1 / count)
    share = np.float32(quantization(x).scales[0] * np.float32(1 / count))
    return np.float32(share * (np.float32(1) / quantization(y).scales[0]))


def sum_multiplier(a: Tensor, b: Tensor, y: Tensor, weights: tuple[int, int]) -> np.float32:
    """Return the factor of a weighted sum: its unit in steps of the result."""
    return np.float32(sum_unit(a, b, weights) * (np.float32(1) / quantization(y).scales[0]))


def sum_unit(a: Tensor, b: Tensor, weights: tuple[int, int]) -> np.float32:
    """Return the unit of a weighted sum: the scale of the operand with the larger weight over that weight."""
    operand, weight = (b, weights[1]) if weights[1] > weights[0] else (a, weights[0])
    return np.float32(quantization(operand).scales[0] / np.float32(weight))


def clamp(y: Tensor, activation: int) -> tuple[int, int]:
    """Return bit patterns of the clamp (low, high), applied before rounding and output zero point."""
    scale, zero = quantization(y).scales[0], zero_point(y)
    low, high = _ACTIVATION_RANGES[activation]
    least = 0 if low is None else max(0, zero + _quantized(low, scale))
    most = 255 if high is None else min(255, zero + _quantized(high, scale))
    inverse = np.float32(1) / scale
    ends = [np.float32(np.float32(np.float32(q - zero) * scale) * inverse) for q in (least, most)]
    return bits(ends[0]), bits(ends[1])


def _quantized(value: float, scale: np.float32) -> int:
    """Round half away from zero, as TensorFlow Lite quantizes activation limits."""
    ratio = np.float32(value) / scale
    return int(np.trunc(ratio + np.copysign(np.float32(0.5), ratio)))


def unsigned_weights(weights: Tensor) -> npt.NDArray[np.uint8]:
    """Return constant weights in the unsigned domain, in the tensor's shape."""
    array = weights.array()
    return array if weights.type is TensorType.UINT8 else (array.view(np.uint8) ^ np.uint8(0x80))


def bias_values(bias: Tensor | None, outputs: int, *, keep_zero: bool = False) -> npt.NDArray[np.int32] | None:
    """Return the bias, None when there is none or, unless it is kept, it is all zero."""
    if bias is None:
        return None
    values: npt.NDArray[Any] = bias.array().reshape(-1).astype(np.int32)
    return values if values.size == outputs and (keep_zero or values.any()) else None
