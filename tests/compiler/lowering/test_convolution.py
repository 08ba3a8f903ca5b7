"""Convolutional networks of shapes nobody has compiled, run on the simulator against the arithmetic reference."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from networks import Net, check, run
from small_networks import little_memory

from compiler.beagle.isa import decode_stream
from compiler.compile import compile_model
from compiler.errors import ActivationsTooLargeError
from compiler.graph import Model, TensorType, parse_model, read_model, serialize_model
from compiler.lowering import dense
from compiler.lowering.spatial.bands import Strip
from compiler.lowering.spatial.spatial_network import SpatialNetwork
from compiler.package.container import packages_of
from compiler.package.model import BaseAddress, DescriptorHint

NETWORKS: dict[str, Callable[[], Net]] = {
    "stride 2": lambda: Net((20, 24, 16)).conv(24, stride=2),
    "5x5 to 70": lambda: Net((12, 16, 8)).conv(70, 5),
    "rows that end within a word": lambda: Net((25, 25, 1)).conv(8),
    "rows of 3 bytes more": lambda: Net((23, 9, 3)).conv(5),
    "rows of 2 bytes more": lambda: Net((14, 15, 6)).conv(8),
    "one pixel wide tiles": lambda: Net((8, 5, 7)).conv(8, 1),
    "odd parts": lambda: Net((140, 140, 3)).conv(4, 1),
    "padding by itself": lambda: Net((13, 16, 5)).pad((1, 2), (2, 0)),
    "padding before a pool": lambda: Net((13, 16, 8)).conv(8).pad((1, 0), (0, 1)).pool("MAX_POOL_2D", 2, 2),
    "inception": lambda: Net((13, 12, 8)).conv(8, activation="NONE").inception().conv(20),
    "one image padded in two ways": lambda: Net((13, 12, 8)).conv(8, activation="NONE").pool_branch().conv(20),
    "joined result": lambda: Net((13, 12, 8)).inception(),
    "1x1": lambda: Net((12, 20, 32)).conv(32, 1),
    "200 outputs": lambda: Net((8, 12, 64)).conv(200),
    "three layers": lambda: Net((16, 16, 3)).conv(16).conv(40, 1).conv(130),
    "13 rows": lambda: Net((13, 20, 8)).conv(16),
    "chunks": lambda: Net((9, 12, 128)).conv(96),
    "valid": lambda: Net((12, 12, 4)).conv(8, padding="VALID"),
    "valid 5x5 stride 2": lambda: Net((21, 16, 4)).conv(8, 5, padding="VALID", stride=2),
    "padded": lambda: Net((16, 16, 4)).pad((1, 2), (0, 3)).conv(8, padding="VALID"),
    "depthwise": lambda: Net((12, 12, 24)).depthwise().conv(16, 1).depthwise(5, stride=2),
    "odd channels": lambda: Net((12, 12, 6)).conv(7).depthwise().conv(5, 1),
    "one channel": lambda: Net((16, 16, 1)).depthwise(multiplier=6).conv(3),
    "few outputs": lambda: Net((12, 16, 8)).conv(3).conv(2, 1).conv(1),
    "dilation": lambda: Net((16, 16, 8)).conv(8, dilation=2),
    "1x3 and 3x1": lambda: Net((16, 16, 8)).conv(8, (1, 3)).conv(8, (3, 1)),
    "no bias": lambda: Net((12, 12, 8)).conv(20, bias=False),
    "residuals": lambda: Net((14, 14, 8)).conv(24).residual().residual("RELU6").conv(40),
    "residual with borders": lambda: Net((12, 12, 8)).residual().depthwise(),
    "max pool": lambda: Net((16, 16, 8)).conv(24).pool("MAX_POOL_2D", 2, 2).conv(70),
    "max pool 3x3": lambda: Net((15, 17, 4)).conv(72).pool("MAX_POOL_2D", 3, 2, "SAME").conv(8),
    "average pool": lambda: Net((16, 20, 8)).conv(68).pool("AVERAGE_POOL_2D", 2, 2).conv(8, 1),
    "pool at the end": lambda: Net((13, 16, 8)).conv(8).pool("MAX_POOL_2D", 3, 1),
    "mean": lambda: Net((14, 14, 8)).conv(24).mean(),
    "mean and dense": lambda: Net((14, 14, 8)).conv(136, stride=2).mean(keep=False).dense(70, "RELU").dense(5),
    "pooled classifier": lambda: Net((7, 5, 8)).conv(40).pool_all().conv(100, 1),
    "softmax of 10": lambda: Net((8, 8, 8)).conv(12).mean(keep=False).dense(10).softmax(),
    "softmax of 4": lambda: Net((8, 8, 8)).conv(12).mean(keep=False).dense(4).softmax(),
    "softmax of 72": lambda: Net((8, 8, 8)).conv(72).pool_all().conv(72, 1, activation="NONE").softmax(),
    "softmax of 1001": lambda: Net((8, 8, 8)).conv(12).mean(keep=False).dense(1001).softmax(),
    "rectifiers": lambda: Net((13, 12, 8)).conv(12).unary("RELU6", 0.02).conv(8).unary("RELU"),
    "other scale": lambda: Net((13, 12, 8)).rescale(0.031).conv(12).rescale(0.2),
    "logistic": lambda: Net((12, 14, 8)).conv(9, activation="NONE").logistic(),
    "logistic of a vector": lambda: Net((12, 14, 8)).conv(9).mean(keep=False).dense(70).logistic(),
    "flattened": lambda: Net((10, 12, 3)).conv(6).dense(20).dense(3),
    "flattened image": lambda: Net((8, 8, 4)).dense(20),
    "pointwise chunks": lambda: Net((5, 8, 256)).conv(320, 1),
}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("kind", [TensorType.INT8, TensorType.UINT8], ids=["int8", "uint8"])
def test_shapes_that_nobody_has_compiled(name: str, kind: TensorType, monkeypatch: pytest.MonkeyPatch) -> None:
    original = Net.__init__
    monkeypatch.setattr(Net, "__init__", lambda self, shape: original(self, shape, kind))
    check(NETWORKS[name]().model())


LAYERS = st.one_of(
    st.tuples(st.just("conv"), st.integers(1, 90), st.tuples(st.integers(1, 3), st.integers(1, 3)), st.integers(1, 2),
              st.sampled_from(["SAME", "VALID"]), st.sampled_from(["NONE", "RELU", "RELU6"])),
    st.tuples(st.just("depthwise"), st.sampled_from([1, 3]), st.integers(1, 2), st.sampled_from(["SAME", "VALID"])),
    st.tuples(st.just("residual")),
    st.tuples(st.just("pool"), st.sampled_from(["MAX_POOL_2D", "AVERAGE_POOL_2D"])),
)


def build(shape: tuple[int, int, int], layers: list[tuple[object, ...]], kind: TensorType, per_channel: bool,
          seed: int) -> Model:
    net = Net(shape, kind, per_channel=per_channel, seed=seed)
    for name, *arguments in layers:
        if name == "conv":
            outputs, kernel, stride, padding, activation = arguments
            net.conv(outputs, kernel, stride=stride, padding=padding, activation=activation)  # type: ignore[arg-type]
        elif name == "depthwise":
            size, stride, padding = arguments
            net.depthwise(size, stride=stride, padding=padding)  # type: ignore[arg-type]
        elif name == "residual":
            net.residual()
        else:
            net.pool(str(arguments[0]), 2, 2)
    return net.model()


@settings(max_examples=25, deadline=None)
@given(st.tuples(st.integers(14, 24), st.integers(12, 20), st.sampled_from([1, 3, 4, 6, 8, 40])),
       st.lists(LAYERS, min_size=1, max_size=3), st.booleans(), st.booleans(), st.integers(0, 99))
def test_random_networks(shape: tuple[int, int, int], layers: list[tuple[object, ...]], int8: bool, per_channel: bool,
                         seed: int) -> None:
    """What compiles computes the right values; what does not says why and stays on the CPU."""
    model = build(shape, layers, TensorType.INT8 if int8 else TensorType.UINT8, per_channel, seed)
    compiled = compile_model(model)
    if compiled.on_cpu:
        assert all(v.reason for v in compiled.mapped.verdicts if not v.mapped)
    else:
        check(model)


@pytest.mark.parametrize("name", ["chunks", "depthwise", "residuals", "max pool 3x3", "pooled classifier", "softmax of 10"])
def test_any_order_of_engines_gives_the_same_outputs_and_the_judge_finds_nothing(name: str) -> None:
    check(NETWORKS[name]().model(), seeds=(1, 2, 3), judge=True)


@pytest.mark.parametrize(("net", "reason"), [
    (lambda: Net((40, 41, 4)).pool("AVERAGE_POOL_2D", 23, 1, "SAME"), "least common multiple"),
], ids=["border"])
def test_what_is_not_generated_stays_on_the_cpu_with_the_true_reason(net: Callable[[], Net], reason: str) -> None:
    compiled = compile_model(net().model())
    assert compiled.on_cpu == 1
    assert reason in next(v.reason for v in compiled.mapped.verdicts if v.reason)


@pytest.mark.parametrize("net", [
    lambda height, width: Net((height, width, 325)).conv(400),
    lambda height, width: Net((height, width, 200)).conv(900, 5, stride=2, padding="VALID").depthwise(3),
], ids=["same", "valid"])
def test_a_network_too_large_for_the_tiles_is_refused_with_the_limit_and_the_largest_input(
        net: Callable[[int, int], Net]) -> None:
    with pytest.raises(ActivationsTooLargeError, match="the limit is 196608") as caught:
        compile_model(net(112, 96).model())
    assert caught.value.advice is not None
    size = re.search(r"An input of (\d+) x (\d+) would fit", caught.value.advice)
    assert size is not None
    height, width = int(size[1]), int(size[2])
    assert _maps_all(net(height, width))
    assert not _maps_all(net(height + 1, round(96 * (height + 1) / 112)))


def _maps_all(net: Net) -> bool:
    try:
        return compile_model(net.model()).on_cpu == 0
    except ActivationsTooLargeError:
        return False


def test_example_with_convolutions() -> None:
    folder = Path(__file__).resolve().parents[3] / "examples" / "digits"
    model = read_model(folder / "digits_conv.tflite")
    compiled = check(model)
    ((_, package),) = packages_of(parse_model(compiled.data))
    with np.load(folder / "digits_test.npz") as data:
        images, labels = data["inputs"][:20].reshape(-1, 1, 8, 8, 1), data["labels"][:20]
    (source,), (target,) = package.execution.inputs, package.execution.outputs
    answers = [int(run(package, {source.name: image})[target.name].argmax()) for image in images]
    assert np.mean(answers == labels) > 0.9


def test_convolutions_without_memory_are_streamed() -> None:
    """Eleven 3x3 layers of 320 channels need more than the chip has."""
    net = Net((8, 8, 320))
    for _ in range(11):
        net.conv(320, activation="RELU")
    compiled = check(net.depthwise().model())
    (plan,) = compiled.plans
    cached = [bool(p) for p in plan.pieces]
    assert any(cached) and not all(cached)
    assert compiled.off_chip == sum(t.streamed_bytes for t, c in zip(plan.demand.tensors, cached, strict=True)
                                    if not c)


def test_turns_of_the_ring_are_reset_before_they_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fences between layers wait for what the ring has sent so far; the values stay the same in any order of engines."""
    monkeypatch.setattr(dense, "MOST_TURNS", 200)
    net = Net((8, 8, 16)).conv(64).conv(64).conv(64)
    compiled = check(net.model(), seeds=(None, 1, 2), judge=True)
    ((_, package),) = packages_of(parse_model(compiled.data))
    waits = [ins["wait6.value"] for chunk in package.execution.chunks for ins in decode_stream(chunk.data)
             if ins.name == "scalar_fence" and ins["wait6.enable"]]
    assert len(waits) > 1
    assert max(waits) <= 200


