"""Pools over all pixels of images too large for one tile, on the simulator against the arithmetic reference."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from networks import Net, check

from compiler.facts import TILES
from compiler.graph import TensorType
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
