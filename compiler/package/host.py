"""Between tensors and the host buffers of the chip."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from compiler.errors import PackageError
from compiler.package.model import DataType, Layer

_SIGNED = {DataType.SIGNED_FIXED_POINT8: 0x80, DataType.SIGNED_FIXED_POINT16: 0x8000}


def encode_input(layer: Layer, array: npt.NDArray[Any]) -> bytes:
    """Lay an input tensor out for the chip.

    Parameters
    ----------
    array:
        int8, uint8 or int16, with the elements of the layer in row-major order.

    Returns
    -------
    bytes
        Dense, unsigned, zero-padded to the size of the layer.
    """
    flat = np.ascontiguousarray(array).reshape(-1)
    expected = layer.y * layer.x * layer.z
    if flat.size != expected:
        raise PackageError(f"input {layer.name} has {flat.size} elements, the executable takes {expected}")
    bias = _SIGNED.get(layer.data_type, 0)
    unsigned = flat.view(np.uint8 if flat.itemsize == 1 else np.uint16)
    if bias:
        unsigned = np.bitwise_xor(unsigned, np.asarray(bias, unsigned.dtype))
    return unsigned.tobytes().ljust(layer.size, b"\0")


def decode_output(layer: Layer, data: bytes) -> npt.NDArray[Any]:
    """Undo the tiling of an output buffer.

    Returns
    -------
    numpy.ndarray
        Shape (y, x, z) in the layer's own type (int8, uint8, int16 or uint16).
    """
    raw = np.frombuffer(data, np.uint8)
    width = layer.data_type.bytes
    layout = layer.layout
    if layout is None or not layout.tile_offset:
        flat = raw[:layer.y * layer.x * layer.z * width]
    else:
        flat = raw[output_offsets(layer).reshape(-1, 1) * 1 + np.arange(width)] if width > 1 else \
            raw[output_offsets(layer).reshape(-1)]
    values = np.ascontiguousarray(flat).view(np.uint8 if width == 1 else np.uint16)
    bias = _SIGNED.get(layer.data_type, 0)
    if bias:
        values = np.bitwise_xor(values, np.asarray(bias, values.dtype)).view(np.int8 if width == 1 else np.int16)
    return values.reshape(layer.y, layer.x, layer.z)


def output_offsets(layer: Layer) -> npt.NDArray[np.int64]:
    """Byte offset of every element of an output, shape (y, x, z).

    Raises
    ------
    PackageError
        When the layout does not fit the layer.
    """
    layout = layer.layout
    if layout is None:
        return np.arange(layer.y * layer.x * layer.z).reshape(layer.y, layer.x, layer.z)
    tables = [np.asarray(t, np.int64) for t in (layout.tile_y, layout.tile_x, layout.tile_offset, layout.local_x,
                                                layout.local_y, layout.row_size)]
    tile_y, tile_x, offset, local_x, local_y, row = tables
    try:
        tile = tile_y[:layer.y, None] + tile_x[None, :layer.x]
        base = offset[tile] + local_y[:layer.y, None] * row[None, :layer.x] + local_x[None, :layer.x]
    except IndexError as error:
        raise PackageError(f"the layout of output {layer.name} does not fit its size") from error
    offsets: npt.NDArray[np.int64] = base[:, :, None] + np.arange(layer.z) * layer.data_type.bytes
    return offsets
