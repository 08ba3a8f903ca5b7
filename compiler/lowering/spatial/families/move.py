"""Words that move to other tiles in another order: TRANSPOSE, SPACE_TO_DEPTH, RESHAPE of images.

Every owner sends the words that belong together on another tile over the ring. Where parts of words
move apart, the official compiler's way with channels is followed: a convolution of zeros and ones
gives every part words of its own before, and closes the gaps behind.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from itertools import pairwise
from math import gcd
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from compiler.facts import TILES
from compiler.graph import Tensor
from compiler.lowering.builder import LAYER_COUNTERS
from compiler.lowering.dense import SEND_ROW
from compiler.lowering.spatial.emission import Emission
from compiler.lowering.spatial.far_pixels import Stretch, Transfer, send
from compiler.lowering.spatial.geometry import Activation, Image, Layout, many
from compiler.lowering.spatial.layer import Activations, Layer
from compiler.lowering.spatial.origins import PADDING, Origins
from compiler.records import record

MOST_TRANSFERS = 2000
"""Transfers of one operator at most; an instruction stream has room for about 3000."""
Numbers = npt.NDArray[np.int64]


@record
class Move(Layer):
    """A move ready for code generation.

    Attributes
    ----------
    origins:
        Shape (rows, columns, words) of the result: number of the operand's word.
    """

    name: str
    source: int
    target: int
    origins: Origins

    banded: ClassVar[bool] = False

    @property
    def sources(self) -> tuple[int, ...]:
        """The operand."""
        return (self.source,)

    def objection(self, activations: Activations) -> tuple[str, str] | None:
        """Too many transfers do not fit an instruction stream."""
        count = len(self._transfers(activations))
        if count <= MOST_TRANSFERS:
            return None
        return (f"moves elements between tiles in {count} pieces, the limit is {MOST_TRANSFERS}.",
                "Use a smaller tensor, or move it where it has more channels.")

    def lowest_row(self, scenes: Sequence[Activations], top: int) -> int:
        """Return the row from which words are sent."""
        del scenes, top
        return SEND_ROW

    def emit(self, emission: Emission, activations: Activations) -> None:
        """Send all words to their places."""
        emission.b.barrier(reset=LAYER_COUNTERS)
        source, target = (activations[t].address // 4 for t in (self.source, self.target))
        send(emission.b, [transfer.behind(source, target) for transfer in self._transfers(activations)])
        emission.settled()

    def _transfers(self, activations: Activations) -> list[Transfer]:
        """Return the transfers between images at address zero; they are the same wherever the images lie."""
        source, target = (activations[t].at(0) for t in (self.source, self.target))
        layouts = source.layout, target.layout
        if layouts not in self._known:
            self._known[layouts] = transfers(source, target, self.origins)
        return self._known[layouts]

    @cached_property
    def _known(self) -> dict[tuple[Layout, Layout], list[Transfer]]:
        """Those found by now."""
        return {}


def transfers(source: Activation, target: Activation, origins: Origins) -> list[Transfer]:
    """Return what tiles send each other so that every word of a result comes from its origin."""
    sent = [a.reshape(-1)[origins.reshape(-1)] for a in _places(source)]
    got = [a.reshape(-1) for a in _places(target)]
    order = np.lexsort((got[1], got[0], sent[0]))
    tiles = np.stack([sent[0], got[0]], 1)[order]
    at = np.stack([sent[1], got[1]], 1)[order]
    joins = (tiles[1:] == tiles[:-1]).all(1) & (at[1:] - at[:-1] == 1).all(1)
    edges = np.flatnonzero(np.concatenate([[True], ~joins, [True]]))
    runs = [_Run(tuple(tiles[a]), tuple(at[a]), ((b - a, 1, 1),)) for a, b in pairwise(edges.tolist())]
    for _ in range(_LEVELS):
        runs = _grouped(runs)
    return [run.transfer for run in runs]


_LEVELS = 2


@record
class _Run:
    """Words that move together: tiles and addresses of sender and receiver, counts with distances on both."""

    tiles: tuple[int, int]
    at: tuple[int, int]
    dims: tuple[tuple[int, int, int], ...]

    @property
    def transfer(self) -> Transfer:
        """The instruction's view."""
        source, target = (Stretch(int(self.at[side]), tuple(many([(int(d[0]), int(d[1 + side])) for d in self.dims])) or (
            (1, 1),)) for side in (0, 1))
        return Transfer(int(self.tiles[0]), source, {int(self.tiles[1]): target})

    def distance(self, other: _Run) -> tuple[int, int] | None:
        """Return how far another run of the same form lies behind; None for one of another form."""
        if self.tiles != other.tiles or self.dims != other.dims:
            return None
        return other.at[0] - self.at[0], other.at[1] - self.at[1]


