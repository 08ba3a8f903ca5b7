"""Several models in one memory: served jointly, and beside rows of models that are not part of the plan."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compiler.facts import TILES
from compiler.memory.demand import Kind, ModelDemand, ParameterTensor
from compiler.memory.placement import Piece
from compiler.memory.plan import plan_cache
from compiler.memory.sharing import Room, Sharing

TOP = 1981
LARGE = [10, -5, 9, -10, 34, -20, 66, -20, 132, -40, 260, -40, 520, *[-80, 1032] * 5, -80, 2064, -160, 4112]
SMALL = [10, -2, 3, -3, 5, -5, 9, -5, 9, -10, 17, -10, 34, *[-20, 66] * 5, -20, 132, -40, 260]
MIDDLE = [10, -3, 5, -5, 9, -10, 17, -10, 34, -20, 66, -20, 132, *[-40, 260] * 5, -40, 520, -80, 1032]
LAST = [10, -4, 7, -8, 26, -15, 50, -15, 75, -30, 147, -30, 294, *[-60, 582] * 5, -60, 1164, -120, 2316]


def mobilenet(layers: list[int], dense: int) -> ModelDemand:
    """Rows of the convolutions (depthwise below zero), of the dense layer on each of 16 tiles, and of softmax tables."""
    ring = [ParameterTensor("conv", Kind.RING, abs(n), abs(n) * 256, depthwise=n < 0) for n in layers]
    local = ParameterTensor("dense", Kind.LOCAL, dense, dense * TILES * 256, TILES, group_rows=dense)
    tables = [ParameterTensor("table", Kind.LOCAL, 16, 251 * 64, TILES, 11, table=True)] * 3
    return ModelDemand("mobilenet", (*ring, local, *tables))


def streamed(pieces: tuple[tuple[Piece, ...], ...]) -> list[int]:
    return [i for i, placed in enumerate(pieces) if not placed]


def test_four_mobilenets_are_served_jointly_as_compiler_16_does() -> None:
    """Two published members of the set: what they stream, and how the largest layers of the last model are cut."""
    set_ = [mobilenet(LARGE, 257), mobilenet(SMALL, 65), mobilenet(MIDDLE, 129), mobilenet(LAST, 193)]
    _, small, _, last = plan_cache(set_, TOP, Sharing(jointly=True)).models
    tables = [28, 29, 30]
    assert streamed(small.pieces) == [*range(0, 27, 2), *tables]
    assert streamed(last.pieces) == [0, 2, 6, 8, 12, *tables]
    assert [p.row for p in small.pieces[27]] == [322] * TILES
    assert [p.row for p in last.pieces[27]] == [0] * TILES
    assert [p.rows for p in last.pieces[26]] == [1219, 1097]
    assert sorted([p.rows for p in pieces] for pieces in last.pieces[14:23:2]) == [
        [185, 185, 185, 27], [371, 189, 22], [582], [582], [582]]
    assert [p.rows for p in last.pieces[10]] == [108, 39]
    assert [p.rows for p in last.pieces[4]] == [14, 12]


def test_one_after_the_other_the_first_model_keeps_everything() -> None:
    first, *_, last = plan_cache([mobilenet(LAST, 193), mobilenet(SMALL, 65), mobilenet(LARGE, 257)], TOP).models
    assert not streamed(first.pieces)
    assert streamed(last.pieces)


@pytest.mark.parametrize("jointly", [False, True])
def test_nothing_lies_on_rows_of_others(jointly: bool) -> None:
    """Dense layers need the same rows on all their tiles; a layer on the ring goes on behind rows in use."""
    room: Room = (((10, 30), (40, 60)), ((10, 25), (41, 70)), *((),) * (TILES - 2))
    dense = ParameterTensor("dense", Kind.LOCAL, 19, 2 * 19 * 256, 2, group_rows=19)
    ring = ParameterTensor("conv", Kind.RING, 36, 36 * 256)
    plan = plan_cache([ModelDemand("a", (dense, ring)), ModelDemand("b", (ring,))], 100, Sharing(jointly, room))
    assert plan.models[0].pieces == ((Piece(0, 41, 0, 19), Piece(1, 41, 0, 19)),
                                     (Piece(1, 10, 0, 15), Piece(1, 60, 15, 10), Piece(0, 10, 25, 11)))
    assert plan.models[1].pieces == ((),)
    assert plan.remaining == (20 + 20 + 15 + 29 - 2 * 19 - 36) * 256


stretch = st.tuples(st.integers(0, 200), st.integers(1, 60)).map(lambda s: (s[0], s[0] + s[1]))
tensor = st.one_of(
    st.builds(ParameterTensor, st.just("conv"), st.just(Kind.RING), st.integers(1, 90), st.integers(64, 9000)),
    st.builds(ParameterTensor, st.just("dense"), st.just(Kind.LOCAL), st.integers(1, 40), st.integers(64, 9000),
              st.integers(1, 4), table=st.booleans()))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(stretch, max_size=3), min_size=TILES, max_size=TILES),
       st.lists(st.lists(tensor, max_size=8), min_size=1, max_size=3), st.booleans())
def test_plans_stay_inside_the_rows_that_are_left(room: list[list[tuple[int, int]]], models: list[list[ParameterTensor]],
                                                  jointly: bool) -> None:
    given_room: Room = tuple(tuple(tile) for tile in room)
    allowed = {(tile, row) for tile, stretches in enumerate(room) for first, stop in stretches for row in range(first, stop)}
    plan = plan_cache([ModelDemand("m", tuple(t)) for t in models], 220, Sharing(jointly, given_room))
    rows = [(p.tile, r) for m in plan.models for pieces in m.pieces for p in pieces for r in range(p.row, p.row + p.rows)]
    assert len(rows) == len(set(rows))
    assert set(rows) <= {(tile, row) for tile, row in allowed if row < 220}
    for model in plan.models:
        for wanted, pieces in zip(model.demand.tensors, model.pieces, strict=True):
            assert not pieces or sum(p.rows for p in pieces) == wanted.total_rows
