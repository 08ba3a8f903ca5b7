"""Descriptions of inputs and outputs, and the conversion of host buffers that follows them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compiler.errors import PackageError
from compiler.graph import Quantization, Tensor, TensorType
from compiler.package import DataType, Layer, decode_output, encode_input, row_starts
from compiler.package.layers import bands_of, halvings, input_layer, output_layer, shared_layer

KINDS = [TensorType.INT8, TensorType.UINT8, TensorType.INT16]


def tensor(shape: tuple[int, ...], kind: TensorType = TensorType.INT8) -> Tensor:
    return Tensor(0, "t", shape, kind, Quantization(np.asarray([0.5], np.float32), np.asarray([-3])))


def scatter(layer: Layer, values: np.ndarray) -> bytes:
    """Write an output buffer as the tables describe it, element by element."""
    unsigned = values.view(f"u{values.itemsize}").copy()
    if layer.data_type in (DataType.SIGNED_FIXED_POINT8, DataType.SIGNED_FIXED_POINT16):
        unsigned ^= np.asarray(0x80 << 8 * (values.itemsize - 1), unsigned.dtype)
    buffer = np.zeros(layer.size // values.itemsize, unsigned.dtype)
    t = layer.layout
    assert t is not None
    for (y, x, z), value in np.ndenumerate(unsigned):
        tile = t.tile_y[y] + t.tile_x[x]
        buffer[t.tile_offset[tile] + t.local_y[y] * t.row_size[x] + t.local_x[x] + z] = value
    return buffer.tobytes()


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 23), st.integers(1, 23), st.integers(1, 9), st.sampled_from(KINDS), st.integers(1, 3),
       st.integers(0, 2**31))
def test_outputs_come_back_from_their_tiles(y: int, x: int, z: int, kind: TensorType, bands: int, seed: int) -> None:
    layer = output_layer(tensor((1, y, x, z), kind), bands=bands)
    dtype = kind.numpy
    assert dtype is not None
    info = np.iinfo(dtype)
    values = np.random.default_rng(seed).integers(info.min, info.max + 1, (y, x, z)).astype(dtype)
    got = decode_output(layer, scatter(layer, values))
    assert got.dtype == dtype
    np.testing.assert_array_equal(got, values)


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 300), st.integers(1, 4))
def test_no_two_elements_share_a_place(y: int, x: int, z: int, bands: int) -> None:
    layer = output_layer(tensor((1, y, x, z)), bands=bands)
    starts = np.sort(row_starts(layer).reshape(-1))
    assert starts[0] >= 0
    assert (np.diff(starts) >= z).all()
    assert starts[-1] + z <= layer.size
    padded = -(-z // 4) * 4
    assert layer.size == -(-y * x * padded // 8) * 8


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(2, 4)), min_size=1, max_size=4),
       st.integers(1, 9), st.integers(0, 2**31))
def test_images_that_arrive_one_after_the_other_are_one_output(parts: list[tuple[int, int, int]], z: int, seed: int) -> None:
    count = sum(h * w * n for h, w, n in parts)
    layer = shared_layer(tensor((1, count, z)), parts)
    values = np.random.default_rng(seed).integers(-128, 128, (1, count, z)).astype(np.int8)
    padded = -(-z // 4) * 4
    images, at = [], 0
    for h, w, n in parts:
        image = np.zeros((h, w, n, padded), np.int8)
        image[..., :z] = values[0, at:at + h * w * n].reshape(h, w, n, z)
        sent = output_layer(tensor((1, h, w, n * padded)))
        images.append(scatter(sent, image.reshape(h, w, -1))[:image.size] if h * w > 1 else
                      (image.reshape(-1).view(np.uint8) ^ 0x80).tobytes())
        at += h * w * n
    data = b"".join(images).ljust(layer.size, b"\0")
    assert np.array_equal(decode_output(layer, data), values)
    assert np.array_equal(_by_stretches(layer, data), values[0])


def _by_stretches(layer: Layer, data: bytes) -> np.ndarray:
    """Read an output of one row as the runtime does: a stretch of pixels per tile number, at one distance."""
    t = layer.layout
    assert t is not None
    starts = [t.tile_offset[tile] + x for tile, x in zip(t.tile_x, t.local_x, strict=True)]
    distance, found, x = starts[1] - starts[0], bytearray(), 0
    while x < layer.x:
        length = next((i for i in range(x, layer.x) if t.tile_x[i] != t.tile_x[x]), layer.x) - x
        for i in range(length):
            at = starts[x] + i * distance
            found += data[at:at + layer.z]
        x += length
    return (np.frombuffer(bytes(found), np.uint8) ^ 0x80).view(np.int8).reshape(layer.x, layer.z)


def test_layout_of_a_small_image() -> None:
    # Worked by hand: 3 x 5 pixels of 2 channels over 4 x 4 tiles.
    layout = output_layer(tensor((1, 3, 5, 2))).layout
    assert layout is not None
    assert layout.tile_y == (0, 4, 8)
    assert layout.tile_x == (0, 0, 1, 2, 3)
    assert layout.local_x == (0, 4, 0, 0, 0)
    assert layout.row_size == (8, 8, 4, 4, 4)
    assert layout.tile_offset == (0, 8, 12, 16, 20, 28, 32, 36, 40, 48, 52, 56, 60, 60, 60, 60)


def test_vectors_are_split_into_groups_of_64() -> None:
    layer = output_layer(tensor((1, 1001)))
    assert layer.layout is not None
    assert layer.layout.tile_offset[:3] == (0, 64, 128)
    assert layer.layout.tile_offset[-1] == 960
    assert (layer.size, layer.y, layer.x, layer.z) == (1008, 1, 1, 1001)
    wide = output_layer(tensor((2000,)))
    assert wide.layout is not None
    assert wide.layout.tile_offset[:3] == (0, 128, 256)
    assert wide.layout.tile_offset[-1] == 1920


@given(st.integers(0, 5000))
def test_halvings_cover_the_length(length: int) -> None:
    parts = halvings(length)
    assert sum(parts) == length
    assert len(parts) == 4
    assert max(parts) - min(parts) <= 1


@given(st.integers(1, 5000), st.integers(1, 9))
def test_bands_cover_the_height(height: int, count: int) -> None:
    bands = bands_of(height, count)
    assert sum(bands) == height
    assert bands == sorted(bands, reverse=True)
    assert bands[0] - bands[-1] <= 1


def test_inputs_are_dense_unsigned_and_padded() -> None:
    layer = input_layer(tensor((1, 3)))
    assert (layer.size, layer.zero_point, layer.scale, layer.shape) == (8, 125, 0.5, None)
    assert encode_input(layer, np.asarray([[-128, 0, 127]], np.int8)) == bytes([0, 128, 255, 0, 0, 0, 0, 0])
    wide = input_layer(tensor((1, 3), TensorType.INT16))
    assert wide.zero_point == 32765
    assert encode_input(wide, np.asarray([-32768, 0, 1], np.int16)) == bytes([0, 0, 0, 128, 1, 128, 0, 0])
    unsigned = input_layer(tensor((1, 2, 2, 1), TensorType.UINT8))
    array = np.asarray([[1, 2], [3, 4]], np.uint8).T
    assert encode_input(unsigned, array) == bytes([1, 3, 2, 4, 0, 0, 0, 0])


def test_wrong_inputs_are_refused() -> None:
    layer = input_layer(tensor((1, 3)))
    with pytest.raises(PackageError, match="input t has 4 elements, the executable takes 3"):
        encode_input(layer, np.zeros(4, np.int8))
    with pytest.raises(PackageError, match="input t is given as uint8, the executable takes int8"):
        encode_input(layer, np.zeros(3, np.uint8))
    with pytest.raises(PackageError, match="input t has 5 elements, the executable takes 6"):
        encode_input(replace(layer, executions=2), np.zeros(5, np.int8))


def test_layers_of_several_executions_are_padded_each_time() -> None:
    twice = replace(input_layer(tensor((1, 3), TensorType.UINT8)), executions=2)
    assert encode_input(twice, np.arange(6, dtype=np.uint8)) == bytes([0, 1, 2, 0, 0, 0, 0, 0, 3, 4, 5, 0, 0, 0, 0, 0])
    results = replace(output_layer(tensor((1, 3), TensorType.UINT8)), executions=2)
    data = bytes(range(2 * results.size))
    assert decode_output(results, data).reshape(2, 3).tolist() == [list(data[:3]), list(data[results.size:results.size + 3])]


def test_tensors_that_the_chip_cannot_exchange_are_refused() -> None:
    for bad in (replace(tensor((1, 3)), quantization=None), replace(tensor((1, 3)), type=TensorType.INT32)):
        with pytest.raises(PackageError, match=r"tensor t of type INT.* cannot be exchanged"):
            input_layer(bad)


def test_buffers_that_do_not_fit_are_refused() -> None:
    layer = output_layer(tensor((1, 3, 5, 2)))
    layout = layer.layout
    assert layout is not None
    data = bytes(layer.size)
    cases = {
        "its buffer of 16 bytes holds 16": (layer, data[:16]),
        "reaches beyond its buffer of 57 bytes": (layer, data[:57]),
        "does not cover its 3 x 5 pixels": (replace(layer, layout=replace(layout, tile_y=(0, 4))), data),
        "names tiles that it does not place": (replace(layer, layout=replace(layout, tile_x=(0, 0, 1, 2, 40))), data),
        "3 x 5 pixels has no layout": (replace(layer, layout=None), data),
        "several batches": (replace(layer, executions=2), data),
        "dimensions -1 x 5 x 2": (replace(layer, y=-1), data),
        "BFLOAT": (replace(layer, data_type=DataType.BFLOAT), data),
    }
    for message, (bad, buffer) in cases.items():
        with pytest.raises(PackageError, match=message):
            decode_output(bad, buffer)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_damaged_layouts_never_escape_as_other_errors(data: st.DataObject) -> None:
    layer = output_layer(tensor((1, 3, 5, 2)))
    assert layer.layout is not None
    name = data.draw(st.sampled_from(["tile_y", "tile_x", "tile_offset", "local_x", "local_y", "row_size"]))
    table = list(getattr(layer.layout, name))
    table[data.draw(st.integers(0, len(table) - 1))] = data.draw(st.integers(-(2**31), 2**31 - 1))
    dims = data.draw(st.sampled_from([(3, 5, 2), (0, 5, 2), (3, 5, 2**31 - 1), (2**31 - 1, 1, 1), (1, 1, 50)]))
    y, x, z = dims
    bad = replace(layer, y=y, x=x, z=z, layout=replace(layer.layout, **{name: tuple(table)}))
    try:
        assert decode_output(bad, bytes(layer.size)).shape == dims
    except PackageError as error:
        assert "output t" in str(error)
