"""Where the elements of a result come from, for operators that only move elements."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from compiler.graph import Graph, Operator
from compiler.lowering.spatial.context import extent_of
from compiler.lowering.spatial.geometry import EVERY, IDENTITY, Window

Origins = npt.NDArray[np.int64]
"""Shape (rows, columns, channels): the number of the element in the operand, or -1 for padding."""
PADDING = -1
_OPERAND = {"SPLIT": 1}
SAME_ORDER = ("EXPAND_DIMS", "RESHAPE", "SQUEEZE")
_CONSTANTS = {"EXPAND_DIMS": (1,), "PAD": (1,), "RESIZE_NEAREST_NEIGHBOR": (1,), "SLICE": (1, 2), "SPLIT": (0,),
              "STRIDED_SLICE": (1, 2, 3), "TILE": (1,), "TRANSPOSE": (1,)}


def operand_of(op: Operator) -> int:
    """Return the tensor whose elements are moved."""
    return op.inputs[_OPERAND.get(op.name, 0)]


def missing_constant(graph: Graph, op: Operator) -> str:
    """Return the name of an operand that must be a constant and is none; empty when all are."""
    return next((graph.tensors[op.inputs[i]].name for i in _CONSTANTS.get(op.name, ())
                 if not graph.tensors[op.inputs[i]].is_constant), "")


def origins_of(graph: Graph, op: Operator) -> list[Origins]:
    """Return the origins of each result.

    Raises
    ------
    ValueError
        For options that are not known.
    """
    x = graph.tensors[operand_of(op)]
    numbers = np.arange(x.elements, dtype=np.int64).reshape(x.shape)
    moved = _move(graph, op, numbers)
    return [m.reshape(extent_of(graph.tensors[t])) for m, t in zip(moved, op.outputs, strict=True)]


def _move(graph: Graph, op: Operator, x: Origins) -> list[Origins]:
    def numbers(operand: int) -> list[int]:
        return [int(n) for n in graph.tensors[op.inputs[operand]].array().reshape(-1)]

    y = graph.output(op)
    if op.name == "PAD":
        pads = numbers(1)
        return [np.pad(x, list(zip(pads[::2], pads[1::2], strict=True)), constant_values=PADDING)]
    if op.name == "RESIZE_NEAREST_NEIGHBOR":
        rows, columns = (_nearest(op.options, x.shape[axis], y.shape[axis]) for axis in (1, 2))
        return [x[:, rows[:, None], columns]]
    if op.name == "SLICE":
        return [x[tuple(slice(b, b + n) for b, n in zip(numbers(1), y.shape, strict=True))]]
    if op.name == "SPLIT":
        return np.split(x, len(op.outputs), numbers(0)[0])
    if op.name == "STRIDED_SLICE":
        return [_strided(x, op.options, numbers(1), numbers(2), numbers(3))]
    if op.name == "TILE":
        return [np.tile(x, numbers(1))]
    if op.name == "TRANSPOSE":
        return [np.transpose(x, numbers(1))]
    if op.name in SAME_ORDER:
        return [x]
    block = int(op.options.blockSize)
    n, rows, columns, channels = x.shape
    parts = x.reshape(n, rows // block, block, columns // block, block, channels)
    return [parts.transpose(0, 1, 3, 2, 4, 5).reshape(y.shape)]


def _nearest(options: Any, source: int, target: int) -> Origins:
    """Return the nearest input row of each output row, in float32 as TensorFlow Lite computes it."""
    if options.alignCorners and target > 1:
        scale = np.float32(source - 1) / np.float32(target - 1)
    else:
        scale = np.float32(source) / np.float32(target)
    half = np.float32(0.5)
    places = (np.arange(target, dtype=np.float32) + (half if options.halfPixelCenters else np.float32(0))) * scale
    whole = np.floor(places + half if options.alignCorners else places)
    return np.asarray(np.clip(whole, 0, source - 1), np.int64)


def _strided(x: Origins, options: Any, begin: Sequence[int], end: Sequence[int], strides: Sequence[int]) -> Origins:
    if options.ellipsisMask or options.newAxisMask:
        raise ValueError("uses an ellipsis or new axes")
    index: list[slice | int] = []
    for i, (first, last, stride) in enumerate(zip(begin, end, strides, strict=True)):
        if options.shrinkAxisMask >> i & 1:
            index.append(first)
            continue
        stop = None if options.endMask >> i & 1 or (stride < 0 and last < -x.shape[i]) else last
        index.append(slice(None if options.beginMask >> i & 1 else first, stop, stride))
    return np.asarray(x[tuple(index)])


def separated(origins: Origins, extent: Sequence[int]) -> tuple[list[int], list[int], list[int]] | None:
    """Split origins into those of rows, columns and channels; None when one depends on another.

    Parameters
    ----------
    extent:
        Rows, columns and channels of the operand.

    Examples
    --------
    >>> separated(np.arange(24).reshape(2, 3, 4)[:, 1:, ::2], (2, 3, 4))
    ([0, 1], [1, 2], [0, 2])
    """
    # Of origins that can be split, the lines through any element inside tell all.
    at = np.unravel_index(int(origins.argmax()), origins.shape)
    if origins[at] == PADDING:
        return None
    places = []
    for axis in range(3):
        line = origins[tuple(slice(None) if a == axis else at[a] for a in range(3))]
        places.append(np.where(line == PADDING, PADDING, np.unravel_index(np.maximum(line, 0), tuple(extent))[axis]))
    rows, columns, channels = np.ix_(*places)
    inside = (rows != PADDING) & (columns != PADDING) & (channels != PADDING)
    whole = np.where(inside, (rows * extent[1] + columns) * extent[2] + channels, PADDING)
    found = [p.tolist() for p in places]
    return (found[0], found[1], found[2]) if np.array_equal(whole, origins) else None


def window_of(places: Sequence[int], length: int) -> Window | None:
    """Return the window that reads these rows (or columns) of an operand of some length; None when none does.

    Examples
    --------
    >>> window_of([-1, 0, 1, 2, -1], 3), window_of([1, 3, 5], 7), window_of([0, 1, 0, 1], 2)
    (Window(size=1, stride=1, before=1, dilation=1), Window(size=1, stride=2, before=-1, dilation=1), None)
    """
    inside = [i for i, p in enumerate(places) if p != PADDING]
    first = inside[0]
    stride = places[inside[1]] - places[first] if len(inside) > 1 else 1
    window = Window(1, stride, first * stride - places[first])
    read = [i * stride - window.before for i in range(len(places))]
    agrees = all(p == r if p != PADDING else not 0 <= r < length for p, r in zip(places, read, strict=True))
    if not agrees or stride < 0:
        return None
    # Rows keep their numbers, but lie on other tiles where there are more or fewer of them.
    return EVERY if window == IDENTITY and len(places) != length else window


__all__ = ["PADDING", "SAME_ORDER", "Origins", "missing_constant", "operand_of", "origins_of", "separated", "window_of"]
