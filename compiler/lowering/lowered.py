"""What code generation hands on, and how it says no."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field

from compiler.graph import Operator
from compiler.lowering.builder import Program
from compiler.mapping import Status, Verdict
from compiler.records import record


@record
class LoweredNetwork:
    """Programs and parameters of one subgraph.

    Attributes
    ----------
    caching:
        Program that fills the cache, None when nothing is cached.
    cached, streamed:
        Parameter blobs of the two programs.
    narrow_bytes:
        Narrow memory used per tile.
    shared:
        Outputs that the host puts together from images: their rows and columns, and rows of the output per pixel.
    views:
        Shapes in which inputs are computed with.
    """

    execution: Program
    caching: Program | None
    cached: bytes
    streamed: bytes
    narrow_bytes: int
    shared: Mapping[int, tuple[tuple[int, int, int], ...]] = field(default_factory=dict)
    views: Mapping[int, tuple[int, ...]] = field(default_factory=dict)


def refusal(op: Operator, reason: str, advice: str = "") -> Verdict:
    """Return the verdict for an operator that code generation does not reach."""
    return Verdict(Status.LIMITATION, f"{op.title}: {reason}", advice)
