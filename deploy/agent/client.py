"""Our side of the conversation with the agent on a device."""

from __future__ import annotations

import contextlib
import getpass
import hashlib
import platform
import posixpath
import struct
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy.agent import etpu_agent
from deploy.errors import (
    AgentError,
    ConnectionLostError,
    DeployInProgressError,
    DeviceTimeoutError,
    InterpreterMissingError,
    NoEdgeTpuError,
    PythonMissingError,
    RuntimeLibraryMissingError,
    RuntimeTooOldError,
)
from deploy.transports import RemoteProcess, Transport

_GREETING_SEARCHED = 65_536
_OLDEST_PYTHON = (3, 7)
_UNLOCK_SECONDS = 2.0

# Prints the version of python and the digest of the agent file that lies there, or "-".
_PROBE = (
    "import hashlib,os,sys;p=sys.argv[1];"
    "print('%d.%d'%sys.version_info[:2],hashlib.sha256(open(p,'rb').read()).hexdigest() if os.path.isfile(p) else '-')"
)

_ERRORS: dict[str, type[AgentError]] = {
    "no_runtime_library": RuntimeLibraryMissingError,
    "no_interpreter": InterpreterMissingError,
    "no_edge_tpu": NoEdgeTpuError,
    "edge_tpu_not_opened": NoEdgeTpuError,
}


@dataclass(frozen=True)
class Hello:
    """Who answers on the device.

    Attributes
    ----------
    runtimes:
        Version of each of pycoral, tflite_runtime, ai_edge_litert and numpy; None where it is missing.
    simulated:
        Whether the Edge TPUs behind the agent are simulated.
    """

    agent: str
    python: str
    machine: str
    host: str
    runtimes: Mapping[str, str | None]
    simulated: bool


@dataclass(frozen=True)
class EdgeTpu:
    """One Edge TPU as the runtime lists it."""

    index: int
    type: str
    path: str


@dataclass(frozen=True)
class RuntimeInfo:
    """The Edge TPU runtime of the device."""

    version: int
    text: str
    library: str
    tpus: tuple[EdgeTpu, ...]
    simulated: bool


