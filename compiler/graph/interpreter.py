"""The one adapter to TensorFlow Lite interpreters: ai-edge-litert or tflite-runtime."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from compiler.errors import EtpuError, InvalidModelError

BACKENDS = {"ai_edge_litert": "ai_edge_litert.interpreter", "tflite_runtime": "tflite_runtime.interpreter"}
"""Import name of each supported interpreter, the preferred one first."""


@dataclass(frozen=True)
class Port:
    """An input or output of a model."""

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
        Use the plain reference kernels instead of the optimised ones.
    keep_tensors:
        Keep intermediate tensors readable.
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
                 backend: str | None = None) -> None:
        module = load_backend(backend)
        resolver = module.OpResolverType.BUILTIN_REF if reference_kernels else module.OpResolverType.AUTO
        source = {"model_content": model} if isinstance(model, bytes) else {"model_path": str(model)}
        try:
            self._interpreter = module.Interpreter(**source, experimental_op_resolver_type=resolver,
                                                   experimental_preserve_all_tensors=keep_tensors, num_threads=1)
            self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            reason = str(error).strip().splitlines()[-1]
            raise InvalidModelError(f"TensorFlow Lite refuses the model: {reason}") from error
        self.inputs = tuple(_port(d) for d in self._interpreter.get_input_details())
        self.outputs = tuple(_port(d) for d in self._interpreter.get_output_details())

    def run(self, inputs: Sequence[npt.NDArray[Any]] | Mapping[str, npt.NDArray[Any]]) -> list[npt.NDArray[Any]]:
        """Run one inference.

        Parameters
        ----------
        inputs:
            Arrays in the order of :attr:`inputs`, or by name.

        Returns
        -------
        list of numpy.ndarray
            In the order of :attr:`outputs`.
        """
        arrays = [inputs[p.name] for p in self.inputs] if isinstance(inputs, Mapping) else list(inputs)
        for port, array in zip(self.inputs, arrays, strict=True):
            self._interpreter.set_tensor(port.index, np.asarray(array, port.dtype).reshape(port.shape))
        self._interpreter.invoke()
        return [self._interpreter.get_tensor(p.index) for p in self.outputs]

    def tensor(self, index: int) -> npt.NDArray[Any]:
        """Return a tensor after :meth:`run` (``keep_tensors`` for intermediate ones)."""
        array: npt.NDArray[Any] = self._interpreter.get_tensor(index)
        return array


def load_backend(name: str | None = None) -> Any:
    """Import an interpreter package.

    Raises
    ------
    EtpuError
        When it is missing, or unusable with the numpy that is installed.
    """
    for candidate in (name,) if name else tuple(BACKENDS):
        try:
            module = importlib.import_module(BACKENDS[candidate])
        except ImportError:
            continue
        if candidate == "tflite_runtime" and int(np.__version__.split(".")[0]) >= 2:
            raise EtpuError("tflite-runtime does not work with numpy 2.",
                            advice="Install ai-edge-litert, or numpy below 2.")
        return module
    raise EtpuError(f"no TensorFlow Lite interpreter is installed ({' or '.join((name,) if name else BACKENDS)}).",
                    advice="Install ai-edge-litert.")


def _port(details: dict[str, Any]) -> Port:
    scale, zero_point = details["quantization"]
    return Port(details["index"], details["name"], tuple(int(d) for d in details["shape"]), np.dtype(details["dtype"]),
                float(scale), int(zero_point))