def test_several_outputs() -> None:
    """Two images and a vector, each also used further on."""
    net = Net((14, 12, 8))
    first = net.conv(12).x
    second = net.conv(9, stride=2).x
    net.mean(keep=False).dense(5)
    model = parse_model(serialize_model(net.b.build([first, second, net.x])))
    compiled = check(model)
    ((_, package),) = packages_of(parse_model(compiled.data))
    assert len(package.execution.outputs) == 3


IN_BANDS: dict[str, tuple[Callable[[], Net], int]] = {
    "expansion": (lambda: Net((24, 24, 16)).conv(96, 1).depthwise().conv(16, 1), 5000),
    "two strides": (lambda: Net((41, 33, 3)).conv(16, stride=2).depthwise().conv(8, 1).conv(48, 1).depthwise(stride=2)
                    .conv(12, 1), 2300),
    "residual": (lambda: Net((24, 24, 8)).conv(16).residual().conv(20), 2400),
    "partial sums": (lambda: Net((16, 16, 16)).conv(100).conv(80), 4400),
    "max pool": (lambda: Net((33, 31, 4)).conv(72).pool("MAX_POOL_2D", 3, 2, "SAME").conv(8), 6000),
    "average pool": (lambda: Net((32, 32, 4)).conv(40).pool("AVERAGE_POOL_2D", 2, 2).conv(8, 1), 2200),
    "rectifier": (lambda: Net((24, 24, 8)).conv(32).unary("RELU6", 0.02).conv(8), 2700),
    "dilation": (lambda: Net((32, 32, 8)).conv(24, dilation=2).conv(8), 3000),
    "valid": (lambda: Net((44, 40, 4)).conv(40, 5, padding="VALID").conv(12, (1, 3), padding="VALID", stride=2), 3600),
    "columns too": (lambda: Net((16, 96, 3)).conv(24, 1).depthwise(stride=2).conv(24, 1).depthwise(stride=2).conv(8, 1),
                    1600),
    "columns of a residual too": (lambda: Net((24, 40, 8)).conv(16).residual().conv(20), 3000),
    "joined channels": (lambda: Net((28, 24, 8)).inception().conv(20).conv(8, 1), 3200),
    "joined rows": (lambda: Net((24, 20, 8)).conv(24).joined(1).conv(30).conv(8, 1), 5000),
    "padded between": (lambda: Net((24, 20, 8)).conv(40, 1).pad((2, 1), (3, 0)).conv(40, 1).conv(8, 1), 2700),
    "cut": (lambda: Net((40, 32, 8)).conv(40, 1).cut((3, 2), (31, 29)).conv(40, 1).conv(8, 1), 2700),
    "transposed": (lambda: Net((16, 14, 8)).conv(16).transpose_conv(60, 3, stride=2).conv(8, 1), 1600),
    "upsampled": (lambda: Net((12, 14, 8)).conv(16).larger(2).conv(30, 1).conv(8, 1), 1600),
    "classifier": (lambda: Net((40, 40, 3)).conv(32).depthwise(stride=2).conv(8, 1).mean(keep=False).dense(10), 4600),
}
"""Networks, and bytes of narrow memory that they only fit in bands."""


