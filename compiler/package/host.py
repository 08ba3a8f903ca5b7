"""Between tensors and the host buffers of the chip, as the runtime (libedgetpu) converts them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from compiler.errors import PackageError
from compiler.package.model import DataType, Layer

_DTYPES: dict[DataType, np.dtype[Any]] = {
    DataType.FIXED_POINT8: np.dtype("u1"), DataType.FIXED_POINT16: np.dtype("<u2"),
    DataType.SIGNED_FIXED_POINT32: np.dtype("<i4"), DataType.HALF: np.dtype("<f2"), DataType.SINGLE: np.dtype("<f4"),
    DataType.SIGNED_FIXED_POINT8: np.dtype("i1"), DataType.SIGNED_FIXED_POINT16: np.dtype("<i2"),
}
_SIGN = {DataType.SIGNED_FIXED_POINT8: 0x80, DataType.SIGNED_FIXED_POINT16: 0x8000}
"""Types whose sign bit is flipped on the way: the chip computes with unsigned numbers."""


VARIABLE_OUTPUT = "_variable_output"
"""What official compilers add to the name of a variable tensor where its next value leaves."""


def tensor_name(layer: Layer) -> str:
    """Return the name of the tensor that a layer holds: the next value of a variable tensor is its own."""
    return layer.name.removesuffix(VARIABLE_OUTPUT) if layer.is_output else layer.name


def dtype_of(layer: Layer) -> np.dtype[Any]:
    """Return the type of the elements of a layer on the host.

    Raises
    ------
    PackageError
        When numpy has no such type.
    """
    if layer.data_type not in _DTYPES:
        raise PackageError(f"{layer.name} is of type {layer.data_type.name}, which numpy does not have.")
    return _DTYPES[layer.data_type]


def encode_input(layer: Layer, array: npt.NDArray[Any]) -> bytes:
    """Lay an input tensor out for the chip.

    Parameters
    ----------
    array:
        The elements of the layer in row-major order, of its type; of a layer that is read several times
        per inference, those of all times.

    Returns
    -------
    bytes
        Dense, unsigned, each time zero-padded to the size of the layer.

    Raises
    ------
    PackageError
        When number or type of the elements are not those of the layer.
    """
    dtype = dtype_of(layer)
    if array.dtype != dtype:
        raise PackageError(f"input {layer.name} is given as {array.dtype}, the executable takes {dtype}.")
    expected = layer.y * layer.x * layer.z * layer.executions
    if array.size != expected:
        raise PackageError(f"input {layer.name} has {array.size} elements, the executable takes {expected}.")
    values = _flip(layer, np.ascontiguousarray(array).reshape(layer.executions, -1))
    return b"".join(part.tobytes().ljust(layer.size, b"\0") for part in values)


def decode_output(layer: Layer, data: bytes) -> npt.NDArray[Any]:
    """Undo the tiling of an output buffer.

    Returns
    -------
    numpy.ndarray
        Shape (y, x, z) in the type of the layer; (times, 1, z) of a vector that is written several times.

    Raises
    ------
    PackageError
        When the buffer is too small, or the layer is described in a way that is not supported.
    """
    dtype = dtype_of(layer)
    if layer.executions > 1 and layer.y == layer.x == 1:
        return np.concatenate([decode_output(replace(layer, executions=1), data[at:at + layer.size])
                               for at in range(0, layer.executions * layer.size, layer.size)])
    count = len(data) // dtype.itemsize
    elements = np.frombuffer(data, dtype, count)
    if max(layer.y, 0) * max(layer.x, 0) * max(layer.z, 0) > count:
        raise PackageError(f"output {layer.name} has {layer.y} x {layer.x} x {layer.z} elements, its buffer of "
                           f"{len(data)} bytes holds {count}.")
    starts = row_starts(layer)
    if starts.size and (starts.min() < 0 or starts.max() + layer.z > count):
        raise PackageError(f"the layout of output {layer.name} reaches beyond its buffer of {len(data)} bytes.")
    if layer.z <= 0 or not starts.size:
        return np.zeros((layer.y, layer.x, max(layer.z, 0)), dtype)
    rows = np.lib.stride_tricks.sliding_window_view(elements, layer.z)
    return _flip(layer, rows[starts])


def row_starts(layer: Layer) -> npt.NDArray[np.int64]:
    """Return where the channels of each pixel begin in an output buffer, in elements; shape (y, x).

    Raises
    ------
    PackageError
        When the layout does not fit the layer, or is not supported.
    """
    if layer.has_slices or layer.executions != 1:
        raise PackageError(f"output {layer.name} holds several batches in one buffer, which is not supported.")
    if min(layer.y, layer.x, layer.z) < 0:
        raise PackageError(f"output {layer.name} has the dimensions {layer.y} x {layer.x} x {layer.z}.")
    if layer.y == layer.x == 1:
        return np.zeros((1, 1), np.int64)
    layout = layer.layout
    if layout is None:
        raise PackageError(f"output {layer.name} of {layer.y} x {layer.x} pixels has no layout.")
    tile_y, local_y = (np.asarray(t[:layer.y], np.int64)[:, None] for t in (layout.tile_y, layout.local_y))
    tile_x, local_x, row = (np.asarray(t[:layer.x], np.int64) for t in (layout.tile_x, layout.local_x, layout.row_size))
    offset = np.asarray(layout.tile_offset, np.int64)
    if {tile_y.size, local_y.size} != {layer.y} or {tile_x.size, local_x.size, row.size} != {layer.x}:
        raise PackageError(f"the layout of output {layer.name} does not cover its {layer.y} x {layer.x} pixels.")
    tile = tile_y + tile_x
    if tile.size and not 0 <= tile.min() <= tile.max() < offset.size:
        raise PackageError(f"the layout of output {layer.name} names tiles that it does not place.")
    starts: npt.NDArray[np.int64] = offset[tile] + local_y * row + local_x
    return starts


def _flip(layer: Layer, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Change between signed numbers and the unsigned ones of the chip, in either direction."""
    if layer.data_type not in _SIGN:
        return values
    unsigned = values.view(np.dtype(f"u{values.itemsize}"))
    flipped: npt.NDArray[Any] = np.bitwise_xor(unsigned, unsigned.dtype.type(_SIGN[layer.data_type]))
    return flipped.view(values.dtype)
