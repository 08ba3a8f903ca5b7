"""FULLY_CONNECTED: a dense layer, for several vectors a convolution of single pixels, or a product of two activations.

Official programs compute several vectors as a 1x1 convolution of an image whose pixels they are.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from compiler.facts import LANES
from compiler.graph import Graph, Operator, Tensor
from compiler.lowering.arithmetic import clamp, zero_point
from compiler.lowering.lowered import refusal
from compiler.lowering.spatial.context import Context, extent_of, most_pixels
from compiler.lowering.spatial.families.convolution import Convolution, kernel_of
from compiler.lowering.spatial.families.dense import read_dense
from compiler.lowering.spatial.families.family import Family, fused_objection, weights_objection
from compiler.lowering.spatial.families.matrix_product import read_matrix_product
from compiler.lowering.spatial.families.selection import move
from compiler.lowering.spatial.geometry import IDENTITY
from compiler.lowering.spatial.layer import Layer
from compiler.mapping import Status, Verdict


def _read(context: Context, op: Operator) -> Layer | Sequence[Layer]:
    graph = context.graph
    x, w, y = graph.tensors[op.inputs[0]], graph.tensors[op.inputs[1]], graph.output(op)
    if not w.is_constant:
        return read_matrix_product(context, op)
    if x.elements == w.shape[1]:
        return read_dense(context, op)
    shape = (1, *extent_of(x)[:2], w.shape[0])
    target = y if extent_of(y) == shape[1:] else context.between(y, shape, "pixel by pixel")
    low, high = clamp(y, getattr(op.options, "fusedActivationFunction", 0))
    kernel = kernel_of(graph, op, pixels=most_pixels(target), generation=context.generation)
    layer = Convolution(op.title, kernel, context.resolve(x.index), target.index, (IDENTITY, IDENTITY), zero_point(x),
                        zero_point(y), low, high)
    if target is y:
        return layer
    origins = np.arange(y.elements).reshape(extent_of(y))
    return [layer, *move(context, f"{op.title} in rows", target, y, origins)]


def _objection(graph: Graph, op: Operator) -> Verdict | None:
    """One input vector, or one per pixel; a constant bias; RELU, RELU6 and RELU_N1_TO_1 may be fused.

    Weights are constants; or computed, without bias, for up to 64 outputs or a multiple of 64.
    """
    x, w, bias = (graph.input(op, i) for i in range(3))
    y = graph.output(op)
    if x is None or w is None or (bias is not None and not (bias.is_constant and w.is_constant)):
        return Verdict(Status.NOT_CONSTANT, f"{op.title}: a bias must be a constant, and so must the weights with it.",
                       "Freeze the model before converting it.")
    if (objection := weights_objection(op, x, w, y)) is not None:
        return objection
    if len(w.shape) != 2 or w.shape[1] not in (x.elements, x.shape[-1]):
        return Verdict(Status.OUTPUT_2D, f"{op.title}: {x.name} of shape {list(x.shape)} is neither a vector of "
                       f"{w.shape[-1]} nor pixels of so many channels.", "Use batch size 1.")
    if not w.is_constant and (objection := _computed_objection(op, x, w, y)) is not None:
        return objection
    if op.options is not None and op.options.weightsFormat:
        return refusal(op, "shuffled weights are not supported.", "Convert with the default weight format.")
    return fused_objection(op)


def _computed_objection(op: Operator, x: Tensor, w: Tensor, y: Tensor) -> Verdict | None:
    if x.is_constant or w.shape[1] != x.shape[-1] or extent_of(y)[:2] != extent_of(x)[:2]:
        return refusal(op, f"multiplies {x.name} of shape {list(x.shape)} with the computed weights {w.name} of shape "
                           f"{list(w.shape)}; rows of equal length are needed, and a result for each of them.")
    if w.shape[0] > LANES and w.shape[0] % LANES:
        return refusal(op, f"has {w.shape[0]} outputs of computed weights; up to {LANES}, or a multiple of {LANES}, are "
                           "generated.", "Fill the weights up with zeros.")
    return None


FULLY_CONNECTED = Family(_objection, _read)
