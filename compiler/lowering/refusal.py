"""How code generation says no."""

from __future__ import annotations

from compiler.errors import CompilationError
from compiler.mapping import Verdict


class LoweringRefusal(CompilationError):  # noqa: N818 - it is an answer, not a fault
    """An operator cannot be emitted; it stays on the CPU and the mapping is done again.

    Attributes
    ----------
    operator:
        Index of the operator.
    verdict:
        Its status and true reason.
    too_large:
        The reason is the size of its activations.
    """

    def __init__(self, operator: int, verdict: Verdict, *, too_large: bool = False) -> None:
        super().__init__(verdict.reason, advice=verdict.advice)
        self.operator = operator
        self.verdict = verdict
        self.too_large = too_large
