"""``etpu compile --memory-map``: which layer lies where."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest
from small_networks import Layers

from compiler.errors import UsageError
from compiler.facts import WIDE_ROW_BYTES
from compiler.graph import serialize_model
from etpu_tool.compile import compile_command

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    layers = Layers(4)
    x = layers.input(8, 8, 3)
    model = layers.model(layers.dense(layers.conv(x, 12), 10))
    path = tmp_path / "net.tflite"
    path.write_bytes(serialize_model(model))
    monkeypatch.chdir(tmp_path)
    return path


def test_json_adds_up_to_the_memory_lines(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    compile_command(["--json", "--memory-map", str(source)])
    (report,) = json.loads(capsys.readouterr().out)
    rows = report["memory_map"]
    assert [row["where"] for row in rows] == ["ring", "tiles"]
    assert sum(row["on_chip"] for row in rows) == report["on_chip_used_bytes"]
    assert sum(row["streamed"] for row in rows) == report["off_chip_bytes"] == 0
    assert all(row["on_chip"] == WIDE_ROW_BYTES * sum(p[2] for p in row["pieces"]) for row in rows)


def test_table_names_layers_and_rows(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    compile_command(["--memory-map", str(source)])
    shown = capsys.readouterr().out
    assert "CONV_2D (operator 0)" in shown
    assert "tile 0: rows" in shown


def test_picture_shows_every_piece(source: Path) -> None:
    compile_command(["--memory-picture", "map.svg", str(source)])
    titles = [t.text or "" for t in ElementTree.parse("map.svg").iter(f"{SVG}title")]
    assert sum("used by the executables" in t for t in titles) == 16
    assert sum("CONV_2D" in t for t in titles) == 1


def test_a_picture_has_to_be_svg(source: Path) -> None:
    with pytest.raises(UsageError):
        compile_command(["--memory-picture", "map.png", str(source)])
    assert [p.name for p in Path().iterdir()] == ["net.tflite"]