@pytest.fixture()
def strips(monkeypatch: pytest.MonkeyPatch) -> list[Strip]:
    """Strips of several bands that networks are put into."""
    found: list[Strip] = []
    original = SpatialNetwork.in_strips

    def spy(network: SpatialNetwork, chosen: tuple[Strip, ...]) -> SpatialNetwork:
        found.extend(s for s in chosen if not s.whole)
        return original(network, chosen)

    monkeypatch.setattr(SpatialNetwork, "in_strips", spy)
    return found


@pytest.mark.parametrize("name", IN_BANDS)
def test_bands_give_the_same_values(name: str, monkeypatch: pytest.MonkeyPatch, strips: list[Strip]) -> None:
    net, limit = IN_BANDS[name]
    little_memory(monkeypatch, limit)
    compiled = check(net().model(), judge=name in ("two strides", "residual", "max pool", "joined rows", "transposed"))
    assert strips
    assert "columns" not in name or any(s.columns > 1 for s in strips)
    ((_, package),) = packages_of(parse_model(compiled.data))
    assert package.execution.used_narrow_bytes <= limit


IMAGES_IN_BANDS: dict[str, tuple[Callable[[], Net], int]] = {
    "three channels": (lambda: Net((96, 64, 3)).conv(8, stride=2).depthwise().conv(24, 1).depthwise(stride=2).conv(8, 1),
                       2400),
    "four channels": (lambda: Net((90, 70, 4)).conv(12, stride=2).conv(8, stride=2), 2000),
    "six channels": (lambda: Net((90, 70, 6)).conv(8, stride=2), 3500),
    "one channel, rows that end within words": (
        lambda: Net((97, 121, 1)).conv(12, stride=2, padding="VALID").conv(8, stride=2), 3500),
}
"""Networks, and bytes of narrow memory that image and results do not fit together."""


