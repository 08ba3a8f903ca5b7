"""First and warm latency of a model on a device."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from deploy.agent.client import AgentClient, Timing

DEFAULT_RUNS = 50


@dataclass(frozen=True)
class LatencyReport:
    """Latency of one model on one device, microseconds.

    Attributes
    ----------
    first_us:
        First inference after loading: the parameter cache is written. None when the model had
        already run.
    warm_us:
        Every later inference, in order.
    host_us, device_us:
        Median parts of warm inferences on the device's CPU and on the Edge TPU with its bus; None
        where the runtime cannot tell them apart.
    simulated:
        The figures come from the simulator's model of chip and bus, not from a device.
    """

    first_us: float | None
    warm_us: tuple[float, ...]
    host_us: float | None
    device_us: float | None
    simulated: bool

    def percentile(self, percent: float) -> float:
        """Return a percentile of the warm latencies (nearest rank)."""
        ordered = sorted(self.warm_us)
        rank = max(1, -(-len(ordered) * percent // 100))
        return ordered[int(rank) - 1]

    def as_json(self) -> dict[str, Any]:
        """Return the report as plain data."""
        return {**asdict(self), "p50_us": self.percentile(50), "p90_us": self.percentile(90),
                "p99_us": self.percentile(99), "runs": len(self.warm_us)}


def measure(agent: AgentClient, model: str | bytes, *, tpu: int | None = 0, runs: int = DEFAULT_RUNS,
            inputs: Sequence[bytes] = ()) -> LatencyReport:
    """Load a model and time it.

    Parameters
    ----------
    model:
        Path on the device, or bytes of a compiled model.
    runs:
        Warm inferences.
    inputs:
        Raw input tensors; zeros when none are given.

    Raises
    ------
    DeviceError
        What the device answers, with advice.
    """
    loaded = agent.load(model, tpu)
    try:
        timed = agent.time(loaded, runs + 1, inputs)
    finally:
        agent.unload(loaded)
    first, warm = timed.timings[0], timed.timings[1:]
    return LatencyReport(
        first_us=first.total_us if timed.cold else None,
        warm_us=tuple(t.total_us for t in warm),
        host_us=_median([t.host_us for t in warm]),
        device_us=_median([t.device_us for t in warm]),
        simulated=timed.simulated,
    )


def _median(values: Sequence[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return statistics.median(known) if known else None


__all__ = ["DEFAULT_RUNS", "LatencyReport", "Timing", "measure"]
