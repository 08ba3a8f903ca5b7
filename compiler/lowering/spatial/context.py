"""What is known of a subgraph while its operators are read one after the other."""

from __future__ import annotations

from dataclasses import dataclass, replace

from compiler.facts import TILES
from compiler.graph import Graph, Operator, Tensor
from compiler.lowering.spatial.geometry import Image, Span, Window
from compiler.mapping import Subgraph


@dataclass(frozen=True)
class Padding:
    """Rows and columns that a PAD in front of a convolution adds before and after."""

    rows: tuple[int, int] = (0, 0)
    columns: tuple[int, int] = (0, 0)


class Context:
    """The subgraph, and which tensors hold the same bytes.

    Parameters
    ----------
    graph, subgraph:
        What the mapping chose.

    Attributes
    ----------
    padding:
        Padding that was absorbed, by the padded tensor.
    view:
        The input as its only reader sees it, when a RESHAPE gives it another shape.
    """

    def __init__(self, graph: Graph, subgraph: Subgraph) -> None:
        self.graph, self.subgraph = graph, subgraph
        self.padding: dict[int, Padding] = {}
        self.view: Tensor | None = None
        self._origin: dict[int, int] = {}
        self._between: list[Tensor] = []

    def resolve(self, tensor: int) -> int:
        """Return the tensor that holds the same bytes."""
        return self._origin.get(tensor, tensor)

    def alias(self, tensor: int, original: int) -> None:
        """Note that a tensor holds the bytes of another."""
        self._origin[tensor] = self.resolve(original)

    def tensor(self, index: int) -> Tensor:
        """Return a tensor, in the shape in which it is computed with."""
        if index == self.subgraph.inputs[0] and self.view is not None:
            return self.view
        known = len(self.graph.tensors)
        return self.graph.tensors[index] if index < known else self._between[index - known]

    def between(self, like: Tensor, shape: tuple[int, ...], suffix: str) -> Tensor:
        """Return a new tensor between layers of one operator, quantized like another."""
        index = len(self.graph.tensors) + len(self._between)
        self._between.append(replace(like, index=index, shape=shape, name=f"{like.name} {suffix}"))
        return self._between[-1]

    def image(self, index: int) -> Image:
        """Return the extent of a tensor."""
        return image_of(self.tensor(index))

    def members(self, tensor: int) -> list[Operator]:
        """Return the operators of the subgraph that read a tensor."""
        return [op for op in self.graph.consumers.get(tensor, ()) if op.index in self.subgraph.operators]


def image_of(t: Tensor) -> Image:
    """Read a shape as rows, columns and channels."""
    height, width, channels = extent_of(t)
    return Image(height, width, channels)


def extent_of(t: Tensor) -> tuple[int, ...]:
    """Return the three innermost dimensions."""
    return (1, 1, 1, *t.shape)[-3:]


def is_flat(t: Tensor) -> bool:
    """Tell whether a tensor is a vector."""
    return t.elements == (t.shape[-1] if t.shape else 1)


def most_pixels(t: Tensor) -> int:
    """Return the pixels of the largest part of an image."""
    image = image_of(t)
    return max(image.pixels(tile) for tile in range(TILES))


def same_padding(extent: int, window: Window) -> Window:
    """Return a window with the rows in front that padding SAME adds."""
    total = max((-(-extent // window.stride) - 1) * window.stride + window.reach - extent, 0)
    return replace(window, before=total // 2)


def reaches_out(windows: tuple[Window, Window], source: Image, target: Image) -> bool:
    """Tell whether windows reach beyond an image."""
    for window, length, count in zip(windows, (source.height, source.width), (target.height, target.width), strict=True):
        span = window.needed(Span(0, count))
        if span.start < 0 or span.stop > length:
            return True
    return False
