"""Operators that move values: shape, order, padding, joining, resizing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from compiler.beagle.reference.output import requantised, stored, unary_scale
from compiler.beagle.reference.step import Array, NoReferenceError, Step

_MASKS = ("beginMask", "endMask", "ellipsisMask", "newAxisMask", "shrinkAxisMask")


def reshape(step: Step) -> list[Array]:
    """RESHAPE, SQUEEZE, EXPAND_DIMS: the same values in another shape."""
    return [step.array(0)]


def cast(step: Step) -> list[Array]:
    """CAST, on the host."""
    return [step.array(0).astype(step.out.type.numpy)]


def transpose(step: Step) -> list[Array]:
    """TRANSPOSE."""
    return [np.transpose(step.array(0), step.numbers(1))]


def concatenation(step: Step) -> list[Array]:
    """CONCATENATION; parts of another quantization are rescaled."""
    return [np.concatenate([_as_output(step, i) for i in range(step.count)], int(step.option("axis")))]


def _as_output(step: Step, position: int) -> Array:
    q = step.tensor(position).quantization
    if q is None or q.same_as(step.out.quantization):
        return step.array(position)
    return requantised(step, step.centred(position), unary_scale(step, position))


def pack(step: Step) -> list[Array]:
    """PACK: stack along a new axis."""
    return [np.stack([_as_output(step, i) for i in range(step.count)], int(step.option("axis")))]


def unpack(step: Step) -> list[Array]:
    """UNPACK: slices along an axis that goes away."""
    axis = int(step.option("axis"))
    return [part.squeeze(axis) for part in np.split(step.array(0), len(step.outs), axis)]


def split(step: Step) -> list[Array]:
    """SPLIT into equal parts."""
    return np.split(step.array(1), len(step.outs), step.numbers(0)[0])


def split_v(step: Step) -> list[Array]:
    """SPLIT_V into parts of the stated sizes."""
    axis = step.numbers(2)[0]
    ends = np.cumsum([t.shape[axis] for t in step.outs])
    return np.split(step.array(0), ends[:-1], axis)


def slice_(step: Step) -> list[Array]:
    """SLICE; the shape of the result is known."""
    window = tuple(slice(begin, begin + size) for begin, size in zip(step.numbers(1), step.out.shape, strict=True))
    return [step.array(0)[window]]


def strided_slice(step: Step) -> list[Array]:
    """STRIDED_SLICE with its masks."""
    begin_mask, end_mask, ellipsis, new_axes, shrunk = (int(step.option(name)) for name in _MASKS)
    index: list[slice | int | None] = []
    axis = 0
    for i, (begin, end, stride) in enumerate(zip(*(step.numbers(k) for k in (1, 2, 3)), strict=True)):
        if ellipsis >> i & 1:
            raise NoReferenceError(f"{step.op.title}: ellipsis masks are not supported.")
        if new_axes >> i & 1:
            index.append(None)
            continue
        if shrunk >> i & 1:
            index.append(begin)
        else:
            index.append(slice(None if begin_mask >> i & 1 else begin,
                               None if end_mask >> i & 1 else _end(end, stride, step.array(0).shape[axis]), stride))
        axis += 1
    return [step.array(0)[tuple(index)]]


def _end(end: int, stride: int, extent: int) -> int | None:
    """With a negative stride an end before the first element means: up to and including it."""
    return None if stride < 0 and end < -extent else end


def pad(step: Step) -> list[Array]:
    """PAD and PADV2: with the zero point, or with the stated value."""
    zero = step.out.quantization.zero_point if step.out.quantization else 0
    value = int(step.array(2).reshape(-1)[0]) if step.has(2) else zero
    if not step.has(2) and not step.quantization(0).same_as(step.out.quantization):
        moved = requantised(step, step.centred(0), unary_scale(step))
        return [np.pad(moved, _pairs(step.numbers(1)), constant_values=zero)]
    return [np.pad(step.array(0), _pairs(step.numbers(1)), constant_values=value)]


def mirror_pad(step: Step) -> list[Array]:
    """MIRROR_PAD: mode 0 reflects without the edge, mode 1 with it."""
    mode = "symmetric" if step.option("mode") else "reflect"
    return [np.pad(step.array(0), _pairs(step.numbers(1)), mode=mode)]  # type: ignore[call-overload]


def _pairs(numbers: Sequence[int]) -> list[tuple[int, int]]:
    return list(zip(numbers[::2], numbers[1::2], strict=True))


def tile(step: Step) -> list[Array]:
    """TILE."""
    return [np.tile(step.array(0), step.numbers(1))]


def space_to_depth(step: Step) -> list[Array]:
    """SPACE_TO_DEPTH: blocks of pixels become channels."""
    x, block = step.array(0), int(step.option("blockSize"))
    n, height, width, depth = x.shape
    blocks = x.reshape(n, height // block, block, width // block, block, depth)
    return [blocks.transpose(0, 1, 3, 2, 4, 5)]


def depth_to_space(step: Step) -> list[Array]:
    """DEPTH_TO_SPACE: channels become blocks of pixels."""
    x, block = step.array(0), int(step.option("blockSize"))
    n, height, width, depth = x.shape
    blocks = x.reshape(n, height, width, block, block, depth // block**2)
    return [blocks.transpose(0, 1, 3, 2, 4, 5)]


def space_to_batch(step: Step) -> list[Array]:
    """SPACE_TO_BATCH_ND over the two dimensions after the batch."""
    zero = step.quantization(0).zero_point
    x = np.pad(step.array(0), ((0, 0), *_pairs(step.numbers(2)), (0, 0)), constant_values=zero)
    rows, columns = step.numbers(1)
    n, height, width, depth = x.shape
    blocks = x.reshape(n, height // rows, rows, width // columns, columns, depth)
    return [blocks.transpose(2, 4, 0, 1, 3, 5)]


def batch_to_space(step: Step) -> list[Array]:
    """BATCH_TO_SPACE_ND over the two dimensions after the batch."""
    x, (rows, columns) = step.array(0), step.numbers(1)
    n, height, width, depth = x.shape
    blocks = x.reshape(rows, columns, n // (rows * columns), height, width, depth)
    image = blocks.transpose(2, 3, 0, 4, 1, 5).reshape(-1, height * rows, width * columns, depth)
    (top, bottom), (left, right) = _pairs(step.numbers(2))
    return [image[:, top:image.shape[1] - bottom, left:image.shape[2] - right]]


def resize_nearest_neighbor(step: Step) -> list[Array]:
    """RESIZE_NEAREST_NEIGHBOR."""
    x = step.array(0)
    rows, columns = (_nearest(step, x.shape[i], step.out.shape[i]) for i in (1, 2))
    return [x[:, rows[:, None], columns]]


def _nearest(step: Step, source: int, target: int) -> Array:
    """Source index of every target index."""
    aligned, half = bool(step.option("alignCorners")), bool(step.option("halfPixelCenters"))
    scale = np.float32(source - 1) / np.float32(target - 1) if aligned and target > 1 else (
        np.float32(source) / np.float32(target))
    at = (np.arange(target, dtype=np.float32) + np.float32(0.5 if half else 0)) * scale
    whole = np.floor(at + np.float32(0.5)) if aligned else np.floor(at)
    return np.asarray(np.clip(whole, 0, source - 1), np.int64)


def resize_bilinear(step: Step) -> list[Array]:
    """RESIZE_BILINEAR, rounded half to even as the unsigned bytes that the chip stores."""
    low = np.iinfo(step.array(0).dtype).min
    x = step.array(0).astype(np.float64) - low
    (top, bottom, down), (left, right, across) = (_neighbours(step, x.shape[i], step.out.shape[i]) for i in (1, 2))
    rows = x[:, top] * (1 - down)[:, None, None] + x[:, bottom] * down[:, None, None]
    total = rows[:, :, left] * (1 - across)[:, None] + rows[:, :, right] * across[:, None]
    return [stored(step.out, np.rint(total) + low)]


def _neighbours(step: Step, source: int, target: int) -> tuple[Array, Array, Array]:
    """Per target index the lower and upper source index, and the weight of the upper one."""
    aligned, half = bool(step.option("alignCorners")), bool(step.option("halfPixelCenters"))
    scale = (source - 1) / (target - 1) if aligned and target > 1 else source / target
    at = np.arange(target) * scale
    if half:
        at = (np.arange(target) + 0.5) * scale - 0.5
    lower = np.floor(at).astype(np.int64)
    return np.clip(lower, 0, source - 1), np.clip(lower + 1, 0, source - 1), at - lower
