"""The machine refuses bad programs by name and within its budget."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compiler.beagle.isa import Instruction, encode_stream, instruction
from compiler.beagle.isa.counters import DmaTag
from compiler.beagle.simulator import DeadlockError, Machine, MemoryBoundsError, SimulationError
from compiler.beagle.simulator.streams import HostPort
from compiler.beagle.simulator.walk import Nest, walk_of
from compiler.errors import ProgramError
from compiler.lowering.builder import ProgramBuilder, walk, watch
from compiler.package.model import BaseAddress, Executable, ExecutableType, InstructionChunk, Meta, Position


def run(*program: Instruction) -> None:
    chunk = InstructionChunk(encode_stream(program))
    Machine().run(Executable(ExecutableType.STAND_ALONE, "test", (chunk,)))


def finished(b: ProgramBuilder) -> Executable:
    return Executable(ExecutableType.STAND_ALONE, "test", b.finish(first_register=4).chunks)


def test_empty_program_ends_with_an_interrupt() -> None:
    b = ProgramBuilder()
    b.reset_chip()
    assert Machine().run(finished(b)).interrupts == (0,)


def test_waiting_for_what_never_comes_is_a_deadlock() -> None:
    b = ProgramBuilder()
    b.reset_chip()
    b.tile("wide_to_narrow", 1, walk("src", 0, [(1, 1)], total_dims=4), walk("dst", 0, [(4, 1)], total_dims=6),
           watch(0, 14, 1), drop_level=1)
    with pytest.raises(DeadlockError, match="counter 14"):
        Machine().run(finished(b))


def test_what_the_chip_still_writes_to_the_host_is_read_back_afterwards() -> None:
    port = HostPort()
    scratch = np.zeros(16, np.uint8)
    port.outputs.append(scratch)
    port.ask(1, scratch)
    port.ask(1, np.full(8, 9, np.uint8))
    assert port.arriving[1].length == 0
    port.send_out(np.arange(16, dtype=np.uint8))
    assert port.arriving[1].take(24).tolist() == [*range(16), *[9] * 8]


def test_a_pop_from_a_fifo_that_does_not_exist_is_refused() -> None:
    with pytest.raises(SimulationError, match="names FIFO 3, there are 3"):
        run(instruction("pop", {"source": 3, "receivers": 1}))


def test_results_cannot_overwrite_parameters() -> None:
    b = ProgramBuilder()
    b.reset_chip()
    for register, half in ((1, Position.LOWER), (0, Position.UPPER)):
        b.load(register, address=Meta(BaseAddress.PARAMETER, position=half))
    b.descriptor(1, 0, 2, 8, DmaTag.OUTPUT)
    program = replace(finished(b), parameters=bytes(64))
    with pytest.raises(SimulationError, match="overwrites parameters"):
        Machine().run(program)


def test_addresses_outside_memory_are_refused() -> None:
    b = ProgramBuilder()
    b.reset_chip()
    b.tile("wide_to_narrow", 1, walk("src", 2080, [(1, 1)], total_dims=4), walk("dst", 0, [(4, 1)], total_dims=6),
           drop_level=1)
    with pytest.raises(MemoryBoundsError, match="wide memory"):
        Machine().run(finished(b))


def test_endless_loops_run_out_of_budget() -> None:
    loops = [instruction("loop", {"iterations": 65535, "body": 2}), instruction("loop", {"iterations": 65535, "body": 1}),
             instruction("scalar", {})]
    with pytest.raises(SimulationError, match="executed"):
        run(*loops)


def test_absurd_iteration_counts_are_refused() -> None:
    values = {f"loop{i}": 16383 for i in range(8)}
    with pytest.raises(SimulationError, match="iterates"):
        run(instruction("tensor_op", {"tiles": 1, "no_partial_sums": 1, **values}))


@settings(max_examples=100, deadline=None)
@given(st.binary(min_size=16, max_size=600))
def test_random_streams_end_in_a_named_error_or_at_once(data: bytes) -> None:
    executable = Executable(ExecutableType.STAND_ALONE, "fuzz", (InstructionChunk(data),))
    with suppress(ProgramError):
        Machine().run(executable)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 5), st.integers(-9, 9)), min_size=1, max_size=4), st.integers(0, 3),
       st.integers(0, 50))
def test_walks_visit_what_nested_loops_visit(dims: list[tuple[int, int]], level: int, slot: int) -> None:
    level = min(level, len(dims))
    ins = instruction("ring_send", walk("src", 1000, dims, total_dims=4, level=min(level, 3), slot=slot))
    got = walk_of(ins, ins.form.generators[0]).addresses.tolist()
    want = []
    block = np.prod([n for n, _ in dims[:min(level, 3)]], dtype=int)
    total = int(np.prod([n for n, _ in dims]))
    for i in range(total):
        rest, address = i, 1000
        for n, stride in dims:
            address += rest % n * stride
            rest //= n
        want.append(address + (i // int(block) & 1) * slot)
    assert got == want


def test_block_ends_count_whole_blocks() -> None:
    nest = Nest((4, 3), 1, 2)
    assert nest.lengths.tolist() == [4, 4, 2]
    assert nest.block_ends(1).tolist() == [4, 8, 10]
    assert nest.block_ends(2).tolist() == [10]
