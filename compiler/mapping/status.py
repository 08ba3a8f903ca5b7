"""The status sentences of the official compiler, in one place."""

from __future__ import annotations

from enum import Enum

from compiler.records import record


class Status(Enum):
    """What the operation log says of an operator."""

    MAPPED = "Mapped to Edge TPU"
    NOT_SUPPORTED = "Operation not supported"
    VERSION = "Operation version not supported"
    DATA_TYPE = "Operation is working on an unsupported data type"
    LIMITATION = "Operation is otherwise supported, but not mapped due to some unspecified limitation"
    SUBGRAPH = "More than one subgraph is not supported"
    RANK = "Tensor has unsupported rank (up to 3 innermost dimensions mapped)"
    NOT_CONSTANT = "Filter, bias, or other param is not constant at compile-time"
    OUTPUT_2D = "For example, a fully-connected or softmax layer with 2D output"
    INTERPOLATION = "Image-interpolation layer won't run precisely enough on Edge TPU"


@record
class Verdict:
    """Why an operator is where it is.

    Attributes
    ----------
    reason:
        Precise reason with operator, tensor, size and limit; empty for mapped operators.
    advice:
        The way out, where there is one.
    """

    status: Status
    reason: str = ""
    advice: str = ""

    @property
    def mapped(self) -> bool:
        """True when the operator runs on the Edge TPU."""
        return self.status is Status.MAPPED


MAPPED = Verdict(Status.MAPPED)
