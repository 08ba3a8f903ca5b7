"""From int32 sums to bytes: bias, scale, clamp, table, rounding, zero point."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from compiler.beagle.isa import Instruction
from compiler.beagle.simulator.errors import SimulationError
from compiler.beagle.simulator.state import Chip, picked
from compiler.facts import TILES

_INT32 = np.iinfo(np.int32)
_EXPONENT_FIELD_ZERO = 2.0**-127


def _float(bits: int) -> np.float32:
    return np.uint32(bits).view(np.float32)


class OutputStage:
    """The output stage of a compute instruction.

    y = float32(sum + constant + bias) * scale * multiplier, clamped, through the table if asked,
    rounded to nearest even, plus the output zero point, saturated to 8 or 16 bits. The clamp comes
    before the rounding: clamp constants lie just inside the range.
    """

    def __init__(self, ins: Instruction) -> None:
        self.ins = ins
        self.multiplier = _float(ins["multiplier"])
        self.high, self.low = _float(ins["clamp_high"]), _float(ins["clamp_low"])
        self.table, self.root, self.wide = (bool(ins["nonlinear"] >> i & 1) for i in range(3))

    def apply(self, chip: Chip, tiles: list[int], sums: npt.NDArray[np.int64],
              group: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8] | npt.NDArray[np.uint16]:
        """Return finished elements; sums has shape (tiles, runs, lanes)."""
        ins = self.ins
        lanes = sums.shape[2]
        value = sums + ins["constant"]
        slot = (group & 1) * 64
        banks = chip.scaling.reshape(TILES, -1)
        lane = slot[:, None] + np.arange(lanes)
        if ins["use_bias"]:
            value = value + picked(banks.view(np.int32), tiles, 128 + lane)
        y = np.clip(value, _INT32.min, _INT32.max).astype(np.float32)
        with np.errstate(over="ignore", invalid="ignore"):
            if ins["use_multiplier"]:
                y = y * picked(banks.view(np.float32), tiles, lane)
            y = y * self.multiplier
        y = np.minimum(np.maximum(y, self.low), self.high)
        if self.table:
            y = np.stack([self._look_up(chip.tables[t], y[i]) for i, t in enumerate(tiles)])
        # Integers that float32 cannot tell apart lie beyond 8 and 16 bits anyway; no number becomes 0.
        with np.errstate(invalid="ignore"):
            q = np.rint(y) + np.float32(ins["out_zero_point"])
        saturated = np.fmin(np.fmax(q, 0), 65535 if self.wide else 255)
        return saturated.astype(np.uint16) if self.wide else saturated.astype(np.uint8)

    def _look_up(self, table: npt.NDArray[np.float32] | None, x: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        if table is None:
            raise SimulationError(f"{self.ins.name} at {self.ins.offset:#x} uses the nonlinear table before it is loaded")
        if self.ins["odd_symmetry"]:
            return np.sign(x).astype(np.float32) * quartic(table, np.abs(x))
        if not self.root:
            return quartic(table, x)
        # Reciprocal square root: x = m * 4**k with m in [1, 4), result f(m) * 2**-k. Zero has the
        # exponent field of 2**-127; that the unit reads it so is an assumption.
        safe = np.where(x > 0, x, _EXPONENT_FIELD_ZERO)
        k = np.floor(np.log2(safe.astype(np.float64)) / 2)
        return (quartic(table, (safe / 4.0**k).astype(np.float32)) * (2.0**-k).astype(np.float32)).astype(np.float32)


def quartic(table: npt.NDArray[np.float32], x: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Evaluate the piecewise quartic: Horner's rule in float32, segment = breakpoints not above x."""
    coefficients, breaks = table[:40].reshape(8, 5), table[40:47]
    segment = np.zeros(x.shape, np.int64)
    for b in breaks:
        segment += x >= b
    c = coefficients[segment]
    with np.errstate(invalid="ignore", over="ignore"):
        y = c[..., 4]
        for k in (3, 2, 1, 0):
            y = (c[..., k] + x * y).astype(np.float32)
    return y
