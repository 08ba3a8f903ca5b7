"""Habits of earlier compilers: parameters and the programs that use them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from compiler.beagle.isa import decode_stream
from compiler.compile import CompiledModel, CompileOptions, compile_model
from compiler.generation import (
    COMPILER_1_0,
    COMPILER_2,
    COMPILER_14,
    COMPILER_16,
    CURRENT,
    GENERATIONS,
    Generation,
    for_runtime,
)
from compiler.graph import TensorType, parse_model
from compiler.graph.build import GraphBuilder
from compiler.lowering.spatial.gathering import MESH_COUNTERS
from compiler.package import Package
from compiler.package.container import packages_of
from tests.compiler.lowering.networks import Net, check, random_values, run

EARLY = [COMPILER_1_0, COMPILER_2]
by_version = pytest.mark.parametrize("generation", GENERATIONS, ids=lambda g: g.version)
early = pytest.mark.parametrize("generation", EARLY, ids=lambda g: g.version)


def package_of(compiled: CompiledModel) -> Package:
    ((_, package),) = packages_of(parse_model(compiled.data))
    return package


def uses_scalar_functions(package: Package) -> bool:
    program = (ins for chunk in package.execution.chunks for ins in decode_stream(chunk.data))
    return any(ins.name == "scalar" and ins["special"] for ins in program)


def scalar_instructions(package: Package) -> int:
    return sum(ins.name == "scalar" for chunk in package.execution.chunks for ins in decode_stream(chunk.data))


def tables(compiled: CompiledModel) -> int:
    return sum(t.table for t in compiled.plans[0].demand.tensors)


@early
@pytest.mark.parametrize("classes", [1, 2, 3, 4, 7, 8, 10, 64, 130, 301])
def test_softmax_on_the_scalar_core_equals_the_reference(classes: int, generation: Generation) -> None:
    """Also where the classes lie on several tiles, and on odd numbers of words."""
    compiled = check(Net((1, 1, 24), TensorType.UINT8).dense(classes).softmax().model(), seeds=(None, 1), judge=True,
                     generation=generation)
    assert uses_scalar_functions(package_of(compiled))
    assert tables(compiled) == 0


def test_softmax_on_the_scalar_core_without_zero_point() -> None:
    net = Net((1, 1, 24), TensorType.UINT8)
    net.zero = 0
    check(net.dense(9).softmax().model(), judge=True, generation=COMPILER_2)


def test_the_scalar_core_clears_the_bytes_behind_the_last_class() -> None:
    model = Net((1, 1, 24), TensorType.UINT8).dense(9).softmax().model()
    old, new = (scalar_instructions(package_of(compile_model(model, CompileOptions(generation=g)))) for g in EARLY)
    assert old == new + 8


def chain(*sizes: int) -> Net:
    net = Net((1, 1, 24), TensorType.UINT8)
    for size in sizes:
        net.dense(size)
    return net


def branches() -> Net:
    """Two readers of one vector, and a sum."""
    net = Net((1, 1, 24), TensorType.UINT8)
    first = net.dense(200).x
    second, third = net.dense(150).x, net.at(first).dense(150).x
    net.x = net.b.add(second, third, scale=0.4, zero_point=net.zero)
    return net.dense(70).dense(11)


CHAINS = {
    "2 tiles": (lambda: chain(100, 100, 7), 1, 2),
    "4 tiles": (lambda: chain(256, 256, 10), 1, 2),
    "16 tiles": (lambda: chain(1001, 1024, 65), 1, 2),
    "one receiver": (lambda: chain(130, 5), 1, 1),
    "streamed": (lambda: chain(7000, 130, 7000, 130, 9), 3, 4),
    "other layers between": (lambda: chain(200).logistic().dense(300).rescale(0.4).dense(150).dense(90).softmax(), 1, 1),
    "branches": (branches, 1, 1),
    "image in front": (lambda: Net((9, 7, 12), TensorType.UINT8).conv(24, 3).mean().dense(200).dense(130), 1, 1),
}


@pytest.mark.parametrize(("make", "infeeds", "gathered"), CHAINS.values(), ids=CHAINS.keys())
def test_slices_of_vectors_come_together_on_the_first_tile(make: Callable[[], Net], infeeds: int, gathered: int) -> None:
    """Compiler 1.0, in several orders of engines; parameters come with the inference where they do not fit."""
    compiled = check(make().model(), seeds=(None, 1, 2), judge=True, generation=COMPILER_1_0)
    program = [ins for chunk in package_of(compiled).execution.chunks for ins in decode_stream(chunk.data)]
    assert sum(ins.name == "infeed" for ins in program) == infeeds
    mesh_resets = [ins for ins in program if ins.name == "tile_fence" and ins["reset"] == MESH_COUNTERS]
    assert len(mesh_resets) == gathered


@early
def test_a_softmax_that_others_read_stays_on_the_tiles(generation: Generation) -> None:
    model = Net((1, 1, 24), TensorType.UINT8).softmax().dense(5).model()
    compiled = compile_model(model, CompileOptions(generation=generation))
    package = package_of(compiled)
    assert not uses_scalar_functions(package)
    assert tables(compiled) == 0  # 24 classes leave no lane spare
    values = {layer.name: random_values(model.main.tensors[t]) for layer, t in
              zip(package.execution.inputs, model.main.inputs, strict=True)}
    current = package_of(compile_model(model))
    assert run(package, values).keys() == run(current, values).keys()
    for name, array in run(current, values).items():
        assert np.array_equal(run(package, values)[name], array)


@by_version
def test_tables_of_a_softmax(generation: Generation) -> None:
    compiled = check(Net((1, 1, 24)).dense(9).softmax().model(), judge=True, generation=generation)
    assert tables(compiled) == {COMPILER_14: 2, COMPILER_16: 3}.get(generation, 0)


@by_version
def test_biases_that_are_zero(generation: Generation) -> None:
    """Programs read what is stored, and only that."""
    net = Net((9, 9, 4), TensorType.UINT8).conv(8, 3, bias=False)
    kept = check(net.model(), judge=True, generation=generation)
    bare = compile_model(net.model(), CompileOptions(generation=COMPILER_16))
    more = len(package_of(kept).caching.parameters) - len(package_of(bare).caching.parameters)
    assert more == (16 * 4 if "CONV_2D" in generation.zero_bias else 0)


def test_runtimes_choose_generations() -> None:
    assert [for_runtime(v) for v in range(10, 15)] == [COMPILER_1_0, COMPILER_1_0, CURRENT, CURRENT, CURRENT]
    assert CompileOptions(10).habits is COMPILER_1_0
    assert CompileOptions(10, generation=COMPILER_14).habits is COMPILER_14


@pytest.mark.parametrize("inputs", [100, 116, 160])
def test_streamed_dense_layers_of_compiler_1_0(inputs: int) -> None:
    """Chunks of at most 12 rows of equal length; 116 inputs are 29 rows of which only one fits."""
    net = Net((1, 1, inputs), TensorType.UINT8)
    for _ in range(2080 // (inputs // 4 + 1) + 2):
        net.dense(inputs)
    compiled = check(net.model(), generation=COMPILER_1_0)
    assert compiled.off_chip > 0
    assert compiled.plans[0].demand.staging_row == 2080 - 2 - 2 - 2 * 12


@by_version
def test_an_axis_for_the_channels_of_an_input(generation: Generation) -> None:
    net = Net((1, 1, 1), TensorType.UINT8)
    net.b = GraphBuilder(type=TensorType.UINT8)
    x = net.b.add_input((1, 12, 12), scale=0.05, zero_point=121)
    net.at(net.b.reshape(x, (1, 12, 12, 1))).conv(8, 3)
    compiled = check(net.model(), judge=True, generation=generation)
    assert len(compiled.plans[0].demand.tensors) == 1 + generation.moves_inputs
