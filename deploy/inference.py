"""Running the files of a release on a device: one file, or the segments of a pipeline one after the other."""

from __future__ import annotations

import posixpath
from collections.abc import Sequence
from dataclasses import dataclass

from compiler.facts import CUSTOM_OPERATOR
from deploy.agent.client import LoadedModel, Timing
from deploy.errors import AgentError
from deploy.placement import Placement, place
from deploy.session import DeviceSession


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
    """

    def __init__(self, session: DeviceSession, paths: Sequence[str], placement: Placement) -> None:
        self._agent = session.agent
        self._names = tuple(posixpath.basename(path) for path in paths)
        self.models: tuple[LoadedModel, ...] = tuple(
            self._agent.load(path, tpu) for path, tpu in zip(paths, placement.tpus, strict=True)
        )

    def run(self, inputs: Sequence[bytes]) -> PipelineResult:
        """Run all files once.

        Parameters
        ----------
        inputs:
            Raw tensors in the order of the first file's inputs. Later files take theirs by
            tensor name from the inputs and from what earlier files gave.
        """
        known: dict[str, bytes] = {}
        timings: list[Timing] = []
        outputs: tuple[bytes, ...] = ()
        simulated = False
        for number, model in enumerate(self.models):
            given = tuple(inputs) if number == 0 else self._collect(number, known)
            inference = self._agent.run(model, given)
            known.update(zip((t.name for t in model.inputs), given, strict=True))
            known.update(zip((t.name for t in model.outputs), inference.outputs, strict=True))
            timings.append(inference.timing)
            outputs, simulated = inference.outputs, inference.simulated
        return PipelineResult(outputs, tuple(timings), simulated)

    def close(self) -> None:
        """Unload all files."""
        for model in self.models:
            self._agent.unload(model)

    def _collect(self, number: int, known: dict[str, bytes]) -> tuple[bytes, ...]:
        missing = [tensor.name for tensor in self.models[number].inputs if tensor.name not in known]
        if missing:
            raise AgentError(
                f"{self._names[number]} takes tensor {missing[0]!r}, which no earlier segment gives.",
                code="pipeline",
                advice="Deploy all segments of one compilation, in their order.",
            )
        return tuple(known[tensor.name] for tensor in self.models[number].inputs)


def needs_edge_tpu(model: bytes) -> bool:
    """Tell whether a model file has an operator for the Edge TPU: its operator table holds the custom code's name."""
    return CUSTOM_OPERATOR.encode() in model


def load_pipeline(session: DeviceSession, paths: Sequence[str], on_tpu: Sequence[bool]) -> Pipeline:
    """Load files on a device, each segment on an Edge TPU of its own.

    Raises
    ------
    PlacementError, RuntimeTooOldError, AgentError
    """
    # a device that only runs CPU models needs no Edge TPU runtime
    tpus = session.agent.runtime().tpus if any(on_tpu) else ()
    return Pipeline(session, paths, place(on_tpu, tpus, where=session.transport.where))
