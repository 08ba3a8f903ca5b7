"""Where the elements of a result come from, for operators that only move elements."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from compiler.graph import Graph, Operator
from compiler.lowering.spatial.context import extent_of
from compiler.lowering.spatial.geometry import EVERY, IDENTITY, Window
from compiler.records import record

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


@record
class Moved:
    """Where the elements of a result come from.

    Attributes
    ----------
    extent:
        Rows, columns and channels of the operand.
    lines:
        Where rows, columns and channels come from, where that is known to be each by itself; int64.
    mixed:
        Where elements come from, where it is not.
    """

    extent: tuple[int, ...]
    lines: tuple[Origins, ...] | None = None
    mixed: Origins | None = None

    @cached_property
    def origins(self) -> Origins:
        """Where each element comes from."""
        if self.mixed is not None:
            return self.mixed
        assert self.lines is not None
        return _joined(self.lines, self.extent)

    @cached_property
    def parts(self) -> tuple[list[int], list[int], list[int]] | None:
        """Origins of rows, columns and channels; None when one depends on another, or when all is padding."""
        if self.lines is None:
            return separated(self.origins, self.extent)
        if any((line == PADDING).all() for line in self.lines):
            return None
        rows, columns, channels = (line.tolist() for line in self.lines)
        return rows, columns, channels


def origins_of(graph: Graph, op: Operator) -> list[Moved]:
    """Return the origins of each result.

    Raises
    ------
    ValueError
        For options that are not known.
    """
    x = graph.tensors[operand_of(op)]
    extent, results = extent_of(x), [graph.tensors[t] for t in op.outputs]
    lines = _lines(graph, op, [np.arange(n) for n in x.shape])
    if lines is not None and all(tuple(map(len, found)) == y.shape and all(line.tolist() == [0] for line in found[:-3])
                                 for found, y in zip(lines, results, strict=True)):
        single = [np.zeros(1, np.int64)] * 3
        return [Moved(extent, (*single, *found)[-3:]) for found in lines]
    moved = _move(graph, op, np.arange(x.elements, dtype=np.int64).reshape(x.shape))
    return [Moved(extent, mixed=m.reshape(extent_of(y))) for m, y in zip(moved, results, strict=True)]


def _numbers(graph: Graph, op: Operator, operand: int) -> list[int]:
    return [int(n) for n in graph.tensors[op.inputs[operand]].array().reshape(-1)]


def _lines(graph: Graph, op: Operator, x: list[Origins]) -> list[list[Origins]] | None:
    """Return per result where the indices of each dimension come from; None where dimensions are mixed.

    Parameters
    ----------
    x:
        The indices of each dimension of the operand.
    """
    y = graph.output(op)
    if op.name == "PAD":
        pads = np.reshape(_numbers(graph, op, 1), (-1, 2))
        return [[np.concatenate([[PADDING] * before, line, [PADDING] * after]).astype(np.int64)
                 for line, (before, after) in zip(x, pads, strict=True)]]
    if op.name == "RESIZE_NEAREST_NEIGHBOR":
        rows, columns = (_nearest(op.options, len(x[axis]), y.shape[axis]) for axis in (1, 2))
        return [[x[0], rows, columns, x[3]]]
    if op.name == "SLICE":
        return [[line[b:b + n] for line, b, n in zip(x, _numbers(graph, op, 1), y.shape, strict=True)]]
    if op.name == "SPLIT":
        axis = _numbers(graph, op, 0)[0] % len(x)
        return [[*x[:axis], part, *x[axis + 1:]] for part in np.split(x[axis], len(op.outputs))]
    if op.name == "STRIDED_SLICE":
        index = _strides(graph, op)
        return [[line[i] for line, i in zip(x, index, strict=True)]] if all(isinstance(i, slice) for i in index) else None
    if op.name == "TILE":
        return [[np.tile(line, n) for line, n in zip(x, _numbers(graph, op, 1), strict=True)]]
    return None


def _move(graph: Graph, op: Operator, x: Origins) -> list[Origins]:
    """Return the numbers of the operand's elements in the order of each result."""
    y = graph.output(op)
    lines = _lines(graph, op, [np.arange(n) for n in x.shape])
    if lines is not None:
        return [_joined(found, x.shape) for found in lines]
    if op.name == "STRIDED_SLICE":
        return [np.asarray(x[tuple(_strides(graph, op))])]
    if op.name == "TRANSPOSE":
        return [np.transpose(x, _numbers(graph, op, 1))]
    if op.name in SAME_ORDER:
        return [x]
    block = int(op.options.blockSize)
    n, rows, columns, channels = x.shape
    parts = x.reshape(n, rows // block, block, columns // block, block, channels)
    return [parts.transpose(0, 1, 3, 2, 4, 5).reshape(y.shape)]


def _joined(lines: Sequence[Origins], extent: Sequence[int]) -> Origins:
    """Return the number of the operand's element at each crossing of lines, ``PADDING`` where one of them is padding."""
    number, inside = np.zeros(1, np.int64), np.ones(1, np.bool_)
    for line, count in zip(np.ix_(*lines), extent, strict=True):
        number, inside = number * count + line, inside & (line != PADDING)
    return np.where(inside, number, PADDING)


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


def _strides(graph: Graph, op: Operator) -> list[slice | int]:
    """Return what a STRIDED_SLICE takes of each dimension."""
    options, x = op.options, graph.tensors[op.inputs[0]]
    if options.ellipsisMask or options.newAxisMask:
        raise ValueError("uses an ellipsis or new axes")
    index: list[slice | int] = []
    for i, (first, last, stride) in enumerate(zip(*(_numbers(graph, op, n) for n in (1, 2, 3)), strict=True)):
        if options.shrinkAxisMask >> i & 1:
            index.append(first)
            continue
        stop = None if options.endMask >> i & 1 or (stride < 0 and last < -x.shape[i]) else last
        index.append(slice(None if options.beginMask >> i & 1 else first, stop, stride))
    return index


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
    rows, columns, channels = (line.tolist() for line in places)
    return (rows, columns, channels) if np.array_equal(_joined(places, extent), origins) else None


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


__all__ = ["PADDING", "SAME_ORDER", "Moved", "Origins", "missing_constant", "operand_of", "origins_of", "separated",
           "window_of"]
