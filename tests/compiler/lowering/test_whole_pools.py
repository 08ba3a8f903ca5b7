"""Pools over all pixels of images too large for one tile, on the simulator against the arithmetic reference."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from networks import Net, check

from compiler.facts import TILES
from compiler.graph import TensorType
from compiler.lowering.spatial.families.channel_pool import channel_words
from compiler.lowering.spatial.families.whole_pool import parts_of
from compiler.lowering.spatial.geometry import Image

NETWORKS: dict[str, Callable[[Callable[[tuple[int, int, int]], Net]], Net]] = {
    "mean": lambda net: net((20, 21, 3)).conv(300, 1).mean(),
    "mean and dense": lambda net: net((41, 39, 3)).conv(70, 1).mean(keep=False).dense(12),
    "sum of few channels": lambda net: net((48, 46, 5)).reduce("SUM", 1, 2),
    "maximum": lambda net: net((20, 21, 3)).conv(300, 1).pool_all("MAX_POOL_2D"),
    "minimum": lambda net: net((50, 51, 3)).conv(70, 1).reduce("REDUCE_MIN", 1, 2),
    "maximum of few channels": lambda net: net((51, 49, 3)).reduce("REDUCE_MAX", 1, 2),
    "wide": lambda net: net((2, 1100, 6)).pool_all(),
    "high": lambda net: net((2100, 1, 4)).pool_all(),
    "few pixels": lambda net: net((3, 2, 16404)).pool_all(),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_pools_of_large_images(name: str) -> None:
    kind = TensorType.UINT8 if name in ("mean and dense", "maximum of few channels") else TensorType.INT8
    check(NETWORKS[name](lambda shape: Net(shape, kind)).model(), judge=name in ("mean", "maximum"))


@given(st.integers(1, 700), st.integers(1, 700), st.integers(1, 300), st.booleans())
def test_parts_cover_the_pixels_of_a_tile_once(height: int, width: int, channels: int, maximum: bool) -> None:
    image = Image(height, width, channels)
    for tile in range(TILES):
        parts = list(parts_of(image, tile, maximum=maximum))
        assert sum(p.results * p.pixels for p in parts) == image.pixels(tile)
        assert len({(p.rows.start, p.columns.start) for p in parts}) == len(parts)
        assert maximum or all(p.pixels <= 257 for p in parts)


CHANNELS = [(4, 4, 256), (7, 5, 100), (2, 3, 192), (1, 5, 320), (5, 1, 130), (9, 4, 130), (3, 9, 1028)]


@pytest.mark.parametrize("shape", CHANNELS, ids=str)
def test_every_tile_averages_some_channels(shape: tuple[int, int, int]) -> None:
    """Tiles exchange over the mesh; any number of rows, columns and groups, in any order of engines."""
    height, width, channels = shape
    few = height * width * channels < 10_000
    check(Net((height, width, 12)).conv(channels, 1).mean().dense(10).model(), seeds=(None, 1), judge=few)


@pytest.mark.parametrize(("shape", "name"), [((3, 3, 5), "REDUCE_MIN"), ((5, 2, 61), "MEAN"), ((6, 7, 64), "SUM"),
                                            ((4, 6, 200), "REDUCE_MAX")], ids=str)
def test_few_channels_and_extrema(shape: tuple[int, int, int], name: str) -> None:
    """Up to 64 channels come together on tile 0; extrema go the same way."""
    check(Net((*shape[:2], 3), TensorType.UINT8).conv(shape[2], 1).reduce(name, 1, 2).conv(6, 1).model(), judge=True)


def test_a_tile_copies_several_rows_of_pixels_at_once() -> None:
    check(Net((12, 20, 8)).conv(256, 1).mean().model())


@pytest.mark.parametrize(("channels", "tiles"), [(65, 2), (512, 8), (1024, 16), (1280, 10), (2048, 16), (2052, 11)])
def test_channels_of_tiles_are_whole_groups(channels: int, tiles: int) -> None:
    words = channel_words(Image(7, 7, channels))
    assert sum(words) == -(-channels // 4)
    assert sum(n > 0 for n in words) == tiles
    assert all(n % 16 == 0 for n in words[:tiles - 1])
