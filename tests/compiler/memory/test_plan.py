"""The cache plan: whole layers, never too much, monotone, deterministic."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from compiler.facts import TILES, WIDE_ROW_BYTES, WIDE_ROWS
from compiler.memory.demand import Kind, ModelDemand, ParameterTensor
from compiler.memory.plan import CachePlan, plan_cache
from compiler.memory.tile_heap import TileHeap

local = st.builds(ParameterTensor, name=st.just("dense"), kind=st.just(Kind.LOCAL), rows=st.integers(1, 2200),
                  streamed_bytes=st.integers(64, 10_000), tiles=st.integers(1, TILES))
ring = st.builds(ParameterTensor, name=st.just("conv"), kind=st.just(Kind.RING), rows=st.integers(1, 6000),
                 streamed_bytes=st.integers(64, 10_000), reads=st.integers(1, 3), depthwise=st.booleans(),
                 cacheable=st.booleans())
demands = st.lists(st.builds(ModelDemand, name=st.just("model"),
                             tensors=st.lists(st.one_of(local, ring), max_size=30).map(tuple),
                             staging_row=st.integers(1, WIDE_ROWS)), min_size=1, max_size=4)


def occupied(plan: CachePlan) -> set[tuple[int, int]]:
    rows = [(p.tile, r) for m in plan.models for pieces in m.pieces for p in pieces
            for r in range(p.row, p.row + p.rows)]
    assert len(rows) == len(set(rows)), "two tensors share a row"
    return set(rows)


@settings(max_examples=150, deadline=None)
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
            if tensor.kind is Kind.LOCAL and pieces:
                assert [p.tile for p in pieces] == list(range(tensor.tiles))
                assert len({p.row for p in pieces}) == 1
            if tensor.kind is Kind.RING and pieces:
                assert [p.first for p in pieces] == [sum(q.rows for q in pieces[:i]) for i in range(len(pieces))]
                assert len({p.tile for p in pieces}) == len(pieces)


@settings(max_examples=100, deadline=None)
@given(demands)
def test_plan_is_deterministic(models: list[ModelDemand]) -> None:
    assert plan_cache(models) == plan_cache(models)


@settings(max_examples=100, deadline=None)
@given(st.lists(ring, min_size=1, max_size=12), st.integers(1, WIDE_ROWS - 1))
def test_what_fits_in_a_budget_fits_in_a_larger_one(tensors: list[ParameterTensor], staging: int) -> None:
    small = plan_cache([ModelDemand("m", tuple(tensors), staging)])
    large = plan_cache([ModelDemand("m", tuple(tensors), WIDE_ROWS)])
    if all(small.models[0].cached(i) for i, t in enumerate(tensors) if t.cacheable):
        assert all(large.models[0].cached(i) for i, t in enumerate(tensors) if t.cacheable)


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
