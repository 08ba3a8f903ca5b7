"""``etpu order``: its table, its choice, and what a device says about it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from small_networks import Layers

from compiler.graph import serialize_model

ETPU = Path(sys.executable).parent / "etpu"


def etpu(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "ETPU_CONFIG": str(folder / "config"), "XDG_STATE_HOME": str(folder / "state")}
    return subprocess.run([str(ETPU), *words], cwd=folder, env=environment, text=True, capture_output=True, timeout=280,
                          check=False)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three networks."""
    folder = tmp_path_factory.mktemp("order")
    for name, seed in (("a", 1), ("b", 2), ("c", 3)):
        net = Layers(seed)
        x = net.input(512)
        for _ in range(3 + seed % 2):
            x = net.dense(x, 512, "RELU")
        (folder / f"{name}.tflite").write_bytes(serialize_model(net.model(net.dense(x, 8))))
    assert etpu(folder, "devices", "add", "v", "--virtual").returncode == 0
    return folder


def test_often_used_models_come_first(place: Path) -> None:
    report = json.loads(etpu(place, "order", "a.tflite", "b.tflite", "c.tflite", "--weights", "1,1,50", "--json").stdout)
    assert report["gap"] == 0
    together = report["order"] or report["alone"]
    assert set(report["order"]) | set(report["alone"]) == {"a.tflite", "b.tflite", "c.tflite"}
    assert "c.tflite" in together
    row = next(r for r in report["models"] if r["model"] == "c.tflite")
    assert row["off_chip_bytes"] == 0
    assert row["predicted"]["uncached_us"] > row["predicted"]["cached_us"] > 0


def test_the_choice_is_measured_on_a_device(place: Path) -> None:
    result = etpu(place, "order", "a.tflite", "b.tflite", "-d", "v", "--json")
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)
    measured = [c["measured_us"] for c in report["candidates"]]
    assert measured == sorted(measured)
    assert all(c["simulated"] for c in report["candidates"])
    assert any(c["order"] == [] for c in report["candidates"]), "all models alone are tried too"
    rows = [row for row in report["models"] if row["on_chip_bytes"]]
    assert all(row["measured"]["uncached_us"] > row["measured"]["cached_us"] for row in rows)


def test_table(place: Path) -> None:
    text = etpu(place, "order", "a.tflite", "b.tflite", "--objective", "bytes").stdout
    assert text.startswith("compile together, in this order: ") or text.startswith("compile alone: ")
    assert "proven best" in text
    assert "a.tflite" in text and "switching" in text


@pytest.mark.parametrize("words", [
    ("a.tflite",), ("a.tflite", "a.tflite"), ("a.tflite", "b.tflite", "--weights", "1"),
    ("a.tflite", "b.tflite", "--weights", "1,x"), ("a.tflite", "b.tflite", "--weights", "1,-1"),
    ("a.tflite", "b.tflite", "--objective", "beauty"), ("a.tflite", "b.tflite", "--bus", "isa"),
    ("a.tflite", "b.tflite", "-d", "ghost"), ("a.tflite", "missing.tflite"),
])
def test_refusals(place: Path, words: tuple[str, ...]) -> None:
    result = etpu(place, "order", *words)
    assert result.returncode in (1, 2)
    assert "Traceback" not in result.stderr and result.stderr
