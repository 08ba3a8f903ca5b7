"""Which Edge TPU of a device runs which compiled file of a release."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from deploy.agent.client import EdgeTpu
from deploy.errors import PlacementError


@dataclass(frozen=True)
class Placement:
    """Where the files of a release run.

    Attributes
    ----------
    tpus:
        Index of the Edge TPU for each file, in order; None for a file without Edge TPU operators.
    """

    tpus: tuple[int | None, ...]


def place(on_tpu: Sequence[bool], tpus: Sequence[EdgeTpu], *, where: str = "the device") -> Placement:
    """Give every segment that has Edge TPU operators an Edge TPU of its own, in the order of the pipeline.

    Two segments of one model on one Edge TPU would rewrite its parameter cache at every inference, or, with
    one caching token for both, spoil each other's parameters. So that is refused.

    Parameters
    ----------
    on_tpu:
        For each file whether it has operators for the Edge TPU.
    tpus:
        Those of the device.

    Raises
    ------
    PlacementError
        There are fewer Edge TPUs than segments that need one.
    """
    needed = sum(on_tpu)
    if needed > len(tpus):
        raise PlacementError(
            f"{needed} segments need an Edge TPU each, {where} has {len(tpus)}.",
            advice=f"Compile for {len(tpus)} segments." if tpus else "Check that the Edge TPU is plugged in.",
        )
    free = iter(sorted(tpu.index for tpu in tpus))
    return Placement(tuple(next(free) if wanted else None for wanted in on_tpu))
