"""A softmax of a vector: its numbers, the tables in its parameters, and what it needs of narrow memory.

Where the classes are no multiple of four, tables of parameters take the spare lanes out: a bias of
minus infinity before the maximum and after the difference, and an infinite factor before the
exponential. Of a vector on several tiles each has the lines of its own words. There the exponentials
are added two at a time, and where their number is odd a fourth table of a single line, 1.0 and 0.0,
takes out the one behind the last.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np

from compiler.facts import PARAMETER_LINE_BYTES
from compiler.lowering.arithmetic import bits
from compiler.lowering.spatial.buffers import Lifetime
from compiler.records import record

_LEAST = -(1 << 31)
_PER_WORD = ("bias before", "bias after", "factors")
"""Tables of a line per word."""
_CONSTANT_BYTES, _PAIR_BYTES = 16, 32
"""Of words that become one wide row of four lanes, or two."""
_ROOT_BYTES = 8
"""Four numbers of 16 bits."""


@record
class Limits:
    """Output stage of a step that keeps its numbers: bit patterns of float32 multiplier and clamp."""

    multiplier: int
    low: int
    high: int


@record
class Probabilities:
    """A softmax over one vector.

    Attributes
    ----------
    scale:
        Of the operand, times beta.
    zero_point:
        Of the operand, unsigned domain.
    """

    name: str
    classes: int
    scale: np.float32
    zero_point: int

    @property
    def words(self) -> int:
        """Words of the vector."""
        return -(-self.classes // 4)


@record
class SoftmaxLayer(Probabilities):
    """A softmax on the tiles, ready for code generation.

    Attributes
    ----------
    slices:
        Words of the vector on tiles 0, 1, ...; each lies where it does in the whole vector.
    rows:
        First wide rows of the tables on each tile: bias before the maximum, bias after the difference, factors, single
        factor; those of a streamed table are none, and without tables there are none at all.
    """

    slices: tuple[int, ...]
    rows: tuple[tuple[int, ...], ...] = ()

    @property
    def masked(self) -> bool:
        """True when spare lanes have to be taken out."""
        return self.classes % 4 > 0

    @property
    def spread(self) -> bool:
        """True when the vector lies on several tiles."""
        return len(self.slices) > 1

    @property
    def tail(self) -> bool:
        """True when the last word of two exponentials comes from another tile and holds one too many."""
        return self.spread and self.classes % 2 > 0

    @property
    def summands(self) -> int:
        """Words of two exponentials each that are summed up."""
        return -(-self.classes // 2)

    @cached_property
    def range_scale(self) -> np.float32:
        """Scale of differences: the range of the operand in 255 steps."""
        z = np.float32(self.zero_point)
        low, high = np.float32(-z * self.scale), np.float32((255 - z) * self.scale)
        return np.float32(np.float32(high - low) / np.float32(255))

    @property
    def operands(self) -> Limits:
        """Output stage of what has the operand's scale and zero point."""
        return _limits(self.scale, self.scale, -self.zero_point, 255 - self.zero_point)

    @property
    def differences(self) -> Limits:
        """Output stage that turns operands into differences."""
        return _limits(self.scale, self.range_scale, -255, 0)

    @property
    def kept_differences(self) -> Limits:
        """Output stage of what leaves differences as they are."""
        return _limits(self.range_scale, self.range_scale, -255, 0)

    @property
    def tables(self) -> tuple[bytes, ...]:
        """Parameters: a 64-byte line per word of the vector, its first 16 bytes in use."""
        if not self.masked:
            return ()
        spare = np.arange(4 * self.words) >= self.classes
        bias = np.where(spare, np.int32(_LEAST), np.int32(0)).astype(np.int32)
        with np.errstate(over="ignore"):
            endless = np.float32(self.range_scale * np.finfo(np.float32).max)
        factors = np.where(spare, endless, self.range_scale).astype(np.float32)
        one = (_lines(np.array([1, 0, 0, 0], np.float32).view(np.uint32)),) * self.tail
        return _lines(bias.view(np.uint32)), _lines(bias.view(np.uint32)), _lines(factors.view(np.uint32)), *one

    def lines(self, table: int) -> tuple[int, ...]:
        """Return how many lines of a table each tile has."""
        return self.slices if table < len(_PER_WORD) else (1,)

    # -- steps and narrow memory ------------------------------------------------------------------------

    @cached_property
    def steps(self) -> dict[str, int]:
        """Number of each step, in their order."""
        names = [*["mask"] * self.masked, "largest", *["last four"] * self.spread, "copies", "difference",
                 *["second mask"] * self.masked, "powers", *["packing"] * (self.masked and not self.spread),
                 *["tail"] * self.tail, "sum", "inverse", "inverses", "shares"]
        return {name: i for i, name in enumerate(names)}

    @cached_property
    def buffers(self) -> dict[str, Lifetime]:
        """What it needs of narrow memory beside operand and result, by the steps that need it.

        Products of two activations have a word per value in between, and the bias of a sum passes through a
        buffer: official programs set memory aside for those although they are not used here.
        """
        at, whole, part = self.steps, 4 * self.words, 4 * max(self.slices)
        found = {"largest": (4, at["last four" if self.spread else "largest"], at["copies"])}
        if self.spread:
            found["fours"] = (4, at["largest"], at["last four"])
        if self.masked:
            found["masked"] = (whole, at["mask"], at["largest"])
            if not self.spread:
                found["packed"] = (4 * self.summands, at["packing"], at["sum"])
            if self.tail:
                found["tail"] = (4, at["tail"], at["tail"])
        found |= {
            "copies": (whole, at["copies"], at["difference"]),
            "ones": (_CONSTANT_BYTES, at["copies"], at["copies"]),
            "pair": (_PAIR_BYTES, at["difference"], at["difference"]),
            "terms": (2 * whole, at["difference"], at["difference"]),
            "bias": (part, at["difference"], at["difference"]),
            "difference": (part, at["difference"], at["powers"]),
            "identity": (_CONSTANT_BYTES, at["mask" if self.masked else "powers"], at["mask" if self.masked else "powers"]),
            "powers": (2 * whole, at["powers"], at["shares"]),
            "root": (_ROOT_BYTES, at["sum"], at["inverses"]),
            "square": (_product_bytes(4), at["inverse"], at["inverse"]),
            "bytes": (_CONSTANT_BYTES, at["inverses"], at["inverses"]),
            "inverses": (2 * whole, at["inverses"], at["shares"]),
            "products": (_product_bytes(part), at["shares"], at["shares"]),
        }
        order = sorted(found, key=lambda name: found[name][1])
        return {name: Lifetime(*found[name]) for name in order}


def _product_bytes(values: int) -> int:
    return 4 * values + 4


def _limits(scale: np.float32, target: np.float32, low: int, high: int) -> Limits:
    inverse = np.float32(1) / target
    ends = [bits(np.float32(np.float32(np.float32(end) * target) * inverse)) for end in (low, high)]
    return Limits(bits(np.float32(scale * inverse)), *ends)


def _lines(words: np.ndarray[tuple[int], np.dtype[np.uint32]]) -> bytes:
    lines = np.zeros((words.size // 4, PARAMETER_LINE_BYTES // 4), np.uint32)
    lines[:, :4] = words.reshape(-1, 4)
    return lines.tobytes()
