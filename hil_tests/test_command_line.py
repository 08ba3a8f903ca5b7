"""The whole way over a real OpenSSH server: compiled for the board's runtime, uploaded, run there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from loopback import SshServer

from compiler.graph import read_model
from compiler.package.container import packages_of

DIGITS = Path(__file__).resolve().parents[1] / "examples" / "digits"
MODEL = DIGITS / "digits_mlp.tflite"


def etpu(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "ETPU_CONFIG": str(folder / "config")}
    return subprocess.run([str(Path(sys.executable).parent / "etpu"), *words], cwd=folder, env=environment, text=True,
                          capture_output=True, timeout=120, check=False)


def add_board(folder: Path, server: SshServer) -> None:
    inventory = folder / "config" / "devices.toml"
    inventory.parent.mkdir()
    inventory.write_text(f'[devices.coral-1]\nkind = "ssh"\nhost = "board"\nroot = "{server.root}"\n'
                         f'python = "{server.python}"\n')


@pytest.mark.parametrize("version", [12, 14])
def test_package_is_made_for_the_boards_runtime(tmp_path: Path, server: SshServer, version: int) -> None:
    server.stop()
    server.start({"tpus": 1, "runtime_version": version, "bus": "usb3"})
    add_board(tmp_path, server)
    deployed = etpu(tmp_path, "deploy", "-d", "coral-1", str(MODEL))
    assert deployed.returncode == 0, deployed.stderr
    current = server.root / "models" / "digits_mlp" / "current" / "digits_mlp_edgetpu.tflite"
    ((_, package),) = packages_of(read_model(current))
    assert package.min_runtime_version == version
    np.save(tmp_path / "few.npy", np.load(DIGITS / "digits_test.npz")["inputs"][:4])
    run = etpu(tmp_path, "run", "digits_mlp", "-d", "coral-1", "--input", "few.npy", "--compare", str(MODEL))
    assert "40 of 40 values" in run.stdout, run.stdout + run.stderr
    profile = json.loads(etpu(tmp_path, "profile", "digits_mlp", "-d", "coral-1", "--json", "--runs", "2").stdout)
    assert profile["simulated"] is True


def test_compiled_model_for_a_newer_runtime_is_refused(tmp_path: Path, server: SshServer) -> None:
    server.stop()
    server.start({"tpus": 1, "runtime_version": 12, "bus": "usb3"})
    add_board(tmp_path, server)
    assert etpu(tmp_path, "compile", str(MODEL)).returncode == 0
    refused = etpu(tmp_path, "deploy", "-d", "coral-1", "digits_mlp_edgetpu.tflite")
    assert refused.returncode == 1
    assert "Package requires runtime version (14), which is newer than this runtime version (12)." in refused.stderr
    assert "Traceback" not in refused.stderr
    assert not (server.root / "models").exists()
