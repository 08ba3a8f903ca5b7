"""What a model asks of on-chip parameter memory."""

from __future__ import annotations

from dataclasses import replace
from enum import Enum

from compiler.facts import WIDE_ROWS
from compiler.generation import Generation
from compiler.records import record


class Kind(Enum):
    """How the tiles get at the parameters of a layer."""

    LOCAL = "local"
    """Each tile computes its own output channels from rows of its own (dense layers that fit side by side)."""
    RING = "ring"
    """One owner tile sends the rows over the ring bus to all tiles (spatial layers)."""


@record
class ParameterTensor:
    """The parameters of one layer.

    Attributes
    ----------
    name:
        Name of the layer, for reports.
    kind:
        How tiles get at it.
    rows:
        Wide rows (256 B): of one tile for local tensors, in total for ring tensors.
    streamed_bytes:
        Bytes that travel with every inference when the tensor is not cached.
    tiles:
        Local tensors: the number of tiles, always tiles 0, 1, ...
    last_rows:
        Rows of the last of these tiles when it has fewer.
    reads:
        How often one inference reads the tensor (layers computed in bands read several times).
    depthwise:
        Depthwise layers take precedence over other ring tensors.
    cacheable:
        False for tables that the chip only accepts as a stream.
    table:
        Tables do not count when the least filled tile is sought.
    group_rows:
        Local tensors that may also lie like ring tensors, whole groups of output channels together: rows of
        one group. 0 when they may not.
    by_size:
        Local tensors get their rows in the order of their size, as in programs of compiler 1.0.
    """

    name: str
    kind: Kind
    rows: int
    streamed_bytes: int
    tiles: int = 1
    last_rows: int | None = None
    reads: int = 1
    depthwise: bool = False
    cacheable: bool = True
    table: bool = False
    group_rows: int = 0
    by_size: bool = False

    @property
    def total_rows(self) -> int:
        """Wide rows over all tiles."""
        if self.kind is Kind.RING:
            return self.rows
        return self.rows * (self.tiles - 1) + self.rows_on(self.tiles - 1)

    def rows_on(self, tile: int) -> int:
        """Wide rows of a local tensor on one of its tiles."""
        last = self.last_rows is not None and tile == self.tiles - 1
        return self.last_rows if last and self.last_rows is not None else self.rows


@record
class ModelDemand:
    """All parameter tensors of a model in operator order, and where its executable's staging begins.

    Attributes
    ----------
    staging_row:
        Lowest wide row that the executable uses for itself; rows below are free for parameters.
    """

    name: str
    tensors: tuple[ParameterTensor, ...]
    staging_row: int = WIDE_ROWS


def for_generation(demand: ModelDemand, generation: Generation) -> ModelDemand:
    """Return a demand as programs of a generation have it."""
    if generation.dense_on_ring:
        return demand
    return replace(demand, tensors=tuple(replace(t, group_rows=0, by_size=True) for t in demand.tensors))
