"""What can go wrong when a program runs."""

from __future__ import annotations

from compiler.errors import ProgramError


class SimulationError(ProgramError):
    """A program broke a rule of the chip while it ran."""


class DeadlockError(SimulationError):
    """Nothing can move any more, but the program has not ended."""


class MemoryBoundsError(SimulationError):
    """An address outside a memory."""


class BudgetError(SimulationError):
    """The program takes more steps than the caller allows."""


class UnsupportedInstruction(SimulationError):  # noqa: N818 - it names the instruction
    """An instruction form whose execution is not known."""
