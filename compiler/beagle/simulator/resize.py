"""T05: bilinear interpolation.

The unit reads 2 x 2 neighbours per result. It makes the weights itself, from a position that steps
with columns and rows: 128 steps between neighbours in each direction, so four weights add up to
2**14. Each of the four lanes sees its own byte of the words read.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from compiler.beagle.isa import Instruction
from compiler.beagle.simulator.errors import UnsupportedInstruction
from compiler.beagle.simulator.state import Chip, check, picked
from compiler.beagle.simulator.task import Ints
from compiler.beagle.simulator.tensor import TensorOp
from compiler.facts import LANE_BYTES, NARROW_BYTES

_WEIGHT_BITS = 7
_COLUMN_LOOP, _ROW_LOOP = 2, 3


class RoundingStage:
    """The output stage without zero points and clamps: scale, round to nearest even, saturate."""

    def __init__(self, ins: Instruction) -> None:
        self.multiplier = np.uint32(ins["multiplier"]).view(np.float32)

    def apply(self, chip: Chip, tiles: list[int], sums: npt.NDArray[np.int64], group: Ints) -> npt.NDArray[np.uint8]:
        """Return finished elements; sums has shape (tiles, runs, lanes)."""
        return np.asarray(np.clip(np.rint(sums.astype(np.float32) * self.multiplier), 0, 255), np.uint8)


class TensorResize(TensorOp):
    """A resize instruction: loops 0 and 1 visit the neighbours, 2 and 3 columns and rows of results."""

    def read_walks(self) -> None:
        """Work out addresses and weights of all steps."""
        super().read_walks()
        ins = self.ins
        self.uses_in, self.reads_wide = True, False
        if self.nest.counts[:2] != (2, 2) or self.nest.epilogue_dim or ins["denominator_log2"] > _WEIGHT_BITS:
            raise UnsupportedInstruction(f"{ins.name} at {ins.offset:#x} does not interpolate between 2 x 2 neighbours")
        index = np.repeat(self.nest.outer, self.nest.lengths, axis=0).astype(np.int64)
        offset, right = self._position("columns", index[:, _COLUMN_LOOP - 1])
        below_offset, below = self._position("rows", index[:, _ROW_LOOP - 1])
        one = 1 << _WEIGHT_BITS
        is_right = np.arange(self.size) % 2 == 1
        is_below = index[:, 0] == 1
        self.weights = np.where(is_right, right, one - right) * np.where(is_below, below, one - below)
        self.a = check(self.a + offset + below_offset, NARROW_BYTES - LANE_BYTES + 1, "narrow memory byte")

    def _position(self, axis: str, index: Ints) -> tuple[Ints, Ints]:
        """Return the bytes to the nearer neighbour, and the weight of the farther one."""
        ins = self.ins
        at = ins[f"{axis}.phase"] + ins[f"{axis}.step"] * index
        shift = ins["denominator_log2"]
        return (at >> shift) * ins[f"{axis}.stride"], (at & ((1 << shift) - 1)) << (_WEIGHT_BITS - shift)

    def output_stage(self) -> RoundingStage:
        """Return the plain stage."""
        return RoundingStage(self.ins)

    def _accumulate(self, chip: Chip, tiles: list[int], start: int, runs: int, length: int,
                    first: int) -> npt.NDArray[np.int64]:
        steps = slice(start, start + runs * length)
        at = self.a[steps, None] + np.arange(LANE_BYTES)
        words = picked(chip.narrow, tiles, at).astype(np.int64) * self.weights[steps, None]
        sums: npt.NDArray[np.int64] = words.reshape(len(tiles), runs, length, LANE_BYTES).sum(2)
        return sums
