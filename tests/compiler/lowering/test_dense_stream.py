"""Streamed dense layers of compiler 1.0: what keeps their parameters apart from vectors on the ring."""

from __future__ import annotations

import numpy as np
import pytest

from compiler.beagle.isa import Instruction, decode_stream
from compiler.beagle.isa.counters import ScalarCounter
from compiler.compile import CompileOptions, compile_model
from compiler.generation import COMPILER_1_0
from compiler.graph import TensorType, parse_model
from compiler.lowering.builder import ProgramBuilder
from compiler.lowering.dense_layer import DenseLayer
from compiler.lowering.dense_stream import stream
from compiler.lowering.parameters import DenseParameters
from compiler.lowering.pieces import ring_turn
from compiler.package.container import packages_of
from tests.compiler.lowering.networks import Net


def pops(inputs: int, senders: list[int], *, early: bool = True) -> list[Instruction]:
    """Stream a layer of 130 outputs on three tiles, behind tiles that send."""
    p = DenseParameters(np.zeros((130, inputs), np.uint8), 128, False, np.ones(1, np.float32), np.zeros(130, np.int32))
    layer = DenseLayer("layer", p, None, 0, 0, 0, 0, early=early)
    b = ProgramBuilder()
    for _ in senders:
        ring_turn(b)
    stream(b, layer, 0, 0, 0, 0)
    program = [ins for chunk in b.finish(first_register=4).chunks for ins in decode_stream(chunk.data)]
    return [ins for ins in program if ins.name == "pop"]


def turns(found: list[Instruction]) -> list[int | None]:
    assert len(found) == 3
    assert all(ins["watch1.counter"] == ScalarCounter.PRODUCER_A for ins in found if ins["watch1.valid"])
    return [ins["watch1.count"] if ins["watch1.valid"] else None for ins in found]


@pytest.mark.parametrize("senders", [[0, 0, 0], [0, 2, 1, 0], [1], []], ids=str)
def test_parameters_wait_for_all_that_send_before(senders: list[int]) -> None:
    assert turns(pops(100, senders)) == [len(senders)] * 3


def test_later_compilers_wait_for_all_tiles_before() -> None:
    assert turns(pops(100, [1, 0, 2], early=False)) == [None] * 3


def test_a_vector_waits_for_parameters_of_another_layer() -> None:
    """Tile 0 sends a vector of three tiles on only when nine tiles have got the parameters of the layer before."""
    net = Net((1, 1, 24), TensorType.UINT8)
    wide = net.dense(4400).x
    narrow = net.dense(130).x
    streamed = net.at(wide).dense(1040).x
    model = net.at(narrow).dense(700).finish([streamed, net.x])
    compiled = compile_model(model, CompileOptions(generation=COMPILER_1_0))
    ((_, package),) = packages_of(parse_model(compiled.data))
    program = [ins for chunk in package.execution.chunks for ins in decode_stream(chunk.data)]
    last = max(i for i, ins in enumerate(program) if ins.name == "pop" and not ins["source"])
    behind = program[last:]
    moved = next(i for i, ins in enumerate(behind) if ins.name == "mesh_from_east")
    assert any(ins.name == "scalar_fence" and ins["wait_tiles"] for ins in behind[:moved])