@dataclass(frozen=True)
class TensorInfo:
    """An input or output of a loaded model."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    bytes: int
    scale: float
    zero_point: int


@dataclass(frozen=True)
class LoadedModel:
    """A model that is loaded on the device.

    Attributes
    ----------
    runtime:
        What runs it: name of the interpreter, or of the simulator.
    """

    handle: int
    runtime: str
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]


@dataclass(frozen=True)
class Timing:
    """Microseconds of one inference.

    Attributes
    ----------
    host_us, device_us:
        Parts on the device's CPU and on the Edge TPU with its bus; None where the runtime cannot tell.
    """

    total_us: float
    host_us: float | None
    device_us: float | None


@dataclass(frozen=True)
class Inference:
    """Result of one run."""

    outputs: tuple[bytes, ...]
    timing: Timing
    simulated: bool


@dataclass(frozen=True)
class TimingRuns:
    """Result of several runs.

    Attributes
    ----------
    cold:
        Whether the first of them was the first since the model was loaded, so that it wrote the parameter cache.
    """

    timings: tuple[Timing, ...]
    cold: bool
    simulated: bool


@dataclass(frozen=True)
class PipelineRuns:
    """Result of several runs through a pipeline.

    Attributes
    ----------
    outputs:
        Per run: raw tensors of the last model.
    timings:
        Per model, per run.
    cold:
        Per model, whether its first run wrote the parameter cache.
    elapsed_us:
        From the first input to the last output, all models at work at the same time.
    """

    outputs: tuple[tuple[bytes, ...], ...]
    timings: tuple[tuple[Timing, ...], ...]
    cold: tuple[bool, ...]
    elapsed_us: float
    simulated: bool


class AgentClient:
    """A conversation with the agent; ends with the connection or with :meth:`close`.

    Parameters
    ----------
    python:
        Command of the Python that runs the agent.
    environment:
        Variables for it, for example those that choose simulated Edge TPUs.
    timeout:
        Seconds for short answers.
    """

    def __init__(
        self,
        transport: Transport,
        *,
        python: str = "python3",
        environment: Mapping[str, str] | None = None,
        timeout: float = 60.0,
    ) -> None:
        self._where = transport.where
        self._timeout = timeout
        self._last = time.monotonic()
        path = upload_agent(transport, python)
        self._process: RemoteProcess = transport.open_process([python, "-u", path], environment=environment)
        try:
            self._skip_to_greeting()
        except BaseException:
            self._process.close()
            raise

    def close(self) -> None:
        """End the agent; its locks and loaded models go with it."""
        self._process.close()

    # --- the verbs -------------------------------------------------------------------------------------------------

    def hello(self) -> Hello:
        """Ask who answers."""
        answer, _ = self._ask("hello")
        return Hello(**{key: answer[key] for key in Hello.__dataclass_fields__})

    def runtime(self) -> RuntimeInfo:
        """Ask for the runtime's version and its Edge TPUs; :class:`RuntimeLibraryMissingError` when there is none."""
        answer, _ = self._ask("runtime")
        return RuntimeInfo(
            version=answer["version"],
            text=answer["text"],
            library=answer["library"],
            tpus=tuple(EdgeTpu(**device) for device in answer["devices"]),
            simulated=answer["simulated"],
        )

    def temperatures(self) -> tuple[Mapping[str, Any], ...]:
        """Ask for temperatures and limits, degrees Celsius; only Edge TPUs on PCIe have any."""
        return tuple(self._ask("temperatures")[0]["devices"])

    def diagnose(self, root: str) -> Mapping[str, Any]:
        """Ask for everything that :mod:`deploy.doctor` looks at."""
        return self._ask("diagnose", root=root)[0]

    def load(self, model: str | bytes, tpu: int | None, *, timeout: float = 120.0) -> LoadedModel:
        """Load a model.

        Parameters
        ----------
        model:
            Path on the device, or the bytes of the file.
        tpu:
            Index of the Edge TPU for its custom operators, None to run on the CPU alone.

        Raises
        ------
        RuntimeTooOldError, NoEdgeTpuError, InterpreterMissingError, AgentError
        """
        blobs, path = ((), model) if isinstance(model, str) else ((model,), "")
        answer, _ = self._ask("load", blobs, timeout=timeout, path=path, tpu=tpu)
        inputs, outputs = (
            tuple(TensorInfo(**{**tensor, "shape": tuple(tensor["shape"])}) for tensor in answer[key])
            for key in ("inputs", "outputs")
        )
        return LoadedModel(answer["handle"], answer["runtime"], inputs, outputs)

    def unload(self, model: LoadedModel) -> None:
        """Forget a loaded model."""
        self._ask("unload", handle=model.handle)

    def run(self, model: LoadedModel, inputs: Sequence[bytes], *, timeout: float = 300.0) -> Inference:
        """Run a loaded model once; inputs and outputs are raw tensors in the model's order."""
        answer, outputs = self._ask("run", tuple(inputs), timeout=timeout, handle=model.handle)
        return Inference(tuple(outputs), Timing(**answer["timing"]), answer["simulated"])

    def time(
        self, model: LoadedModel, runs: int, inputs: Sequence[bytes] = (), *, timeout: float = 600.0
    ) -> TimingRuns:
        """Run a loaded model several times, on `inputs` or on zeros."""
        answer, _ = self._ask("time", tuple(inputs), timeout=timeout, handle=model.handle, runs=runs)
        return TimingRuns(tuple(Timing(**timing) for timing in answer["timings"]), answer["cold"], answer["simulated"])

    def pipeline(self, models: Sequence[LoadedModel], runs: Sequence[Sequence[bytes]], *,
                 timeout: float = 600.0) -> PipelineRuns:
        """Run models as a pipeline, each working on another run; a run has the raw inputs of the first model."""
        blobs = tuple(blob for run in runs for blob in run)
        answer, found = self._ask("pipeline", blobs, timeout=timeout, handles=[model.handle for model in models])
        width = len(models[-1].outputs)
        return PipelineRuns(
            tuple(tuple(found[i:i + width]) for i in range(0, len(found), width)),
            tuple(tuple(Timing(**timing) for timing in model) for model in answer["timings"]),
            tuple(answer["cold"]), answer["elapsed_us"], answer["simulated"])

    def verify(self, paths: Sequence[str], *, timeout: float = 300.0) -> Mapping[str, str]:
        """Force files to the device's disk and return their sha256 by path."""
        digests: Mapping[str, str] = self._ask("verify", timeout=timeout, paths=list(paths))[0]["sha256"]
        return digests

    def sync(self, folder: str) -> None:
        """Force the entries of a folder on the device to its disk."""
        self._ask("sync", path=folder)

    @contextlib.contextmanager
    def lock(self, path: str) -> Iterator[None]:
        """Hold a lock on the device; :class:`DeployInProgressError` when someone else does.

        The lock is the agent's own, so it cannot outlive the connection.
        """
        self._ask("lock", path=path, owner=f"{getpass.getuser()}@{platform.node()}")
        try:
            yield
        finally:
            # when the connection is gone the lock is gone with it, so there is no point in waiting long
            with contextlib.suppress(ConnectionLostError, DeviceTimeoutError):
                self._ask("unlock", timeout=_UNLOCK_SECONDS, path=path)

    def keep_alive(self, every: float = 60.0) -> None:
        """Let the agent know that we are there, if it has not heard of us for a while."""
        if time.monotonic() - self._last > every:
            self._ask("ping")

    # --- messages --------------------------------------------------------------------------------------------------

    def _ask(
        self, verb: str, blobs: Sequence[bytes] = (), *, timeout: float | None = None, **arguments: Any
    ) -> tuple[dict[str, Any], list[bytes]]:
        self._process.write(etpu_agent.pack_message({"verb": verb, **arguments}, list(blobs)))
        limit = timeout or self._timeout
        deadline = time.monotonic() + limit
        try:
            answer, out = etpu_agent.read_message(lambda size: self._read_exactly(size, deadline, verb))
        except TimeoutError as error:
            raise DeviceTimeoutError(self._where, f"waiting for the answer to {verb}", limit) from error
        except (ValueError, struct.error) as error:
            raise AgentError(f"{self._where}: the agent's answer to {verb} makes no sense: {error}.") from error
        self._last = time.monotonic()
        if not answer.get("ok"):
            raise self._error(answer)
        return answer, out

    def _read_exactly(self, size: int, deadline: float, verb: str) -> bytes:
        parts = []
        while size:
            block = self._process.read(min(size, 1 << 20), deadline)
            if not block:
                raise ConnectionLostError(self._where, f"waiting for the answer to {verb}", self._process.stderr_tail())
            parts.append(block)
            size -= len(block)
        return b"".join(parts)

    def _skip_to_greeting(self) -> None:
        deadline = time.monotonic() + self._timeout
        seen = b""
        while not seen.endswith(etpu_agent.GREETING):
            try:
                block = self._process.read(1, deadline)
            except TimeoutError as error:
                raise DeviceTimeoutError(self._where, "waiting for the agent to start", self._timeout) from error
            seen += block
            if not block or len(seen) > _GREETING_SEARCHED:
                said = (self._process.stderr_tail() or seen.decode("utf-8", "replace")).strip()
                raise AgentError(
                    f"the agent does not start on {self._where}: {said[-300:] or 'it says nothing'}.",
                    advice="Log in and check that python3 runs there and that the shell's start files do not exit.",
                )

    def _error(self, answer: Mapping[str, Any]) -> Exception:
        code, message, advice = answer["code"], answer["message"], answer.get("advice", "")
        if code == "runtime_too_old":
            return RuntimeTooOldError(answer["required"], answer["offered"], where=self._where)
        if code == "locked":
            return DeployInProgressError(
                f"another deploy to {self._where} is under way, by {answer['holder']}.",
                advice="Wait until it has ended and try again.",
            )
        return _ERRORS.get(code, AgentError)(f"{self._where}: {message}", code=code, advice=advice)


