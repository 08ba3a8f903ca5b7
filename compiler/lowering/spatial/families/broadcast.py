"""Operands with a single row, column or channel are spread over the image of the result first, by copies;
constants of that shape are brought.

Rows and columns are read again and again; a channel goes to four at once, by a matrix of ones instead
of the identity.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from compiler.graph import Operator, Tensor
from compiler.lowering.arithmetic import bits
from compiler.lowering.builder import Values
from compiler.lowering.spatial.context import Context, image_of
from compiler.lowering.spatial.families.composite import FIRST, SECOND, Composite
from compiler.lowering.spatial.families.provision import Provision, provided
from compiler.lowering.spatial.families.unary import NO_LIMITS, Shift, apply_to_words
from compiler.lowering.spatial.geometry import IDENTITY, Activation, Window
from compiler.lowering.spatial.layer import Layer
from compiler.records import record

_SAME = Window(stride=0)
"""Every result comes from the first row (or column)."""
_ONES = (1, 1, 1, 1)


@record
class Replication(Shift):
    """A copy of the only channel to all channels."""

    matrix: ClassVar[tuple[int, ...]] = _ONES

    def _copy(self, source: Activation, target: Activation, tile: int, row: int) -> Values:
        rows, columns = target.own(tile)
        a, c = source.slab(tile), target.slab(tile)
        strides = 0, self.windows[1].stride * a.pixel, self.windows[0].stride * a.pitch
        return apply_to_words(self, self._first(source, target, tile), strides, target.own_address(tile),
                              (4, c.pixel, c.pitch), (c.pixel // 4, len(columns), len(rows)))


class Spreading(Composite):
    """An operation on operands that are spread before."""

    @property
    def banded(self) -> bool:  # type: ignore[override]
        """Spread operands are spread anew for every band; constants come only once."""
        return not any(isinstance(part, Provision) for part in self.parts)


def read_alike(context: Context, op: Operator, build: Callable[[tuple[int, int]], Layer]) -> Layer:
    """Read an operator on two activations, or on one and a constant of the shape of an image.

    Parameters
    ----------
    build:
        Makes the layer from the numbers of two images of the shape of the result.
    """
    y = context.graph.output(op)
    parts: list[Layer] = []
    numbers = []
    for index, between in zip(op.inputs, (FIRST, SECOND), strict=True):
        x = context.graph.tensors[index]
        number = between
        if x.is_constant:
            parts.append(provided(op.title, x, between, image_of(y)))
        elif image_of(x) != image_of(y):
            parts.append(_spread(op.title, x, y, context.resolve(index), between))
        else:
            number = context.resolve(index)
        numbers.append(number)
    layer = build((numbers[0], numbers[1]))
    if not parts:
        return layer
    return Spreading(op.title, (*parts, *(layer.parts if isinstance(layer, Composite) else (layer,))), y.index)


def read_spread(context: Context, op: Operator, x: Tensor, build: Callable[[int], Layer]) -> Layer:
    """Read an operator on an activation and constants.

    Parameters
    ----------
    build:
        Makes the layer from the number of an image of the shape of the result.
    """
    y, source = context.graph.output(op), context.resolve(x.index)
    if image_of(x) == image_of(y):
        return build(source)
    return Spreading(op.title, (_spread(op.title, x, y, source, FIRST), build(FIRST)), y.index)


def _spread(name: str, x: Tensor, y: Tensor, source: int, target: int) -> Shift:
    image, whole = image_of(x), image_of(y)
    windows = (IDENTITY if image.height == whole.height else _SAME, IDENTITY if image.width == whole.width else _SAME)
    kind = Shift if image.channels == whole.channels else Replication
    return kind(name, source, target, 0, 0, bits(1.0), NO_LIMITS["clamp_low"], NO_LIMITS["clamp_high"], windows=windows)
