"""What an operator sees: its tensors, their values, its options."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import numpy as np
import numpy.typing as npt

from compiler.errors import EtpuError
from compiler.graph import Graph, Operator, Quantization, Tensor

Array = npt.NDArray[Any]
Reals = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int32]


class NoReferenceError(EtpuError):
    """The reference knows no arithmetic for an operator, or not for these types."""


class Generation(Enum):
    """Official compilers compute two operators in two ways; a program shows which compiler made it.

    Seen in 23 official programs with SOFTMAX or pools: the two habits change together.
    """

    EARLY = "early"
    """SOFTMAX one class after the other in float32 on the scalar core; a pool that keeps the scale
    multiplies by f32(1 / count) and clamps nothing."""
    LATER = "later"
    """SOFTMAX on the tiles with nonlinear tables; pools multiply as every other operator does."""


@dataclass(frozen=True)
class Step:
    """One operator about to be evaluated.

    Attributes
    ----------
    arrays:
        Values of all tensors known so far, constants included, by tensor index.
    next_values:
        Where an operator leaves the values that its variable tensors have afterwards.
    """

    graph: Graph
    op: Operator
    arrays: Mapping[int, Array]
    generation: Generation = Generation.LATER
    next_values: dict[int, Array] = field(default_factory=dict)

    @property
    def count(self) -> int:
        """Number of operands, omitted ones included."""
        return len(self.op.inputs)

    @property
    def out(self) -> Tensor:
        """The first result."""
        return self.graph.output(self.op)

    @property
    def outs(self) -> tuple[Tensor, ...]:
        """All results."""
        return tuple(self.graph.tensors[i] for i in self.op.outputs)

    def has(self, position: int) -> bool:
        """Tell whether an optional operand is given."""
        return self.graph.input(self.op, position) is not None

    def tensor(self, position: int) -> Tensor:
        """Return an operand.

        Raises
        ------
        NoReferenceError
            When it is omitted.
        """
        found = self.graph.input(self.op, position)
        if found is None:
            raise NoReferenceError(f"{self.op.title} lacks operand {position}.")
        return found

    def array(self, position: int) -> Array:
        """Return the value of an operand."""
        return self.arrays[self.tensor(position).index]

    def centred(self, position: int) -> Integers:
        """Return the value of a quantized operand minus its zero point, int32."""
        return centred(self.array(position), quantization(self.tensor(position), self.op))

    def numbers(self, position: int) -> list[int]:
        """Return an operand that holds sizes, axes, ... as a flat list."""
        return [int(v) for v in self.array(position).reshape(-1)]

    def option(self, name: str, default: Any = 0) -> Any:
        """Return a field of the builtin options."""
        return getattr(self.op.options, name, default)

    def quantization(self, position: int) -> Quantization:
        """Return the quantization of an operand."""
        return quantization(self.tensor(position), self.op)

    def scale(self, position: int) -> np.float32:
        """Return the (first) scale of an operand."""
        return np.float32(self.quantization(position).scales[0])

    @property
    def out_scale(self) -> np.float32:
        """The scale of the first result."""
        return np.float32(quantization(self.out, self.op).scales[0])


def quantization(tensor: Tensor, op: Operator) -> Quantization:
    """Return the quantization of a tensor.

    Raises
    ------
    NoReferenceError
        When it has none: the chip computes with quantized tensors only.
    """
    if tensor.quantization is None or not tensor.type.is_8bit:
        raise NoReferenceError(f"{op.title}: tensor {tensor.name} is not quantized to 8 bits.")
    return tensor.quantization


def centred(array: Array, q: Quantization) -> Integers:
    """Subtract zero points; per-channel ones run along the quantization's axis."""
    points = q.zero_points.astype(np.int32)
    if points.size > 1:
        shape = [1] * array.ndim
        shape[q.axis] = points.size
        points = points.reshape(shape)
    return array.astype(np.int32) - points