def upload_agent(transport: Transport, python: str = "python3") -> str:
    """Put the agent on the device unless the same file is there already. Return its path there.

    Raises
    ------
    PythonMissingError
        No `python`, or one older than 3.7.
    """
    source = Path(etpu_agent.__file__).read_bytes()
    digest = hashlib.sha256(source).hexdigest()
    path = posixpath.join(transport.root, "agent", f"etpu_agent-{digest[:16]}.py")
    if _probe(transport, python, path) != digest:
        fresh = f"{path}.{time.time_ns():x}"
        transport.make_folder(posixpath.dirname(path))
        transport.put(source, fresh)
        transport.rename(fresh, path)
        found = _probe(transport, python, path)
        if found != digest:
            raise AgentError(
                f"the agent arrived damaged on {transport.where}: sha256 {found[:16]}, expected {digest[:16]}.",
                advice="Check the device's storage.",
            )
    return path


def _probe(transport: Transport, python: str, path: str) -> str:
    result = transport.run([python, "-c", _PROBE, path])
    words = result.stdout.decode("utf-8", "replace").split()
    if result.status != 0 or len(words) < 2:
        reason = result.stderr.decode("utf-8", "replace").strip().splitlines() or [f"status {result.status}"]
        raise PythonMissingError(
            f"{python} does not run on {transport.where}: {reason[-1]}.",
            advice="The device needs Python 3.7 or newer, on Debian: `sudo apt install python3`.",
        )
    version, digest = words[-2:]
    if tuple(int(part) for part in version.split(".")) < _OLDEST_PYTHON:
        raise PythonMissingError(
            f"{python} on {transport.where} is Python {version}; 3.7 is the oldest that works.",
            advice="Update the device's system.",
        )
    return digest
