"""What an operator on images offers to memory planning, bands and code generation.

One module of :mod:`compiler.lowering.spatial.families` per family of operators implements it; the
rest of the package knows layers only through this interface.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

from compiler.facts import WIDE_ROWS
from compiler.lowering.caching_program import CacheSegment
from compiler.lowering.spatial.bands import Reading, Windows
from compiler.lowering.spatial.buffers import Lifetime
from compiler.lowering.spatial.emission import Emission, Leaves
from compiler.lowering.spatial.geometry import IDENTITY, Activation, reaches_out
from compiler.memory.demand import ParameterTensor
from compiler.memory.placement import Piece
from compiler.records import record

Activations = Mapping[int, Activation]
"""Images by the number of their tensor, as a layer sees them."""
NO_LIMIT = 1 << 30


@record
class Effort:
    """What a layer costs where it may run in bands.

    Attributes
    ----------
    steps:
        Cycles per pixel of its result.
    rows:
        Rows of weights that every run brings over the ring.
    most_pixels:
        Pixels of a tile at most, for wide memory.
    scratch:
        Bytes of narrow memory per pixel of its result that it needs besides.
    fixed:
        Bytes of narrow memory that it needs besides, whatever it computes.
    """

    steps: int
    rows: int = 0
    most_pixels: int = NO_LIMIT
    scratch: int = 0
    fixed: int = 0


@record
class Stored:
    """Parameters of a layer that lie in the file.

    Attributes
    ----------
    tensor:
        What they ask of on-chip memory; their name is unique in the network.
    blob:
        Bytes in the order of the file.
    segments:
        Where the blob's lines go; takes the pieces and whether dense parameters lie on the ring.
    only_cached:
        Why they cannot come from the host with every inference; empty when they can.
    """

    tensor: ParameterTensor
    blob: bytes
    segments: Callable[[Sequence[Piece], bool], list[CacheSegment]]
    only_cached: str = ""


class Layer(ABC):
    """An operator on images, ready for code generation.

    Implementations are frozen dataclasses.

    Attributes
    ----------
    name:
        Title of the operator.
    target:
        Number of the activation that it makes.
    banded:
        It may run in bands.
    aligned:
        Operands are walked together: rows of their slabs have the same length.
    moves:
        Results lie on other tiles than operands, whatever the windows are.
    takes_over:
        The result may take over the memory of an operand.
    early_constants:
        What it builds in narrow memory is written while the layer before still computes.
    on_identity:
        It multiplies with the identity matrix that layers of a network share.
    claims_identity_row:
        The identity matrix of its network lies in the topmost row, where it builds its own.
    below_top:
        It uses no wide rows from the given top on.
    follows_input:
        The extent of its result simply follows that of the network's input.
    leaves:
        What it leaves behind for a layer that collects a vector.
    """

    name: str
    target: int
    banded: ClassVar[bool] = True
    aligned: ClassVar[bool] = False
    moves: ClassVar[bool] = False
    takes_over: ClassVar[bool] = False
    early_constants: ClassVar[bool] = False
    on_identity: ClassVar[bool] = False
    claims_identity_row: ClassVar[bool] = False
    below_top: ClassVar[bool] = False
    follows_input: ClassVar[bool] = False
    leaves: ClassVar[Leaves] = Leaves.IMAGE

    @property
    @abstractmethod
    def sources(self) -> tuple[int, ...]:
        """Numbers of the activations that it reads."""

    def windows_of(self, source: int) -> Windows:
        """Return how output rows and columns read those of an operand."""
        del source
        return IDENTITY, IDENTITY

    def with_windows(self, windows: Windows) -> Layer:
        """Return the layer with other windows on its operand, if it has any of its own."""
        del windows
        return self

    def fill(self, source: int) -> int | None:
        """Return the value that must stand beyond the border of an operand; None when it does not matter."""
        del source
        return None

    def exchange(self, emission: Emission, activations: Activations, source: int) -> None:
        """Bring every tile the borders of an operand that it reads."""
        image, out = activations[source].image, activations[self.target].image
        fill = self.fill(source) if reaches_out(self.windows_of(source), image, out) else None
        emission.exchange(source, activations[source], fill)

    @property
    def convolutions(self) -> tuple[Layer, ...]:
        """Layers with parameters in it."""
        return ()

    @property
    def reading(self) -> Reading:
        """What it reads, and through which windows."""
        return Reading(self.target, tuple((s, self.windows_of(s)) for s in self.sources), self.aligned)

    @property
    def streamed(self) -> bytes:
        """Parameters that are never cached: lines that come with every inference, in the order of use."""
        return b""

    def effort(self, target: Activation) -> Effort:
        """Return what it costs."""
        return Effort(target.image.padded // 4)

    def objection(self, activations: Activations) -> tuple[str, str] | None:
        """Say why it cannot be generated for these images, and what to do about it; None when it can."""
        del activations
        return None

    @abstractmethod
    def lowest_row(self, scenes: Sequence[Activations], top: int) -> int:
        """Return the lowest wide row in use; negative when there are not enough.

        Parameters
        ----------
        scenes:
            The images, band after band.
        top:
            Wide rows from here on are taken.
        """

    def first_row_early(self, activations: Activations) -> int:
        """Return the wide row from which on it writes while the layer before still computes."""
        del activations
        return WIDE_ROWS

    @property
    def parameters(self) -> tuple[Stored, ...]:
        """What it has in the file, in the order of the file."""
        return tuple(p for layer in self.convolutions for p in layer.parameters)

    @property
    def arrival_row(self) -> int:
        """Lowest wide row in use when its parameters arrive while they are used."""
        return WIDE_ROWS

    @property
    def steps(self) -> int:
        """How many steps of the program it takes."""
        return 1

    def reads_until(self, source: int) -> int:
        """Return its last step that reads an operand."""
        del source
        return self.steps - 1

    @property
    def writes_from(self) -> int:
        """Its first step that writes the result."""
        return 0

    @property
    def buffers(self) -> Mapping[str, Lifetime]:
        """Narrow memory that some of its steps need besides."""
        return {}

    def constant_bytes(self, scenes: Sequence[Activations]) -> int:
        """Return the narrow memory it needs for what it builds for itself."""
        del scenes
        return 0

    def reach(self, activations: Activations, source: int) -> int:
        """Return the bytes of an operand's memory that it reads, those behind the operand included."""
        return activations[source].size

    def room_bytes(self, scenes: Sequence[Activations]) -> int:
        """Return the narrow memory for its steps in between: as large as activations, it finds its place among them."""
        del scenes
        return 0

    @abstractmethod
    def emit(self, emission: Emission, activations: Activations) -> None:
        """Write the instructions."""


def most_pixels(layer: Layer, scenes: Sequence[Activations]) -> int:
    """Return the pixels of the result that a tile computes at once, at most."""
    return max(scene[layer.target].most_pixels for scene in scenes)
