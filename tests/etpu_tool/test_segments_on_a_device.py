"""Segments on a virtual device with several Edge TPUs: deployed, run and profiled as a pipeline."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from small_networks import Layers

from compiler.graph import serialize_model

BIN = Path(sys.executable).parent


def etpu(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "ETPU_CONFIG": str(folder / "config"), "XDG_STATE_HOME": str(folder / "state")}
    return subprocess.run([str(BIN / "etpu"), *words], cwd=folder, env=environment, text=True, capture_output=True,
                          timeout=240, check=False)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A device with two Edge TPUs, and a network whose parameters do not fit one of them."""
    folder = tmp_path_factory.mktemp("segments")
    net = Layers(3)
    x = net.input(1024)
    for _ in range(9):
        x = net.dense(x, 1024, "RELU")
    (folder / "wide.tflite").write_bytes(serialize_model(net.model(net.dense(x, 10))))
    np.save(folder / "rows.npy", np.random.default_rng(1).integers(-128, 128, (4, 1, 1024)).astype(np.int8))
    assert etpu(folder, "devices", "add", "two", "--virtual", "--tpus", "2").returncode == 0
    return folder


def test_balanced_segments_are_the_default(place: Path) -> None:
    deployed = etpu(place, "deploy", "-d", "two", "wide.tflite", "--token", "5")
    assert deployed.returncode == 0, deployed.stderr
    assert "cut into 2 segments" in deployed.stdout
    assert deployed.stdout.count("Off-chip memory used for streaming uncached model parameters: 0.00B") == 2
    ran = etpu(place, "run", "wide", "-d", "two", "--input", "rows.npy", "--compare", "wide.tflite")
    assert ran.returncode == 0, ran.stderr
    assert "pipeline of 2 segments" in ran.stdout
    assert "(simulated)" in ran.stdout
    profile = json.loads(etpu(place, "profile", "wide", "-d", "two", "--json", "--runs", "4").stdout)
    assert profile["simulated"] is True
    slowest = max(s["warm_us"] for s in profile["segments"])
    assert all(s["first_us"] > s["warm_us"] > 0 for s in profile["segments"])
    # four inferences wait for the slowest segment each time, and once for the other one
    assert profile["per_second"] == pytest.approx(4e6 / (3 * slowest + profile["latency_us"]))
    assert "slowest" in etpu(place, "profile", "wide", "-d", "two", "--runs", "2").stdout


def test_what_does_not_fit_the_device_leaves_the_release_as_it_was(place: Path) -> None:
    before = etpu(place, "releases", "-d", "two").stdout
    refused = etpu(place, "deploy", "-d", "two", "-n", "3", "wide.tflite")
    assert refused.returncode == 1
    assert "3 segments need an Edge TPU each, two (virtual) has 2." in refused.stderr
    assert etpu(place, "releases", "-d", "two").stdout == before
    assert before.startswith("*")


def test_small_models_stay_whole(place: Path) -> None:
    net = Layers(4)
    (place / "small.tflite").write_bytes(serialize_model(net.model(net.dense(net.dense(net.input(16), 16), 4))))
    deployed = etpu(place, "deploy", "-d", "two", "small.tflite")
    assert deployed.returncode == 0, deployed.stderr
    assert "one Edge TPU is enough" in deployed.stdout
    assert "small_edgetpu.tflite" in deployed.stdout
