"""Pools and reductions."""

from __future__ import annotations

from math import lcm

import numpy as np

from compiler.beagle.reference.convolutions import windows
from compiler.beagle.reference.output import requantised, unary_scale
from compiler.beagle.reference.step import Array, Generation, Integers, Reals, Step

_ONE = np.float32(1)
_UNSET = -(1 << 30)


def _kernel(step: Step) -> tuple[int, int]:
    return int(step.option("filterHeight")), int(step.option("filterWidth"))


def average_pool_2d(step: Step) -> list[Array]:
    """AVERAGE_POOL_2D: the sum of what lies inside the image, times 1 / count.

    Where windows reach over the border sums of fewer pixels are multiplied with a whole number first, so
    that one scale serves all of them (an official 3x3 pool: factors 4, 6 and 9, scale 1 / 36).
    """
    x = step.centred(0)
    sums = windows(step, x, _kernel(step)).sum((3, 4), dtype=np.int64)
    inside = windows(step, np.ones_like(x[:1, :, :, :1]), _kernel(step)).sum((3, 4))
    whole = lcm(*np.unique(inside).tolist())
    return [requantised(step, sums * (whole // inside), _pool_scale(step, whole))]


def _pool_scale(step: Step, count: int) -> Reals:
    if step.generation is Generation.EARLY and step.scale(0) == step.out_scale:
        return np.asarray(1 / count, np.float32)
    return mean_scale(step, count)


def mean_scale(step: Step, count: Array | int) -> Reals:
    """Return f32(f32(s_in * f32(1 / count)) * f32(1 / s_out)), of the shape of the count."""
    share = (1 / np.asarray(count)).astype(np.float32)
    return np.asarray(step.scale(0) * share * (_ONE / step.out_scale), np.float32)


def max_pool_2d(step: Step) -> list[Array]:
    """MAX_POOL_2D."""
    largest = windows(step, step.centred(0), _kernel(step), _UNSET).max((3, 4))
    return [requantised(step, largest, unary_scale(step))]


def _along_axes(step: Step) -> tuple[Integers, tuple[int, ...]]:
    x = step.centred(0)
    return x, tuple(sorted({axis % x.ndim for axis in step.numbers(1)}))


def mean(step: Step) -> list[Array]:
    """MEAN."""
    x, axes = _along_axes(step)
    count = int(np.prod([x.shape[a] for a in axes]))
    return [requantised(step, x.sum(axes, dtype=np.int64), mean_scale(step, count), "NONE")]


def total(step: Step) -> list[Array]:
    """SUM."""
    x, axes = _along_axes(step)
    return [requantised(step, x.sum(axes, dtype=np.int64), mean_scale(step, 1), "NONE")]


def reduce_max(step: Step) -> list[Array]:
    """REDUCE_MAX."""
    x, axes = _along_axes(step)
    return [requantised(step, x.max(axes), unary_scale(step), "NONE")]


def reduce_min(step: Step) -> list[Array]:
    """REDUCE_MIN."""
    x, axes = _along_axes(step)
    return [requantised(step, x.min(axes), unary_scale(step), "NONE")]


def arg_max(step: Step) -> list[Array]:
    """ARG_MAX: the first of equals."""
    return [np.argmax(step.array(0), step.numbers(1)[0]).astype(step.out.type.numpy)]
