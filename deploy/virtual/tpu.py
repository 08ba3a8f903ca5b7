"""One simulated Edge TPU with the state that the real runtime keeps for it.

The runtime's rule for the parameter cache: each package has a caching token. When it is that
of the data on the chip, the data stay, and a member of a co-compiled set that has not written
its own yet adds them; when it is another, the chip is wiped and written anew.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from compiler.beagle.timing.costs import Bus
from compiler.package import Executable, Package
from deploy.errors import RuntimeTooOldError


class SimulatedRun(Protocol):
    """Result of one executable on the chip simulator."""

    @property
    def outputs(self) -> Mapping[str, bytes]:
        """Host buffers by layer name, as the chip writes them."""


class Simulator(Protocol):
    """What is needed of the chip simulator: memories that outlast a run."""

    def run(self, executable: Executable, inputs: Mapping[str, bytes]) -> SimulatedRun:
        """Run an executable on host buffers by layer name, as the chip reads them."""


@dataclass(frozen=True)
class Counters:
    """What a simulated Edge TPU has done since it was switched on.

    Attributes
    ----------
    cache_writes:
        Runs of a parameter-caching executable.
    wipes:
        Times that the token changed while something was cached.
    invocations:
        Inferences.
    """

    cache_writes: int = 0
    wipes: int = 0
    invocations: int = 0


@dataclass(frozen=True)
class TpuRun:
    """One inference.

    Attributes
    ----------
    outputs:
        Host buffers by layer name, as the chip writes them.
    programs:
        What ran: the parameter-caching executable if the cache had to be written, then the execution.
    """

    outputs: Mapping[str, bytes]
    programs: tuple[Executable, ...]

    @property
    def wrote_parameters(self) -> bool:
        """Whether the parameter cache had to be written first."""
        return len(self.programs) > 1


class VirtualTpu:
    """A simulated Edge TPU.

    Parameters
    ----------
    runtime_version:
        The runtime refuses packages that need a newer one.
    simulator:
        Makes a chip with empty memories.
    times:
        How long a program takes, microseconds.
    """

    def __init__(self, runtime_version: int, bus: Bus, simulator: Callable[[], Simulator],
                 times: Callable[[Executable, Bus], float] | None = None) -> None:
        self.runtime_version = runtime_version
        self.bus = bus
        self._switch_on = simulator
        self._times = times or simulated_us
        self._chip = simulator()
        self._token = 0
        self._cached: dict[int, Package] = {}
        self._writes = self._wipes = self._invocations = 0

    @property
    def counters(self) -> Counters:
        """What it has done so far."""
        return Counters(self._writes, self._wipes, self._invocations)

    def check(self, package: Package) -> None:
        """Refuse a package that needs a newer runtime, in the runtime's words: :class:`RuntimeTooOldError`."""
        if package.min_runtime_version > self.runtime_version:
            raise RuntimeTooOldError(package.min_runtime_version, self.runtime_version)

    def invoke(self, package: Package, inputs: Mapping[str, bytes]) -> TpuRun:
        """Run one inference.

        Parameters
        ----------
        package:
            The same object for all inferences of a loaded model.
        inputs:
            Host buffers by layer name, as the chip reads them.
        """
        self.check(package)
        caching = self._prepare(package)
        if caching is not None:
            self._chip.run(caching, {})
            self._writes += 1
        outputs = self._chip.run(package.execution, inputs).outputs
        self._invocations += 1
        return TpuRun(outputs, (*([] if caching is None else [caching]), package.execution))

    def _prepare(self, package: Package) -> Executable | None:
        """Bring the cache's books in order; return the executable that must fill it first, if one must.

        Programs that cache nothing carry a token too: beside members of their own compilation they
        spare the cache, beside others they wipe it, because they use the same memory.
        """
        token = package.execution.token
        caching = package.caching
        if token == 0 or token != self._token:
            self._wipe(token if caching else 0)
        if caching is None or id(package) in self._cached:
            return None
        self._cached[id(package)] = package
        return caching

    def _wipe(self, token: int) -> None:
        """Forget all that is cached."""
        if self._cached:
            self._wipes += 1
            self._chip = self._switch_on()
        self._cached = {}
        self._token = token

    def time_us(self, run: TpuRun) -> float:
        """Return the simulated microseconds of an inference on chip and bus, writing the cache included."""
        return sum(self._times(program, self.bus) for program in run.programs)


def simulated_us(program: Executable, bus: Bus) -> float:
    """Return what the cycle model (docs/cycle-model.md) says, at the clock of libedgetpu1-max."""
    from compiler.beagle.timing import Costs, latency_us

    return latency_us(program, bus, Costs())
