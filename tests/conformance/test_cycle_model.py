"""The cycle model against published latencies that no constant was fitted to (docs/cycle-model.md)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from cycle_fit import LeftOut, Quality, Recorded, constants, measured, milliseconds, recorded
from measured_latencies import CORPUS, REFERENCE, SAMPLED, Row, corpus_rows, rows, table_rows
from small_networks import EVERYTHING

from compiler.beagle.timing import BUSES, estimate
from compiler.graph import parse_model
from compiler.package.container import packages_of

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "cycle-model.md"
_WIDEST = {"dense": 1500, "convolutions": 170}
"""Wider networks take long to record. Those of convolutions run with ETPU_TEST_EVERYTHING only."""
_EVERY = {"dense": 2, "convolutions": 1}
_QUICK = ("MobileNet v2",)
"""Networks of the official tables that run always."""


def chosen() -> list[Row]:
    """Rows to predict: all, or a sample of those that are quick to record."""
    found = [row for row in table_rows()[0] if not row.fitted and (EVERYTHING or row.network.name in _QUICK)]
    for kind, widest in _WIDEST.items():
        mine = [row for row in rows() if row.network.kind == kind and row.number % SAMPLED == 0 and not row.fitted]
        narrow = [row for row in mine if row.network.width <= widest]
        wide = [row for row in mine if row.network.width > widest] if kind == "dense" else []
        found += mine if EVERYTHING else narrow[::_EVERY[kind]] + wide[::_EVERY[kind]]
    return found


@pytest.mark.skipif(not REFERENCE.exists(), reason=f"published latencies are not at {REFERENCE}")
def test_latencies_are_predicted() -> None:
    """Rows that were not fitted: median error at most 15 %, rank correlation at least 0.95."""
    results: list[Recorded | LeftOut] = []
    for row in chosen():
        results.append(recorded(row, results))
    networks = [r for r in results if isinstance(r, Recorded)]
    assert len(networks) >= 20
    quality = Quality.of(milliseconds(networks, constants()), measured(networks))
    print(quality)
    assert quality.median_error <= 0.15
    assert quality.rank_correlation >= 0.95
    if EVERYTHING:
        stated = f"| predicted | {quality.rows} | {100 * quality.median_error:.1f} % | {quality.rank_correlation:.3f} |"
        assert stated in DOCUMENT.read_text()


@pytest.mark.skipif(not CORPUS.exists(), reason=f"officially compiled models are not at {CORPUS}")
def test_official_executables_of_measured_networks() -> None:
    """Executables of the official compiler whose latency somebody measured: median error at most 15 %."""
    errors = []
    for file, time in corpus_rows():
        ((_, package),) = packages_of(parse_model(file.read_bytes()))
        errors.append(abs(estimate(package, "pcie").warm_us / 1000 / time - 1))
    assert len(errors) == 8
    assert np.median(errors) <= 0.15


def test_networks_of_the_official_page() -> None:
    """VGG19 streams 136 MB on USB 3 in 308 ms, on the Dev Board's PCIe in 357 ms."""
    assert 136_000_000 / BUSES["usb3"].to_chip == pytest.approx(308_000, rel=0.05)
    assert 136_000_000 / BUSES["pcie"].to_chip == pytest.approx(357_000, rel=0.05)
