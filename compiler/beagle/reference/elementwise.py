"""Operators that work element by element."""

from __future__ import annotations

import numpy as np

from compiler.beagle.isa.tables import LOGISTIC, LOGISTIC_LIMIT, RECIPROCAL_ROOT, TANH, TANH_LIMIT
from compiler.beagle.reference.output import finished, limits, requantised, stored, unary_scale
from compiler.beagle.reference.step import Array, NoReferenceError, Reals, Step
from compiler.beagle.sums import weights_of_sum

_ONE = np.float32(1)
_LOGISTIC_SCALE = np.float32(1 / 256)
_TANH_SCALE = np.float32(1 / 128)


def add(step: Step) -> list[Array]:
    """ADD: a weighted sum with 16-bit weights; constants per channel are biases of the input."""
    return _sum(step, 1)


def sub(step: Step) -> list[Array]:
    """SUB: as ADD, the second weight is negative."""
    return _sum(step, -1)


def _sum(step: Step, sign: int) -> list[Array]:
    for constant, x, signs in ((1, 0, (1, sign)), (0, 1, (sign, 1))):
        if _is_channel_constant(step, constant):
            bias = np.rint(step.centred(constant) * np.float64(step.scale(constant)) / np.float64(step.scale(x)))
            return [requantised(step, signs[0] * step.centred(x) + signs[1] * bias, unary_scale(step, x))]
    total, unit = weighted_sum(step, sign)
    return [requantised(step, total, np.float32(unit * (_ONE / step.out_scale)))]


def weighted_sum(step: Step, sign: int) -> tuple[Array, np.float32]:
    """Return the exact weighted sum of two operands, and its unit f32(s / weight)."""
    weights = weights_of_sum(float(step.scale(0)), float(step.scale(1)))
    total = weights[0] * step.centred(0).astype(np.int64) + sign * weights[1] * step.centred(1)
    larger = int(weights[1] > weights[0])
    return total, np.float32(step.scale(larger) / np.float32(weights[larger]))


def _is_channel_constant(step: Step, position: int) -> bool:
    """Tell whether an operand is a constant with one value, or one per channel."""
    tensor = step.tensor(position)
    return tensor.is_constant and tensor.elements == (tensor.shape[-1] if tensor.shape else 1)


def mul(step: Step) -> list[Array]:
    """MUL: products of two activations; constants per channel are multipliers."""
    for constant, x in ((1, 0), (0, 1)):
        if _is_channel_constant(step, constant):
            real = step.scale(constant) * step.centred(constant).astype(np.float32)
            scale = step.scale(x) * real * (_ONE / step.out_scale)
            return [finished(step, step.centred(x).astype(np.float32) * scale)]
    products = step.centred(0).astype(np.int64) * step.centred(1)
    return [requantised(step, products, np.float32(step.scale(0) * step.scale(1) * (_ONE / step.out_scale)))]


def maximum(step: Step) -> list[Array]:
    """MAXIMUM of two operands of equal quantization."""
    return [_same_quantization(step, np.maximum(step.centred(0), step.centred(1)))]


def minimum(step: Step) -> list[Array]:
    """MINIMUM of two operands of equal quantization."""
    return [_same_quantization(step, np.minimum(step.centred(0), step.centred(1)))]


def _same_quantization(step: Step, values: Array) -> Array:
    if not step.quantization(0).same_as(step.tensor(1).quantization):
        raise NoReferenceError(f"{step.op.title}: operands of different quantization.")
    return requantised(step, values, unary_scale(step))


def identity(step: Step) -> list[Array]:
    """QUANTIZE between 8-bit types, and activations that stand alone."""
    activation = step.op.name if step.op.name.startswith("RELU") else "NONE"
    return [requantised(step, step.centred(0), unary_scale(step), activation)]


