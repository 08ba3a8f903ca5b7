"""SOFTMAX and L2_NORMALIZATION: sequences of table functions with 16-bit steps in between."""

from __future__ import annotations

import numpy as np

from compiler.beagle.isa.tables import EXPONENTIAL, EXPONENTIAL_LOW, RECIPROCAL_ROOT
from compiler.beagle.reference.elementwise import reciprocal_root
from compiler.beagle.reference.output import finished
from compiler.beagle.reference.step import Array, Generation, NoReferenceError, Reals, Step

_WORD = 65535
_STEP = np.float32(1 / _WORD)
_HALF = np.float32(32768)
_SOFTMAX_SCALE = np.float32(1 / 256)
_SOFTMAX_MULTIPLIER = np.float32(1.1921416e-7)
"""256 / 46340**2 but for three units in the last place; the constant of official programs."""
_LOG2_E = np.float32(np.log2(np.e))
_L2_SCALE = np.float32(1 / 128)


def softmax(step: Step) -> list[Array]:
    """SOFTMAX over the last dimension, in steps of 1/256."""
    if step.out_scale != _SOFTMAX_SCALE:
        raise NoReferenceError(f"{step.op.title}: output scale {step.out_scale}, the chip gives steps of 1/256.")
    shares = _by_tables(step) if step.generation is Generation.LATER else _on_scalar_core(step)
    return [finished(step, shares, "NONE")]


def _by_tables(step: Step) -> Reals:
    """Softmax in units of 1/256 by the nonlinear unit.

    e = 65535 * exp(x - max), rounded to 16 bits. With S the sum of e in units of 65535,
    r = 46340 / sqrt(S), then r * r / 65535 = 32768 / S, each rounded to 16 bits. The result is
    e * (32768 / S) * 256 / 46340**2.
    """
    x = step.centred(0)
    below = (x - x.max(-1, keepdims=True)).astype(np.float32)
    scale = _scale(step)
    powers = np.rint(EXPONENTIAL(np.maximum(below * scale, EXPONENTIAL_LOW)))
    sums = powers.sum(-1, keepdims=True, dtype=np.float64).astype(np.float32) * _STEP
    root = np.minimum(np.rint(reciprocal_root(sums, RECIPROCAL_ROOT.scale)), _WORD)
    inverse = np.rint(np.minimum((root.astype(np.float64) ** 2).astype(np.float32) * _STEP, _HALF))
    shares: Reals = (powers.astype(np.float64) * inverse).astype(np.float32) * _SOFTMAX_MULTIPLIER
    return shares


def _on_scalar_core(step: Step) -> Reals:
    """Softmax in units of 1/256, in float32, class after class; stored bytes are unsigned."""
    x = (step.array(0).astype(np.int32) - np.iinfo(step.array(0).dtype).min).astype(np.float32) * _scale(step)
    powers = np.exp2(((x - x.max(-1, keepdims=True)) * _LOG2_E).astype(np.float64)).astype(np.float32)
    sums = np.cumsum(powers, -1, dtype=np.float32)[..., -1:]
    return np.asarray(powers * (np.float32(1) / sums) * np.float32(256), np.float32)


def _scale(step: Step) -> np.float32:
    return np.float32(step.scale(0) * np.float32(step.option("beta", 1.0)))


def l2_normalization(step: Step) -> list[Array]:
    """L2_NORMALIZATION over the last dimension, in steps of 1/128.

    r = 65535 * s / sqrt(s**2 * sum of squares), rounded to 16 bits; the smallest norm but zero, one
    step s of the input, gives the largest word.
    """
    if step.out_scale != _L2_SCALE:
        raise NoReferenceError(f"{step.op.title}: output scale {step.out_scale}, the chip gives steps of 1/128.")
    x = step.centred(0)
    square = np.float32(step.scale(0) * step.scale(0))
    sums = (x.astype(np.int64) ** 2).sum(-1, keepdims=True).astype(np.float32) * square
    factor = reciprocal_root(np.maximum(sums, square), _WORD * float(step.scale(0)))
    words = np.minimum(np.rint(factor), _WORD)
    products = (x * words.astype(np.float64)).astype(np.float32)
    return [finished(step, products * np.float32(128 / _WORD))]
