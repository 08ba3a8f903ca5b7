"""The judge accepts official programs and notices what is spoiled in them.

``ETPU_MUTATIONS`` sets how many mutations are tried; 1000 take about a quarter of an hour.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from compiler.beagle.judge import try_executables
from compiler.conformance.mutations import subject, try_mutations

if TYPE_CHECKING:
    from conftest import Pair

pytestmark = pytest.mark.corpus
SUBJECTS = ("dense_256", "point_history_classifier", "conv2d_12x128x32_to_32_k3_s1_same_quant", "quant_SOFTMAX",
            "split_concat", "bright_16x16", "converted_model_from_keras_8bit_all_v2", "graphrelu6_10_float",
            "quant_CONV_2D", "N32-nMACs41287680_quant")
MUTATIONS = int(os.environ.get("ETPU_MUTATIONS", "100"))


def chosen(pairs: list[Pair]) -> list[Pair]:
    return [next(p for p in pairs if p.name.endswith(f"/{name}")) for name in SUBJECTS]


def test_official_programs_have_no_findings(pairs: list[Pair]) -> None:
    more = [p for p in pairs if p.compiled.stat().st_size < 45_000 and p.facts["custom_ops"] == 1]
    for pair in {p.name: p for p in chosen(pairs) + more}.values():
        case = subject(pair.compiled)
        report = try_executables(case.executables(case.execution), case.inputs)
        assert report.findings == (), pair.name


def test_mutations_that_matter_are_noticed(pairs: list[Pair], capsys: pytest.CaptureFixture[str]) -> None:
    tally = try_mutations([p.compiled for p in chosen(pairs)], MUTATIONS, seed=5)
    with capsys.disabled():
        print(f"\n{tally}")
    assert tally.harmful.total() > MUTATIONS // 4
    assert tally.detected == tally.harmful, tally.missed
    # Addresses that are one unit off give the same wrong result in every order: see docs/conformance.md.
    # Of few mutations the share is uncertain.
    least = 0.95 if MUTATIONS >= 1000 else 0.9
    assert tally.by_judge.total() >= least * tally.harmful.total(), tally.missed
