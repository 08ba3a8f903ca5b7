"""The Edge TPU runtime of a virtual device: models with operators for the CPU and for simulated Edge TPUs."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from compiler.beagle.timing.costs import BUSES, Bus
from compiler.errors import EtpuError
from compiler.facts import RUNTIME_VERSION_CURRENT
from compiler.graph import Tensor, parse_model
from compiler.package import Executable
from deploy.errors import NoEdgeTpuError, VirtualDeviceError
from deploy.virtual.steps import CpuStep, Step, TpuStep, steps_of
from deploy.virtual.tpu import Simulator, TpuRun, VirtualTpu

Array = npt.NDArray[Any]


def chip_simulator() -> Simulator:
    """Return a simulated chip with empty memories."""
    from compiler.beagle.simulator import Machine

    return Machine()


class VirtualRuntime:
    """A runtime with simulated Edge TPUs; stands in for libedgetpu behind the agent.

    Parameters
    ----------
    tpus:
        How many Edge TPUs.
    runtime_version:
        Version that it claims and enforces.
    bus:
        ``usb2``, ``usb3`` or ``pcie``.
    simulator:
        Makes a chip.
    times:
        How long a program takes on a bus, microseconds; by default what the cycle model says.
    """

    simulated = True

    def __init__(
        self,
        tpus: int = 1,
        runtime_version: int = RUNTIME_VERSION_CURRENT,
        bus: str = "usb3",
        *,
        simulator: Callable[[], Simulator] = chip_simulator,
        times: Callable[[Executable, Bus], float] | None = None,
    ) -> None:
        if bus not in BUSES:
            raise VirtualDeviceError(f"unknown bus {bus!r}.", advice=f"Choose one of {', '.join(BUSES)}.")
        self.runtime_version = runtime_version
        self.bus = BUSES[bus]
        self._simulator = simulator
        self._times = times
        self._tpus: dict[int, VirtualTpu] = {}
        self._count = tpus

    @classmethod
    def from_json(cls, text: str) -> VirtualRuntime:
        """Make a runtime from the text that stands in ``ETPU_AGENT_RUNTIME`` after ``virtual:``."""
        try:
            config = json.loads(text or "{}")
            return cls(**config)
        except (ValueError, TypeError) as error:
            raise VirtualDeviceError(
                f"bad configuration of a virtual runtime: {error}.", advice="It has tpus, runtime_version and bus."
            ) from error

    def describe(self) -> dict[str, Any]:
        """Return version and Edge TPUs as the agent reports them."""
        kind = "pcie" if self.bus.name == "pcie" else "usb"
        return {
            "version": self.runtime_version,
            "text": f"BuildLabel(N/A), RuntimeVersion({self.runtime_version})",
            "library": "simulator",
            "devices": [
                {"index": index, "type": kind, "path": f"simulated/{self.bus.name}/{index}"}
                for index in range(self._count)
            ],
        }

    def tpu(self, index: int) -> VirtualTpu:
        """Return an Edge TPU; it is switched on when it is first asked for.

        Raises
        ------
        NoEdgeTpuError
            The index is too high.
        """
        if not 0 <= index < self._count:
            raise NoEdgeTpuError(
                f"there is no Edge TPU {index}; this device simulates {self._count}.", code="no_edge_tpu"
            )
        if index not in self._tpus:
            self._tpus[index] = VirtualTpu(self.runtime_version, self.bus, self._simulator, self._times)
        return self._tpus[index]

    def load(self, data: bytes, tpu: int | None) -> VirtualModel:
        """Load a model; its operators for the Edge TPU go to that of index `tpu`.

        Raises
        ------
        RuntimeTooOldError
            A package needs a newer runtime.
        VirtualDeviceError
            The model has operators for the Edge TPU and `tpu` is None.
        """
        return VirtualModel(data, None if tpu is None else self.tpu(tpu))

    def run_model(self, data: bytes, inputs: Sequence[bytes], tpu: int = 0) -> list[bytes]:
        """Load a model, run it once and return its outputs."""
        return self.load(data, tpu).run(inputs, timed=False)[0]


class VirtualModel:
    """A loaded model.

    Attributes
    ----------
    inputs, outputs:
        Facts about its tensors, as the agent reports them.
    """

    runtime = "simulator"

    def __init__(self, data: bytes, tpu: VirtualTpu | None) -> None:
        model = parse_model(data)
        graph = model.main
        self._tpu = tpu
        self._inputs = tuple(graph.tensors[index] for index in graph.inputs)
        self._outputs = tuple(graph.tensors[index] for index in graph.outputs)
        self.inputs = [_facts(tensor) for tensor in self._inputs]
        self.outputs = [_facts(tensor) for tensor in self._outputs]
        self._variables = {t.index: _zero(t) for t in graph.tensors if t.is_variable and t.type.numpy is not None}
        self._steps = steps_of(model)
        for step in self._steps:
            self._check(step)

    def _check(self, step: Step) -> None:
        if isinstance(step, CpuStep):
            return
        if self._tpu is None:
            raise VirtualDeviceError(
                "the model is compiled for the Edge TPU and was loaded without one.", advice="Name an Edge TPU."
            )
        self._tpu.check(step.package)
        for layer in (*step.package.execution.inputs, *step.package.execution.outputs):
            step.tensor(layer)

    def run(self, inputs: Sequence[bytes], *, timed: bool = True) -> tuple[list[bytes], dict[str, Any]]:
        """Run once.

        Parameters
        ----------
        inputs:
            Raw tensors in the order of :attr:`inputs`.
        timed:
            False: no simulated time is worked out; that of a program costs about as much as its first run.

        Returns
        -------
        outputs, timing:
            Raw tensors; microseconds: ``device_us`` simulated, ``host_us`` measured on this host.
        """
        values = dict(self._variables)
        for tensor, blob in zip(self._inputs, inputs, strict=True):
            values[tensor.index] = np.frombuffer(blob, tensor.type.numpy).reshape(tensor.shape)
        host_us = device_us = 0.0
        for step in self._steps:
            start = time.perf_counter_ns()
            ran = self._run_step(step, values)
            elapsed = (time.perf_counter_ns() - start) / 1000.0
            if isinstance(step, CpuStep):
                host_us += elapsed
            if timed and ran is not None and self._tpu is not None:
                device_us += self._tpu.time_us(ran)
        self._variables.update((index, values[index]) for index in self._variables)
        outputs = [values[tensor.index].tobytes() for tensor in self._outputs]
        return outputs, {"total_us": host_us + device_us, "host_us": host_us, "device_us": device_us}

    def _run_step(self, step: Step, values: dict[int, Array]) -> TpuRun | None:
        """Run a step and add its results to `values`; say what ran on the Edge TPU."""
        try:
            if isinstance(step, TpuStep):
                assert self._tpu is not None
                return step.run(self._tpu, values)
            step.run(values)
        except EtpuError:
            raise
        except (ValueError, RuntimeError) as error:
            raise VirtualDeviceError(f"{step.title} does not run: {error}.") from error
        return None


def _zero(tensor: Tensor) -> Array:
    """Return what a variable tensor holds before the first run: the real number zero."""
    point = tensor.quantization.zero_point if tensor.quantization else 0
    return np.full(tensor.shape, point, tensor.type.numpy)


def _facts(tensor: Tensor) -> Mapping[str, Any]:
    dtype = tensor.type.numpy
    if dtype is None or tensor.is_dynamic:
        raise VirtualDeviceError(f"tensor {tensor.name!r} has type {tensor.type.name} and shape {tensor.shape}.")
    quantization = tensor.quantization
    return {
        "name": tensor.name,
        "shape": list(tensor.shape),
        "dtype": dtype.name,
        "bytes": tensor.elements * dtype.itemsize,
        "scale": quantization.scale if quantization else 0.0,
        "zero_point": quantization.zero_point if quantization else 0,
    }
