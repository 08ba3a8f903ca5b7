"""Deploying a model: ask the device, compile for it, upload, try out, switch."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from compiler.errors import EtpuError
from compiler.facts import RUNTIME_VERSION_CURRENT, RUNTIME_VERSION_LOWEST
from deploy.agent.client import EdgeTpu, RuntimeInfo, TensorInfo
from deploy.compiled import CompiledFacts, facts_of
from deploy.errors import (
    ConnectionLostError,
    NoPreviousReleaseError,
    ReleaseError,
    RuntimeTooOldError,
    SmokeTestFailedError,
    UnknownReleaseError,
)
from deploy.inference import PipelineResult, load_pipeline
from deploy.placement import place
from deploy.releases import DEFAULT_KEEP, NewRelease, Release, ReleaseStore, models_on
from deploy.session import DeviceSession
from deploy.transports import Progress


@dataclass(frozen=True)
class Target:
    """What a model is compiled for.

    Attributes
    ----------
    min_runtime_version:
        All that the device offers and we know of.
    tpus:
        Edge TPUs of the device.
    """

    min_runtime_version: int
    tpus: tuple[EdgeTpu, ...]


CompileModel = Callable[[Target], Mapping[str, bytes]]
"""Compiles the model for a device; returns file names and bytes in the order of the segments."""


@dataclass(frozen=True)
class SmokeTest:
    """One inference whose result is known.

    Parameters
    ----------
    inputs:
        Raw tensors in the order of the model's inputs.
    expected:
        Raw tensors in the order of the model's outputs, as the host computed them.
    tolerance:
        Largest difference of a value that is accepted, in steps of the tensor's type.
    """

    inputs: tuple[bytes, ...]
    expected: tuple[bytes, ...]
    tolerance: int = 0


@dataclass(frozen=True)
class SmokeResult:
    """How the smoke inference went.

    Attributes
    ----------
    values:
        Output values that were compared.
    differing, largest:
        How many of them differ, within the tolerance, and by how much at most.
    """

    values: int
    differing: int
    largest: float
    result: PipelineResult


@dataclass(frozen=True)
class DeployReport:
    """What a deploy did."""

    release: Release
    runtime: RuntimeInfo
    smoke: SmokeResult

    @property
    def simulated(self) -> bool:
        """Whether the device's Edge TPUs are simulated."""
        return self.runtime.simulated


def target_runtime(offered: int, required: int, *, where: str) -> int:
    """Choose the min_runtime_version to compile for: all that the device offers and we know of.

    Parameters
    ----------
    offered:
        Runtime version of the device.
    required:
        Lowest version that the model can be compiled for.

    Raises
    ------
    RuntimeTooOldError
        The model needs more than the device offers.
    """
    if required > offered:
        raise RuntimeTooOldError(required, offered, where=where)
    return min(offered, RUNTIME_VERSION_CURRENT)


def deploy(
    session: DeviceSession,
    name: str,
    source: bytes,
    compile_model: CompileModel,
    smoke: SmokeTest,
    *,
    required_runtime: int = RUNTIME_VERSION_LOWEST,
    keep: int = DEFAULT_KEEP,
    progress: Progress | None = None,
) -> DeployReport:
    """Deploy a model to a device.

    Parameters
    ----------
    name:
        Name of the model on the device.
    source:
        The model before compilation, for the manifest's digest.
    compile_model:
        Compiles it once runtime version and Edge TPUs are known.
    smoke:
        Inference that must succeed on the device before the release becomes current.
    required_runtime:
        Lowest runtime version that the model can be compiled for.
    keep:
        Older releases that stay on the device.

    Raises
    ------
    RuntimeTooOldError
        The model, or what was compiled, needs a newer runtime than the device has.
    UploadInterruptedError, ChecksumMismatchError, SmokeTestFailedError, DeployInProgressError, PlacementError
        The release was not switched.
    """
    where = session.transport.where
    runtime = session.agent.runtime()
    files = compile_model(Target(target_runtime(runtime.version, required_runtime, where=where), runtime.tpus))
    facts = [facts_of(data, file) for file, data in files.items()]
    new = _new_release(files, facts, source, simulated=runtime.simulated)
    if new.min_runtime_version > runtime.version:
        raise RuntimeTooOldError(new.min_runtime_version, runtime.version, where=where)
    place(new.on_tpu, runtime.tpus, where=where)
    results: list[SmokeResult] = []

    def try_out(paths: Sequence[str]) -> None:
        results.append(run_smoke_test(session, paths, new.on_tpu, smoke))

    release = ReleaseStore(session, name).publish(new, smoke=try_out, keep=keep, progress=progress)
    return DeployReport(release, runtime, results[0])


