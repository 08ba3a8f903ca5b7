"""The cycle model against published latencies that no constant was fitted to (docs/cycle-model.md)."""

from __future__ import annotations

from pathlib import Path

import pytest
from cycle_fit import Quality, Recorded, constants, halves, measured, milliseconds, recorded
from measured_latencies import REFERENCE, SAMPLED, rows
from small_networks import EVERYTHING

from compiler.beagle.timing import BUSES

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "cycle-model.md"
_WIDEST = {"dense": 1500, "convolutions": 170}
"""Wider networks take long to record; they run with ETPU_TEST_EVERYTHING."""
_EVERY = {"dense": 4, "convolutions": 1}
_WIDER = 2
"""Of wide dense networks, which are streamed, so many times fewer run always."""


def chosen() -> list[int]:
    """Numbers of the rows to predict: all, or a sample of those that are quick to record."""
    found: list[int] = []
    for kind, widest in _WIDEST.items():
        mine = [row for row in rows() if row.network.kind == kind and row.number % SAMPLED == 0 and not row.fitted]
        narrow = [row.number for row in mine if row.network.width <= widest]
        wide = [row.number for row in mine if row.network.width > widest] if kind == "dense" else []
        found += [row.number for row in mine] if EVERYTHING else narrow[::_EVERY[kind]] + wide[::_EVERY[kind] * _WIDER]
    return found


@pytest.mark.skipif(not REFERENCE.exists(), reason=f"published latencies are not at {REFERENCE}")
def test_latencies_are_predicted() -> None:
    """Rows that were not fitted: median error at most 15 %, rank correlation at least 0.95."""
    all_rows = rows()
    _, networks = halves([r for r in map(recorded, [all_rows[number] for number in chosen()]) if isinstance(r, Recorded)])
    assert len(networks) >= 20
    quality = Quality.of(milliseconds(networks, constants()), measured(networks))
    print(quality)
    assert quality.median_error <= 0.15
    assert quality.rank_correlation >= 0.95
    if EVERYTHING:
        stated = f"| predicted | {quality.rows} | {100 * quality.median_error:.1f} % | {quality.rank_correlation:.3f} |"
        assert stated in DOCUMENT.read_text()


def test_networks_of_the_official_page() -> None:
    """VGG19 streams 136 MB on USB 3 in 308 ms, on the Dev Board's PCIe in 357 ms."""
    assert 136_000_000 / BUSES["usb3"].to_chip == pytest.approx(308_000, rel=0.05)
    assert 136_000_000 / BUSES["pcie"].to_chip == pytest.approx(357_000, rel=0.05)
