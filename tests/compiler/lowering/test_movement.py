"""Images that move between tiles: small ones, padded ones, cut and joined ones, against the arithmetic reference."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from networks import Net, check

from compiler.compile import compile_model
from compiler.errors import ProgramError
from compiler.facts import TILES
from compiler.graph import parse_model
from compiler.graph.build import GraphBuilder
from compiler.lowering.spatial.families.move import transfers
from compiler.lowering.spatial.families.resize import Resize
from compiler.lowering.spatial.far_pixels import Stretch, beyond, parcels
from compiler.lowering.spatial.geometry import NOWHERE, Activation, Image, Window, needed_by
from compiler.package.container import packages_of


def moved(shape: tuple[int, int, int], move: Callable[[GraphBuilder, int], int]) -> Net:
    net = Net(shape)
    return net.at(move(net.b, net.x))


def joined(net: Net, channels: Sequence[int], axis: int = -1) -> Net:
    """Branches of several channel counts, joined with other scales."""
    before = net.x
    branches = [net.at(before).conv(c, 1).x for c in channels]
    return net.at(net.b.concatenation(branches, axis=axis, scale=0.9, zero_point=net.zero + 1))


def transposed(shape: tuple[int, int, int], outputs: int, kernel: tuple[int, int], stride: tuple[int, int],
               padding: str = "SAME", *, per_channel: bool = True) -> Net:
    net = Net(shape)
    weights = net.rng.normal(size=(outputs, *kernel, shape[2]))
    return net.at(net.b.transpose_conv(net.x, weights, net.rng.normal(size=outputs), scale=0.3, zero_point=net.zero,
                                       stride=stride, padding=padding, per_channel=per_channel))


def beside_zeros(axis: int, shape: tuple[int, ...]) -> Net:
    net = Net((6, 7, 5)).conv(8)
    zeros = net.b.constant(np.full(shape, 3, np.int8), scale=0.05, zero_point=3)
    return net.at(net.b.concatenation([zeros, net.x, zeros], axis=axis, scale=0.9, zero_point=net.zero))


def packed(axis: int) -> Net:
    net = Net((1, 7, 5))
    images = [net.b.reshape(net.conv(8).x, (1, 7, 8)) for _ in range(2)]
    return net.at(net.b.pack(images, axis=axis))


def reshaped(net: Net, shape: tuple[int, ...]) -> Net:
    return net.at(net.b.reshape(net.x, shape))


NETWORKS: dict[str, Callable[[], Net]] = {
    "padded to 64 times the size": lambda: Net((2, 2, 3)).pad((31, 31), (31, 31)),
    "padding by nothing, nothing else": lambda: Net((2, 2, 3)).pad((0, 0), (0, 0)),
    "padding by nothing before a result": lambda: Net((9, 7, 12)).conv(6).pad((0, 0), (0, 0)),
    "more padding than image": lambda: Net((5, 5, 8)).pad((7, 2), (0, 13)).conv(4),
    "7x7 to 1x1": lambda: Net((7, 7, 8)).conv(8, stride=2).conv(12, stride=2).conv(6, stride=2),
    "small depthwise": lambda: Net((7, 7, 8)).depthwise(stride=2).conv(12, 1).depthwise(stride=2),
    "kernel larger than tiles": lambda: Net((6, 6, 8)).conv(70, 5),
    "kernel larger than the image": lambda: Net((3, 3, 8)).conv(8, 7),
    "far dilation": lambda: Net((12, 14, 8)).conv(24, dilation=6),
    "small pools": lambda: Net((5, 5, 8)).conv(8).pool("MAX_POOL_2D", 3, 2, "SAME").pool("MAX_POOL_2D", 2, 2),
    "15x15 without padding": lambda: Net((20, 20, 8)).conv(8, 15, padding="VALID"),
    "channels behind": lambda: moved((8, 8, 8), lambda b, x: b.pad(x, ((0, 0), (0, 0), (0, 0), (0, 4)))),
    "padding of all kinds": lambda: moved((8, 9, 6), lambda b, x: b.pad(x, ((0, 0), (1, 0), (0, 2), (3, 4)))).conv(8),
    "slice": lambda: moved((8, 9, 16), lambda b, x: b.slice(x, (0, 2, 3, 4), (1, 5, 6, 8))),
    "slice of odd channels": lambda: moved((8, 9, 16), lambda b, x: b.slice(x, (0, 0, 0, 3), (1, 8, 9, 7))).conv(5),
    "strides": lambda: moved((20, 19, 8), lambda b, x: b.strided_slice(x, (0, 1, 0, 0), (1, 20, 19, 8), (1, 2, 3, 1))),
    "every other channel": lambda: moved((9, 8, 8), lambda b, x: b.strided_slice(x, (0, 0, 0, 1), (1, 9, 8, 8),
                                                                                 (1, 1, 1, 2))),
    "one pixel on all tiles": lambda: moved((1, 1, 20), lambda b, x: b.tile(x, (1, 7, 6, 1))).conv(6),
    "joined, 3 + 5 + 70": lambda: joined(Net((9, 9, 8)), (3, 5, 70)).conv(6),
    "bilinear, half pixels": lambda: moved((7, 5, 6), lambda b, x: b.resize_bilinear(x, 14, 10, half_pixel_centers=True)),
    "bilinear, corners": lambda: moved((9, 5, 8), lambda b, x: b.resize_bilinear(x, 17, 9, align_corners=True)).conv(8),
    "bilinear, four times": lambda: moved((5, 6, 8), lambda b, x: b.resize_bilinear(x, 20, 24)),
    "bilinear, tiny": lambda: moved((2, 2, 8), lambda b, x: b.resize_bilinear(x, 4, 4, half_pixel_centers=True)),
    "bilinear, half the size": lambda: moved((16, 15, 8), lambda b, x: b.resize_bilinear(x, 8, 15, half_pixel_centers=True)),
    "nearest": lambda: moved((7, 5, 6), lambda b, x: b.resize_nearest(x, 14, 15, half_pixel_centers=True)).conv(8),
    "nearest, corners": lambda: moved((8, 8, 6), lambda b, x: b.resize_nearest(x, 16, 16, align_corners=True)),
    "nearest, 3/2": lambda: moved((8, 8, 6), lambda b, x: b.resize_nearest(x, 12, 12)),
    "tiled": lambda: moved((3, 2, 6), lambda b, x: b.tile(x, (1, 3, 5, 1))),
    "transposed": lambda: moved((9, 6, 8), lambda b, x: b.transpose(x, (0, 2, 1, 3))).conv(5, 1),
    "transposed, odd channels": lambda: moved((9, 6, 7), lambda b, x: b.transpose(x, (0, 2, 1, 3))).conv(5),
    "channels become rows": lambda: moved((9, 6, 8), lambda b, x: b.transpose(x, (0, 3, 1, 2))).conv(5, 1),
    "space to depth": lambda: moved((8, 12, 3), lambda b, x: b.space_to_depth(x, 2)).conv(5),
    "space to depth, whole words": lambda: moved((8, 12, 8), lambda b, x: b.space_to_depth(x, 4)).conv(5, 1),
    "transposed convolution": lambda: transposed((7, 5, 8), 70, (3, 3), (2, 2)).conv(5),
    "transposed convolution, few outputs": lambda: transposed((7, 8, 5), 3, (4, 4), (2, 2)).conv(5),
    "transposed convolution without padding": lambda: transposed((7, 5, 8), 16, (3, 2), (2, 1), "VALID"),
    "transposed convolution, stride beyond the kernel": lambda: transposed((5, 4, 4), 6, (2, 2), (3, 3), per_channel=False),
    "depthwise, two outputs per channel": lambda: Net((8, 9, 6)).depthwise(multiplier=2).conv(4),
    "depthwise, three outputs per channel": lambda: Net((8, 9, 24)).depthwise(5, multiplier=3, stride=2),
    "beside columns of zeros": lambda: beside_zeros(2, (1, 6, 3, 8)).conv(3),
    "beside channels of zeros": lambda: beside_zeros(3, (1, 6, 7, 3)),
    "packed to rows": lambda: packed(1).conv(5),
    "packed to columns": lambda: packed(2),
    "packed to channels": lambda: packed(3),
    "heads, odd channels": lambda: reshaped(Net((7, 6, 12)).conv(18), (1, 126, 6)),
    "heads, whole words": lambda: reshaped(Net((4, 4, 12)).conv(12, 1), (1, 48, 4)),
    "elements apart": lambda: reshaped(Net((5, 5, 12)).depthwise(), (1, 100, 3)),
    "other rows and columns": lambda: reshaped(reshaped(Net((5, 5, 12)).conv(24), (1, 10, 60)), (1, 25, 2, 12)).conv(4),
    "rows and channels behind": lambda: moved((2, 6, 1), lambda b, x: b.pad(x, ((0, 0), (0, 5), (0, 0), (0, 4)))),
    "first rows, odd channels": lambda: moved((9, 8, 9), lambda b, x: b.slice(x, (0, 0, 0, 3), (1, 5, 3, 5))),
    "a flattened image with borders": lambda: reshaped(Net((3, 2, 4)), (1, 1, 1, 24)).depthwise(),
    "a kernel around a dense result": lambda: reshaped(Net((5, 6, 8)).dense(24), (1, 1, 1, 24)).conv(8),
    "a kernel around probabilities": lambda: reshaped(Net((5, 6, 8)).dense(24).softmax(), (1, 1, 1, 24)).conv(8),
    "a single pixel": lambda: transposed((1, 1, 4), 6, (3, 3), (2, 2)),
    "joined rows": lambda: joined(Net((5, 6, 8)), (6, 6), 1).conv(8),
    "joined columns": lambda: joined(Net((5, 3, 8)), (6, 6, 6), 2),
    "joined, four bytes of a word": lambda: joined(Net((9, 9, 8)), (1, 1, 1, 2)),
}
SPLITS = {"rows": (9, 8, 12, 3, 1), "columns": (9, 8, 12, 4, 2), "channels": (9, 8, 12, 3, 3), "odd": (9, 8, 9, 3, -1)}


@pytest.mark.parametrize("name", SPLITS)
def test_parts_of_a_split(name: str) -> None:
    *shape, count, axis = SPLITS[name]
    net = Net((shape[0], shape[1], shape[2])).conv(shape[2], 1)
    check(net.finish(net.b.split(net.x, count, axis=axis)))


@pytest.mark.parametrize("name", NETWORKS)
def test_moved_images_compute_the_right_values(name: str) -> None:
    check(NETWORKS[name]().model())


@pytest.mark.parametrize("name", ["7x7 to 1x1", "joined, four bytes of a word", "bilinear, half pixels", "space to depth",
                                  "transposed convolution, few outputs", "heads, odd channels"])
def test_any_order_of_engines_gives_the_same_outputs_and_the_judge_finds_nothing(name: str) -> None:
    check(NETWORKS[name]().model(), seeds=(1,), judge=True)


def test_padding_by_nothing_is_no_step() -> None:
    images = [Net((9, 7, 12)).conv(8), Net((9, 7, 12)).conv(8).pad((0, 0), (0, 0))]
    plain, padded = (compile_model(net.mean().dense(10).model()) for net in images)
    plain_code, padded_code = ([[chunk.data for chunk in package.execution.chunks] for _, package in
                                packages_of(parse_model(c.data))] for c in (plain, padded))
    assert plain_code == padded_code


def test_what_a_resize_copies_beyond_the_border_is_no_padding() -> None:
    net = Net((8, 8, 6)).conv(4)
    larger = net.b.resize_bilinear(net.x, 16, 16, half_pixel_centers=True)
    check(net.finish([larger, net.conv(5).x]))


def test_an_operand_may_be_joined_twice() -> None:
    net = Net((5, 6, 8))
    first = net.x
    check(net.at(net.b.concatenation([first, net.conv(8).x, first], axis=1, scale=0.9, zero_point=3)).model())


def test_rows_that_begin_within_a_word_on_a_tile_stay_on_the_cpu() -> None:
    compiled = compile_model(Net((11, 1, 2)).conv(2, 1).model())
    assert compiled.on_cpu == 1
    assert "rows of 2 bytes" in next(v.reason for v in compiled.mapped.verdicts if v.reason)


def test_resizes_between_the_steps_of_the_unit_stay_on_the_cpu() -> None:
    net = Net((13, 13, 8)).conv(8)
    compiled = compile_model(net.at(net.b.resize_bilinear(net.x, 26, 26, align_corners=True)).model())
    assert compiled.on_cpu == 1
    assert "multiples of 1/25, only quarters" in next(v.reason for v in compiled.mapped.verdicts if v.reason)


@given(st.integers(1, 9), st.integers(1, 9), st.sampled_from([4, 8, 12]), st.permutations(range(3)))
def test_transfers_bring_each_word_to_its_place_once(height: int, width: int, channels: int, order: list[int]) -> None:
    words = np.arange(height * width * channels // 4).reshape(height, width, channels // 4).transpose(order)
    nowhere = (NOWHERE,) * TILES
    source = Activation("x", Image(height, width, channels), 0, nowhere)
    target = Activation("y", Image(*words.shape[:2], 4 * words.shape[2]), 0, nowhere)
    memory = {}
    for y in range(height):
        for x in range(width):
            tile = next(t for t in range(TILES) if y in range(*vars(source.own(t)[0]).values()) and x in range(
                *vars(source.own(t)[1]).values()))
            for w in range(channels // 4):
                at = source.slab(tile).offset(y, x) // 4 + w
                memory[tile, at] = (y * width + x) * channels // 4 + w
    got = {}
    for transfer in transfers(source, target, words):
        (tile, stretch), = transfer.targets.items()
        for a, b in zip(_addresses(transfer.source), _addresses(stretch), strict=True):
            assert (tile, b) not in got
            got[tile, b] = memory[transfer.owner, a]
    for tile in range(TILES):
        rows, columns = target.own(tile)
        for y in range(rows.start, rows.stop):
            for x in range(columns.start, columns.stop):
                at = target.slab(tile).offset(y, x) // 4
                assert [got.pop((tile, at + w)) for w in range(words.shape[2])] == list(words[y, x])
    assert not got


def _addresses(stretch: Stretch) -> list[int]:
    found = np.array([stretch.start])
    for count, distance in stretch.dims:
        found = (found[None] + np.arange(count)[:, None] * distance).reshape(-1)
    return [int(a) for a in found]


SPANS = st.integers(1, 9)
WINDOWS = st.builds(Window, st.integers(1, 7), st.integers(1, 3), st.integers(-2, 6), st.integers(1, 3))


@given(SPANS, SPANS, SPANS, SPANS, WINDOWS, WINDOWS)
def test_parcels_and_borders_bring_each_tile_what_it_lacks_once(height: int, width: int, rows: int, columns: int,
                                                               over: Window, across: Window) -> None:
    activation = Activation("x", Image(height, width, 4), 0, needed_by([(over, across)], Image(rows, columns, 4)))
    sent = parcels(activation)
    for tile in range(TILES):
        need = activation.needed[tile]
        got = np.zeros((max(len(need.rows), 0), max(len(need.columns), 0)), int)
        regions = [p.region for p in sent if tile in p.receivers] + beyond(need, activation.image)
        for region in regions:
            top, left = region.rows.start - need.rows.start, region.columns.start - need.columns.start
            assert top >= 0 and left >= 0
            got[top:top + len(region.rows), left:left + len(region.columns)] += 1
        own_rows, own_columns = activation.own(tile)
        for y in range(need.rows.start, need.rows.stop):
            for x in range(need.columns.start, need.columns.stop):
                own = own_rows.start <= y < own_rows.stop and own_columns.start <= x < own_columns.stop
                assert got[y - need.rows.start, x - need.columns.start] == (0 if own else 1)




def test_a_resize_to_more_words_than_one_dimension_counts_is_mapped() -> None:
    net = moved((129, 130, 13), lambda b, x: b.resize_bilinear(x, 258, 260, half_pixel_centers=True))
    assert compile_model(net.model()).on_cpu == 0


def test_the_operator_whose_instructions_do_not_fit_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise ProgramError("tensor_resize.loop0 = 1 does not fit 0 bits")

    monkeypatch.setattr(Resize, "emit", refuse)
    net = moved((7, 5, 6), lambda b, x: b.resize_bilinear(x, 14, 10, half_pixel_centers=True)).conv(4).conv(8)
    compiled = compile_model(net.model())
    (refused,) = (v.reason for v in compiled.mapped.verdicts if not v.mapped)
    assert refused.startswith("RESIZE_BILINEAR") and "tensor_resize.loop0" in refused
