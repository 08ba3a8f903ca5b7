"""The immutable graph of a TensorFlow Lite model.

Everything that compilation looks at is a field; rarely used parts of the file format
(sparsity, variants, debug data, ...) travel in ``raw``, the schema object that the element
was read from, and are written back unchanged.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt


class TensorType(IntEnum):
    """Element types, numbered as in schema version 3."""

    FLOAT32 = 0
    FLOAT16 = 1
    INT32 = 2
    UINT8 = 3
    INT64 = 4
    STRING = 5
    BOOL = 6
    INT16 = 7
    COMPLEX64 = 8
    INT8 = 9
    FLOAT64 = 10
    COMPLEX128 = 11
    UINT64 = 12
    RESOURCE = 13
    VARIANT = 14
    UINT32 = 15
    UINT16 = 16
    INT4 = 17
    BFLOAT16 = 18
    INT2 = 19
    UINT4 = 20
    FLOAT8_E4M3FN = 21
    FLOAT8_E5M2 = 22

    @property
    def numpy(self) -> np.dtype[Any] | None:
        """The numpy type, None for types numpy does not have."""
        name = _NUMPY_TYPES.get(self.name, self.name.lower())
        return np.dtype(name) if name else None

    @property
    def is_8bit(self) -> bool:
        """True for the two types the Edge TPU computes in."""
        return self in (TensorType.INT8, TensorType.UINT8)


_WITHOUT_NUMPY = ("STRING", "RESOURCE", "VARIANT", "INT4", "BFLOAT16", "INT2", "UINT4", "FLOAT8_E4M3FN", "FLOAT8_E5M2")
_NUMPY_TYPES: dict[str, str] = dict.fromkeys(_WITHOUT_NUMPY, "")


@dataclass(frozen=True)
class Quantization:
    """Affine quantization: real = scale * (value - zero_point).

    Attributes
    ----------
    scales:
        float32, one element, or one per slice along ``axis``.
    zero_points:
        int64, same shape as scales.
    """

    scales: npt.NDArray[np.float32]
    zero_points: npt.NDArray[np.int64]
    axis: int = 0

    @property
    def scale(self) -> float:
        """The first (per-tensor: the only) scale."""
        return float(self.scales[0])

    @property
    def zero_point(self) -> int:
        """The first (per-tensor: the only) zero point."""
        return int(self.zero_points[0])

    @property
    def per_channel(self) -> bool:
        """True when slices along ``axis`` have scales of their own."""
        return self.scales.size > 1


@dataclass(frozen=True)
class Tensor:
    """A tensor of a graph.

    Attributes
    ----------
    shape:
        Dimensions, outermost first; () for a scalar.
    signature:
        Like shape with -1 for dynamic dimensions; () when the file states none.
    data:
        Read-only bytes of a constant as a uint8 array; None for activations.
    """

    index: int
    name: str
    shape: tuple[int, ...]
    type: TensorType
    quantization: Quantization | None = None
    data: npt.NDArray[np.uint8] | None = field(default=None, repr=False)
    signature: tuple[int, ...] = ()
    is_variable: bool = False
    raw: Any = field(default=None, repr=False, compare=False)

    @property
    def is_constant(self) -> bool:
        """True when the file holds the tensor's data."""
        return self.data is not None

    @property
    def elements(self) -> int:
        """Number of elements."""
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def is_dynamic(self) -> bool:
        """True when a dimension is only known at run time."""
        return any(d < 0 for d in (*self.signature, *self.shape))

    def array(self) -> npt.NDArray[Any]:
        """Return the constant data in its own type and shape.

        Raises
        ------
        ValueError
            When the tensor is no constant, or its type has no numpy counterpart.
        """
        dtype = self.type.numpy
        if self.data is None or dtype is None:
            raise ValueError(f"tensor {self.name} has no constant data of a numpy type")
        return self.data.view(dtype).reshape(self.shape)


@dataclass(frozen=True)
class Operator:
    """An operator of a graph.

    Attributes
    ----------
    name:
        Builtin operator name such as ``CONV_2D``; ``CUSTOM`` for custom operators.
    inputs, outputs:
        Tensor indices; -1 for an omitted optional input.
    options:
        Schema object of the builtin options (read only by convention), or None.
    """

    index: int
    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: Any = field(default=None, repr=False, compare=False)
    custom_name: str = ""
    custom_options: npt.NDArray[np.uint8] | None = field(default=None, repr=False, compare=False)
    version: int = 1
    code: int = 0
    raw: Any = field(default=None, repr=False, compare=False)

    @property
    def title(self) -> str:
        """How messages name the operator."""
        return f"{self.custom_name or self.name} (operator {self.index})"


@dataclass(frozen=True)
class Graph:
    """A subgraph: tensors, operators in execution order, inputs and outputs (tensor indices)."""

    name: str
    tensors: tuple[Tensor, ...]
    operators: tuple[Operator, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    raw: Any = field(default=None, repr=False, compare=False)

    @cached_property
    def producers(self) -> dict[int, Operator]:
        """Operator that writes each tensor."""
        return {t: op for op in self.operators for t in op.outputs if t >= 0}

    @cached_property
    def consumers(self) -> dict[int, tuple[Operator, ...]]:
        """Operators that read each tensor."""
        found: dict[int, list[Operator]] = {}
        for op in self.operators:
            for t in dict.fromkeys(op.inputs):
                if t >= 0:
                    found.setdefault(t, []).append(op)
        return {t: tuple(ops) for t, ops in found.items()}

    def input(self, op: Operator, position: int) -> Tensor | None:
        """Return an operand of an operator, None when it is omitted."""
        if position >= len(op.inputs) or op.inputs[position] < 0:
            return None
        return self.tensors[op.inputs[position]]

    def output(self, op: Operator, position: int = 0) -> Tensor:
        """Return a result of an operator."""
        return self.tensors[op.outputs[position]]

    def activations(self, op: Operator) -> Iterator[Tensor]:
        """Yield the operands and results that are computed at run time."""
        for t in (*op.inputs, *op.outputs):
            if t >= 0 and not self.tensors[t].is_constant:
                yield self.tensors[t]


@dataclass(frozen=True)
class Model:
    """A TensorFlow Lite file.

    Attributes
    ----------
    source:
        Name of the file for messages.
    size:
        Bytes of the file; 0 when the model was not read from one.
    metadata:
        Named blobs.
    """

    graphs: tuple[Graph, ...]
    description: str = ""
    version: int = 3
    metadata: tuple[tuple[str, npt.NDArray[np.uint8]], ...] = ()
    source: str = "model"
    size: int = 0
    raw: Any = field(default=None, repr=False, compare=False)

    @property
    def main(self) -> Graph:
        """The first graph."""
        return self.graphs[0]

    def with_main(self, graph: Graph) -> Model:
        """Return a copy with another first graph."""
        return replace(self, graphs=(graph, *self.graphs[1:]))


def float32(values: Sequence[float] | float) -> npt.NDArray[np.float32]:
    """Return a one-dimensional float32 array."""
    return np.atleast_1d(np.asarray(values, np.float32))
