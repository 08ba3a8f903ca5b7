"""The immutable graph of a TensorFlow Lite model.

Everything that compilation looks at is a field; rarely used parts of the file format
(sparsity, variants, debug data, ...) travel in ``raw``, the schema object that the element
was read from, and are written back unchanged.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
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
    def bits(self) -> int | None:
        """Bits of one element as a file stores it, None where elements have no fixed size."""
        if self in _PACKED_BITS:
            return _PACKED_BITS[self]
        dtype = self.numpy
        return dtype.itemsize * 8 if dtype is not None else None

    @property
    def is_8bit(self) -> bool:
        """True for the two types the Edge TPU computes in."""
        return self in (TensorType.INT8, TensorType.UINT8)

    @property
    def is_float(self) -> bool:
        """True for real and complex floating point types."""
        return self in _FLOATS


_WITHOUT_NUMPY = ("STRING", "RESOURCE", "VARIANT", "INT4", "BFLOAT16", "INT2", "UINT4", "FLOAT8_E4M3FN", "FLOAT8_E5M2")
_NUMPY_TYPES: dict[str, str] = dict.fromkeys(_WITHOUT_NUMPY, "")
_PACKED_BITS = {
    TensorType.INT2: 2, TensorType.INT4: 4, TensorType.UINT4: 4, TensorType.FLOAT8_E4M3FN: 8,
    TensorType.FLOAT8_E5M2: 8, TensorType.BFLOAT16: 16,
}
_FLOATS = frozenset({
    TensorType.FLOAT16, TensorType.FLOAT32, TensorType.FLOAT64, TensorType.BFLOAT16, TensorType.FLOAT8_E4M3FN,
    TensorType.FLOAT8_E5M2, TensorType.COMPLEX64, TensorType.COMPLEX128,
})
ACTIVATIONS = {0: "NONE", 1: "RELU", 2: "RELU_N1_TO_1", 3: "RELU6", 4: "TANH", 5: "SIGN_BIT"}
"""Fused activations, numbered as in schema version 3."""
_NO_FLOATS: npt.NDArray[np.float32] = np.zeros(0, np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class Quantization:
    """Affine quantization: real = scale * (value - zero_point).

    Attributes
    ----------
    scales:
        float32, one element, or one per slice along ``axis``.
    zero_points:
        int64, same shape as scales.
    axis:
        Dimension of the tensor that the scales run along.
    minimum, maximum:
        float32, the range seen in training or calibration; empty when the file states none.
    """

    scales: npt.NDArray[np.float32]
    zero_points: npt.NDArray[np.int64]
    axis: int = 0
    minimum: npt.NDArray[np.float32] = field(default_factory=lambda: _NO_FLOATS, repr=False)
    maximum: npt.NDArray[np.float32] = field(default_factory=lambda: _NO_FLOATS, repr=False)

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

    def same_as(self, other: Quantization | None) -> bool:
        """True when the other maps every value to the same real number."""
        return (
            other is not None
            and np.array_equal(self.scales, other.scales, equal_nan=True)
            and np.array_equal(self.zero_points, other.zero_points)
            and (not self.per_channel or self.axis == other.axis)
        )


@dataclass(frozen=True, slots=True, eq=False)
class Tensor:
    """A tensor of a graph; two tensors are equal when they are the same object.

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
    raw: Any = field(default=None, repr=False)

    @property
    def is_constant(self) -> bool:
        """True when the file holds the tensor's data."""
        return self.data is not None

    @property
    def elements(self) -> int:
        """Number of elements of the stated shape."""
        return math.prod(self.shape)

    @property
    def is_dynamic(self) -> bool:
        """True when a dimension other than the batch is only known at run time.

        Converters leave the batch open (-1) and state one in the shape; such models compile.
        """
        return any(d < 0 for d in (*self.signature[1:], *self.shape))

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


@dataclass(frozen=True, slots=True, eq=False)
class Operator:
    """An operator of a graph; two operators are equal when they are the same object.

    Attributes
    ----------
    name:
        Builtin operator name such as ``CONV_2D``; ``CUSTOM`` for custom operators.
    inputs, outputs:
        Tensor indices; -1 for an omitted optional input.
    options:
        Schema object of the builtin options (read only by convention), or None.
    custom_name, custom_options:
        Name and read-only bytes of a custom operator; "" and None otherwise.
    version, code:
        Version and number of the operator code.
    intermediates:
        Indices of scratch tensors whose quantization the operator needs (LSTM).
    mutating:
        Which inputs the operator writes (variable tensors); () when the file does not say.
    """

    index: int
    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: Any = field(default=None, repr=False)
    custom_name: str = ""
    custom_options: npt.NDArray[np.uint8] | None = field(default=None, repr=False)
    version: int = 1
    code: int = 0
    raw: Any = field(default=None, repr=False)
    intermediates: tuple[int, ...] = ()
    mutating: tuple[bool, ...] = ()

    @property
    def title(self) -> str:
        """How messages name the operator."""
        return f"{self.custom_name or self.name} (operator {self.index})"

    @property
    def activation(self) -> str:
        """Fused activation by its schema name (``NONE``, ``RELU``, ``RELU_N1_TO_1``, ``RELU6``, ...)."""
        number = getattr(self.options, "fusedActivationFunction", 0)
        return ACTIVATIONS.get(number, f"ACTIVATION_{number}")


@dataclass(frozen=True, eq=False)
class Graph:
    """A subgraph: tensors, operators in execution order, inputs and outputs (tensor indices)."""

    name: str
    tensors: tuple[Tensor, ...]
    operators: tuple[Operator, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    raw: Any = field(default=None, repr=False)

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

    def used_tensors(self) -> tuple[Tensor, ...]:
        """Return the tensors that an operator, a graph input or a graph output refers to, by index."""
        used = {*self.inputs, *self.outputs}
        for op in self.operators:
            used.update(op.inputs, op.outputs, op.intermediates)
        return tuple(t for t in self.tensors if t.index in used)

    def float_tensors(self) -> tuple[Tensor, ...]:
        """Return the used tensors of a floating point type, by index."""
        return tuple(t for t in self.used_tensors() if t.type.is_float)

    def dynamic_tensors(self) -> tuple[Tensor, ...]:
        """Return the used tensors with a dimension (other than the batch) that is known at run time only."""
        return tuple(t for t in self.used_tensors() if t.is_dynamic)


@dataclass(frozen=True)
class Signature:
    """A named entry point of a model.

    Attributes
    ----------
    inputs, outputs:
        Pairs of argument name and tensor index.
    graph:
        Index of the graph that it runs.
    """

    key: str
    inputs: tuple[tuple[str, int], ...]
    outputs: tuple[tuple[str, int], ...]
    graph: int = 0


@dataclass(frozen=True, eq=False)
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
    signatures:
        Entry points. A pass that renumbers tensors must renumber or drop them.
    constants_behind:
        True when the file keeps constants behind the flatbuffer, as files of more than 2 GB do.
    """

    graphs: tuple[Graph, ...]
    description: str = ""
    version: int = 3
    metadata: tuple[tuple[str, npt.NDArray[np.uint8]], ...] = ()
    source: str = "model"
    size: int = 0
    raw: Any = field(default=None, repr=False)
    signatures: tuple[Signature, ...] = ()
    constants_behind: bool = False

    @property
    def main(self) -> Graph:
        """The first graph."""
        return self.graphs[0]

    def with_main(self, graph: Graph) -> Model:
        """Return a copy with another first graph."""
        return replace(self, graphs=(graph, *self.graphs[1:]))