def _new_release(
    files: Mapping[str, bytes], facts: Sequence[CompiledFacts], source: bytes, *, simulated: bool
) -> NewRelease:
    return NewRelease(
        files=files,
        on_tpu=tuple(fact.on_tpu for fact in facts),
        source_sha256=hashlib.sha256(source).hexdigest(),
        min_runtime_version=max((fact.min_runtime_version for fact in facts), default=0),
        tokens=tuple(fact.token for fact in facts),
        simulated=simulated,
    )


def run_smoke_test(
    session: DeviceSession, paths: Sequence[str], on_tpu: Sequence[bool], smoke: SmokeTest
) -> SmokeResult:
    """Run one inference on the device and compare it with the host's result.

    Raises
    ------
    SmokeTestFailedError
        The model does not load or run there, or gives other numbers.
    """
    where = session.transport.where
    try:
        pipeline = load_pipeline(session, paths, on_tpu)
        result = pipeline.run(smoke.inputs)
        outputs = pipeline.models[-1].outputs
        pipeline.close()
    except (ConnectionLostError, RuntimeTooOldError):
        raise
    except EtpuError as error:
        raise SmokeTestFailedError(
            f"the smoke inference did not run on {where}: {error.message}",
            advice=f"{error.advice} The release was not switched.".lstrip(),
        ) from error
    return _compare(result, outputs, smoke, where)


def _compare(result: PipelineResult, outputs: Sequence[TensorInfo], smoke: SmokeTest, where: str) -> SmokeResult:
    import numpy as np

    if len(outputs) != len(smoke.expected):
        raise SmokeTestFailedError(
            f"the model has {len(outputs)} outputs on {where}, the host's result has {len(smoke.expected)}.",
            advice="The release was not switched.",
        )
    values = differing = 0
    largest = 0.0
    for tensor, found, expected in zip(outputs, result.outputs, smoke.expected, strict=True):
        if len(found) != len(expected):
            raise SmokeTestFailedError(
                f"output {tensor.name!r} has {len(found)} bytes on {where}, {len(expected)} on the host.",
                advice="The release was not switched.",
            )
        wide = np.float64 if tensor.dtype.startswith("float") else np.int64
        difference = np.abs(np.frombuffer(found, tensor.dtype).astype(wide) - np.frombuffer(expected, tensor.dtype))
        values += difference.size
        differing += int(np.count_nonzero(difference))
        worst = float(difference.max(initial=0))
        largest = max(largest, worst)
        if not worst <= smoke.tolerance:
            raise SmokeTestFailedError(
                f"output {tensor.name!r} differs from the host's in {np.count_nonzero(difference)} of "
                f"{difference.size} values, by up to {worst:g} (allowed {smoke.tolerance}), on {where}.",
                advice="The release was not switched. Run it again; if it stays so, the device or its power supply "
                "is suspect, or the compiled program is wrong: please report it with the model.",
            )
    return SmokeResult(values, differing, largest, result)


def _only_model(session: DeviceSession, name: str) -> str:
    """Return `name`, or the one model on the device when it is empty."""
    if name:
        return name
    names = models_on(session)
    if len(names) != 1:
        raise ReleaseError(
            f"{session.transport.where} holds {len(names)} models{': ' if names else ''}{', '.join(names)}.",
            advice="Name one." if names else "Deploy one first.",
        )
    return names[0]


def rollback(session: DeviceSession, name: str = "", to: str = "") -> Release:
    """Make the previous release of a model current again, or the one that `to` names.

    Parameters
    ----------
    name:
        Model; may be empty when the device holds only one.

    Raises
    ------
    NoPreviousReleaseError, UnknownReleaseError, ReleaseError
    """
    return ReleaseStore(session, _existing(session, _only_model(session, name))).rollback(to)


def releases(session: DeviceSession, name: str = "") -> tuple[Release, ...]:
    """Return the releases on a device, of one model or of all, oldest first within each."""
    names = [_existing(session, name)] if name else models_on(session)
    return tuple(release for model in names for release in ReleaseStore(session, model).releases())


def _existing(session: DeviceSession, name: str) -> str:
    names = models_on(session)
    if name not in names:
        raise UnknownReleaseError(
            f"no release of {name} is on {session.transport.where}.", advice=f"It has: {', '.join(names) or 'none'}."
        )
    return name


__all__ = [
    "CompileModel",
    "DeployReport",
    "NoPreviousReleaseError",
    "SmokeResult",
    "SmokeTest",
    "Target",
    "deploy",
    "releases",
    "rollback",
    "run_smoke_test",
    "target_runtime",
]
