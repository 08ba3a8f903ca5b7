"""The functions that official programs load into the nonlinear unit.

A table is eight quartics over eight segments. The coefficients are those of the `table`
instructions of official programs (runtime 12 and later); they deviate from the function by at most
0.25 of a step of 1/65535 (exponential), 0.008 of a step of 1/256 (logistic).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class PiecewiseQuartic:
    """A nonlinear table.

    Attributes
    ----------
    scale:
        The table holds this multiple of the function.
    coefficients:
        float32, shape (8, 5): segment, power.
    breakpoints:
        float32, shape (7,): lower bounds of segments 1..7, infinite when unused.
    """

    scale: float
    coefficients: Floats
    breakpoints: Floats

    def __call__(self, x: Floats) -> Floats:
        """Evaluate as the chip does: Horner's rule in float32."""
        segment = np.searchsorted(self.breakpoints, x, "right")
        y = self.coefficients[segment, 4]
        for power in (3, 2, 1, 0):
            y = self.coefficients[segment, power] + x * y
        return np.asarray(y, np.float32)

    def scaled(self, scale: float) -> PiecewiseQuartic:
        """Return the table of another multiple of the function."""
        factor = scale / self.scale
        return PiecewiseQuartic(scale, (self.coefficients * np.float64(factor)).astype(np.float32), self.breakpoints)

    def fields(self) -> dict[str, int]:
        """Return the field values of the `table` instruction that loads it."""
        values = {f"c{s}.{p}": int(bits) for s, row in enumerate(self.coefficients.view(np.uint32))
                  for p, bits in enumerate(row)}
        return values | {f"breakpoint{i}": int(bits) for i, bits in enumerate(self.breakpoints.view(np.uint32))}


def _table(scale: float, coefficients: tuple[tuple[float, ...], ...],
           breakpoints: tuple[float, ...]) -> PiecewiseQuartic:
    return PiecewiseQuartic(scale, np.asarray(coefficients, np.float32), np.asarray(breakpoints, np.float32))


EXPONENTIAL = _table(
    65535,
    ((1839.6675, 630.2154, 81.34308, 4.680994, 0.10120727),
     (13928.352, 6826.62, 1282.0364, 108.85453, 3.513191),
     (33057.742, 20768.045, 5117.174, 580.746, 25.420813),
     (50335.938, 38372.758, 11888.197, 1745.7169, 101.05772),
     (60827.97, 53701.17, 20356.889, 3842.9094, 297.454),
     (64842.34, 62677.58, 27987.324, 6766.296, 723.3006),
     (65526.38, 65428.203, 32277.033, 9857.563, 1593.3411),
     (65535.0, 65534.95, 32765.309, 10888.121, 2503.7742)),
    (-7.986872, -5.480507, -3.9326499, -2.6985426, -1.757619, -0.9169553, -0.1742215))
"""e**x for x <= 0."""
RECIPROCAL_ROOT = _table(
    46340,
    ((109663.41, -135128.84, 112302.266, -49342.207, 8845.37),
     (99786.16, -101767.54, 69965.35, -25417.17, 3765.479),
     (89722.984, -73979.2, 41119.766, -12077.087, 1446.5148),
     (80423.64, -53271.863, 23783.623, -5609.964, 539.5391),
     (71984.555, -38202.617, 13666.3, -2583.1428, 199.0968),
     (64750.547, -27807.225, 8050.912, -1231.8031, 76.864265),
     (59222.95, -21285.252, 5160.387, -661.5083, 34.603092),
     (59222.95, -21285.252, 5160.387, -661.5083, 34.603092)),
    (1.1744492, 1.4527012, 1.7968035, 2.2504222, 2.7994583, 3.4374754, inf))
"""1 / sqrt(x) for 1 <= x < 4."""
LOGISTIC = _table(
    256,
    ((32.082626, 13.857367, 2.2672386, 0.16598408, 0.0045760125),
     (132.63097, 85.70315, 21.859444, 2.58, 0.117780134),
     (135.45853, 82.20974, 16.430658, 0.5211197, -0.12966941),
     (128.00162, 63.97225, -0.32965082, -6.311217, -1.1621366),
     (128.0028, 63.92499, 0.47345105, -6.475306, 1.2242033),
     (110.89018, 98.711784, -26.890657, 3.4358993, -0.17184),
     (195.84106, 29.966818, -5.7082276, 0.49032992, -0.015962048),
     (244.7982, 4.166754, -0.58794147, 0.037229694, -0.00089129084)),
    (-5.639855, -2.965404, -1.34088, 0.08613962, 1.805656, 4.8011794, 8.472422))
"""1 / (1 + e**-x)."""
TANH = _table(
    16383.5,
    ((-1.0231503e-12, 16381.262, 58.002445, -5952.9453, 1711.685),
     (-13.451505, 16457.375, 27.478544, -6431.8223, 2447.2888),
     (-754.63226, 20133.53, -6892.7593, -567.1017, 558.5479),
     (-2466.981, 25980.26, -14438.492, 3794.5789, -393.8781),
     (1438.7513, 18398.686, -8893.537, 1983.4415, -170.9553),
     (7960.1035, 8695.325, -3457.1538, 624.2808, -43.022034),
     (13578.235, 2307.606, -721.7122, 101.450745, -5.3968253),
     (16013.107, 229.63019, -53.66415, 5.596714, -0.21957865)),
    (0.3597914, 0.78073186, 1.1744751, 2.0300643, 2.6845171, 3.5472608, 4.83642))
"""tanh x for x >= 0; the unit mirrors it."""


def square(scale: float) -> PiecewiseQuartic:
    """Return the table of a multiple of x**2, as an official program holds it: the second segment serves all x."""
    coefficients = np.full((8, 5), scale, np.float32)
    coefficients[0] = 0, -scale, scale, -scale, scale
    coefficients[1] = 0, 0, scale, 0, 0
    coefficients[2:, 0] = 0
    breakpoints = np.full(7, np.inf, np.float32)
    breakpoints[0] = np.finfo(np.float32).min
    return PiecewiseQuartic(scale, coefficients, breakpoints)


EXPONENTIAL_LOW = np.float32(-13.038098)
"""Operands are raised to this before the exponential; there it is 0.14 of a step of 1/65535."""
LOGISTIC_LIMIT = np.float32(10.396732)
TANH_LIMIT = np.float32(6.874807)
"""Operands are clamped to plus and minus this."""
