"""Address walks: what a tensor traversal unit (TTU) visits, as numpy arrays.

A walk is a nest of up to eight dimensions, dimension 0 innermost. ``level L`` always means: one
event per completion of the L innermost dimensions (0: every element; all dimensions: once).
In the last iteration of the epilogue dimension, dimension 0 runs a different number of elements.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from compiler.beagle.isa import AddressGenerator, Instruction
from compiler.beagle.simulator.errors import BudgetError, SimulationError

Ints = npt.NDArray[np.int64]
MAX_ELEMENTS = 1 << 24
"""Elements of one instruction: 2.7 times the most that an official program is known to have."""


@dataclass(frozen=True)
class Nest:
    """Iteration space of nested loops with an optional epilogue.

    Attributes
    ----------
    counts:
        Iterations, innermost first.
    epilogue_dim, epilogue_count:
        In the last iteration of this dimension (0: never) the innermost runs so many elements.
    """

    counts: tuple[int, ...]
    epilogue_dim: int = 0
    epilogue_count: int = 0

    def __post_init__(self) -> None:
        if self.epilogue_dim >= len(self.counts):
            raise SimulationError(f"a loop nest of {len(self.counts)} dimensions has an epilogue in dimension "
                                  f"{self.epilogue_dim}")

    @cached_property
    def outer(self) -> npt.NDArray[np.int32]:
        """Indices of dimensions 1.. per iteration around dimension 0; shape (outer, dims - 1)."""
        counts = self.counts[1:]
        total = int(np.prod(counts, dtype=object)) if counts else 1
        if total * max(self.counts[0], self.epilogue_count, 1) > MAX_ELEMENTS:
            raise BudgetError(f"an instruction iterates {total * self.counts[0]} times, the limit is {MAX_ELEMENTS}")
        columns = np.zeros((total, len(counts)), np.int32)
        inner = 1
        for i, count in enumerate(counts):
            if count > 1:
                columns[:, i] = np.tile(np.repeat(np.arange(count, dtype=np.int32), inner), total // (inner * count))
            inner *= count
        return columns

    @cached_property
    def lengths(self) -> Ints:
        """Elements of dimension 0 per outer iteration."""
        lengths = np.full(len(self.outer), self.counts[0], np.int64)
        if self.epilogue_dim:
            last = self.outer[:, self.epilogue_dim - 1] == self.counts[self.epilogue_dim] - 1
            lengths[last] = self.epilogue_count
        return lengths

    @cached_property
    def ends(self) -> Ints:
        """Elements visited up to and including each outer iteration."""
        return np.cumsum(self.lengths)

    @property
    def size(self) -> int:
        """Elements visited in all."""
        return int(self.ends[-1])

    def block_ends(self, level: int) -> Ints:
        """Elements visited at the end of each block of ``level`` dimensions."""
        if level <= 0:
            return np.arange(1, self.size + 1)
        inner = int(np.prod(self.counts[1:level], dtype=np.int64))
        return self.ends[inner - 1::inner]

    def block_of_elements(self, level: int) -> Ints:
        """Block number of every element. For level 0 numbers count the full nest."""
        if level <= 0:
            starts = np.arange(len(self.outer)) * self.counts[0]
            return np.repeat(starts, self.lengths) + self._inner
        inner = int(np.prod(self.counts[1:level], dtype=np.int64))
        return np.repeat(np.arange(len(self.outer)) // inner, self.lengths)

    @cached_property
    def _inner(self) -> Ints:
        return np.arange(self.size) - np.repeat(self.ends - self.lengths, self.lengths)

    def offsets(self, strides: Sequence[int]) -> Ints:
        """Sum of index times stride for every element."""
        base = np.zeros(len(self.outer), np.int64)
        for dim, (count, stride) in enumerate(zip(self.counts[1:], strides[1:], strict=True)):
            if count > 1:
                base += self.outer[:, dim].astype(np.int64) * stride
        return np.repeat(base, self.lengths) + self._inner * strides[0]


@dataclass(frozen=True)
class Walk:
    """The addresses one traversal unit of an instruction visits."""

    nest: Nest
    addresses: Ints

    @property
    def size(self) -> int:
        """Elements visited."""
        return self.nest.size


def strides_of(ins: Instruction, prefix: str, counts: Sequence[int]) -> list[int]:
    """Turn the incremental deltas of a record into true strides."""
    strides, inner = [], 0
    for d, count in enumerate(counts):
        stride = ins[f"{prefix}.delta{d}"] + inner
        strides.append(stride)
        inner += stride * (count - 1)
    return strides


def walk_of(ins: Instruction, generator: AddressGenerator, *, epilogue_on_dim1: bool = False) -> Walk:
    """Work out all addresses of a record.

    Parameters
    ----------
    epilogue_on_dim1:
        The transposing modes of narrow-to-wide shorten dimension 1, not dimension 0.
    """
    p = generator.prefix
    counts = tuple(ins[f"{p}.limit{d}"] + 1 for d in range(generator.dims))
    strides = strides_of(ins, p, counts)
    dim, count = ins[f"{p}.epilogue_dim"], ins[f"{p}.epilogue_limit"] + 1
    if dim and epilogue_on_dim1:
        return _shortened_walk(ins, p, counts, strides, dim, count)
    nest = Nest(counts, dim, count if dim else 0)
    addresses = ins[f"{p}.start"] + nest.offsets(strides)
    slot = ins[f"{p}.slot"]
    if slot:
        addresses = addresses + (nest.block_of_elements(ins[f"{p}.level"]) & 1) * slot
    # Its indices are the largest part of a nest, and only loops of compute instructions need them again.
    vars(nest).pop("outer", None)
    return Walk(nest, addresses)


def _shortened_walk(ins: Instruction, p: str, counts: tuple[int, ...], strides: list[int], dim: int,
                    count: int) -> Walk:
    """Walk whose dimension 1 is short in the last iteration of ``dim``: fold dimension 0 into 1."""
    inner = counts[0]
    folded = Nest((counts[1], *counts[2:]), dim - 1, count)
    base = ins[f"{p}.start"] + folded.offsets(strides[1:])
    addresses = (base[:, None] + np.arange(inner) * strides[0]).reshape(-1)
    return Walk(Nest((counts[0] * counts[1], 1, *counts[2:]), dim, count * inner), addresses)


def is_active(ins: Instruction, prefix: str) -> bool:
    """Tell whether a record is in use: unused ones are all zero."""
    return any(name.startswith(prefix) and name[len(prefix)] == "." for name in ins.values)
