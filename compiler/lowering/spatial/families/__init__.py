"""Families of operators on images: the table of what can be generated.

A family's module is imported when a model has one of its operators: most models have few of them, and what is not
imported costs a short compilation nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import import_module

from compiler.lowering.spatial.families.family import Family

GENERATED: Mapping[str, str] = {
    "ADD": "addition.ADDITION",
    "AVERAGE_POOL_2D": "pooling.POOL",
    "CONCATENATION": "concatenation.CONCATENATION",
    "CONV_2D": "convolution.CONVOLUTION",
    "DEPTHWISE_CONV_2D": "convolution.CONVOLUTION",
    "EXPAND_DIMS": "reshape.RESHAPE",
    "FULLY_CONNECTED": "fully_connected.FULLY_CONNECTED",
    "L2_NORMALIZATION": "normalization.NORMALIZATION",
    "LOGISTIC": "unary.UNARY",
    "MAXIMUM": "extremum.EXTREMUM",
    "MAX_POOL_2D": "pooling.POOL",
    "MEAN": "reduction.REDUCTION",
    "MINIMUM": "extremum.EXTREMUM",
    "MUL": "multiplication.MULTIPLICATION",
    "PACK": "concatenation.PACK",
    "PAD": "padding.PADDING",
    "PRELU": "prelu.PRELU",
    "QUANTIZE": "unary.UNARY",
    "REDUCE_MAX": "reduction.REDUCTION",
    "REDUCE_MIN": "reduction.REDUCTION",
    "RELU": "unary.UNARY",
    "RELU6": "unary.UNARY",
    "RELU_N1_TO_1": "unary.UNARY",
    "RESHAPE": "reshape.RESHAPE",
    "RESIZE_BILINEAR": "resize.RESIZE",
    "RESIZE_NEAREST_NEIGHBOR": "selection.SELECTION",
    "RSQRT": "unary.UNARY",
    "SLICE": "selection.SELECTION",
    "SOFTMAX": "softmax.SOFTMAX",
    "SPACE_TO_DEPTH": "selection.SELECTION",
    "SPLIT": "selection.SELECTION",
    "SQUARED_DIFFERENCE": "addition.ADDITION",
    "SQUEEZE": "reshape.RESHAPE",
    "STRIDED_SLICE": "selection.SELECTION",
    "SUB": "addition.ADDITION",
    "SUM": "reduction.REDUCTION",
    "TANH": "unary.UNARY",
    "TILE": "selection.SELECTION",
    "TRANSPOSE": "selection.SELECTION",
    "TRANSPOSE_CONV": "transposed.TRANSPOSED",
}
"""Operator -> module and name of its family."""


@cache
def family_of(operator: str) -> Family | None:
    """Return the family of an operator; None when no code is generated for it."""
    if operator not in GENERATED:
        return None
    module, name = GENERATED[operator].split(".")
    family = getattr(import_module(f"{__name__}.{module}"), name)
    assert isinstance(family, Family)
    return family


__all__ = ["GENERATED", "Family", "family_of"]
