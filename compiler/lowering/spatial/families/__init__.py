"""Families of operators on images: the table of what can be generated."""

from __future__ import annotations

from collections.abc import Mapping

from compiler.lowering.spatial.families.addition import ADDITION
from compiler.lowering.spatial.families.concatenation import CONCATENATION, PACK
from compiler.lowering.spatial.families.convolution import CONVOLUTION
from compiler.lowering.spatial.families.extremum import EXTREMUM
from compiler.lowering.spatial.families.family import Family
from compiler.lowering.spatial.families.fully_connected import FULLY_CONNECTED
from compiler.lowering.spatial.families.multiplication import MULTIPLICATION
from compiler.lowering.spatial.families.normalization import NORMALIZATION
from compiler.lowering.spatial.families.padding import PADDING
from compiler.lowering.spatial.families.pooling import POOL
from compiler.lowering.spatial.families.prelu import PRELU
from compiler.lowering.spatial.families.reduction import REDUCTION
from compiler.lowering.spatial.families.reshape import RESHAPE
from compiler.lowering.spatial.families.resize import RESIZE
from compiler.lowering.spatial.families.selection import SELECTION
from compiler.lowering.spatial.families.softmax import SOFTMAX
from compiler.lowering.spatial.families.transposed import TRANSPOSED
from compiler.lowering.spatial.families.unary import UNARY

FAMILIES: Mapping[str, Family] = {
    "ADD": ADDITION,
    "AVERAGE_POOL_2D": POOL,
    "CONCATENATION": CONCATENATION,
    "CONV_2D": CONVOLUTION,
    "DEPTHWISE_CONV_2D": CONVOLUTION,
    "EXPAND_DIMS": RESHAPE,
    "FULLY_CONNECTED": FULLY_CONNECTED,
    "L2_NORMALIZATION": NORMALIZATION,
    "LOGISTIC": UNARY,
    "MAXIMUM": EXTREMUM,
    "MAX_POOL_2D": POOL,
    "MEAN": REDUCTION,
    "MINIMUM": EXTREMUM,
    "MUL": MULTIPLICATION,
    "PACK": PACK,
    "PAD": PADDING,
    "PRELU": PRELU,
    "QUANTIZE": UNARY,
    "REDUCE_MAX": REDUCTION,
    "REDUCE_MIN": REDUCTION,
    "RELU": UNARY,
    "RELU6": UNARY,
    "RELU_N1_TO_1": UNARY,
    "RESHAPE": RESHAPE,
    "RESIZE_BILINEAR": RESIZE,
    "RESIZE_NEAREST_NEIGHBOR": SELECTION,
    "RSQRT": UNARY,
    "SLICE": SELECTION,
    "SOFTMAX": SOFTMAX,
    "SPACE_TO_DEPTH": SELECTION,
    "SPLIT": SELECTION,
    "SQUARED_DIFFERENCE": ADDITION,
    "SQUEEZE": RESHAPE,
    "STRIDED_SLICE": SELECTION,
    "SUB": ADDITION,
    "SUM": REDUCTION,
    "TANH": UNARY,
    "TILE": SELECTION,
    "TRANSPOSE": SELECTION,
    "TRANSPOSE_CONV": TRANSPOSED,
}
"""Operator -> its family."""

__all__ = ["FAMILIES", "Family"]
