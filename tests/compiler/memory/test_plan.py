"""The cache plan: whole layers, never too much, monotone, deterministic."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compiler.facts import TILES, WIDE_ROW_BYTES, WIDE_ROWS
from compiler.memory.demand import Kind, ModelDemand, ParameterTensor
from compiler.memory.placement import TileMemory
from compiler.memory.plan import CachePlan, plan_cache
from compiler.memory.size_order import by_size
from compiler.memory.tile_heap import TileHeap

local = st.builds(ParameterTensor, name=st.just("table"), kind=st.just(Kind.LOCAL), rows=st.integers(1, 450),
                  streamed_bytes=st.integers(64, 10_000), tiles=st.integers(1, TILES))


def dense_tensor(inputs: int, outputs: int) -> ParameterTensor:
    """What a dense layer asks for: groups of 64 outputs, equally many on each tile but the last."""
    groups, group_rows = -(-outputs // 64), 1 + -(-inputs // 4)
    per_tile = -(-groups // TILES)
    tiles = -(-groups // per_tile)
    return ParameterTensor("dense", Kind.LOCAL, per_tile * group_rows, groups * group_rows * 256, tiles,
                           (groups - per_tile * (tiles - 1)) * group_rows, group_rows=group_rows)


dense = st.builds(dense_tensor, st.integers(1, 800), st.integers(1, 3000))
ring = st.builds(ParameterTensor, name=st.just("conv"), kind=st.just(Kind.RING), rows=st.integers(1, 1200),
                 streamed_bytes=st.integers(64, 10_000), reads=st.integers(1, 3), depthwise=st.booleans(),
                 cacheable=st.booleans())
demands = st.lists(st.builds(ModelDemand, name=st.just("model"),
                             tensors=st.lists(st.one_of(local, dense, ring), max_size=15).map(tuple),
                             staging_row=st.integers(1, 400)), min_size=1, max_size=4)


def occupied(plan: CachePlan) -> set[tuple[int, int]]:
    rows = [(p.tile, r) for m in plan.models for pieces in m.pieces for p in pieces
            for r in range(p.row, p.row + p.rows)]
    assert len(rows) == len(set(rows)), "two tensors share a row"
    return set(rows)


@settings(max_examples=60, deadline=None)
@given(demands)
def test_plan_stays_in_memory_and_never_splits_a_layer(models: list[ModelDemand]) -> None:
    plan = plan_cache(models)
    rows = occupied(plan)
    assert all(0 <= tile < TILES and 0 <= row < plan.staging_row for tile, row in rows)
    assert plan.remaining == plan.capacity - len(rows) * WIDE_ROW_BYTES >= 0
    for model in plan.models:
        for tensor, pieces in zip(model.demand.tensors, model.pieces, strict=True):
            assert sum(p.rows for p in pieces) in (0, tensor.total_rows)
            assert tensor.cacheable or not pieces
    for model in plan.models:
        for i, (tensor, pieces) in enumerate(zip(model.demand.tensors, model.pieces, strict=True)):
            if not pieces:
                continue
            if tensor.kind is Kind.LOCAL and model.side_by_side(i):
                assert [p.tile for p in pieces] == list(range(tensor.tiles))
                assert len({p.row for p in pieces}) == 1
            else:
                assert [p.first for p in pieces] == [sum(q.rows for q in pieces[:n]) for n in range(len(pieces))]
                assert len({p.tile for p in pieces}) == len(pieces)
                assert all(p.rows % (tensor.group_rows or 1) == 0 for p in pieces)


@settings(max_examples=30, deadline=None)
@given(demands)
def test_plan_is_deterministic(models: list[ModelDemand]) -> None:
    assert plan_cache(models) == plan_cache(models)


small = st.one_of(
    st.builds(ParameterTensor, st.just("conv"), st.just(Kind.RING), st.integers(1, 700), st.integers(64, 10_000),
              reads=st.integers(1, 3), depthwise=st.booleans()),
    st.builds(ParameterTensor, st.just("conv"), st.just(Kind.RING), st.integers(1, 60), st.integers(64, 10_000)),
    st.builds(dense_tensor, st.integers(1, 400), st.integers(1, 3000)))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.lists(small, max_size=10).map(tuple), min_size=1, max_size=3),
       st.lists(st.integers(1, 200), min_size=2, max_size=4).map(sorted))
def test_more_room_never_streams_more(models: list[tuple[ParameterTensor, ...]], rooms: list[int]) -> None:
    """Of a set, the first model that streams another amount streams less."""
    streamed = [[m.streamed for m in plan_cache([ModelDemand("m", t) for t in models], room).models] for room in rooms]
    assert streamed == sorted(streamed, reverse=True)


def test_a_layer_that_just_fits_does_not_push_out_better_ones() -> None:
    """First fit alone gives the whole memory to the first layer as soon as it has 101 rows on each tile."""
    layer = ParameterTensor("large", Kind.RING, 16 * 101, 64)
    others = (ParameterTensor("small", Kind.RING, 100, 10_000),) * TILES
    tensors = (layer, *others)
    assert TileMemory(100).place(tensors).streamed == 64
    assert TileMemory(101).place(tensors).streamed == TILES * 10_000
    assert plan_cache([ModelDemand("m", tensors, 101)]).models[0].streamed == 64


@pytest.mark.parametrize(("inputs", "width", "hidden", "on_chip", "off_chip"), [
    (64, 1340, 4, 5.32, 0), (64, 1600, 4, 7.52, 0), (64, 1620, 4, 5.34, 2.57), (64, 1980, 4, 7.73, 3.75),
    (64, 2000, 4, 7.81, 4.06), (64, 2650, 4, 7.12, 13.6), (64, 2700, 4, 0.332763671875, 21.26),
    (6912, 762, 5, 7.35, 0), (6912, 842, 5, 7.4, 1.44), (6912, 962, 5, 7.69, 2.84), (6912, 1602, 5, 7.73, 13.51),
])
def test_published_sizes_of_dense_networks(inputs: int, width: int, hidden: int, on_chip: float, off_chip: float) -> None:
    """MiB on and off the chip, measured with compiler 16.0 by J. Villarrubia (EdgeTPU-QuantRL-Evaluation)."""
    sizes = [inputs, *[width] * hidden, 10]
    tensors = []
    for a, b in pairwise(sizes):
        t = dense_tensor(a, b)
        lanes = min(64, -(-b // 16) * 16)
        rows = t.group_rows - 1
        tensors.append(replace(t, rows=t.rows // t.group_rows * rows, last_rows=(t.last_rows or 0) // t.group_rows * rows,
                               group_rows=rows, streamed_bytes=t.total_rows // t.group_rows * rows * lanes * 4))
    staging = WIDE_ROWS - max(2 * -(-inputs // WIDE_ROW_BYTES), 6)
    plan = plan_cache([ModelDemand("m", tuple(tensors), staging)])
    if not all(plan.models[0].side_by_side(i) for i in range(len(tensors))):
        plan = plan_cache([ModelDemand("m", tuple(tensors), min(staging, WIDE_ROWS - 64))])
    assert plan.models[0].used / 2**20 == pytest.approx(on_chip, abs=0.0051)
    assert plan.models[0].streamed / 2**20 == pytest.approx(off_chip, abs=0.0051)


def test_tiles_of_an_empty_chip_are_taken_in_the_official_order() -> None:
    heap = TileHeap([0] * TILES)
    order = []
    for _ in range(TILES):
        tile, rows = heap.pop()
        order.append(tile)
        heap.push(tile, rows + 1)
    assert order == [0, 1, 3, 7, 15, 8, 4, 9, 10, 2, 5, 11, 12, 6, 13, 14]


def test_split_tensors_take_the_official_tiles() -> None:
    def tiles(rows: int) -> list[int]:
        plan = plan_cache([ModelDemand("m", (ParameterTensor("conv", Kind.RING, rows, 64),), 100)])
        return [p.tile for p in plan.models[0].pieces[0]]

    assert tiles(100) == [0]
    assert tiles(150) == [1, 3]
    assert tiles(250) == [3, 7, 15]
    assert tiles(350) == [7, 15, 14, 13]
    assert tiles(450) == [15, 14, 13, 12, 7]


def test_compiler_1_0_places_dense_layers_by_size() -> None:
    """A published chain of 101 layers: 12 inputs, 100 outputs each, the last with fewer groups."""
    order = by_size([10, *[52] * 99, 26])
    assert order == [50, *range(1, 50), 99, *range(51, 99), 100, 0]
    assert by_size([3, 5, 5, 1]) == [1, 2, 0, 3]


def test_second_model_gets_what_the_first_left() -> None:
    tensor = ParameterTensor("conv", Kind.RING, 1200, 64_000)
    first = ModelDemand("a", (tensor,) * 16, 1500)
    second = ModelDemand("b", (tensor,) * 20, 1200)
    plan = plan_cache([first, second])
    assert plan.staging_row == 1200
    assert plan.models[0].available == plan.capacity
    assert plan.models[1].available == plan.capacity - plan.models[0].used
    assert plan.models[0].used == 16 * 1200 * WIDE_ROW_BYTES
    assert plan.models[1].used == 0
    assert plan.models[1].streamed == 20 * 64_000


@pytest.mark.parametrize("staging", [1800, 1990])
@pytest.mark.parametrize(("filters", "on_chip", "off_chip"), [
    (442, 6.86, 0), (452, 5.99, 1.99), (512, 6.78, 2.25), (522, 5.21, 5.19), (632, 6.98, 6.95), (642, 3.93, 11.69),
    (742, 4.94, 14.73),
])
def test_published_sizes_of_convolutions(filters: int, on_chip: float, off_chip: float, staging: int) -> None:
    """MiB of five 3x3 convolutions on 3 channels; whatever the executable takes of 90 to 280 rows per tile."""
    groups = -(-filters // 64)
    rows = [groups * (2 + 9 * -(-channels // 4)) for channels in (3, *[filters] * 4)]
    tensors = tuple(ParameterTensor("conv", Kind.RING, n, n * WIDE_ROW_BYTES) for n in rows)
    (plan,) = plan_cache([ModelDemand("m", tensors, staging)]).models
    assert plan.used / 2**20 == pytest.approx(on_chip, abs=0.0051)
    assert plan.streamed / 2**20 == pytest.approx(off_chip, abs=0.0051)


def test_example_of_the_official_documentation() -> None:
    """Model A uses 4.21 MiB of 6.91 MiB, so 2.70 MiB are left for B, which streams what does not fit."""
    mib = 2**20
    a = tuple(ParameterTensor("a", Kind.RING, rows, rows * WIDE_ROW_BYTES) for rows in [1000] * 17 + [244])
    b = tuple(ParameterTensor("b", Kind.RING, 500, 500 * WIDE_ROW_BYTES) for _ in range(56))
    plan = plan_cache([ModelDemand("a", a, 1769), ModelDemand("b", b, 2000)])
    first, second = plan.models
    assert plan.staging_row == 1769, "the executables share the room of the largest"
    assert [round(m.available / mib, 2) for m in plan.models] == [6.91, 2.70]
    assert round(first.used / mib, 2) == 4.21
    assert first.streamed == 0
    assert second.used + second.streamed == 56 * 500 * WIDE_ROW_BYTES
    assert second.available - second.used < 16 * 500 * WIDE_ROW_BYTES, "layers are cached as long as one fits"
    assert plan.remaining == second.available - second.used


@pytest.mark.parametrize(("top", "rows", "owners"), [
    (1854, (44, 2096, 2620, 2980), [[8], [7, 4], [15, 0], [1, 3]]),
    (1800, (66, 4494, 4494, 4926), [[2], [8, 4, 1], [10, 14, 0], [3, 7, 15]]),
])
def test_a_tile_that_took_its_part_comes_back_before_the_next_is_taken(top: int, rows: tuple[int, ...],
                                                                       owners: list[list[int]]) -> None:
    """Owners of four convolutions in published programs, beside nine rows of tables on tile 0."""
    tables = ParameterTensor("tables", Kind.LOCAL, 9, 9 * 256, table=True)
    tensors = [tables, *(ParameterTensor(f"conv {i}", Kind.RING, n, n * 256) for i, n in enumerate(rows))]
    assert [[p.tile for p in pieces] for pieces in TileMemory(top).place(tensors).pieces[1:]] == owners


def test_equals_come_as_an_unstable_sort_leaves_them_and_dense_layers_count_in_their_turn() -> None:
    """All convolutions and dense layers of a MobileNet v2 of compiler 16.0: rows (depthwise below zero) and owners."""
    layers = [(12, 5), (-3, 12), (7, 9), (5, 3), (-9, 14), (15, 8), (5, 10), (-9, 14), (15, 10), (5, 6), (-9, 6), (15, 5),
              (14, 7), (-18, 6), (27, 15), (14, 2), (-18, 12), (27, 11), (14, 12), (-18, 13), (27, 4), (27, 7), (-27, 10),
              (39, 4), (27, 2), (-27, 11), (39, 2), (27, 3), (-27, 5), (39, 7), (27, 15), (-27, 9), (39, 3), (33, 8),
              (-36, 15), (51, 15), (33, 4), (-36, 4), (51, 8), (33, 11), (-36, 8), (51, 11), (102, 6), (-63, 7), (87, 5),
              (102, 9), (-63, 3), (87, 10), (102, 12), (-63, 2), (174, 14), (620, 13)]
    tensors = [ParameterTensor("conv", Kind.RING, abs(rows), abs(rows) * 256, depthwise=rows < 0) for rows, _ in layers]
    tensors += [ParameterTensor("dense", Kind.LOCAL, 321, 642 * 256, 2), ParameterTensor("last", Kind.LOCAL, 25, 25 * 256)]
    placed = TileMemory(1800).place(tensors).pieces[:len(layers)]
    assert [p.tile for (p,) in placed] == [owner for _, owner in layers]
