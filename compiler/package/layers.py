"""Descriptions of inputs and outputs for the runtime.

An output arrives in the order in which the tiles send it: every tile its part of the tensor, row by
row, channels padded to a multiple of four. The tables written here tell the runtime where each pixel
went. Rules read off published compiled models.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import numpy as np
import numpy.typing as npt

from compiler.errors import PackageError
from compiler.facts import LANES, TILE_COLUMNS, TILES
from compiler.graph import Tensor, TensorType
from compiler.package.model import DataType, Layer, OutputLayout

_TYPES = {TensorType.UINT8: (DataType.FIXED_POINT8, 0), TensorType.INT8: (DataType.SIGNED_FIXED_POINT8, 0x80),
          TensorType.INT16: (DataType.SIGNED_FIXED_POINT16, 0x8000)}
"""Per tensor type the type of the layer, and what the chip adds to the zero point."""
_CHANNEL_MULTIPLE = 4
_BUFFER_MULTIPLE = 8
_HALVINGS = 2
"""Four tiles in a row or column: halved twice."""


def input_layer(tensor: Tensor, shape: tuple[int, ...] | None = None) -> Layer:
    """Describe an input: dense, rounded up to 8 bytes.

    Parameters
    ----------
    shape:
        In which the first operator reads it, where a RESHAPE comes before.

    Raises
    ------
    PackageError
        When the tensor is not quantized or not of an integer type that the chip exchanges.
    """
    y, x, z = _last_three(tensor.shape if shape is None else shape)
    return _layer(tensor, (y, x, z), y * x * z, layout=None)


def output_layer(tensor: Tensor, *, bands: int = 1) -> Layer:
    """Describe an output: vectors in groups of 64 channels, images split over the 4x4 tiles.

    Parameters
    ----------
    bands:
        Passes over the image from top to bottom; each is split over all tiles.

    Raises
    ------
    PackageError
        When the tensor is not quantized or not of an integer type that the chip exchanges.
    """
    y, x, z = _last_three(tensor.shape)
    if y == x == 1:
        return _layer(tensor, (y, x, z), _round_up(z, _CHANNEL_MULTIPLE), vector_layout(z))
    layout, elements = grid_layout([halvings(band) for band in bands_of(y, bands)], halvings(x), z)
    return _layer(tensor, (y, x, z), elements, layout)


def shared_layer(tensor: Tensor, parts: Sequence[tuple[int, int, int]]) -> Layer:
    """Describe an output of one row of pixels that arrives as several images.

    The runtime copies pixels with one tile number as one stretch, and takes the distance of pixels from the
    first two; stretches are numbered here as if each came from a tile of its own.

    Parameters
    ----------
    parts:
        Rows and columns of each image, and the pixels of the output that lie behind each other in each of its pixels.

    Raises
    ------
    PackageError
        When the tensor is not quantized or not of an integer type that the chip exchanges.
    """
    y, x, z = _last_three(tensor.shape)
    padded = _round_up(z, _CHANNEL_MULTIPLE)
    starts: list[npt.NDArray[np.int64]] = []
    end = 0
    for height, width, count in parts:
        layout, elements = grid_layout([halvings(height)], halvings(width), count * padded)
        tiles = np.asarray(layout.tile_y)[:, None] + np.asarray(layout.tile_x)
        pixels = (end + np.asarray(layout.tile_offset)[tiles] + np.asarray(layout.local_x)
                  + np.asarray(layout.local_y)[:, None] * np.asarray(layout.row_size))
        starts.append((pixels[..., None] + padded * np.arange(count)).reshape(-1))
        end += elements
    at = np.concatenate(starts)
    first = np.flatnonzero(np.concatenate([[True], np.diff(at) != padded]))
    lengths = np.diff(np.append(first, len(at)))
    layout = OutputLayout(
        tile_y=(0,), tile_x=tuple(np.repeat(np.arange(len(first)), lengths).tolist()),
        tile_offset=tuple(at[first].tolist()), local_x=tuple((at - np.repeat(at[first], lengths)).tolist()), local_y=(0,),
        row_size=tuple((padded * np.repeat(lengths, lengths)).tolist()))
    return _layer(tensor, (y, x, z), end, layout)


def vector_layout(channels: int) -> OutputLayout:
    """Return the layout of a vector: groups of 64 channels, equally many per tile, tile after tile."""
    padded = _round_up(channels, _CHANNEL_MULTIPLE)
    share = LANES * -(-channels // (LANES * TILES))
    offsets = tuple(min(share * tile, padded) for tile in range(TILES))
    return OutputLayout((0,), (0,), offsets, (0,), (0,), (min(share, padded),))


def grid_layout(heights: Sequence[Sequence[int]], widths: Sequence[int], channels: int) -> tuple[OutputLayout, int]:
    """Return the layout of an image, and its elements with padding.

    Parameters
    ----------
    heights:
        Per band: image rows of each of the four rows of tiles.
    widths:
        Image columns of each of the four columns of tiles.
    """
    padded = _round_up(channels, _CHANNEL_MULTIPLE)
    tile_rows = [height for band in heights for height in band]
    areas = [height * width for height in tile_rows for width in widths]
    offsets = (0, *accumulate(area * padded for area in areas))
    layout = OutputLayout(
        tile_y=_spread(tile_rows, [TILE_COLUMNS * row for row in range(len(tile_rows))]),
        tile_x=_spread(widths, range(len(widths))),
        tile_offset=offsets[:-1],
        local_x=tuple(padded * column for width in widths for column in range(width)),
        local_y=tuple(row for height in tile_rows for row in range(height)),
        row_size=_spread(widths, [padded * width for width in widths]),
    )
    return layout, offsets[-1]


def bands_of(height: int, count: int) -> list[int]:
    """Return the heights of bands: as equal as possible, the higher ones first."""
    return [height // count + (i < height % count) for i in range(count)]


def halvings(length: int) -> list[int]:
    """Split a length over four tiles by halving it twice; the first half gets the odd one.

    Examples
    --------
    >>> halvings(10), halvings(2)
    ([3, 2, 3, 2], [1, 0, 1, 0])
    """
    parts = [length]
    for _ in range(_HALVINGS):
        parts = [half for part in parts for half in (part - part // 2, part // 2)]
    return parts


def _spread(counts: Sequence[int], values: Sequence[int]) -> tuple[int, ...]:
    """Repeat each value as often as its count says."""
    return tuple(value for count, value in zip(counts, values, strict=True) for _ in range(count))


def _last_three(shape: Sequence[int]) -> tuple[int, int, int]:
    y, x, z = (1, 1, 1, *shape)[-3:]
    return y, x, z


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple


def _layer(tensor: Tensor, dims: tuple[int, int, int], elements: int, layout: OutputLayout | None) -> Layer:
    if tensor.quantization is None or tensor.type not in _TYPES:
        raise PackageError(f"tensor {tensor.name} of type {tensor.type.name} cannot be exchanged with the chip.",
                           advice="Inputs and outputs of the Edge TPU are quantized int8, uint8 or int16 tensors.")
    kind, offset = _TYPES[tensor.type]
    is_output = layout is not None
    return Layer(
        name=tensor.name,
        size=_round_up(elements * kind.bytes, _BUFFER_MULTIPLE),
        y=dims[0],
        x=dims[1],
        z=dims[2],
        zero_point=tensor.quantization.zero_point + offset,
        scale=tensor.quantization.scale,
        data_type=kind,
        is_output=is_output,
        layout=layout,
        shape=tuple((0, d - 1) for d in tensor.shape) if is_output else None,
    )
