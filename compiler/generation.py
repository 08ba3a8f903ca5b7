"""Generations of the official compiler: which habits belong to which version.

Programs of all generations run on every Edge TPU; they differ in how parameters are laid out and in the
instructions that use them. We emit what 16.0 emits, unless a model is compiled for runtime 10 or 11: all
official programs for those come from compiler 1.0, so nothing else is known to work with them. Published
models of 16.0 that ask for runtime 12 (``-m 12``) have the forms of 16.0.

Evidence: published compiled models whose logs name the version (1.0.249710469, 2.1.302470888, 14.1.317412892,
15.0.340273435, 16.0.384591198), and others in the same envelope.
"""

from __future__ import annotations

from enum import Enum, auto

from compiler.facts import RUNTIME_INT8_HOST
from compiler.records import record


class SoftmaxForm(Enum):
    """How a SOFTMAX is computed."""

    SCALAR_CORE = auto()
    """One class after the other on the scalar core, on the way to the host; no parameters."""
    TWO_TABLES = auto()
    """On the tiles; spare lanes are taken out before the maximum and by infinite factors."""
    THREE_TABLES = auto()
    """On the tiles; spare lanes are taken out once more after the difference."""


_CONVOLUTION, _DEPTHWISE, _DENSE = "CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"


@record
class Generation:
    """Habits of a version of the official compiler.

    Attributes
    ----------
    version:
        The version, or the span of versions, that shows them.
    softmax:
        How SOFTMAX is computed.
    zero_bias:
        Operators that keep a bias that is all zero.
    dense_on_ring:
        Dense layers that do not fit side by side may lie like convolutions. Where not, local tensors get their
        rows by size.
    clears_spare_bytes:
        The scalar core clears the bytes behind the last class.
    moves_inputs:
        An input whose channels get an axis of their own is moved by a table of zeros and ones, although its shape
        on the host says nothing.
    serves_jointly:
        Where models compiled together do not fit, their tensors are served as if they belonged to one model.
    pools_by_channels:
        The pixels of a whole image come together on several tiles, 64 channels on each.
    early_dense:
        Parameters of dense layers arrive in shorter chunks, in rows higher up; slices of a vector come together on
        tile 0, which sends the whole to the others, and no tile waits for all others.
    """

    version: str
    softmax: SoftmaxForm
    zero_bias: frozenset[str]
    dense_on_ring: bool = True
    clears_spare_bytes: bool = False
    early_dense: bool = False
    moves_inputs: bool = False
    serves_jointly: bool = False
    pools_by_channels: bool = False

    @property
    def early_arithmetic(self) -> bool:
        """Tell whether a pool that keeps the scale multiplies by f32(1 / count); that changed with SOFTMAX."""
        return self.softmax is SoftmaxForm.SCALAR_CORE

    def keeps_zero_bias(self, operator: str) -> bool:
        """Tell whether an operator keeps a bias that is all zero."""
        return operator in self.zero_bias


COMPILER_1_0 = Generation("1.0", SoftmaxForm.SCALAR_CORE, frozenset({_CONVOLUTION, _DEPTHWISE, _DENSE}),
                          dense_on_ring=False, clears_spare_bytes=True, early_dense=True)
"""Zero biases: a 1x1 convolution of three models, two chains of dense layers. A chain of 100 dense layers on two
tiles streams 22 of them and leaves 14 tiles empty. SOFTMAX: nine models."""
COMPILER_2 = Generation("2.0 to 2.1", SoftmaxForm.SCALAR_CORE, frozenset({_CONVOLUTION, _DEPTHWISE, _DENSE}))
"""SOFTMAX: three models of 2.1 and five of the same form. Zero biases: taken over from 1.0."""
COMPILER_14 = Generation("14.1 to 15.0", SoftmaxForm.TWO_TABLES, frozenset({_DEPTHWISE, _DENSE}), moves_inputs=True)
"""SOFTMAX: one model. Zero biases: 16 depthwise layers of one model of 15.0, a depthwise layer with 28 outputs per
channel and a dense layer in the envelope of 14.1; three convolutions without. Inputs: one model of 14.1."""
COMPILER_16 = Generation("16.0", SoftmaxForm.THREE_TABLES, frozenset(), serves_jointly=True, pools_by_channels=True)
"""All models of runtime 14, and those of runtime 12 in the same envelope. Served jointly: two of four MobileNets, of which
the second model streams all its convolutions and the last one five."""

GENERATIONS = (COMPILER_1_0, COMPILER_2, COMPILER_14, COMPILER_16)
"""All of them, oldest first."""
CURRENT = COMPILER_16


def for_runtime(version: int) -> Generation:
    """Return the habits of what is compiled for a runtime, unless something else is asked for."""
    return CURRENT if version >= RUNTIME_INT8_HOST else COMPILER_1_0
