"""Operators that are several operations in a row, with images in between that nobody else sees."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from compiler.facts import TILES, WIDE_ROWS
from compiler.lowering.spatial.bands import Windows
from compiler.lowering.spatial.emission import Emission
from compiler.lowering.spatial.geometry import NOWHERE, Activation, Slab
from compiler.lowering.spatial.layer import Activations, Effort, Layer, most_pixels
from compiler.records import record

FIRST, SECOND = -1, -2
"""Numbers of the images in between; they have the shape of the result."""


@record
class Composite(Layer):
    """Operations that run one after the other.

    Attributes
    ----------
    parts:
        Layers of the same name; numbers below zero are images in between.
    """

    name: str
    parts: tuple[Layer, ...]
    target: int

    @property
    def sources(self) -> tuple[int, ...]:
        """What the operations read from outside, each once."""
        return tuple(dict.fromkeys(s for part in self.parts for s in part.sources if s >= 0))

    def windows_of(self, source: int) -> Windows:
        """Return the windows of the operation that reads it."""
        return next(part for part in self.parts if source in part.sources).windows_of(source)

    @property
    def streamed(self) -> bytes:
        """Parameters of all operations."""
        return b"".join(part.streamed for part in self.parts)

    def effort(self, target: Activation) -> Effort:
        """Return the sum of the efforts, and the bytes of the images in between."""
        efforts = [part.effort(target) for part in self.parts]
        scratch = len(self._between) * target.image.padded + max(e.scratch for e in efforts)
        return Effort(sum(e.steps for e in efforts), sum(e.rows for e in efforts), min(e.most_pixels for e in efforts),
                      scratch)

    def lowest_row(self, scenes: Sequence[Activations], top: int) -> int:
        """Return the lowest row of any operation."""
        inner = [self._scene(scene, scenes, 0) for scene in scenes]
        return min(part.lowest_row(inner, min(top, WIDE_ROWS - int(part.on_identity))) for part in self.parts)

    def constant_bytes(self, scenes: Sequence[Activations]) -> int:
        """Return the bytes of the images in between and of what the operations build."""
        return self._size(scenes) * len(self._between) + self._building(scenes)

    def room_bytes(self, scenes: Sequence[Activations]) -> int:
        """Return the bytes of the operation with the largest room."""
        inner = [self._scene(scene, scenes, 0) for scene in scenes]
        return max(part.room_bytes(inner) for part in self.parts)

    @property
    def _between(self) -> list[int]:
        return sorted({part.target for part in self.parts if part.target < 0}, reverse=True)

    def _building(self, scenes: Sequence[Activations]) -> int:
        inner = [self._scene(scene, scenes, 0) for scene in scenes]
        return max(part.constant_bytes(inner) for part in self.parts)

    def _size(self, scenes: Sequence[Activations]) -> int:
        """Bytes of an image in between."""
        framed = max((frame.size for scene in scenes for number in self._between for frame in self._frames(scene, number)),
                     default=0)
        return max(framed, most_pixels(self, scenes) * scenes[0][self.target].image.padded)

    def _frames(self, activations: Activations, number: int) -> tuple[Slab, ...]:
        """Per tile the slab of an image in between: that of the activation with which it is walked, if there is one."""
        beside = next((s for part in self.parts if part.aligned and number in part.sources for s in part.sources
                       if s >= 0), None)
        if beside is not None:
            return tuple(activations[beside].slab(t) for t in range(TILES))
        target = activations[self.target]
        return tuple(Slab(*target.own(t), target.image.padded) for t in range(TILES))

    def _scene(self, activations: Activations, scenes: Sequence[Activations], base: int) -> dict[int, Activation]:
        """Add the images in between, the first at an address."""
        target, size = activations[self.target], self._size(scenes)
        found = dict(activations)
        for i, number in enumerate(self._between):
            found[number] = replace(target, address=base + i * size, frames=self._frames(activations, number),
                                    needed=(NOWHERE,) * TILES)
        return found

    def emit(self, emission: Emission, activations: Activations) -> None:
        """Write the operations, one after the other."""
        scenes = [activations]
        scene = self._scene(activations, scenes, emission.constants[self.name] + self._building(scenes))
        for part in self.parts:
            part.emit(emission, scene)
