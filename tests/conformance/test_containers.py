"""Containers, streams and caching programs of official models, taken apart and put together again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from compiler.beagle.isa import Instruction, decode_stream, encode_stream
from compiler.graph import read_model
from compiler.lowering.caching_program import CacheSegment, caching_program
from compiler.package import (
    Executable,
    Package,
    read_custom_options,
    read_package,
    write_custom_options,
    write_package,
)

if TYPE_CHECKING:
    from conftest import Pair

pytestmark = pytest.mark.corpus


def options_of(pair: Pair) -> list[bytes]:
    return [op.custom_options.tobytes() for op in read_model(pair.compiled).main.operators
            if op.custom_name == "edgetpu-custom-op" and op.custom_options is not None]


def packages_of(pair: Pair) -> list[Package]:
    return [read_package(read_custom_options(options).package) for options in options_of(pair)]


def test_containers_are_rewritten_byte_for_byte(pairs: list[Pair]) -> None:
    count = 0
    for pair in pairs:
        for options in options_of(pair):
            read = read_custom_options(options)
            assert write_custom_options(read) == options, pair.name
            assert write_package(read_package(read.package)) == read.package, pair.name
            count += 1
    assert count >= len(pairs)


def test_streams_are_reencoded_byte_for_byte(pairs: list[Pair]) -> None:
    for pair in pairs:
        for package in packages_of(pair):
            for executable in package.executables:
                for chunk in executable.chunks:
                    assert encode_stream(decode_stream(chunk.data)) == chunk.data, pair.name


def describe(program: tuple[Instruction, ...]) -> list[list[CacheSegment]]:
    """Read the segments out of a caching program."""
    tensors: list[list[CacheSegment]] = []
    receives: list[Instruction] = []
    sending = False
    for ins in program:
        if ins.name == "ring_receive_a":
            if sending or not tensors:
                tensors.append([])
                receives, sending = [], False
            receives.append(ins)
        elif ins.name == "pop":
            sending = True
            tensors[-1].append(segment(receives[len(tensors[-1])], ins))
    return tensors


def segment(receive: Instruction, pop: Instruction) -> CacheSegment:
    blocks, half = pop["fifo.limit1"] + 1, 1024
    rest = pop["fifo.epilogue_limit"] + 1 if pop["fifo.epilogue_dim"] else half
    lines = (blocks - 1) * half + rest if pop["fifo.limit0"] else 1
    header = receive["prefix.count_m1"] + 1 if receive["prefix.enable"] else 0
    groups = receive["dst.limit1"] + 1
    row = receive["prefix.start"] if header else receive["dst.start"]
    return CacheSegment(receive["tiles"].bit_length() - 1, row, lines, pop["lanes_m1"] + 1, header, groups)


def first_difference(ours: Executable | bytes, theirs: bytes) -> str:
    a, b = decode_stream(bytes(ours)), decode_stream(theirs)  # type: ignore[arg-type]
    for x, y in zip(a, b, strict=False):
        if x.values != y.values or x.name != y.name:
            keys = sorted(k for k in {*x.values, *y.values} if x.values.get(k) != y.values.get(k))
            return f"at {x.offset:#x} {x.name}/{y.name}: {[(k, x.values.get(k), y.values.get(k)) for k in keys[:8]]}"
    return f"lengths {len(a)} and {len(b)}"


def test_caching_programs_of_runtime_14_are_regenerated(pairs: list[Pair]) -> None:
    count = 0
    for pair in pairs:
        for package in packages_of(pair):
            if package.min_runtime_version < 14 or package.caching is None:
                continue
            official = package.caching.chunks[0]
            program = caching_program(describe(decode_stream(official.data)))
            ours = program.chunks[0]
            assert ours.data == official.data, f"{pair.name}: {first_difference(ours.data, official.data)}"
            assert ours.field_offsets == official.field_offsets, pair.name
            assert program.hints == package.caching.hints, pair.name
            count += 1
    assert count > 30
