"""What code generation hands on, and how it says no."""

from __future__ import annotations

from dataclasses import dataclass

from compiler.graph import Operator
from compiler.lowering.builder import Program
from compiler.mapping import Status, Verdict


@dataclass(frozen=True)
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
    """

    execution: Program
    caching: Program | None
    cached: bytes
    streamed: bytes
    narrow_bytes: int


def refusal(op: Operator, reason: str, advice: str = "") -> Verdict:
    """Return the verdict for an operator that code generation does not reach."""
    return Verdict(Status.LIMITATION, f"{op.title}: {reason}", advice)
