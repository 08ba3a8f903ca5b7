"""Models that take turns on one Edge TPU: what switching costs, measured."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from deploy.agent.client import AgentClient

DEFAULT_ROUNDS = 5


@dataclass(frozen=True)
class TurnLatency:
    """One model among others, microseconds.

    Attributes
    ----------
    cached_us:
        Median of invocations right after its own.
    uncached_us:
        First invocation: its parameters are written.
    switching_us:
        Median of invocations after all others had their turn.
    """

    cached_us: float
    uncached_us: float
    switching_us: float


def measure_turns(agent: AgentClient, models: Sequence[bytes], *, tpu: int = 0, rounds: int = DEFAULT_ROUNDS
                  ) -> tuple[tuple[TurnLatency, ...], bool]:
    """Load compiled models on one Edge TPU and invoke them in turns, on zeros.

    Returns
    -------
    tuple
        Latencies in the order of the models, and whether they are simulated.
    """
    loaded = [agent.load(model, tpu) for model in models]
    zeros = [[bytes(t.bytes) for t in model.inputs] for model in loaded]
    simulated = False
    switching: list[list[float]] = [[] for _ in loaded]
    cached: list[list[float]] = [[] for _ in loaded]
    try:
        for _ in range(rounds + 1):
            for number, model in enumerate(loaded):
                first = agent.run(model, zeros[number])
                switching[number].append(first.timing.total_us)
                cached[number].append(agent.run(model, zeros[number]).timing.total_us)
                simulated = first.simulated
    finally:
        for model in loaded:
            agent.unload(model)
    return tuple(TurnLatency(statistics.median(again), turns[0], statistics.median(turns[1:]))
                 for again, turns in zip(cached, switching, strict=True)), simulated
