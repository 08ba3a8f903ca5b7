"""The conformance command over a part of the corpus: the figures must hold, failures must show."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from compiler.conformance import run_all, summarize

if TYPE_CHECKING:
    from conftest import Pair

pytestmark = pytest.mark.corpus
MAX_BYTES = 60_000


def test_small_pairs_conform(pairs: list[Pair]) -> None:
    checks = ("decode", "package", "cache", "simulate", "map")
    small = [(p.name, p.source, p.compiled) for p in pairs if p.source.stat().st_size < MAX_BYTES][:24]
    reports = list(run_all(small, checks, samples=1, seed=11, jobs=2))
    summary = summarize(reports, checks)
    for check in ("decode", "package", "cache", "map"):
        assert summary[check]["fail"] == 0, check
    # Known open: L2_NORMALIZATION and the LSTM loops.
    assert summary["simulate"]["fail"] <= 2, [r.name for r in reports if r.checks["simulate"]["status"] == "fail"]


def test_a_broken_pair_fails_alone_and_the_report_is_written(pairs: list[Pair], tmp_path: Path) -> None:
    good = next(p for p in pairs if p.name.endswith("/dense_256"))
    for name in ("good", "broken"):
        shutil.copy(good.source, tmp_path / f"{name}.tflite")
        shutil.copy(good.compiled, tmp_path / f"{name}_edgetpu.tflite")
        (tmp_path / f"{name}_edgetpu.tflite").chmod(0o644)
    data = bytearray(good.compiled.read_bytes())
    data[len(data) // 2:] = bytes(len(data) - len(data) // 2)
    (tmp_path / "broken_edgetpu.tflite").write_bytes(bytes(data))
    report = tmp_path / "report.json"
    subprocess.run([str(Path(sys.executable).parent / "etpu"), "conformance", str(tmp_path), "--json", str(report)],
                   check=True, capture_output=True)
    read = json.loads(report.read_text())
    by_name = {m["name"]: m["checks"] for m in read["models"]}
    assert read["schema"] == 1
    assert all(c["status"] == "pass" for c in by_name["good"].values()), by_name["good"]
    assert any(c["status"] == "fail" for c in by_name["broken"].values())
    assert read["summary"]["decode"]["pass"] >= 1
