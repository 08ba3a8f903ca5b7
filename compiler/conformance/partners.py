"""Models that were compiled together with the one under test: which they are, in which order, and what is not at hand.

Executables that share a caching token share the memory. Whatever of such a set is at hand is planned together. The order
is not in the files; the one is taken that explains them best. Where their cached rows lie between rows that nobody at hand
uses, the rest of the set is absent: then the plan is also made beside those rows, which are given, not compared.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, permutations
from pathlib import Path

import numpy as np
import numpy.typing as npt

from compiler.conformance.plan import CachedTensor, Comparison, Member, cached_tensors, compare_plans, official_staging
from compiler.facts import TILES, WIDE_ROWS
from compiler.graph import read_model
from compiler.memory.sharing import Room, Sharing, stretches
from compiler.package import Package
from compiler.package.container import packages_of

SUFFIX = "_edgetpu.tflite"
_MOST_PERMUTED = 4
"""Sets of more models are tried in the order of their rows only."""

Files = tuple[Path, Path]
"""A source model and the compiled one."""


def source_of(compiled: Path) -> Path:
    """Return where the source of a compiled model lies."""
    return compiled.with_name(compiled.name[:-len(SUFFIX)] + ".tflite")


def find_partners(pairs: Iterable[Files]) -> dict[Path, tuple[Files, ...]]:
    """Find the other models of the same caching token, among the pairs and in their folders; by compiled model."""
    asked = [(source.resolve(), compiled.resolve()) for source, compiled in pairs]
    beside = (found for folder in {compiled.parent for _, compiled in asked} for found in sorted(folder.glob(f"*{SUFFIX}")))
    files = dict.fromkeys([*asked, *((source_of(found), found) for found in beside if source_of(found).exists())])
    by_token: dict[int, list[Files]] = {}
    for one in files:
        by_token.setdefault(_token(one[1]), []).append(one)
    return {compiled: tuple(other for other in members if other[1] != compiled)
            for token, members in by_token.items() if token for _, compiled in members}


def _token(compiled: Path) -> int:
    """Return a model's caching token; 0 where it cannot be read, which its own checks will say."""
    try:
        return packages_of(read_model(compiled))[0][1].execution.token
    except Exception:  # any broken file
        return 0


@dataclass(frozen=True)
class Setting:
    """How a set of models was planned.

    Attributes
    ----------
    order:
        Numbers of the models, in the order of the command line; the one under test is number 0.
    sharing:
        How they share the memory.
    comparisons:
        Per model, in the order of their numbers: the plans of its subgraphs beside the official ones.
    """

    order: tuple[int, ...]
    sharing: Sharing
    comparisons: tuple[tuple[Comparison, ...], ...]

    @property
    def rows_taken(self) -> int:
        """Rows of models that are not at hand, below the highest row in use."""
        room = self.sharing.room
        if room is None:
            return 0
        top = max(stop for tile in room for _, stop in tile)
        return TILES * top - sum(stop - first for tile in room for first, stop in tile)


def settle(models: Sequence[Sequence[Member]]) -> Setting:
    """Plan models that share a token, and find how the official compiler may have been called."""
    jointly = models[0][0].generation.serves_jointly
    room = room_beside([member.package for members in models for member in members])
    settings = []
    for sharing in (Sharing(jointly), *([Sharing(jointly, room)] if room is not None else [])):
        settings += [_planned(models, order, sharing) for order in _orders(models)]
        if all(c.equal for c in chain(*max(settings, key=_explained).comparisons)):
            break
    return max(settings, key=_explained)


def _explained(setting: Setting) -> tuple[bool, int, int]:
    own, others = setting.comparisons[0], setting.comparisons[1:]
    return (all(c.equal for c in own), sum(all(c.equal for c in other) for other in others),
            sum(c.identical for c in chain(*setting.comparisons)))


def _planned(models: Sequence[Sequence[Member]], order: tuple[int, ...], sharing: Sharing) -> Setting:
    found = iter(compare_plans([member for number in order for member in models[number]], sharing))
    by_number = {number: tuple(next(found) for _ in models[number]) for number in order}
    return Setting(order, sharing, tuple(by_number[number] for number in range(len(models))))


def _orders(models: Sequence[Sequence[Member]]) -> list[tuple[int, ...]]:
    """Return the orders to try, that of their rows first: later models lie higher."""
    lowest = [float(np.mean([row for tensor in _tensors([m.package for m in members])
                             for _, row, _ in tensor.segments] or [0])) for members in models]
    by_rows = tuple(sorted(range(len(models)), key=lambda number: lowest[number]))
    return list(permutations(by_rows)) if len(models) <= _MOST_PERMUTED else [by_rows]


def overlap(one: Iterable[Package], other: Iterable[Package]) -> bool:
    """Tell whether two models lie on the same rows, so that they cannot have shared the memory."""
    return bool((_rows(one) & _rows(other)).any())


def room_beside(packages: Sequence[Package]) -> Room | None:
    """Return the rows that are known to be left by models which are not at hand; None when there are no such models.

    A model alone fills tiles from the lowest row up, or from its staging down. Rows below cached ones that belong to
    nobody, where the cached ones do not reach up to the staging, are those of others; so are all tiles without any.
    """
    rows, staging = _rows(packages), min(map(official_staging, packages))
    own = [stretches(tile) for tile in rows]
    if not any(first > 0 and stop != staging for tile in own for first, stop in tile):
        return None
    top = max(stop for tile in own for _, stop in tile)
    return tuple((*tile[:-1], (tile[-1][0], top)) if tile else () for tile in own)


def _rows(packages: Iterable[Package]) -> npt.NDArray[np.bool_]:
    """Return which rows of which tile hold cached parameters."""
    rows = np.zeros((TILES, WIDE_ROWS), bool)
    for tensor in _tensors(packages):
        for tile, first, count in tensor.segments:
            rows[tile, first:first + count] = True
    return rows


def _tensors(packages: Iterable[Package]) -> list[CachedTensor]:
    return [tensor for package in packages if package.caching is not None for tensor in cached_tensors(package.caching)]
