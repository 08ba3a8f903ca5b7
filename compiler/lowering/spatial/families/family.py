"""A family of operators: when it can be generated, and how it is read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from compiler.graph import Graph, Operator
from compiler.lowering.spatial.context import Context
from compiler.lowering.spatial.layer import Layer
from compiler.mapping import Verdict

FUSED = (0, 1, 2, 3)
"""Fused activations: none, RELU, RELU_N1_TO_1, RELU6."""


@dataclass(frozen=True)
class Family:
    """What the compiler needs of a family of operators.

    Attributes
    ----------
    objection:
        Says why an operator by itself cannot be emitted; None when it can.
    read:
        Turns an operator into a layer; None when another layer absorbs it. May raise
        :class:`~compiler.lowering.refusal.LoweringRefusal`.
    on_vectors:
        Operators of this family may also be applied to vectors.
    """

    objection: Callable[[Graph, Operator], Verdict | None]
    read: Callable[[Context, Operator], Layer | None]
    on_vectors: bool = False
