"""A network of layers as it is to be written: its activations, its strips, its rows of wide memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import field, replace
from functools import cached_property
from itertools import accumulate
from typing import TYPE_CHECKING

from compiler.facts import TILES, WIDE_ROWS
from compiler.lowering.dense import (
    RECEIVE_ROW,
    SEND_ROW,
    input_rows,
)
from compiler.lowering.pieces import ROWS
from compiler.lowering.spatial.bands import Reading, Strip, stored_needs, views
from compiler.lowering.spatial.buffers import stack_wide
from compiler.lowering.spatial.entry import Entry
from compiler.lowering.spatial.geometry import NOWHERE, Activation, Vector
from compiler.lowering.spatial.halo import too_far
from compiler.lowering.spatial.infeed import wide_rows
from compiler.lowering.spatial.layer import Activations, Layer, most_pixels
from compiler.lowering.spatial.narrow import Memory, place, takeable
from compiler.lowering.spatial.planning import Problem, Work
from compiler.records import record

if TYPE_CHECKING:
    from compiler.lowering.scalar_softmax import ScalarSoftmax


@record
class SpatialNetwork:
    """Operators in their order, and the activations between them.

    Attributes
    ----------
    activations:
        Number -> image; the numbers are the tensors of the graph.
    inputs:
        Inputs, in their order.
    outputs:
        Output of the graph -> the activation that holds it, or those that hold it together.
    titles:
        Title of the operator that a layer serves, by name of the layer.
    strips:
        Layers that run in bands together, and those between them; empty when no layer runs in bands.
    ending:
        What the scalar core does with the only output on its way to the host.
    entries:
        Layers by which the inputs could come in bands.
    arriving:
        Names of layers whose parameters arrive while they are used, besides those that cannot be cached.
    parts:
        Vectors that are parts of others: number of the whole one and the byte where they begin.
    """

    layers: tuple[Layer, ...]
    activations: Mapping[int, Activation]
    inputs: tuple[int, ...]
    outputs: Mapping[int, tuple[int, ...]]
    titles: Mapping[str, str]
    strips: tuple[Strip, ...] = ()
    ending: ScalarSoftmax | None = None
    entries: tuple[Entry, ...] = ()
    arriving: frozenset[str] = frozenset()
    parts: Mapping[int, tuple[int, int]] = field(default_factory=dict)

    @cached_property
    def memory(self) -> Memory:
        """Its narrow memory, of which there may be too little."""
        return place(self)

    @property
    def entered(self) -> tuple[int, ...]:
        """Inputs that come as a whole, before the first layer."""
        made = {layer.target for layer in self.layers}
        return tuple(t for t in self.inputs if t not in made)

    def entering(self) -> SpatialNetwork:
        """Return the same network with layers by which its inputs come."""
        return replace(self, layers=(*self.entries, *self.layers), entries=(), strips=())

    @cached_property
    def readings(self) -> tuple[Reading, ...]:
        """What each layer reads."""
        return tuple(layer.reading for layer in self.layers)

    @cached_property
    def _places(self) -> dict[int, int]:
        """Place of every layer object; layers are not compared by their parameters."""
        return {id(layer): i for i, layer in enumerate(self.layers)}

    @cached_property
    def begins(self) -> tuple[int, ...]:
        """First step of each layer, and the step behind the last one."""
        return tuple(accumulate((layer.steps for layer in self.layers), initial=1))

    @property
    def kept(self) -> frozenset[int]:
        """Activations that something behind the last layer reads."""
        return frozenset(t for parts in self.outputs.values() for t in parts)

    @cached_property
    def cuts(self) -> tuple[Strip, ...]:
        """All layers as strips."""
        return self.strips or tuple(Strip(i, i + 1) for i in range(len(self.layers)))

    @cached_property
    def _whole(self) -> tuple[bool, ...]:
        """Per layer: it does not run in bands."""
        return tuple(strip.whole for strip in self.cuts for _ in strip.layers)

    @cached_property
    def _scenes(self) -> tuple[tuple[Activations, ...], ...]:
        """Per layer: the activations as it sees them, band after band."""
        found: list[tuple[Activations, ...]] = []
        for strip in self.cuts:
            scenes = (self.activations,) if strip.whole else tuple(self.scenes(strip, self.activations))
            found += [scenes] * len(strip.layers)
        return tuple(found)

    def scenes(self, strip: Strip, activations: Mapping[int, Activation]) -> Iterator[dict[int, Activation]]:
        """Yield, band after band, the activations as the layers of a strip see them."""
        return views(self.readings, activations, strip, self.kept)

    def in_strips(self, strips: tuple[Strip, ...]) -> SpatialNetwork:
        """Return the same network with some layers in bands."""
        needed = stored_needs(self.readings, self.activations, strips, self.kept)
        activations = {t: replace(a, needed=needed.get(t, (NOWHERE,) * TILES)) for t, a in self.activations.items()}
        return replace(self, activations=activations, strips=strips)

    @property
    def problem(self) -> Problem:
        """What decides about bands."""
        return Problem(self.readings, tuple(self._work(layer) for layer in self.layers), self.activations, self.entered,
                       self.kept)

    def _work(self, layer: Layer) -> Work:
        target = self.activations[layer.target]
        return Work(layer.effort(target), takeable(layer, self.activations), layer.banded)

    def scenes_of(self, layer: Layer) -> Sequence[Activations]:
        """Return the images as a layer sees them, band after band."""
        return self._scenes[self._places[id(layer)]]

    def pixels(self, layer: Layer) -> int:
        """Pixels of the result that a tile computes at once, at most."""
        return most_pixels(layer, self.scenes_of(layer))

    def top_row(self, layer: Layer) -> int:
        """Wide row from which on a layer finds them taken: the one behind it may already be filling its own.

        What is pushed down so lies below the identity matrix, too.
        """
        at = self._places[id(layer)] + 1
        on_top = self._on_top and at - 1 in self._with_identity
        highest = WIDE_ROWS - int(on_top or (layer.on_identity and not self._with_identity))
        if at == len(self.layers) or not (self._whole[at - 1] and self._whole[at]):
            return highest
        early = self.layers[at].first_row_early(self.activations)
        if early < WIDE_ROWS and at - 1 in self._with_identity:
            early = min(early, self.identity_row)
        return min(highest, early)

    @cached_property
    def _with_identity(self) -> range:
        """Layers from the first to the last that shares the identity matrix, strips as a whole."""
        users = [i for i, layer in enumerate(self.layers) if layer.on_identity]
        if not users or (self._on_top and not all(layer.below_top for layer in self.layers[users[0]:users[-1] + 1])):
            return range(0)
        strips = [s for s in self.cuts if s.first <= users[-1] and s.stop > users[0]]
        return range(strips[0].first, strips[-1].stop)

    @cached_property
    def _on_top(self) -> bool:
        """The identity matrix lies in the topmost row, and the rest below."""
        return any(layer.claims_identity_row for layer in self.layers)

    @property
    def identities(self) -> dict[str, int]:
        """Row of the identity matrix, by the names of the layers that share it."""
        return {self.layers[i].name: self.identity_row for i in self._with_identity if self.layers[i].on_identity}

    @cached_property
    def identity_row(self) -> int:
        """Wide row of the identity matrix: below all that is used while it lies there."""
        if self._on_top:
            return WIDE_ROWS - 1
        layers = [self.layers[i] for i in self._with_identity]
        rows = [layer.lowest_row(self.scenes_of(layer), WIDE_ROWS) for layer in layers]
        return min([*rows, *map(self._arrival_row, layers), self._far_row if layers else WIDE_ROWS]) - 1

    @cached_property
    def _far_row(self) -> int:
        """Lowest wide row through which pixels go that come from other tiles than neighbours."""
        return SEND_ROW if any(too_far(a) for a in self.activations.values()) else WIDE_ROWS

    def _arrival_row(self, layer: Layer) -> int:
        """Lowest wide row through which parameters of a layer arrive while they are used."""
        uncached = layer.name in self.arriving or not all(p.tensor.cacheable for p in layer.parameters)
        pushed = self._on_top and self._places[id(layer)] in self._with_identity
        return layer.arrival_row - int(pushed) if uncached else WIDE_ROWS

    def lowest_row(self, layer: Layer) -> int:
        """Lowest wide row that a layer uses; negative when there are not enough."""
        at = self._places[id(layer)]
        if at not in self._lowest_rows:
            self._lowest_rows[at] = layer.lowest_row(self.scenes_of(layer), self.top_row(layer))
        return self._lowest_rows[at]

    @cached_property
    def _lowest_rows(self) -> dict[int, int]:
        """Those known by now, by place of the layer."""
        return {}

    def input_row(self, number: int) -> int:
        """Return the first wide row of those that an input vector passes through."""
        return stack_wide(self._entry_rows(number))[0]

    def _entry_rows(self, number: int) -> list[int]:
        """Return how many wide rows an input vector needs, and then what gathers it while it may still be arriving."""
        a = self.activations[number]
        rows = [input_rows(a.image.channels)]
        return [*rows, ROWS] if isinstance(a, Vector) and a.in_place else rows

    @cached_property
    def staging_row(self) -> int:
        """Lowest wide row that the program uses for itself."""
        rows = [self.identity_row, *(self.lowest_row(layer) for layer in self.layers)]
        rows += [self._arrival_row(layer) for layer in self.layers]
        for t in self.entered:
            a = self.activations[t]
            rows += stack_wide(self._entry_rows(t)) if a.is_vector else wide_rows(a.image)
        return min([*rows, self._far_row, RECEIVE_ROW])
