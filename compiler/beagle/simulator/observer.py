"""What a machine tells those who watch it: every step of every engine, in the order it took them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from compiler.beagle.isa import Instruction

if TYPE_CHECKING:
    from compiler.beagle.simulator.streams import ScalarTask
    from compiler.beagle.simulator.task import TileTask


class Observer:
    """Watches a run; by default it does nothing."""

    def loaded(self, program: Sequence[Instruction]) -> None:
        """The streams of a program were fetched; they run now."""

    def stepped(self) -> None:
        """The scalar core executed an instruction."""

    def transferred(self, tag: int, size: int) -> None:
        """The scalar core started a host transfer of so many bytes (tag: see ``DmaTag``)."""

    def issued(self, item: Instruction | TileTask, tiles: Sequence[int]) -> None:
        """The scalar core handed a tile instruction, or a fence, to tiles."""

    def dispatched(self, task: TileTask, tile: int) -> None:
        """A tile put an instruction into the queue of its engine."""

    def fenced(self, ins: Instruction, tile: int) -> None:
        """A tile passes a fence; its counters are not reset yet."""

    def queued(self, task: ScalarTask, queue: str) -> None:
        """The scalar core started one of its engines."""

    def scalar_fenced(self, ins: Instruction) -> None:
        """The scalar core passes a fence; its counters are not reset yet."""

    def runs(self, task: TileTask, tiles: Sequence[int], start: int, stop: int) -> None:
        """Tiles are about to run positions start..stop of an instruction."""

    def ran(self, task: TileTask, tiles: Sequence[int], start: int, stop: int) -> None:
        """Tiles ran positions start..stop of an instruction; its signals are not raised yet."""

    def ran_scalar(self, task: ScalarTask, start: int, stop: int) -> None:
        """A scalar engine ran positions start..stop; its signals are not raised yet."""
