"""A run as a graph of steps that can be timed.

A *step* is a piece of work of one engine under constant conditions. It may begin when the steps
that its gates name have got far enough, and it cannot end before the packets that it consumes
have arrived. The graph does not depend on any cost: one recording is timed for any chip clock and bus.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum

from compiler.beagle.isa import Instruction


class Work(IntEnum):
    """Kinds of work, each with a cost of its own."""

    SCALAR = 0
    FENCE = 1
    COMPUTE = 2
    RING_SEND = 3
    RING_RECEIVE = 4
    WIDE_TO_NARROW = 5
    NARROW_TO_WIDE = 6
    MESH = 7
    INFEED = 8
    POP = 9
    OUTFEED = 10
    TO_CHIP = 11
    TO_HOST = 12


PARAMETER_INFEED = "infeed of parameters"
"""Engine that takes parameters from the host."""
Point = tuple[int, float]
"""A step, and how much of it: 0 begin, 1 end."""


@dataclass(slots=True)
class Step:
    """Work of one engine.

    Attributes
    ----------
    line:
        Engine, see :class:`Trace`.
    amount:
        Elements (compute: :attr:`~compiler.beagle.simulator.tensor.TensorOp.beats`; scalar: instructions; transfers: bytes).
    label:
        Instruction that it belongs to.
    begins_after, ends_after:
        Points of other steps.
    first:
        First step of its instruction.
    """

    line: int
    work: Work
    amount: float
    label: Instruction | None
    begins_after: list[Point] = field(default_factory=list)
    ends_after: list[Point] = field(default_factory=list)
    first: bool = False


@dataclass
class Trace:
    """Steps in an order in which every step comes after those that it waits for.

    Attributes
    ----------
    lines:
        Names of the engines, ``line`` of a step is an index here.
    program:
        All instructions, in the order of the streams.
    """

    steps: list[Step] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    program: tuple[Instruction, ...] = ()
