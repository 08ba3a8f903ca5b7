"""Networks with elementwise and reducing operators, run on the simulator against the arithmetic reference."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from networks import Net, check
from small_networks import little_memory

from compiler.compile import compile_model, read_networks
from compiler.graph import TensorType, parse_model
from compiler.lowering.demand import read_demand
from compiler.mapping import map_graph
from compiler.package.container import packages_of

Build = Callable[[Callable[[tuple[int, int, int]], Net]], Net]
NETWORKS: dict[str, Build] = {
    "product": lambda net: net((13, 12, 8)).binary("MUL"),
    "product of 16 channels": lambda net: net((13, 12, 16)).binary("MUL", activation="RELU").conv(4),
    "product of 5 channels": lambda net: net((9, 8, 5)).binary("MUL", activation="RELU6").conv(4),
    "square": lambda net: net((12, 12, 20)).binary("MUL", same=True, activation="RELU_N1_TO_1"),
    "difference": lambda net: net((13, 12, 6)).binary("SUB", activation="RELU").conv(8),
    "product with constants": lambda net: net((13, 12, 40)).conv(40, 1).constant("MUL").conv(8),
    "product with a constant": lambda net: net((13, 12, 6)).conv(6, 1).constant("MUL", 77, activation="RELU"),
    "sum with constants": lambda net: net((13, 12, 38)).constant("ADD").conv(8),
    "constants for one channel": lambda net: net((13, 12, 8)).conv(1, 1).constant("MUL", channels=20).conv(1, 1).constant(
        "SUB", channels=7, first=True),
    "few pixels": lambda net: net((3, 2, 24)).constant("MUL").constant("ADD").binary("MUL"),
    "sum with a constant": lambda net: net((13, 12, 9)).constant("ADD", 77, first=True),
    "difference from constants": lambda net: net((13, 12, 24)).constant("SUB", activation="RELU6").constant(
        "SUB", first=True).constant("MUL").constant("ADD"),
    "squared difference": lambda net: net((13, 12, 6)).binary("SQUARED_DIFFERENCE"),
    "one column": lambda net: net((13, 12, 6)).spread("MUL", (1, 12)),
    "one row": lambda net: net((13, 12, 8)).spread("SUB", (13, 1), first=True).conv(4),
    "one channel": lambda net: net((13, 12, 8)).spread("ADD", channel=True),
    "one channel of one column": lambda net: net((13, 12, 8)).spread("MUL", (1, 12), channel=True),
    "maximum": lambda net: net((13, 12, 70)).extremum("MAXIMUM"),
    "minimum": lambda net: net((13, 12, 6)).extremum("MINIMUM").conv(5),
    "maximum of one value": lambda net: net((13, 12, 6)).extremum("MAXIMUM", value=7).extremum("MINIMUM", value=90),
    "slopes": lambda net: net((13, 12, 6)).conv(18, activation="NONE").prelu(18).conv(4),
    "slopes below zero": lambda net: net((13, 12, 6)).conv(18, activation="NONE").prelu(18, -90).conv(4),
    "one slope below zero": lambda net: net((13, 12, 6)).prelu(1, -90),
    "one slope": lambda net: net((13, 12, 6)).prelu(1),
    "tanh": lambda net: net((13, 12, 6)).conv(6, 1, activation="NONE").tanh(),
    "reciprocal root": lambda net: net((13, 12, 6)).conv(6, 1).unary("RSQRT", 0.02),
    "mean of rows": lambda net: net((13, 12, 6)).reduce("MEAN", 1),
    "sum of columns": lambda net: net((13, 12, 8)).reduce("SUM", 2),
    "largest of columns": lambda net: net((13, 12, 8)).reduce("REDUCE_MAX", 2),
    "largest of all": lambda net: net((13, 12, 8)).reduce("REDUCE_MAX", 1, 2),
    "smallest of rows": lambda net: net((13, 12, 8)).reduce("REDUCE_MIN", 1),
    "smallest of all": lambda net: net((13, 12, 8)).conv(70, 1).reduce("REDUCE_MIN", 1, 2).conv(5, 1),
    "columns without their dimension": lambda net: net((13, 12, 8)).reduce("SUM", 2, keep=False),
    "channels without their dimension": lambda net: net((12, 8, 7)).reduce("MEAN", 3, keep=False),
    "sum of 10 channels": lambda net: net((13, 12, 8)).conv(10, 1, activation="NONE").reduce("SUM", -1),
    "sum of all": lambda net: net((13, 12, 8)).reduce("SUM", 1, 2),
    "mean of channels": lambda net: net((13, 12, 32)).reduce("MEAN", 3),
    "sum of 12 channels": lambda net: net((13, 12, 12)).reduce("SUM", -1),
    "layer normalization": lambda net: net((13, 12, 8)).layer_normalization(),
    "slopes of a vector": lambda net: net((8, 8, 4)).mean(keep=False).dense(18).prelu(18),
    "norm of a vector": lambda net: net((8, 8, 4)).mean(keep=False).dense(128).l2_normalization(),
    "constants for a vector": lambda net: net((8, 8, 4)).mean(keep=False).dense(70).constant("MUL").constant("ADD").dense(9),
    "norm of 16 channels": lambda net: net((13, 12, 16)).l2_normalization(),
    "norm of 10 channels": lambda net: net((10, 9, 5)).conv(10, 1, activation="NONE").l2_normalization(),
    "norm of a vector of 30": lambda net: net((8, 8, 4)).mean(keep=False).dense(30).l2_normalization(),
    "norm of 3 channels": lambda net: net((10, 9, 5)).conv(3, 1, activation="NONE").l2_normalization(),
    "largest of 7 channels": lambda net: net((9, 8, 6)).conv(7, 1, activation="NONE").reduce("REDUCE_MAX", 3),
    "largest of 16 channels": lambda net: net((9, 8, 16)).reduce("REDUCE_MAX", 3, keep=False),
    "smallest of 7 channels": lambda net: net((9, 8, 7)).reduce("REDUCE_MIN", 3).conv(4),
    "smallest of 16 channels": lambda net: net((9, 8, 16)).reduce("REDUCE_MIN", 3),
    "softmax of 2 channels": lambda net: net((12, 11, 6)).conv(2, 1, activation="NONE").softmax(),
    "softmax of 16 channels": lambda net: net((9, 8, 16)).softmax().conv(4),
    "softmax of 21 channels": lambda net: net((7, 5, 6)).conv(21, 3, activation="NONE").softmax().conv(4),
    "softmax of rows": lambda net: net((1, 30, 6)).conv(10, 1, activation="NONE").reshape(30, 10).softmax(),
    "averages at the border": lambda net: net((13, 14, 8)).pool("AVERAGE_POOL_2D", 3, 1, "SAME").conv(4),
    "averages of 72 channels": lambda net: net((15, 14, 8)).conv(72, 1).pool("AVERAGE_POOL_2D", 3, 2, "SAME"),
    "averages of 5 x 5": lambda net: net((15, 14, 5)).pool("AVERAGE_POOL_2D", 5, 2, "SAME"),
    "nine averages": lambda net: net((64, 48, 4)).pool("AVERAGE_POOL_2D", 16, 16),
    "pool to few columns": lambda net: net((10, 5, 8)).conv(8).pool("MAX_POOL_2D", 2, 2).conv(8, 1),
}


def _less_largest_of_columns(net: Callable[[tuple[int, int, int]], Net]) -> Net:
    """An image, of which the pool needs whole rows at once, minus what the pool makes."""
    found = net((13, 12, 6))
    image, largest = found.x, found.pool("MAX_POOL_2D", (1, 12), 1).x
    found.x = found.b.binary("SUB", image, largest, scale=0.1, zero_point=found.zero)
    return found


def _with_borders(net: Callable[[tuple[int, int, int]], Net]) -> Net:
    """A constant image beside an image that a convolution reads with its borders."""
    found = _with_image("ADD", (1, 9, 10, 6))(net)
    image = found.b.operators[0].outputs[0]
    joined = found.b.operators[1].outputs[0]
    found.at(image).conv(6, 5)
    found.x = found.b.add(found.x, joined, scale=0.4, zero_point=found.zero)
    return found


def _with_image(name: str, shape: tuple[int, ...]) -> Build:
    """An operator on an image and a constant of its shape, or nearly."""
    def build(net: Callable[[tuple[int, int, int]], Net]) -> Net:
        found = net((9, 10, 6)).conv(6, 1)
        values = found.rng.integers(0, 99, shape).astype(found.kind.numpy)
        c = found.b.constant(values, scale=0.1, zero_point=7)
        found.x = found.b.binary(name, c, found.x, scale=0.9, zero_point=found.zero)
        return found.conv(4)
    return build


NETWORKS |= {"product with an image": _with_image("MUL", (1, 9, 10, 6)), "image minus": _with_image("SUB", (9, 10, 1)),
             "sum with columns": _with_image("ADD", (1, 1, 10, 6)), "less the largest of columns": _less_largest_of_columns,
             "sum of an image with borders": _with_borders}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("kind", [TensorType.INT8, TensorType.UINT8], ids=["int8", "uint8"])
def test_values(name: str, kind: TensorType) -> None:
    judged = kind is TensorType.INT8 and not name.startswith("averages of")
    check(NETWORKS[name](lambda shape: Net(shape, kind)).model(), seeds=(1,), judge=judged)


def test_a_sum_of_more_words_than_one_dimension_counts() -> None:
    net = Net((260, 260, 16))
    check(net.at(net.b.add(net.x, net.x, scale=0.1)).model())


def _scaled_channels() -> Net:
    """An image times one factor per channel that comes from outside."""
    net = Net((32, 24, 8))
    factors = net.b.add_input((1, 1, 1, 24), scale=0.05, zero_point=net.zero, name="factors")
    image = net.conv(24, 1).x
    net.x = net.b.mul(image, factors, scale=0.4, zero_point=net.zero)
    return net.conv(4)


IN_BANDS: dict[str, tuple[Callable[[], Net], int]] = {
    "slopes": (lambda: Net((32, 24, 8)).conv(18, activation="NONE").prelu(18).conv(4), 3000),
    "product": (lambda: Net((32, 24, 8)).conv(12).constant("MUL").binary("MUL", same=True).conv(4), 4500),
    "one column": (lambda: Net((32, 24, 8)).conv(12).spread("MUL", (1, 24)).conv(4), 4500),
    "factors of channels": (_scaled_channels, 5500),
    "softmax": (lambda: Net((32, 24, 8)).conv(11, activation="NONE").softmax().conv(4), 4000),
    "norm": (lambda: Net((32, 24, 8)).conv(20, activation="NONE").l2_normalization().conv(4), 2500),
}


@pytest.mark.parametrize("name", IN_BANDS)
def test_bands_give_the_same_values(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    net, limit = IN_BANDS[name]
    little_memory(monkeypatch, limit)
    compiled = check(net().model(), judge=name == "product")
    ((_, package),) = packages_of(parse_model(compiled.data))
    assert package.execution.used_narrow_bytes <= limit


@pytest.mark.parametrize(("build", "reason"), [
    (lambda: Net((6, 6, 8)).reduce("SUM", 1, 3), "rows, columns, both of them, or channels"),
], ids=["axes"])
def test_what_is_not_generated_stays_on_the_cpu_with_the_true_reason(build: Callable[[], Net], reason: str) -> None:
    compiled = compile_model(build().model())
    assert compiled.on_cpu == 1
    assert reason in next(v.reason for v in compiled.mapped.verdicts if v.reason)


@pytest.mark.parametrize("behind", [True, False])
def test_a_sum_with_nothing_is_no_step(behind: bool) -> None:
    """The zero point is the whole constant; the sum before has lines for its six channels."""
    net = Net((9, 8, 6)).conv(6).constant("ADD", 10).constant("SUB", 133)
    compiled = check((net.conv(4) if behind else net).model())
    assert compiled.off_chip == 2 * 64


def test_parameters_that_the_demand_of_a_graph_knows_are_those_of_the_program() -> None:
    """Dense layers of several vectors are convolutions; products with one value and sums with nothing have no lines,
    softmax of pixels has three tables where channels are no multiple of four."""
    net = Net((6, 6, 8)).conv(12).reshape(1, 36, 12).dense_per_pixel(40, False).dense_per_pixel(12)
    net = net.constant("MUL", 77).constant("ADD", 10).constant("SUB", 133).constant("MUL")
    model = net.softmax().dense_per_pixel(10).softmax().model()
    (network,) = read_networks(model)[1]
    (part,) = map_graph(model.main).subgraphs
    read = read_demand(model.main, part, "")
    assert [(t.rows, t.streamed_bytes) for t in read.demand.tensors if t.cacheable] == [
        (t.rows, t.streamed_bytes) for t in network.tensors]
    assert sum(t.streamed_bytes for t in read.demand.tensors if not t.cacheable) == compile_model(model).off_chip
