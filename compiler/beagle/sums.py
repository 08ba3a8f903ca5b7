"""Weights of sums: what the arithmetic and the programs of ADD have in common."""

from __future__ import annotations

from fractions import Fraction

_LARGEST_WEIGHT = 32767


def weights_of_sum(a: float, b: float) -> tuple[int, int]:
    """Return the 16-bit weights whose ratio is nearest to that of two scales."""
    ratio = Fraction(a) / Fraction(b)
    if ratio <= 1:
        nearest = ratio.limit_denominator(_LARGEST_WEIGHT)
        return nearest.numerator, nearest.denominator
    nearest = (1 / ratio).limit_denominator(_LARGEST_WEIGHT)
    return nearest.denominator, nearest.numerator
