"""The one adapter to TensorFlow Lite interpreters: ai-edge-litert or tflite-runtime."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from compiler.errors import EtpuError, InvalidModelError, UsageError

BACKENDS = {"ai_edge_litert": "ai-edge-litert", "tflite_runtime": "tflite-runtime"}
"""Import name and distribution of each supported interpreter, the preferred one first."""
Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Port:
    """An input or output of a model, or a tensor between them.

    Attributes
    ----------
    index:
        Tensor index in the first graph.
    scale, zero_point:
        Per-tensor quantization; scale is 0 when there is none.
    """

    index: int
    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    scale: float
    zero_point: int


class TfliteModel:
    """A model loaded into a TensorFlow Lite interpreter.

    Parameters
    ----------
    model:
        Path or bytes.
    reference_kernels:
        Use the plain reference kernels instead of the optimised ones; never with a delegate.
    keep_tensors:
        Keep intermediate tensors readable; rules out delegates.
    default_delegates:
        Let the runtime hand float operators to its default delegate (XNNPACK), which rounds
        differently from the kernels.
    threads:
        Number of threads of the kernels.
    backend:
        ``ai_edge_litert``, ``tflite_runtime``, or None for whichever is installed.

    Raises
    ------
    EtpuError
        When no interpreter is installed.
    InvalidModelError
        When the interpreter refuses the model.
    """

    def __init__(self, model: str | Path | bytes, *, reference_kernels: bool = False, keep_tensors: bool = False,
                 default_delegates: bool = True, threads: int = 1, backend: str | None = None) -> None:
        module = load_backend(backend)
        self._keeps_tensors = keep_tensors
        self.source = "the model" if isinstance(model, bytes) else str(model)
        content = {"model_content": model} if isinstance(model, bytes) else {"model_path": str(model)}
        kernels = module.OpResolverType
        resolver = kernels.AUTO if default_delegates and not keep_tensors else kernels.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        try:
            self._interpreter = module.Interpreter(
                **content, experimental_op_resolver_type=kernels.BUILTIN_REF if reference_kernels else resolver,
                experimental_preserve_all_tensors=keep_tensors, num_threads=threads)
            self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise self._refused(error) from error
        self.inputs = tuple(_port(d) for d in self._interpreter.get_input_details())
        self.outputs = tuple(_port(d) for d in self._interpreter.get_output_details())

    def run(self, inputs: Sequence[Array] | Mapping[str, Array] | Mapping[int, Array]) -> list[Array]:
        """Run one inference.

        Parameters
        ----------
        inputs:
            Arrays in the order of :attr:`inputs`, or by name, or by position.

        Returns
        -------
        list of numpy.ndarray
            Copies, in the order of :attr:`outputs`.

        Raises
        ------
        UsageError
            When an input is missing, unknown, or has another type or number of elements.
        InvalidModelError
            When the interpreter cannot run the model.
        """
        for port, array in zip(self.inputs, self._in_order(inputs), strict=True):
            self._interpreter.set_tensor(port.index, _fitting(port, np.asarray(array)))
        try:
            self._interpreter.invoke()
        except (ValueError, RuntimeError) as error:
            raise self._refused(error) from error
        return [self.tensor(port.index) for port in self.outputs]

    def run_tensors(self, inputs: Sequence[Array] | Mapping[str, Array] | Mapping[int, Array],
                    tensors: Sequence[int]) -> list[Array]:
        """Run one inference and return tensors by index; ones in between need ``keep_tensors``."""
        self.run(inputs)
        return [self.tensor(index) for index in tensors]

    def tensor(self, index: int) -> Array:
        """Return a copy of a tensor after :meth:`run` (``keep_tensors`` for intermediate ones).

        Raises
        ------
        UsageError
            When the interpreter has no such tensor, or its memory may have been used again.
        """
        if not self._keeps_tensors and index not in {port.index for port in (*self.inputs, *self.outputs)}:
            raise UsageError(f"tensor {index} of {self.source} is neither input nor output.",
                             advice="Load the model with keep_tensors to read it.")
        try:
            array: Array = self._interpreter.get_tensor(index)
        except (ValueError, RuntimeError, OverflowError) as error:
            raise UsageError(f"tensor {index} of {self.source} cannot be read: {_last_line(error)}.") from error
        return array

    def tensors(self) -> tuple[Port, ...]:
        """Return all tensors of the first graph that the interpreter knows, by index."""
        return tuple(sorted((_port(d) for d in self._interpreter.get_tensor_details()), key=lambda p: p.index))

    def _in_order(self, inputs: Sequence[Array] | Mapping[str, Array] | Mapping[int, Array]) -> list[Array]:
        names = [port.name for port in self.inputs]
        if not isinstance(inputs, Mapping):
            if len(inputs) != len(names):
                raise UsageError(f"{self.source} has {len(names)} inputs, {len(inputs)} were given.")
            return list(inputs)
        given: dict[Any, Array] = dict(inputs)
        keys: list[Any] = list(range(len(names))) if all(isinstance(key, int) for key in given) else list(names)
        if set(given) != set(keys):
            raise UsageError(f"{self.source} has the inputs {', '.join(names)}, given were "
                             f"{', '.join(map(str, given)) or 'none'}.")
        return [given[key] for key in keys]

    def _refused(self, error: Exception) -> InvalidModelError:
        return InvalidModelError(f"TensorFlow Lite refuses {self.source}: {_last_line(error)}.")


def load_backend(name: str | None = None) -> Any:
    """Import an interpreter package.

    Raises
    ------
    EtpuError
        When it is missing, or unusable with the numpy that is installed.
    UsageError
        When there is no such backend.
    """
    if name is not None and name not in BACKENDS:
        raise UsageError(f"{name} is no TensorFlow Lite interpreter.", advice=f"Choose {' or '.join(BACKENDS)}.")
    package = _installed(name)
    if package == "tflite_runtime" and int(np.__version__.split(".")[0]) >= 2:
        raise EtpuError(f"tflite-runtime does not work with numpy {np.__version__}.",
                        advice="Install ai-edge-litert, or numpy below 2.")
    try:
        return importlib.import_module(f"{package}.interpreter")
    except ImportError as error:
        raise EtpuError(f"{BACKENDS[package]} is installed but cannot be loaded: {_last_line(error)}.",
                        advice=f"Install {BACKENDS[package]} again for this Python.") from error


def runtime_name(name: str | None = None) -> str:
    """Return distribution and version of the interpreter that a backend name stands for.

    Raises
    ------
    EtpuError
        When it is missing.
    """
    distribution = BACKENDS[_installed(name)]
    # Nightly and board builds come under other distribution names.
    try:
        return f"{distribution} {importlib.metadata.version(distribution)}"
    except importlib.metadata.PackageNotFoundError:
        return distribution


def _installed(name: str | None) -> str:
    candidates = (name,) if name else tuple(BACKENDS)
    for candidate in candidates:
        if importlib.util.find_spec(candidate) is not None:
            return candidate
    missing = " or ".join(BACKENDS[c] for c in candidates)
    raise EtpuError(f"no TensorFlow Lite interpreter is installed ({missing}).",
                    advice=f"Install {BACKENDS[candidates[0]]}.")


def _last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1].rstrip(".") if lines else type(error).__name__


def _fitting(port: Port, array: Array) -> Array:
    if array.dtype != port.dtype or array.size != int(np.prod(port.shape, dtype=np.int64)):
        raise UsageError(f"input {port.name} takes {port.dtype} of shape {list(port.shape)}, given was {array.dtype} "
                         f"of shape {list(array.shape)}.")
    return array.reshape(port.shape)


def _port(details: dict[str, Any]) -> Port:
    scale, zero_point = details["quantization"]
    return Port(details["index"], details["name"], tuple(int(d) for d in details["shape"]), np.dtype(details["dtype"]),
                float(scale), int(zero_point))