def quantize(step: Step) -> list[Array]:
    """QUANTIZE: from float on the host (half away from zero), between integers on the chip."""
    if not step.tensor(0).type.is_float:
        return identity(step)
    q = step.out.quantization
    ratio = step.array(0).astype(np.float32) / step.out_scale
    values = np.trunc(ratio + np.copysign(np.float32(0.5), ratio)) + (q.zero_point if q else 0)
    return [stored(step.out, values)]


def dequantize(step: Step) -> list[Array]:
    """DEQUANTIZE, on the host."""
    return [(step.centred(0) * step.scale(0)).astype(np.float32)]


def prelu(step: Step) -> list[Array]:
    """PRELU: negative operands have a multiplier of their own."""
    slope = step.scale(0) * (step.scale(1) * step.centred(1).astype(np.float32)) * (_ONE / step.out_scale)
    return [_two_slopes(step, slope)]


def leaky_relu(step: Step) -> list[Array]:
    """LEAKY_RELU: negative operands have a multiplier of their own."""
    slope = step.scale(0) * np.float32(step.option("alpha")) * (_ONE / step.out_scale)
    return [_two_slopes(step, np.float32(slope))]


def _two_slopes(step: Step, negative: Reals | np.float32) -> Array:
    x = step.centred(0)
    scale = np.where(x < 0, negative, unary_scale(step)).astype(np.float32)
    return requantised(step, x, scale)


def logistic(step: Step) -> list[Array]:
    """LOGISTIC by its table, in steps of 1/256."""
    x = _clamped(step, LOGISTIC_LIMIT)
    return [finished(step, _in_units(step, LOGISTIC(x), _LOGISTIC_SCALE))]


def tanh(step: Step) -> list[Array]:
    """TANH by the table of its positive half, in steps of 1/128."""
    x = _clamped(step, TANH_LIMIT)
    half = TANH.scaled(1 / float(_TANH_SCALE))(np.abs(x))
    return [finished(step, _in_units(step, np.sign(x) * half, _TANH_SCALE))]


def _clamped(step: Step, limit: np.float32) -> Reals:
    x = step.centred(0).astype(np.float32) * step.scale(0)
    return np.asarray(np.clip(x, -limit, limit), np.float32)


def _in_units(step: Step, y: Reals, unit: np.float32) -> Reals:
    """Check that the table's unit is the output's."""
    if step.out_scale != unit:
        raise NoReferenceError(f"{step.op.title}: output scale {step.out_scale}, the table gives steps of {unit}.")
    return y


def root_parts(x: Reals) -> tuple[Reals, Reals]:
    """Split x into m * 4**k with m in [1, 4); returns m and 2**-k."""
    mantissa, exponent = np.frexp(x)  # x = mantissa * 2**exponent, mantissa in [0.5, 1)
    k = (exponent - 1) >> 1
    return (mantissa * np.exp2(exponent - 2.0 * k)).astype(np.float32), np.exp2(-1.0 * k).astype(np.float32)


def reciprocal_root(x: Reals, scale: float) -> Reals:
    """Return scale / sqrt(x) by the table of [1, 4); x > 0."""
    m, factor = root_parts(x)
    table = RECIPROCAL_ROOT if scale == RECIPROCAL_ROOT.scale else RECIPROCAL_ROOT.scaled(scale)
    return table(m) * factor


def rsqrt(step: Step) -> list[Array]:
    """RSQRT; operands that are not positive saturate."""
    x = step.centred(0).astype(np.float32) * step.scale(0)
    positive = x > 0
    y = reciprocal_root(np.where(positive, x, _ONE), 1 / float(step.out_scale))
    least, most = limits(step.out, "NONE")
    return [finished(step, np.where(positive, y, np.float32(most - least)))]


def squared_difference(step: Step) -> list[Array]:
    """SQUARED_DIFFERENCE: the weighted difference through a table that holds a square."""
    total, unit = weighted_sum(step, -1)
    x = total.astype(np.float32) * unit
    return [finished(step, _ONE / step.out_scale * x * x)]