def _grouped(runs: Sequence[_Run]) -> list[_Run]:
    """Join runs of one form that follow each other at equal distances."""
    found: list[_Run] = []
    i = 0
    while i < len(runs):
        count, distance = 1, runs[i].distance(runs[i + 1]) if i + 1 < len(runs) else None
        while distance is not None and i + count < len(runs) and runs[i + count - 1].distance(runs[i + count]) == distance:
            count += 1
        step = (count, *distance) if distance is not None and count > 1 else (1, 0, 0)
        found.append(replace(runs[i], dims=(*runs[i].dims, step)))
        i += count
    return found


def _places(activation: Activation) -> tuple[Numbers, Numbers]:
    """Tile and narrow word address of every word of an image, shape (rows, columns, words)."""
    image = activation.image
    words = image.padded // 4
    tiles, at = (np.zeros((image.height, image.width, words), np.int64) for _ in range(2))
    for tile in range(TILES):
        rows, columns = image.own(tile)
        slab = activation.slab(tile)
        y, x, w = np.ogrid[rows.start:rows.stop, columns.start:columns.stop, :words]
        part = np.s_[rows.start:rows.stop, columns.start:columns.stop]
        tiles[part] = tile
        at[part] = (activation.address + slab.offset(0, 0) + y * slab.pitch + x * slab.pixel) // 4 + w
    return tiles, at


def granule_of(origins: Origins, channels: int) -> int:
    """Return how many neighbouring channels move together at least.

    Parameters
    ----------
    channels:
        Of the operand.

    Examples
    --------
    >>> granule_of(np.arange(24).reshape(1, 2, 12), 8)
    4
    """
    own = origins.shape[-1]
    for size in range(gcd(own, channels), 1, -1):
        if own % size == 0 and channels % size == 0:
            parts = origins.reshape(-1, size)
            if (parts[:, 0] % size == 0).all() and (parts - parts[:, :1] == np.arange(size)).all():
                return size
    return 1


def word_origins(origins: Origins, granule: int) -> Origins:
    """Return the origins of words when every granule has words of its own."""
    words = -(-granule // 4)
    rows, columns, channels = origins.shape
    first = origins.reshape(rows, columns, channels // granule, granule)[..., 0] // granule
    return (first[..., None] * words + np.arange(words)).reshape(rows, columns, -1)


def gapped(channels: int, granule: int) -> list[int]:
    """Return the channel that each channel comes from when granules get words of their own.

    Examples
    --------
    >>> gapped(4, 2)
    [0, 1, -1, -1, 2, 3, -1, -1]
    """
    padded = -(-granule // 4) * 4
    return [g * granule + c if c < granule else PADDING for g in range(channels // granule) for c in range(padded)]


def closed(channels: int, granule: int) -> list[int]:
    """Return the channel that each channel comes from when gaps are closed again.

    Examples
    --------
    >>> closed(4, 2)
    [0, 1, 4, 5]
    """
    padded = -(-granule // 4) * 4
    return [g * padded + c for g in range(channels // granule) for c in range(granule)]


def same_words(granule: int, image: Image) -> bool:
    """Tell whether granules of an image have words of their own as it is."""
    return granule % 4 == 0 or granule == image.channels


def with_gaps(tensor: Tensor, granule: int) -> tuple[int, ...]:
    """Return the shape of a tensor whose granules have words of their own."""
    *outer, channels = (1, *tensor.shape)
    return (*outer, channels // granule * (-(-granule // 4) * 4))


__all__ = ["Move", "closed", "gapped", "granule_of", "same_words", "transfers", "with_gaps", "word_origins"]