@pytest.mark.parametrize("name", IMAGES_IN_BANDS)
def test_large_images_come_in_bands(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    net, limit = IMAGES_IN_BANDS[name]
    little_memory(monkeypatch, limit)
    compiled = check(net().model(), seeds=(None, 1), judge=name == "four channels")
    ((_, package),) = packages_of(parse_model(compiled.data))
    assert package.execution.used_narrow_bytes <= limit
    hints = package.execution.hints.hints
    inputs = [h for h in hints if isinstance(h, DescriptorHint) and h.meta.base is BaseAddress.INPUT]
    assert len(inputs) > 1
    assert all(h.offset % 8 == 0 for h in inputs)


def test_any_order_of_engines_in_bands(monkeypatch: pytest.MonkeyPatch, strips: list[Strip]) -> None:
    net, limit = IN_BANDS["expansion"]
    little_memory(monkeypatch, limit)
    check(net().model(), seeds=(1, 2, 3))
    assert strips


@settings(max_examples=25, deadline=None)
@given(st.tuples(st.integers(16, 40), st.integers(16, 33), st.sampled_from([1, 3, 8, 20])),
       st.lists(LAYERS, min_size=2, max_size=5), st.sampled_from([1500, 2500, 4000, 6000]), st.integers(0, 99))
@example((16, 28, 1), [("pool", "MAX_POOL_2D")] * 3 + [("depthwise", 3, 1, "VALID")], 1500, 0)
def test_random_networks_on_little_memory(shape: tuple[int, int, int], layers: list[tuple[object, ...]], limit: int,
                                          seed: int) -> None:
    """What compiles keeps the limit and computes the right values; what does not says why and stays on the CPU."""
    model = build(shape, layers, TensorType.INT8, True, seed)
    with pytest.MonkeyPatch.context() as patch:
        little_memory(patch, limit)
        try:
            compiled = compile_model(model)
        except ActivationsTooLargeError:
            return
        if compiled.on_cpu:
            assert all(v.reason for v in compiled.mapped.verdicts if not v.mapped)
            return
        assert check(model).source is model


def test_parameters_of_bands_are_streamed_for_each(monkeypatch: pytest.MonkeyPatch, strips: list[Strip]) -> None:
    little_memory(monkeypatch, 40000)
    compiled = check(Net((16, 16, 8)).conv(2048, 1).conv(2048, 1).conv(2048, 1).conv(8, 1).model())
    assert strips
    assert compiled.off_chip
