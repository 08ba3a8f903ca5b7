"""Demands on a graph that go beyond an intact file."""

from __future__ import annotations

from compiler.errors import InvalidModelError
from compiler.graph.model import Model


def require_static_shapes(model: Model) -> None:
    """Check that only the batch may be left open.

    Raises
    ------
    InvalidModelError
        When another dimension is known at run time only; the message names the first such tensor.
    """
    for graph in model.graphs:
        for tensor in graph.dynamic_tensors():
            shape = list(tensor.signature or tensor.shape)
            raise InvalidModelError(
                f"{model.source}: tensor {tensor.name} has the dynamic shape {shape}.",
                advice="Convert the model with fixed input shapes; only the batch may be -1.")
