"""Where models are cut, and what the segments exchange."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_networks import Layers

from compiler.compile import CompileOptions
from compiler.errors import CompilationError
from compiler.graph import Model, parse_model, serialize_model
from compiler.segments.balance import balance, cut_at
from compiler.segments.compile import Segmenter
from compiler.segments.order import execution_order, last_cut
from compiler.segments.parameters import cut_by_parameters, parameter_bytes
from compiler.segments.segment import segments_of


def two_heads() -> Model:
    """Operators 0, 1 and 2 in a row; 3 and 4 give the results, 4 behind 2."""
    net = Layers(1)
    stem = net.conv(net.conv(net.input(8, 8, 4), 8), 8)
    early = net.conv(stem, 4, 1)
    late = net.conv(net.conv(stem, 16), 8)
    return net.model(early, late, name="folder/heads.tflite")


def test_operators_without_followers_come_last() -> None:
    graph = two_heads().main
    # file order: 0 conv, 1 conv, 2 early result, 3 conv, 4 late result
    assert execution_order(graph) == (0, 1, 3, 2, 4)
    assert last_cut(graph, execution_order(graph)) == 3


def test_a_result_that_is_used_again_stays_in_the_last_segment() -> None:
    net = Layers(2)
    first = net.conv(net.input(8, 8, 4), 8)
    second = net.conv(first, 8)
    graph = net.model(net.conv(second, 8), second).main
    assert last_cut(graph, execution_order(graph)) == 1


def test_segments_take_operators_until_the_average() -> None:
    assert cut_by_parameters([10, 10, 10, 10], 2, 3) == (2, 4)
    assert cut_by_parameters([10, 10, 10, 11], 2, 3) == (2, 4)
    assert cut_by_parameters([0, 30, 5, 5], 2, 3) == (1, 4)  # 30 are more than 20 + 1
    assert cut_by_parameters([1, 1, 1, 97], 3, 3) == (2, 3, 4)  # the last ones keep an operator each
    assert cut_by_parameters([50, 1, 1], 3, 2) == (1, 2, 3)  # every segment has one


@given(st.lists(st.integers(0, 1000), min_size=2, max_size=12), st.data())
def test_every_segment_has_an_operator_and_the_results_are_in_the_last(sizes: list[int], data: st.DataObject) -> None:
    possible = data.draw(st.integers(1, len(sizes) - 1))
    count = data.draw(st.integers(1, possible + 1))
    ends = cut_by_parameters(sizes, count, possible)
    assert len(ends) == count
    assert ends[-1] == len(sizes)
    assert all(a < b for a, b in zip((0, *ends), ends, strict=False))
    assert all(end <= possible for end in ends[:-1])
    average = sum(sizes) // count + 1
    begins = (0, *ends[:-1])
    assert all(end - begin == 1 or sum(sizes[begin:end]) <= average
               for begin, end in zip(begins[:-1], ends[:-1], strict=True))


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 9), st.integers(0, 2**32), st.data())
def test_balance_is_what_trying_all_cuts_finds(operators: int, seed: int, data: st.DataObject) -> None:
    possible = data.draw(st.integers(1, operators - 1))
    count = data.draw(st.integers(1, possible + 1))
    rng = np.random.default_rng(seed)
    costs = np.full((operators + 1, operators + 1), np.inf)
    for first in range(operators):
        costs[first, first + 1:] = rng.integers(1, 30, operators - first)
    found = balance(costs, count, possible)
    every = [cut_at(costs, (*ends, operators)) for ends in combinations(range(1, possible + 1), count - 1)]
    best = min((cut.slowest, sum(cut.latencies)) for cut in every)
    assert (found.slowest, sum(found.latencies)) == best


def test_parameters_of_operators() -> None:
    net = Layers(3)
    model = net.model(net.cpu(net.dense(net.input(40), 10)))
    assert parameter_bytes(model.main) == (40 * 10 + 4 * 10, 0)


def test_segments_have_the_official_names_and_interfaces() -> None:
    model = two_heads()
    order = execution_order(model.main)
    first, second, third = segments_of(model, order, (1, 3, 5))
    assert [m.source for m in (first, second, third)] == [f"folder/heads_segment_{i}_of_3.tflite" for i in range(3)]
    name = {t.index: t.name for t in model.main.tensors}
    graph = model.main

    def names(cut: Model, indices: tuple[int, ...]) -> list[str]:
        return [cut.main.tensors[i].name for i in indices]

    made = {op.index: name[op.outputs[0]] for op in graph.operators}
    assert names(first, first.main.inputs) == ["input"]
    assert names(first, first.main.outputs) == [made[0]]
    assert names(second, second.main.outputs) == [made[1], made[3]]
    assert names(third, third.main.inputs) == [made[1], made[3]]
    assert names(third, third.main.outputs) == [name[t] for t in graph.outputs]
    for cut in (first, second, third):
        read = parse_model(serialize_model(cut))
        assert read.size == cut.size
        assert [t.name for t in read.main.tensors] == [t.name for t in cut.main.tensors]
        assert read.description == model.description


def test_refusals_name_the_largest_number() -> None:
    segmenter = Segmenter(two_heads())
    with pytest.raises(CompilationError, match="only 3 operators come before the first result") as caught:
        segmenter.by_parameters(5)
    assert caught.value.advice == "Ask for 4 segments."
    with pytest.raises(CompilationError, match="intermediate_tensors"):
        Segmenter(two_heads(), CompileOptions(intermediate_tensors=(("x",),)))


def test_tensors_of_one_name_are_refused() -> None:
    net = Layers(4)
    x = net.b.rename(net.conv(net.input(8, 8, 4), 4), "same")
    y = net.b.rename(net.conv(x, 4), "same")
    with pytest.raises(CompilationError, match="2 tensors are named 'same'"):
        Segmenter(net.model(net.conv(y, 4)))


def test_tokens_differ_and_can_be_chosen() -> None:
    segmenter = Segmenter(two_heads(), CompileOptions(token=2**64 - 1))
    from compiler.package.container import packages_of

    compiled = segmenter.compile(segmenter.by_parameters(2)).models
    tokens = [package.execution.token for c in compiled for _, package in packages_of(parse_model(c.data))]
    assert tokens == [2**64 - 1, 1]


def test_more_segments_than_pay_off_give_a_warning() -> None:
    segmenter = Segmenter(two_heads())
    found = segmenter.compile(segmenter.by_parameters(3))
    assert found.warning.startswith("Warning: For the given model, you're creating more segments than is necessary")
    assert segmenter.worthwhile(4).ends == (5,)
