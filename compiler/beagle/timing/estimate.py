"""What a compiled model costs, for planners: latency, transfers, and the share of every operator.

Time does not depend on data. So a program is gone through once without computing anything, and what was
recorded is timed for a bus. For a model that was compiled here::

    compiled = compile_model(model)
    for (_, package), parts in zip(packages_of(parse_model(compiled.data)), compiled.parts):
        cost = estimate(package, "usb3", parts=parts)
        cost.warm_us, cost.first_us                                # latency without and with writing the cache
        {op.name: op.latency_us for op in cost.operators}          # by title of the source operator

Without ``parts`` - executables of the official compiler - operators are the parts of the program that its
arithmetic shows. Results are kept within the process.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from compiler.beagle.simulator.machine import Machine
from compiler.beagle.timing.costs import BUSES, Bus, Costs
from compiler.beagle.timing.recorder import record
from compiler.beagle.timing.report import PartTime, part_times
from compiler.beagle.timing.schedule import Schedule, schedule
from compiler.package.model import Executable, Package

_KEPT = 1024
"""Results that are kept within the process."""
_known: dict[tuple[object, ...], Estimate | float] = {}


@dataclass(frozen=True)
class OperatorCost:
    """The share of one operator in an inference.

    Attributes
    ----------
    name:
        Title of the operator; empty for what serves none: instructions, input, output.
    latency_us:
        How much later the inference ends because of it; these add up to the time on the chip.
    compute_us, moves_us:
        Time at work of its busiest compute engine, and of its busiest engine that moves data.
    streamed_bytes:
        Parameters that come over the bus in every inference.
    """

    name: str
    latency_us: float
    compute_us: float
    moves_us: float
    streamed_bytes: int


@dataclass(frozen=True)
class Estimate:
    """What an inference costs. All times are simulated, in microseconds.

    Attributes
    ----------
    warm_us:
        Latency when the parameters are cached.
    cache_us:
        Latency of writing the cache; 0 when nothing is cached.
    instruction_bytes, input_bytes, output_bytes, streamed_bytes:
        What an inference transfers; streamed are parameters.
    cached_bytes:
        Parameters that are transferred once.
    operators:
        In the order in which they first run.
    """

    bus: str
    warm_us: float
    cache_us: float
    instruction_bytes: int
    input_bytes: int
    output_bytes: int
    streamed_bytes: int
    cached_bytes: int
    operators: tuple[OperatorCost, ...]

    @property
    def first_us(self) -> float:
        """Latency of the first inference: the cache is written before."""
        return self.cache_us + self.warm_us


_Value = TypeVar("_Value", Estimate, float)


def estimate(package: Package, bus: Bus | str = "usb3", *, costs: Costs | None = None,
             parts: Sequence[tuple[int, str]] | None = None) -> Estimate:
    """Return what an inference of a package costs.

    Parameters
    ----------
    bus:
        By default ``usb3``; a name out of :data:`~compiler.beagle.timing.costs.BUSES`, or a bus.
    costs:
        Cycles of the chip and its clock.
    parts:
        Which instructions serve which operator, one item of :attr:`~compiler.compile.CompiledModel.parts`.

    Raises
    ------
    SimulationError
        When the program breaks a rule of the chip.
    """
    chosen = BUSES[bus] if isinstance(bus, str) else bus
    costs = costs or Costs()
    execution, caching = package.execution, package.caching
    cache_us = 0.0 if caching is None else latency_us(caching, chosen, costs)
    key = (_digest(execution), cache_us, chosen, repr(costs), None if parts is None else tuple(parts))
    known = _known.get(key)
    if isinstance(known, Estimate):
        return known
    times = timed(execution, chosen, costs)
    return _keep(key, Estimate(
        chosen.name, times.total_us, cache_us, sum(len(chunk.data) for chunk in execution.chunks),
        sum(layer.size for layer in execution.inputs), sum(layer.size for layer in execution.outputs),
        len(execution.parameters), 0 if caching is None else len(caching.parameters),
        _shares(part_times(times, parts), times.total_us - chosen.overhead_us)))


def latency_us(executable: Executable, bus: Bus, costs: Costs) -> float:
    """Return how long one executable takes, microseconds."""
    key = (_digest(executable), bus, repr(costs))
    known = _known.get(key)
    return known if isinstance(known, float) else _keep(key, timed(executable, bus, costs).total_us)


def _digest(executable: Executable) -> str:
    """Tell programs apart: what decides about time is in the streams and the sizes of their buffers."""
    found = hashlib.sha256()
    for chunk in executable.chunks:
        found.update(chunk.data)
    sizes = [(layer.name, layer.size) for layer in (*executable.inputs, *executable.outputs)]
    found.update(repr((len(executable.parameters), sizes)).encode())
    return found.hexdigest()


def _keep(key: tuple[object, ...], value: _Value) -> _Value:
    if len(_known) >= _KEPT:
        _known.pop(next(iter(_known)))
    _known[key] = value
    return value


def _shares(parts: Sequence[PartTime], end_us: float) -> tuple[OperatorCost, ...]:
    """Add up the parts of each operator; what comes behind all of them until the end serves none."""
    found: dict[str, OperatorCost] = {}
    reached = 0.0
    for part in (*parts, PartTime("", end_us, end_us, 0.0, 0.0, 0)):
        old = found.get(part.heading, OperatorCost(part.heading, 0.0, 0.0, 0.0, 0))
        later = max(part.end_us - reached, 0.0)
        reached = max(reached, part.end_us)
        found[part.heading] = OperatorCost(part.heading, old.latency_us + later, old.compute_us + part.compute_us,
                                           old.moves_us + part.moves_us, old.streamed_bytes + part.streamed_bytes)
    return tuple(found.values())


def timed(executable: Executable, bus: Bus, costs: Costs) -> Schedule:
    """Go through an executable without computing, and time it."""
    inputs = {layer.name: bytes(layer.size) for layer in executable.inputs}
    return schedule(record(Machine(computes=False), executable, inputs), costs, bus)
