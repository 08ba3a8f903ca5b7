"""Descriptions of inputs and outputs for the runtime."""

from __future__ import annotations

from compiler.facts import LANES, TILES
from compiler.graph import Tensor, TensorType
from compiler.package.model import DataType, Layer, OutputLayout

_TYPES = {TensorType.UINT8: (DataType.FIXED_POINT8, 0), TensorType.INT8: (DataType.SIGNED_FIXED_POINT8, 128),
          TensorType.INT16: (DataType.SIGNED_FIXED_POINT16, 32768)}


def round_up(value: int, multiple: int) -> int:
    """Round up to a multiple."""
    return -(-value // multiple) * multiple


def input_layer(tensor: Tensor) -> Layer:
    """Describe an input: dense, rounded up to 8 bytes."""
    return _layer(tensor, is_output=False, layout=None)


def vector_output_layer(tensor: Tensor) -> Layer:
    """Describe an output vector: groups of 64 channels, tile after tile."""
    z = tensor.elements
    groups = round_up(z, LANES * TILES) // (LANES * TILES)
    padded = round_up(z, 4)
    offsets = tuple(min(LANES * groups * tile, padded) for tile in range(TILES))
    layout = OutputLayout((0,), (0,), offsets, (0,), (0,), (min(LANES * groups, padded),))
    return _layer(tensor, is_output=True, layout=layout)


def _layer(tensor: Tensor, *, is_output: bool, layout: OutputLayout | None) -> Layer:
    kind, offset = _TYPES[tensor.type]
    y, x, z = (1, 1, 1, *tensor.shape)[-3:]
    if tensor.quantization is None:
        raise ValueError(f"{tensor.name} is not quantized")
    size = -(-y * x * z * kind.bytes // 8) * 8
    shape = tuple((0, d - 1) for d in tensor.shape) if is_output else None
    return Layer(tensor.name, size, y, x, z, tensor.quantization.zero_point + offset, tensor.quantization.scale, kind,
                 is_output, layout, shape)
