"""The way out of the accumulator: float32 multiplier, clamp, rounding, zero point."""

from __future__ import annotations

import numpy as np

from compiler.beagle.reference.step import Array, NoReferenceError, Reals, Step
from compiler.graph import Tensor

_INT32 = np.iinfo(np.int32)
_LIMITS: dict[str, tuple[float | None, float | None]] = {
    "NONE": (None, None), "RELU": (0.0, None), "RELU_N1_TO_1": (-1.0, 1.0), "RELU6": (0.0, 6.0)}
"""Real range of the fused activations."""
_ONE = np.float32(1)


def product_scale(step: Step, a: int, b: int) -> Reals:
    """Return f32(f32(s_a * s_b) * f32(1 / s_out)), one element per scale of b."""
    scales = step.scale(a) * step.quantization(b).scales.astype(np.float32)
    return np.asarray(scales * (_ONE / step.out_scale), np.float32)


def unary_scale(step: Step, position: int = 0) -> np.float32:
    """Return f32(s_in * f32(1 / s_out))."""
    return np.float32(step.scale(position) * (_ONE / step.out_scale))


def limits(tensor: Tensor, activation: str) -> tuple[int, int]:
    """Return the least and greatest quantized value that type and activation allow.

    Raises
    ------
    NoReferenceError
        When the activation cannot be fused on the chip.
    """
    if activation not in _LIMITS or tensor.quantization is None or tensor.type.numpy is None:
        raise NoReferenceError(f"tensor {tensor.name}: activation {activation} cannot be fused.")
    info = np.iinfo(tensor.type.numpy)
    scale, zero = np.float32(tensor.quantization.scales[0]), tensor.quantization.zero_point
    low, high = _LIMITS[activation]
    least = info.min if low is None else max(info.min, zero + _nearest(low, scale))
    most = info.max if high is None else min(info.max, zero + _nearest(high, scale))
    return least, most


def requantised(step: Step, sums: Array, scale: Reals | np.float32, activation: str | None = None) -> Array:
    """Turn sums into quantized results.

    y = f32(sum) * scale, clamped as float32 before the rounding, rounded to nearest even.

    Parameters
    ----------
    sums:
        Exact integers (of any type) in units of the accumulator.
    scale:
        float32 multiplier, or one per element of the last dimension.
    activation:
        Schema name; by default the one fused into the operator.
    """
    sums = np.clip(sums, _INT32.min, _INT32.max)
    return finished(step, sums.astype(np.float32) * scale, activation)


def finished(step: Step, y: Reals, activation: str | None = None) -> Array:
    """Clamp, round and shift float32 results in units of the output scale."""
    out = step.out
    least, most = limits(out, step.op.activation if activation is None else activation)
    scale, zero = step.out_scale, out.quantization.zero_point if out.quantization else 0
    inverse = _ONE / scale
    ends = [np.float32(np.float32(q - zero) * scale) * inverse for q in (least, most)]
    clamped = np.minimum(np.maximum(y, ends[0]), ends[1])
    return stored(out, np.rint(clamped) + np.float32(zero))


def stored(out: Tensor, values: Array) -> Array:
    """Saturate whole numbers to the type of a tensor."""
    dtype = out.type.numpy
    if dtype is None:
        raise NoReferenceError(f"tensor {out.name} has no numpy type.")
    info = np.iinfo(dtype)
    return np.clip(values, info.min, info.max).astype(dtype)


def _nearest(value: float, scale: np.float32) -> int:
    """Quantize an activation limit: round half away from zero."""
    ratio = np.float32(value) / scale
    return int(np.trunc(ratio + np.copysign(np.float32(0.5), ratio)))
