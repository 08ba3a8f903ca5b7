"""Makes networks fit narrow memory, and finds the largest input with which they would."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from compiler.facts import NARROW_BYTES, TILES
from compiler.lowering.parameters import round_up
from compiler.lowering.spatial.bands import Strip, Windows
from compiler.lowering.spatial.entry import Entry
from compiler.lowering.spatial.geometry import EVERY, NOWHERE, Image, Window
from compiler.lowering.spatial.infeed import straddles
from compiler.lowering.spatial.layer import Layer
from compiler.lowering.spatial.planning import StripPlanner
from compiler.lowering.spatial.spatial_network import SpatialNetwork

_SLACK = (0, 1 / 24, 1 / 12, 1 / 6)
"""Parts of narrow memory left free in further attempts, when buffers do not fit side by side."""
_MOST_LAYERS = 24
"""Longer networks are tried without bands only: planning takes seconds for each size."""


def in_bands(network: SpatialNetwork) -> SpatialNetwork:
    """Run layers in bands where that makes the network fit, in the end with an image that comes in bands itself.

    The network stays as it is where nothing helps.
    """
    found = _cut(network)
    if found.entries and not fits(found):
        entering = _cut(network.entering())
        if fits(entering) and not _begins_within_words(entering):
            return entering
    return found


def _begins_within_words(network: SpatialNetwork) -> bool:
    """Tell whether images come in bands so narrow that a tile's rows begin and end within words."""
    return any(straddles(scene[layer.target].image, scene[layer.target]) for layer in network.layers
               if isinstance(layer, Entry) for scene in network.scenes_of(layer))


def _cut(network: SpatialNetwork) -> SpatialNetwork:
    found, planner = network, None
    for slack in _SLACK:
        if fits(found):
            return found
        planner = planner or StripPlanner(network.problem)
        strips = planner.choose(int(NARROW_BYTES * (1 - slack)))
        if strips is None:
            break
        found = network.in_strips(strips)
    return found if found.memory.used <= NARROW_BYTES else network


def fits(network: SpatialNetwork) -> bool:
    """Tell whether narrow and wide memory suffice."""
    return network.memory.used <= NARROW_BYTES and all(network.lowest_row(layer) >= 0 for layer in network.layers)


def largest_input(network: SpatialNetwork, written: Callable[[SpatialNetwork], bool]) -> tuple[int, int] | None:
    """Return rows and columns of the largest input of the same shape that fits; None when there is none or it is not known.

    Sizes are tried by bisection, so the result fits and one row more does not.

    Parameters
    ----------
    written:
        Tells whether the program of a network that fits the memory can be written, too. It takes its time, and is asked
        about the largest input that fits the memory first.
    """
    image = network.activations[network.inputs[0]].image
    banded = len(network.layers) <= _MOST_LAYERS

    def size(height: int) -> tuple[int, int]:
        return height, max(1, round(image.width * height / image.height))

    def fitting(height: int) -> SpatialNetwork | None:
        smaller = resized(network, *size(height))
        if smaller is None or straddles(smaller.activations[smaller.inputs[0]].image):
            return None
        smaller = in_bands(smaller) if banded else smaller
        return smaller if fits(smaller) else None

    def good(height: int) -> bool:
        smaller = fitting(height)
        return smaller is not None and written(smaller)

    found = _largest(lambda height: fitting(height) is not None, image.height)
    if found and not good(found):
        found = _largest(good, found)
    return size(found) if found else None


def _largest(good: Callable[[int], bool], bad: int) -> int:
    """Return a good number below a bad one with a bad one behind it, found by bisection; 0 when none is found."""
    low = 0
    while bad - low > 1:
        middle = (low + bad) // 2
        low, bad = (middle, bad) if good(middle) else (low, middle)
    return low


def resized(network: SpatialNetwork, height: int, width: int) -> SpatialNetwork | None:
    """Return the network for another input; None where results do not simply follow its size."""
    if (len(network.inputs) > 1 or not all(map(_follows, network.layers))
            or any(a.is_vector for a in network.activations.values())):
        return None
    source = network.inputs[0]
    images = {source: replace(network.activations[source].image, height=height, width=width)}
    layers = []
    for layer in network.layers:
        found = _resized_layer(network, layer, images)
        if found is None:
            return None
        layers.append(found)
    activations = {t: replace(a, image=images[t], needed=(NOWHERE,) * TILES) for t, a in network.activations.items()}
    entries = tuple(replace(e, size=round_up(activations[e.target].image.elements, 8)) for e in network.entries)
    bare = replace(network, layers=tuple(layers), activations=activations, strips=(), entries=entries)
    return replace(bare.in_strips(tuple(Strip(i, i + 1) for i in range(len(layers)))), strips=())


def _follows(layer: Layer) -> bool:
    return layer.follows_input and not layer.moves and getattr(layer, "lanes", (EVERY, EVERY)) == (EVERY, EVERY)


def _resized_layer(network: SpatialNetwork, layer: Layer, images: dict[int, Image]) -> Layer | None:
    """Note the extent of a layer's result; returns the layer with its padding."""
    old, new = (known.get(layer.sources[0]) for known in (
        {t: a.image for t, a in network.activations.items()}, images))
    target = network.activations[layer.target].image
    if old is None or new is None:
        return None
    lengths = zip(layer.windows_of(layer.sources[0]), (old.height, old.width), (new.height, new.width),
                  (target.height, target.width), strict=True)
    (rows, height), (columns, width) = (_resized_axis(*axis) for axis in lengths)
    if height < 1 or width < 1:
        return None
    images[layer.target] = replace(target, height=height, width=width)
    windows: Windows = (rows, columns)
    return layer.with_windows(windows)


def _resized_axis(window: Window, old: int, new: int, result: int) -> tuple[Window, int]:
    """Return window and results of an axis: SAME padding follows the length, other padding stays."""
    total = max((result - 1) * window.stride + window.reach - old, 0)
    if result == -(-old // window.stride) and window.before == total // 2:
        count = -(-new // window.stride)
        return replace(window, before=max((count - 1) * window.stride + window.reach - new, 0) // 2), count
    return window, (new + window.before + max(total - window.before, 0) - window.reach) // window.stride + 1


__all__ = ["fits", "in_bands", "largest_input", "resized"]
