"""Running the files of a release on a device: one file, or the segments of a pipeline."""

from __future__ import annotations

import posixpath
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

from deploy.agent.client import LoadedModel, PipelineRuns, Timing
from deploy.errors import AgentError
from deploy.placement import Placement, place
from deploy.session import DeviceSession

_RUNS_AT_ONCE = 100
"""Inferences that go to the device in one message."""


@dataclass(frozen=True)
class PipelineResult:
    """Outputs of the last file, and the time that each file took.

    Attributes
    ----------
    outputs:
        Raw tensors in the order of the last file's outputs.
    timings:
        One per file.
    """

    outputs: tuple[bytes, ...]
    timings: tuple[Timing, ...]
    simulated: bool


class Pipeline:
    """Files of a release, loaded on the Edge TPUs that they are placed on.

    Parameters
    ----------
    paths:
        Files on the device, in the order of the segments.
    placement:
        Where each runs.

    Raises
    ------
    AgentError
        A file takes a tensor that no earlier one gives.
    """

    def __init__(self, session: DeviceSession, paths: Sequence[str], placement: Placement) -> None:
        self._agent = session.agent
        self.models: tuple[LoadedModel, ...] = tuple(
            self._agent.load(path, tpu) for path, tpu in zip(paths, placement.tpus, strict=True)
        )
        self._check([posixpath.basename(path) for path in paths])

    def run(self, inputs: Sequence[bytes]) -> PipelineResult:
        """Run all files once.

        Parameters
        ----------
        inputs:
            Raw tensors in the order of the first file's inputs. Later files take theirs by
            tensor name from the inputs and from what earlier files gave.
        """
        runs = self.run_all([inputs])
        return PipelineResult(runs.outputs[0], tuple(timings[0] for timings in runs.timings), runs.simulated)

    def run_all(self, runs: Sequence[Sequence[bytes]]) -> PipelineRuns:
        """Run several inferences; the files work on different ones at the same time."""
        parts = [self._agent.pipeline(self.models, runs[i:i + _RUNS_AT_ONCE])
                 for i in range(0, len(runs), _RUNS_AT_ONCE)]
        return PipelineRuns(
            tuple(chain.from_iterable(part.outputs for part in parts)),
            tuple(tuple(chain.from_iterable(model)) for model in zip(*(part.timings for part in parts), strict=True)),
            parts[0].cold, sum(part.elapsed_us for part in parts), parts[0].simulated)

    def close(self) -> None:
        """Unload all files."""
        for model in self.models:
            self._agent.unload(model)

    def _check(self, names: Sequence[str]) -> None:
        known = {tensor.name for tensor in self.models[0].inputs}
        for name, model in zip(names, self.models, strict=True):
            missing = [tensor.name for tensor in model.inputs if tensor.name not in known]
            if missing:
                raise AgentError(
                    f"{name} takes tensor {missing[0]!r}, which no earlier segment gives.",
                    code="pipeline",
                    advice="Deploy all segments of one compilation, in their order.",
                )
            known.update(tensor.name for tensor in model.outputs)


def load_pipeline(session: DeviceSession, paths: Sequence[str], on_tpu: Sequence[bool]) -> Pipeline:
    """Load files on a device, each segment on an Edge TPU of its own.

    Raises
    ------
    PlacementError, RuntimeTooOldError, AgentError
    """
    # a device that only runs CPU models needs no Edge TPU runtime
    tpus = session.agent.runtime().tpus if any(on_tpu) else ()
    return Pipeline(session, paths, place(on_tpu, tpus, where=session.transport.where))
