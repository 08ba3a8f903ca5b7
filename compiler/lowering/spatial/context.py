"""What is known of a subgraph while its operators are read one after the other."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from compiler.facts import TILES
from compiler.generation import Generation
from compiler.graph import Graph, Operator, Tensor
from compiler.lowering.arithmetic import quantization, zero_point
from compiler.lowering.spatial.gathering import Gather, GatherInPlace, Joint
from compiler.lowering.spatial.geometry import Image, Window
from compiler.lowering.spatial.layer import Layer
from compiler.mapping import Subgraph
from compiler.records import record

if TYPE_CHECKING:
    from compiler.lowering.scalar_softmax import ScalarSoftmax


@record
class Padding:
    """Rows and columns that a PAD in front of a convolution adds before and after."""

    rows: tuple[int, int] = (0, 0)
    columns: tuple[int, int] = (0, 0)


@record
class Share:
    """An image that is part of a result which the host puts together.

    Attributes
    ----------
    number:
        Of the activation.
    per_pixel:
        Rows of the result in each of its pixels, one behind the other.
    """

    number: int
    per_pixel: int


class Context:
    """The subgraph, and which tensors hold the same bytes.

    Parameters
    ----------
    graph, subgraph:
        What the mapping chose.
    generation:
        Whose habits the programs have.
    late:
        Tensors that the host puts together.

    Attributes
    ----------
    padding:
        Padding that was absorbed, by the padded tensor.
    slices:
        Words per tile of the activations that are vectors in slices.
    copies:
        Vectors of which every tile has a copy.
    whole:
        Vectors for which every tile sets memory aside as a whole; their slices lie where they do in them.
    flattened:
        Vectors that are flattened images: their slices begin at the same address on every tile.
    parts:
        Vectors that are parts of others: number of the whole one and the byte where they begin.
    apart:
        Images whose channels lie apart in groups, by the tensor without gaps: number and channels of a group.
    shares:
        Of what the host puts together, by tensor.
    before:
        Layers to come before the one that is being read.
    ending:
        What the scalar core does with the only output on its way to the host.
    """

    def __init__(self, graph: Graph, subgraph: Subgraph, generation: Generation,
                 late: frozenset[int] = frozenset()) -> None:
        self.graph, self.subgraph, self.generation, self.late = graph, subgraph, generation, late
        self.shares: dict[int, tuple[Share, ...]] = {}
        self.padding: dict[int, Padding] = {}
        self.slices: dict[int, tuple[int, ...]] = {}
        self.copies: set[int] = set()
        self.whole: set[int] = set()
        self.flattened: set[int] = set()
        self.parts: dict[int, tuple[int, int]] = {}
        self._laid: set[int] = set()
        self.apart: dict[int, tuple[int, int]] = {}
        self.before: list[Layer] = []
        self.ending: ScalarSoftmax | None = None
        self._origin: dict[int, int] = {}
        self._views: dict[int, Tensor] = {}
        self._between: list[Tensor] = []
        self._gathered: dict[tuple[int, ...], tuple[int, int]] = {}

    def origin(self, tensor: int) -> int:
        """Return the activation that holds the bytes of a tensor."""
        return self._origin.get(tensor, tensor)

    def resolve(self, tensor: int) -> int:
        """Return an activation with the bytes of a tensor that is an image, or a vector on tile 0."""
        origin = self.origin(tensor)
        return self.gather((origin,), 1) if origin in self.slices else origin

    def alias(self, tensor: int, original: int) -> None:
        """Note that a tensor holds the bytes of another."""
        self._origin[tensor] = self.origin(original)

    def see(self, tensor: int, view: Tensor) -> None:
        """Note in which shape an input is computed with."""
        self._views[tensor] = view

    def tensor(self, index: int) -> Tensor:
        """Return a tensor, in the shape in which it is computed with."""
        known = len(self.graph.tensors)
        if index >= known:
            return self._between[index - known]
        return self._views.get(index, self.graph.tensors[index])

    def between(self, like: Tensor, shape: tuple[int, ...], suffix: str) -> Tensor:
        """Return a new tensor between layers of one operator, quantized like another."""
        index = len(self.graph.tensors) + len(self._between)
        self._between.append(replace(like, index=index, shape=shape, name=f"{like.name} {suffix}"))
        return self._between[-1]

    def image(self, index: int) -> Image:
        """Return the extent of a tensor."""
        return image_of(self.tensor(index))

    def join(self, name: str, parts: tuple[int, ...]) -> int | None:
        """Let dense layers whose results on tile 0 nothing else reads write them one behind the other.

        Returns
        -------
        The vector that they make; None where they lie elsewhere or others work with them.
        """
        made = self.graph.producers
        alone = all(t in made and made[t].name == "FULLY_CONNECTED" and len(self.graph.consumers.get(t, ())) == 1
                    and t not in self.graph.outputs for t in parts)
        if not alone or len(set(parts)) < len(parts) or not set(parts) <= self._laid - self.slices.keys():
            return None
        whole = self.between(self.tensor(parts[0]), (1, 4 * sum(map(self.words, parts))), "joined").index
        at = 0
        for t in parts:
            self.parts[t] = whole, at
            at += 4 * self.words(t)
        self.before.append(Joint(name, parts, whole))
        return whole

    def words(self, activation: int) -> int:
        """Return the words of an activation, padding included."""
        if activation in self.slices:
            words = self.slices[activation]
            return words[0] if activation in self.copies else sum(words)
        image = self.image(activation)
        return image.height * image.width * image.padded // 4

    def gather(self, activations: tuple[int, ...], tiles: int, *, in_order: bool = False) -> int:
        """Return a vector of which tiles 0, 1, ... have a copy; made of others, one behind the other."""
        key = (*activations, -int(in_order))
        known = self._gathered.get(key)
        if known is not None and known[1] >= tiles:
            return known[0]
        words = sum(map(self.words, activations))
        on = tuple(words if t < tiles else 0 for t in range(TILES))
        number = self.between(self.tensor(activations[0]), (1, 4 * words), "gathered").index
        names = ", ".join(self.tensor(t).name for t in activations)
        self.before.append(Gather(f"gathering of {names} ({number})", activations, number, in_order))
        self.lie(number, on)
        self.copies |= {number} if tiles > 1 else set()
        self._gathered[key] = number, tiles
        return number

    def gather_in_place(self, tensor: int, tiles: int) -> int | None:
        """Return a vector of which tiles 0, 1, ... have a copy, where the slices of a tensor lie as parts of it.

        Returns
        -------
        None where something else works with them, or where they do not lie in place.
        """
        origin = self.own_slices(tensor)
        if origin is None or origin in self.subgraph.inputs or origin in self.flattened or tensor in self.subgraph.outputs:
            return None
        if self.whole_slices(tensor) is None:
            return None
        words = self.words(origin)
        number = self.between(self.tensor(origin), (1, 4 * words), "gathered").index
        self.before.append(GatherInPlace(f"gathering of {self.tensor(origin).name} ({number})", origin, number))
        self.lie(number, tuple(words if t < tiles else 0 for t in range(TILES)))
        self.copies |= {number} if tiles > 1 else set()
        return number

    def lie(self, activation: int, words: tuple[int, ...], *, flattened: bool = False) -> None:
        """Note the words of a vector on every tile, and whether it is a flattened image."""
        self._laid.add(activation)
        self.flattened |= {activation} if flattened else set()
        if any(words[1:]):
            self.slices[activation] = words

    def whole_slices(self, tensor: int) -> int | None:
        """Set memory aside for the whole vector where the slices of a tensor are that only one operator reads.

        Returns
        -------
        The activation; None where something else works with it, or where it does not lie in slices.
        """
        origin, seen = self.own_slices(tensor), tensor
        while origin is not None:
            if len(self.graph.consumers.get(seen, ())) != 1 or seen in self.graph.outputs:
                return None
            if seen == origin:
                self.whole.add(origin)
                return origin
            seen = self.graph.producers[seen].inputs[0]
        return None

    def own_slices(self, tensor: int) -> int | None:
        """Return the activation whose slices on several tiles make up a vector; None where there are no such slices."""
        origin = self.origin(tensor)
        return None if origin not in self._laid & self.slices.keys() or origin in self.copies else origin

    def pass_on(self, source: int, target: int) -> None:
        """Note that a result lies where its operand does."""
        if source in self.slices:
            self.slices[target] = self.slices[source]
            self.copies |= {target} if source in self.copies else set()

    def alike(self, *tensors: int) -> tuple[int, ...]:
        """Return the activations that hold tensors of one shape, all of them on the same tiles."""
        found = tuple(self.origin(t) for t in tensors)
        return found if len({self.slices.get(t) for t in found}) == 1 else tuple(self.resolve(t) for t in tensors)

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


def same_bytes(graph: Graph, op: Operator) -> bool:
    """Tell whether an operator leaves all bytes as they are: QUANTIZE of the type alone, sums with and PAD by nothing."""
    x, y = graph.tensors[op.inputs[0]], graph.output(op)
    return ((op.name == "QUANTIZE" or _adds_nothing(graph, op) or (op.name == "PAD" and x.shape == y.shape))
            and x.quantization is not None and y.quantization is not None
            and x.quantization.scale == y.quantization.scale and zero_point(x) == zero_point(y))


def _adds_nothing(graph: Graph, op: Operator) -> bool:
    """Tell whether an operator adds or subtracts less than half a step everywhere."""
    if op.name not in ("ADD", "SUB"):
        return False
    (x, constant), y = (graph.tensors[t] for t in op.inputs), graph.output(op)
    if (x.is_constant or not constant.is_constant or x.shape != y.shape or x.type is not y.type
            or x.quantization is None or constant.quantization is None or op.options.fusedActivationFunction):
        return False
    steps = (constant.array().astype(np.int64) - quantization(constant).zero_point) * (
        np.float64(quantization(constant).scale) / np.float64(quantization(x).scale))
    return not np.rint(steps).any()


def most_pixels(t: Tensor) -> int:
    """Return the pixels of the largest part of an image."""
    image = image_of(t)
    return max(image.pixels(tile) for tile in range(TILES))


def same_padding(extent: int, window: Window) -> Window:
    """Return a window with the rows in front that padding SAME adds."""
    total = max((-(-extent // window.stride) - 1) * window.stride + window.reach - extent, 0)
    return replace(window, before=total // 2)
