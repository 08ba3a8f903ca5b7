"""Throughput of a pipeline and the latency of its segments."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from deploy.inference import Pipeline
from profiler.latency import DEFAULT_RUNS


@dataclass(frozen=True)
class SegmentReport:
    """One file of a pipeline, microseconds.

    Attributes
    ----------
    first_us:
        Its first inference: the parameter cache is written. None when it had already run.
    warm_us:
        Median of the later ones.
    """

    name: str
    first_us: float | None
    warm_us: float


@dataclass(frozen=True)
class PipelineReport:
    """A pipeline on one device.

    Attributes
    ----------
    latency_us:
        One inference through all segments, nothing else running: the sum of their medians.
    per_second:
        Inferences per second when all segments work at the same time.
    simulated:
        The figures come from the simulator's model of chip and bus, not from a device.
    """

    segments: tuple[SegmentReport, ...]
    latency_us: float
    per_second: float
    runs: int
    simulated: bool

    @property
    def slowest(self) -> SegmentReport:
        """The segment that the others wait for."""
        return max(self.segments, key=lambda segment: segment.warm_us)

    def as_json(self) -> dict[str, Any]:
        """Return the report as plain data."""
        return {**asdict(self), "slowest": self.slowest.name}


def measure_pipeline(pipeline: Pipeline, names: Sequence[str], *, runs: int = DEFAULT_RUNS) -> PipelineReport:
    """Time a pipeline on zeros.

    Parameters
    ----------
    names:
        Of its files.
    runs:
        Warm inferences; the caches are written before.
    """
    zeros = [bytes(tensor.bytes) for tensor in pipeline.models[0].inputs]
    first = pipeline.run_all([zeros])
    warm = pipeline.run_all([zeros] * runs)
    segments = tuple(
        SegmentReport(name, before[0].total_us if cold else None, statistics.median(t.total_us for t in timings))
        for name, cold, before, timings in zip(names, first.cold, first.timings, warm.timings, strict=True)
    )
    return PipelineReport(segments, sum(s.warm_us for s in segments), runs / warm.elapsed_us * 1e6, runs, warm.simulated)
