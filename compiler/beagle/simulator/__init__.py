"""The simulator: executes instruction streams with real addresses, engines and sync counters."""

from compiler.beagle.simulator.errors import (
    BudgetError,
    DeadlockError,
    MemoryBoundsError,
    SimulationError,
    UnsupportedInstruction,
)
from compiler.beagle.simulator.machine import Machine, RunResult

__all__ = [
    "BudgetError",
    "DeadlockError",
    "Machine",
    "MemoryBoundsError",
    "RunResult",
    "SimulationError",
    "UnsupportedInstruction",
]
