"""CONV_2D, DEPTHWISE_CONV_2D, TRANSPOSE_CONV, FULLY_CONNECTED: sums of products."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from compiler.beagle.reference.output import product_scale, requantised
from compiler.beagle.reference.step import Array, Step

_EXACT_FLOAT32 = 1 << 24
_PATCH_BYTES = 1 << 26
"""Input patches are laid out in pieces of this size."""
_SAME = 0
Padding = tuple[int, int]


def exact_type(x: Array, weights: Array, axes: int | tuple[int, ...]) -> type[np.floating[Any]]:
    """Return the narrowest float type in which the sums of products over ``axes`` are exact in any order."""
    largest = int(np.abs(weights.astype(np.int64)).sum(axes).max(initial=0)) * int(np.abs(x).max(initial=0))
    return np.float32 if largest < _EXACT_FLOAT32 else np.float64


def padding(extent: int, kernel: int, stride: int, dilation: int, scheme: int) -> Padding:
    """Return the padding before and after one axis."""
    if scheme != _SAME:
        return 0, 0
    covered = (kernel - 1) * dilation + 1
    total = max((-(-extent // stride) - 1) * stride + covered - extent, 0)
    return total // 2, total - total // 2


def windows(step: Step, x: Array, kernel: tuple[int, int], fill: int = 0) -> npt.NDArray[Any]:
    """Return a view of all windows: shape (batch, rows, columns, kernel height, kernel width, channels)."""
    stride = (int(step.option("strideH", 1)), int(step.option("strideW", 1)))
    dilation = (int(step.option("dilationHFactor", 1)), int(step.option("dilationWFactor", 1)))
    pads = [padding(x.shape[1 + i], kernel[i], stride[i], dilation[i], step.option("padding")) for i in (0, 1)]
    # The window may reach beyond the padded image by less than one stride; it is not used there.
    padded = np.pad(x, ((0, 0), *pads, (0, 0)), constant_values=fill)
    spans = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    view = np.lib.stride_tricks.sliding_window_view(padded, spans, axis=(1, 2))
    view = view[:, ::stride[0], ::stride[1], :, ::dilation[0], ::dilation[1]]
    return view.transpose(0, 1, 2, 4, 5, 3)


def with_bias(step: Step, sums: Array, position: int) -> Array:
    """Add the int32 bias where there is one."""
    return sums.astype(np.float64) + step.array(position).reshape(-1) if step.has(position) else sums


def conv_2d(step: Step) -> list[Array]:
    """CONV_2D, grouped ones included."""
    x, w = step.centred(0), step.centred(1)
    outputs, depth = w.shape[0], w.shape[3]
    groups = x.shape[3] // depth
    share = outputs // groups
    parts = [_convolve(step, x[..., g * depth:(g + 1) * depth], w[g * share:(g + 1) * share]) for g in range(groups)]
    sums = with_bias(step, np.concatenate(parts, -1) if groups > 1 else parts[0], 2)
    return [requantised(step, sums, product_scale(step, 0, 1))]


def _convolve(step: Step, x: Array, w: Array) -> Array:
    kind = exact_type(x, w, (1, 2, 3))
    view = windows(step, x.astype(kind), (w.shape[1], w.shape[2]))
    matrix = np.ascontiguousarray(w.reshape(len(w), -1).T, kind)
    batch, rows, columns = view.shape[:3]
    result = np.empty((batch, rows, columns, len(w)), kind)
    band = max(1, _PATCH_BYTES // (columns * matrix.shape[0] * matrix.itemsize))
    for n in range(batch):
        for top in range(0, rows, band):
            patches = view[n, top:top + band]
            result[n, top:top + band] = (patches.reshape(-1, matrix.shape[0]) @ matrix).reshape(*patches.shape[:2], -1)
    return result


def depthwise_conv_2d(step: Step) -> list[Array]:
    """DEPTHWISE_CONV_2D: output channel c * multiplier + m sees input channel c."""
    x, w = step.centred(0), step.centred(1)[0]
    kind = exact_type(x, w, (0, 1))
    view = windows(step, x.astype(kind), (w.shape[0], w.shape[1]))
    channels = x.shape[3]
    taps = w.reshape(w.shape[0], w.shape[1], channels, -1).astype(kind)
    total = np.zeros((*view.shape[:3], channels, taps.shape[3]), kind)
    for i in range(w.shape[0]):
        for j in range(w.shape[1]):
            total += view[:, :, :, i, j, :, None] * taps[i, j]
    sums = with_bias(step, total.reshape(*view.shape[:3], -1), 2)
    return [requantised(step, sums, product_scale(step, 0, 1))]


def transpose_conv(step: Step) -> list[Array]:
    """TRANSPOSE_CONV: every input element spreads a weighted kernel over the output."""
    w, x = step.centred(1), step.centred(2)
    outputs, kh, kw, _ = w.shape
    stride = (int(step.option("strideH", 1)), int(step.option("strideW", 1)))
    n, height, width = step.out.shape[:3]
    spread = np.zeros((n, (x.shape[1] - 1) * stride[0] + kh, (x.shape[2] - 1) * stride[1] + kw, outputs))
    for i in range(kh):
        for j in range(kw):
            target = spread[:, i:i + x.shape[1] * stride[0]:stride[0], j:j + x.shape[2] * stride[1]:stride[1]]
            target += x.astype(np.float64) @ w[:, i, j].T.astype(np.float64)
    top = max(spread.shape[1] - height, 0) // 2 if step.option("padding") == _SAME else 0
    left = max(spread.shape[2] - width, 0) // 2 if step.option("padding") == _SAME else 0
    # Outputs that no input reaches (stride beyond the kernel) hold the bias alone.
    sums = np.zeros((n, height, width, outputs))
    part = spread[:, top:top + height, left:left + width]
    sums[:, :part.shape[1], :part.shape[2]] = part
    return [requantised(step, with_bias(step, sums, 3), product_scale(step, 2, 1))]


def fully_connected(step: Step) -> list[Array]:
    """FULLY_CONNECTED; the weights may be computed."""
    w = step.centred(1)
    x = step.centred(0).reshape(-1, w.shape[1])
    kind = exact_type(x, w, 1)
    sums = with_bias(step, x.astype(kind) @ w.T.astype(kind), 2)
    return [requantised(step, sums, product_scale(step, 0, 1))]
