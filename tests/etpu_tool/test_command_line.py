"""The commands as a user types them, good input and bad."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from compiler.compile import compile_model
from compiler.graph import TensorType, parse_model, serialize_model
from compiler.graph.build import GraphBuilder

BIN = Path(sys.executable).parent
DIGITS = Path(__file__).resolve().parents[2] / "examples" / "digits"


def etpu(folder: Path, *words: str, command: str = "etpu") -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "ETPU_CONFIG": str(folder / "config"), "XDG_STATE_HOME": str(folder / "state")}
    return subprocess.run([str(BIN / command), *words], cwd=folder, env=environment, text=True, capture_output=True,
                          timeout=120, check=False)


def files(folder: Path) -> set[str]:
    return {p.name for p in folder.iterdir()}


def assert_refused(result: subprocess.CompletedProcess[str], *words: str) -> None:
    assert result.returncode in (1, 2), result.stdout + result.stderr
    assert "Traceback" not in result.stderr
    for word in words:
        assert word in result.stderr, result.stderr


def test_compile_writes_model_and_log(tmp_path: Path) -> None:
    result = etpu(tmp_path, "compile", str(DIGITS / "digits_mlp.tflite"))
    assert result.returncode == 0, result.stderr
    assert "Number of Edge TPU subgraphs: 1" in result.stdout
    assert files(tmp_path) == {"digits_mlp_edgetpu.tflite", "digits_mlp_edgetpu.log"}
    log = (tmp_path / "digits_mlp_edgetpu.log").read_text().splitlines()
    assert log[0] == "Edge TPU Compiler version 16.0.384591198"
    assert log[-1] == f"{'FULLY_CONNECTED':<31}{3:<11}Mapped to Edge TPU"


def test_compile_prints_json(tmp_path: Path) -> None:
    (report,) = json.loads(etpu(tmp_path, "compile", "--json", str(DIGITS / "digits_mlp.tflite")).stdout)
    assert report["subgraphs"] == 1
    assert report["off_chip_bytes"] == 0


def test_token_makes_results_reproducible(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        etpu(tmp_path, "compile", "--token", "0x77", "-o", folder, str(DIGITS / "digits_mlp.tflite"))
    name = "digits_mlp_edgetpu.tflite"
    assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert_refused(etpu(tmp_path, "compile", "--token", "0", str(DIGITS / "digits_mlp.tflite")), "token")


def test_drop_in_takes_the_call_of_other_tools(tmp_path: Path) -> None:
    result = etpu(tmp_path, "--out_dir", "D", "--show_operations", "--search_delegate", "--delegate_search_step", "30",
                  "--timeout_sec", "180", str(DIGITS / "digits_mlp.tflite"), command="edgetpu_compiler")
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[0] == "Edge TPU Compiler version 16.0.384591198"
    assert "Model compiled successfully in" in result.stdout
    assert lines[-1] == "Compilation succeeded! "
    assert "Operator                       Count      Status" in lines
    assert files(tmp_path / "D") == {"digits_mlp_edgetpu.tflite", "digits_mlp_edgetpu.log"}


def test_drop_in_version_ends_in_a_version(tmp_path: Path) -> None:
    words = etpu(tmp_path, "--version", command="edgetpu_compiler").stdout.split()
    assert all(part.isdigit() for part in words[-1].split("."))


def float_model() -> bytes:
    b = GraphBuilder()
    x = b.tensor((1, 4), type=TensorType.FLOAT32, name="image")
    b.inputs.append(x)
    y = b.tensor((1, 4), type=TensorType.FLOAT32, name="result")
    b.op("RELU", (x,), (y,))
    return serialize_model(b.build(y))


def dynamic_model() -> bytes:
    from dataclasses import replace

    model = parse_model((DIGITS / "digits_mlp.tflite").read_bytes())
    tensors = tuple(replace(t, signature=(1, -1)) if t.name == "image" else t for t in model.main.tensors)
    return serialize_model(model.with_main(replace(model.main, tensors=tensors)))


@pytest.mark.parametrize("command", ["etpu", "edgetpu_compiler"])
@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, ["model.tflite"]),
        (b"", ["model.tflite", "empty"]),
        ("truncated", ["model.tflite"]),
        (bytes(range(256)) * 8, ["model.tflite", "TensorFlow Lite"]),
        ("float", ["Model not quantized", "image"]),
        ("compiled", ["already compiled"]),
    ],
    ids=["missing", "empty", "truncated", "random", "float", "compiled"],
)
def test_bad_models_are_refused(tmp_path: Path, command: str, content: object, words: list[str]) -> None:
    good = (DIGITS / "digits_mlp.tflite").read_bytes()
    if content == "truncated":
        content = good[:len(good) // 2]
    elif content == "float":
        content = float_model()
    elif content == "compiled":
        content = compile_model(parse_model(good)).data
    if isinstance(content, bytes):
        (tmp_path / "model.tflite").write_bytes(content)
    before = files(tmp_path)
    verb = ["compile"] if command == "etpu" else []
    assert_refused(etpu(tmp_path, *verb, "model.tflite", command=command), *words)
    assert files(tmp_path) == before


def test_dynamic_shapes_name_the_tensor(tmp_path: Path) -> None:
    (tmp_path / "model.tflite").write_bytes(dynamic_model())
    assert_refused(etpu(tmp_path, "compile", "model.tflite"), "image", "dynamic")


def test_unwritable_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    assert_refused(etpu(tmp_path, "compile", "-o", "file/below", str(DIGITS / "digits_mlp.tflite")), "cannot be written")
    assert files(tmp_path) == {"file"}


def test_unknown_device(tmp_path: Path) -> None:
    etpu(tmp_path, "devices", "add", "real", "--virtual")
    assert_refused(etpu(tmp_path, "deploy", "-d", "ghost", str(DIGITS / "digits_mlp.tflite")), "ghost", "real")


def test_device_that_does_not_answer(tmp_path: Path) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        etpu(tmp_path, "devices", "add", "silent", "nobody@127.0.0.1", "--port", str(port))
        result = etpu(tmp_path, "deploy", "-d", "silent", "--timeout", "1.5", str(DIGITS / "digits_mlp.tflite"))
    assert_refused(result, "silent")


def test_deploy_run_profile_and_roll_back(tmp_path: Path) -> None:
    source = str(DIGITS / "digits_mlp.tflite")
    etpu(tmp_path, "devices", "add", "demo", "--virtual", "--runtime-version", "12")
    for _ in range(2):
        result = etpu(tmp_path, "deploy", "-d", "demo", source)
        assert result.returncode == 0, result.stderr
        assert "compiled for runtime version 12" in result.stdout
        assert "(simulated)" in result.stdout
    data = np.load(DIGITS / "digits_test.npz")
    np.save(tmp_path / "few.npy", data["inputs"][:5])
    run = etpu(tmp_path, "run", "digits_mlp", "-d", "demo", "--input", "few.npy", "--compare", source)
    assert "50 of 50 values" in run.stdout, run.stdout + run.stderr
    profile = json.loads(etpu(tmp_path, "profile", "digits_mlp", "-d", "demo", "--json", "--runs", "3").stdout)
    assert profile["simulated"] is True
    assert profile["first_us"] > profile["p50_us"] > 0
    assert etpu(tmp_path, "rollback", "-d", "demo").returncode == 0
    listed = etpu(tmp_path, "releases", "-d", "demo").stdout.splitlines()
    assert [line[0] for line in listed] == ["*", " "]


def test_help_names_every_verb(tmp_path: Path) -> None:
    shown = etpu(tmp_path, "--help").stdout
    for verb in ("compile", "deploy", "devices", "disasm", "doctor", "profile", "rollback", "run", "simulate"):
        assert verb in shown


def test_compile_describes_its_options(tmp_path: Path) -> None:
    shown = etpu(tmp_path, "compile", "--help").stdout
    for option in ("--out_dir", "--out-dir", "-o", "--search_delegate", "--memory-picture", "--json"):
        assert option in shown
    assert_refused(etpu(tmp_path, "compile", "--token", "x", "m.tflite"), "token", "'x'")
    assert_refused(etpu(tmp_path, "compile", "--no-such-option", "m.tflite"), "--no-such-option")
    assert_refused(etpu(tmp_path, "compile"), "models")
