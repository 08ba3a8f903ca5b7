"""Steps of the tensor unit on four lanes, of which a softmax consists: fields that all of them have in common."""

from __future__ import annotations

from compiler.lowering.arithmetic import bits
from compiler.lowering.builder import Dim, ProgramBuilder, Values, walk
from compiler.lowering.softmax_layer import Limits

SLOT_ROWS = 4
"""Rows of each of two slots through which operands of a maximum or a sum pass."""
_ONE = bits(1.0)


def emit_step(b: ProgramBuilder, name: str, tiles: int, *parts: Values, **values: int) -> None:
    """Emit a step."""
    b.tile(name, tiles, step_fields(*parts, **values))


def step_fields(*parts: Values, **values: int) -> Values:
    """Return the fields of a step of the tensor unit on four lanes."""
    fields: Values = {"partial_from_zero": 1, "no_partial_sums": 1, "lanes_m1": 3, "lanes_last_m1": 3, "multiplier": _ONE}
    for part in (*parts, values):
        fields |= part
    return fields


def nest(*counts: int) -> Values:
    """Return the fields of loops, the innermost first."""
    return {f"loop{i}": n - 1 for i, n in enumerate(counts)}


def used_dims(inner: Dim, *outer: Dim) -> list[Dim]:
    """Return dimensions without outer ones of a single element."""
    return [inner, *(dim for i, dim in enumerate(outer) if dim[0] > 1 or i < len(outer) - 1)]


def results(address: int, words: int, size: int) -> Values:
    """Walk over a result; further dimensions, of one element each, move by its size."""
    return walk("out", address, [(words, 4), (1, size), (1, size), (1, size)], total_dims=8)


def paired(address: int, first: Dim, second: Dim, size: int) -> Values:
    """Walk over an operand with a dimension that stands still after each; the rest as for results."""
    return walk("in", address, [first, second, (1, size), (1, 0), (1, size), (1, 0), (1, size)], total_dims=8)


def no_sums(count: int, slot: int, *, level: int | None = None) -> Values:
    """Walk over partial sums that are not used."""
    if count == 1:
        used = level is None or level
        return walk("partial", 0, [(1, 1)], total_dims=8, mask=0, level=int(used), slot=slot if used else 0)
    return walk("partial", 0, [(count, 0)], total_dims=8, slot=slot)


def limited(limits: Limits) -> Values:
    """Return the fields of an output stage."""
    return {"multiplier": limits.multiplier, "clamp_low": limits.low, "clamp_high": limits.high}


def block_of(count: int) -> int:
    """Return how many rows of an operand are packed before a step begins with them."""
    return min(SLOT_ROWS, -(-count // 2))


def short_walk(count: int, block: int, rows: int = 1) -> tuple[int, int, int] | None:
    """Return the epilogue of a walk over blocks whose last one is shorter; ``rows`` addresses each."""
    rest = count % block
    return (1, rest, rows * (block - rest)) if rest else None


def short_loop(count: int, block: int) -> Values:
    """Return the fields of loops over such blocks."""
    rest = count % block
    return {"loop_epilogue_dim": 1, "loop_epilogue_limit": rest - 1} if rest else {}
