"""``edgetpu_compiler`` as scripts call it and read it."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from official_grammar import Compilation, parse_log, parse_output
from small_networks import Layers

import compiler.compile
from compiler.compile import CompiledModel, CompileOptions
from compiler.errors import CompilationError
from compiler.graph import Model, TensorType, parse_model, serialize_model
from compiler.package.container import packages_of
from etpu_tool import edgetpu_compiler

COMMAND = Path(sys.executable).parent / "edgetpu_compiler"
OFFICIAL_CALL = ("--out_dir", "D", "--show_operations", "--search_delegate", "--delegate_search_step", "30",
                 "--timeout_sec", "180")


def call(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(COMMAND), *words], cwd=folder, text=True, capture_output=True, timeout=120, check=False)


def parsed(result: subprocess.CompletedProcess[str]) -> list[Compilation]:
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stderr == ""
    return parse_output(result.stdout)


def files(folder: Path) -> set[str]:
    return {str(p.relative_to(folder)) for p in folder.rglob("*")}


def save(folder: Path, name: str, model: Model) -> Model:
    (folder / name).write_bytes(serialize_model(model))
    return model


def mixed() -> Model:
    """Seven operators, two of them for the CPU, those in between in a second subgraph."""
    net = Layers(1)
    x = net.cpu(net.conv(net.conv(net.input(8, 8, 4), 8), 8))
    return net.model(net.cpu(net.conv(net.depthwise(x), 8)), net.conv(x, 4))


def chain(layers: int = 5, seed: int = 0) -> Model:
    net = Layers(seed)
    x = net.input(8, 8, 4)
    for _ in range(layers):
        x = net.conv(x, 8)
    return net.model(x)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    save(folder, "mixed.tflite", mixed())
    save(folder, "chain.tflite", chain())
    save(folder, "other.tflite", chain(3, 7))
    return folder


def test_the_call_of_exporters(place: Path) -> None:
    (run,) = parsed(call(place, *OFFICIAL_CALL, "mixed.tflite"))
    assert run.tries == [7]
    (block,) = run.blocks
    assert block.fields["Input model"] == "mixed.tflite"
    assert block.fields["Output model"] == "D/mixed_edgetpu.tflite"
    assert block.fields["Total number of operations"] == "7"
    assert (block.on_edge_tpu, block.on_cpu) == (2, 5)
    assert block.rows is not None
    assert sum(count for _, count, _ in block.rows) == 7
    assert ("CONV_2D", 2, "More than one subgraph is not supported") in block.rows
    assert parse_log((place / "D" / "mixed_edgetpu.log").read_text()) == block.rows
    size = (place / "D" / "mixed_edgetpu.tflite").stat().st_size
    assert block.fields["Output size"] == f"{size / 1024:.2f}KiB"


@pytest.mark.parametrize("style", [
    ("-s", "-a", "-o", "E"),
    ("-show_operations", "-enable_multiple_subgraphs", "-out_dir", "E"),
    ("--show_operations", "--enable_multiple_subgraphs", "--out_dir=E"),
])
def test_short_and_long_options(place: Path, style: Sequence[str]) -> None:
    (run,) = parsed(call(place, "mixed.tflite", *style))
    assert run.tries == []
    (block,) = run.blocks
    assert block.fields["Number of Edge TPU subgraphs"] == "2"
    assert (block.on_edge_tpu, block.on_cpu) == (5, 2)


def test_several_models_have_a_block_each(place: Path) -> None:
    (run,) = parsed(call(place, "-o", "F", "chain.tflite", "other.tflite"))
    assert [b.fields["Input model"] for b in run.blocks] == ["chain.tflite", "other.tflite"]
    assert [b.fields["Total number of operations"] for b in run.blocks] == ["5", "3"]
    assert len({b.fields["On-chip memory remaining for caching model parameters"] for b in run.blocks}) == 1
    assert all(b.rows is None and b.on_cpu is None for b in run.blocks)


def test_segments(place: Path) -> None:
    result = call(place, "-o", "G", "-s", "-d", "-k", "10", "-n", "2", "chain.tflite")
    runs = parsed(result)
    assert [r.tries for r in runs] == [[2], [3]]
    names = [f"chain_segment_{i}_of_2" for i in range(2)]
    assert [r.blocks[0].fields["Input model"] for r in runs] == [f"{n}.tflite" for n in names]
    assert files(place / "G") == {f"{n}_edgetpu.{suffix}" for n in names for suffix in ("tflite", "log")}
    assert "Warning: For the given model, you're creating more segments than is necessary" in result.stdout


def test_intermediate_tensors(place: Path) -> None:
    name = chain().main.tensors[chain().main.operators[2].outputs[0]].name
    (run,) = parsed(call(place, "-o", "H", "-s", "-i", name, "chain.tflite"))
    assert (run.blocks[0].on_edge_tpu, run.blocks[0].on_cpu) == (3, 2)
    refused = call(place, "-i", "a:b", "chain.tflite")
    assert refused.returncode != 0
    assert "The number of lists given to intermediate_tensors doesn't match the number of input models." in refused.stderr
    assert call(place, "-i", "nowhere", "chain.tflite").returncode != 0


def test_version() -> None:
    words = call(Path.cwd(), "--version").stdout.split()
    assert [part.isdigit() for part in words[-1].split(".")] == [True] * 3
    assert call(Path.cwd(), "-v").stdout.split() == words


@pytest.mark.parametrize(("words", "said"), [
    (("-n", "2", "chain.tflite", "other.tflite"), "several models"),
    (("-n", "2", "-i", "x", "chain.tflite"), "intermediate_tensors"),
    (("-n", "9", "chain.tflite"), "Ask for 5 segments"),
    (("-n", "-1", "chain.tflite"), "num_segments"),
    (("-m", "9", "chain.tflite"), "10..14"),
    (("-m", "ten", "chain.tflite"), "ten"),
    (("-k", "0", "chain.tflite"), "delegate_search_step"),
    (("-t", "-5", "chain.tflite"), "timeout_sec"),
    (("--unheard", "chain.tflite"), "--unheard"),
    (("chain.tflite", "chain.tflite"), "twice"),
    (("missing.tflite",), "missing.tflite"),
    (("-o", "chain.tflite/D", "chain.tflite"), "cannot be written"),
    ((), "model"),
])
def test_what_does_not_go_together(place: Path, words: Sequence[str], said: str) -> None:
    before = files(place)
    result = call(place, *words)
    assert result.returncode in (1, 2)
    assert said in result.stderr
    assert "Traceback" not in result.stderr
    assert files(place) == before


def test_float_and_broken_models(tmp_path: Path) -> None:
    net = Layers(kind=TensorType.FLOAT32)
    x = net.b.tensor((1, 4), type=TensorType.FLOAT32)
    net.b.inputs.append(x)
    y = net.b.tensor((1, 4), type=TensorType.FLOAT32)
    net.b.op("RELU", (x,), (y,))
    save(tmp_path, "float.tflite", net.model(y))
    (tmp_path / "broken.tflite").write_bytes(b"no model at all, but long enough")
    for name, reason in (("float", "Model not quantized"), ("broken", "Model could not be parsed")):
        result = call(tmp_path, f"{name}.tflite")
        assert result.returncode == 1
        assert f"Invalid model: {name}.tflite\n{reason}\n" in result.stderr
        assert result.stdout.count("\n") == 1


def test_dynamic_shapes(tmp_path: Path) -> None:
    net = Layers()
    x = net.b.add_input((1, 8), scale=0.1, signature=(1, -1))
    save(tmp_path, "dynamic.tflite", net.model(net.dense(x, 4)))
    result = call(tmp_path, "dynamic.tflite")
    assert result.returncode == 1
    (run,) = parse_output(result.stdout)
    assert not run.succeeded
    assert "delegate that only supports static-sized tensors" in result.stderr
    assert "Compilation failed: Model failed in Tflite interpreter." in result.stderr


def test_large_activations(tmp_path: Path) -> None:
    net = Layers()
    save(tmp_path, "large.tflite", net.model(net.conv(net.input(3000, 3000, 4), 16)))
    result = call(tmp_path, "large.tflite")
    assert result.returncode == 1
    (run,) = parse_output(result.stdout)
    assert run.failures == 1
    assert "Compilation failed: Compilation failed due to large activation tensors in model." in result.stderr
    assert "CONV_2D (operator 0)" in result.stderr and "would fit" in result.stderr
    assert files(tmp_path) == {"large.tflite"}


def run_here(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    """Run the command in this process, where its parts can be exchanged."""
    monkeypatch.setattr(sys, "argv", ["edgetpu_compiler", *words])
    status = 0
    try:
        edgetpu_compiler.run()
    except SystemExit as ended:
        status = int(ended.code or 0)
    return status, *capfd.readouterr()


def fails_beyond(count: int) -> object:
    """A compiler that fails on more operators than these, and on others does its work."""
    real = compiler.compile.compile_checked

    def compile_checked(models: Sequence[Model], options: CompileOptions) -> tuple[CompiledModel, ...]:
        if options.first_operators[0] > count:
            raise CompilationError("the injected fault")
        return real(models, options)

    return compile_checked


def test_search_drops_operators_until_it_works(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                               capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("compiler.compile.compile_checked", fails_beyond(2))
    status, out, err = run_here(monkeypatch, capfd, "-d", "-s", "-o", str(tmp_path), str(place / "chain.tflite"))
    assert status == 0
    (run,) = parse_output(out)
    graph = chain().main
    assert run.tries == [5, 4, 3, 2]
    assert run.tensors == [[graph.tensors[graph.operators[n - 1].outputs[0]].name] for n in (4, 3, 2)]
    assert run.failures == 3
    assert (run.blocks[0].on_edge_tpu, run.blocks[0].on_cpu) == (2, 3)
    assert "the injected fault" in err
    data = (tmp_path / "chain_edgetpu.tflite").read_bytes()
    assert len(packages_of(parse_model(data))) == 1


def test_search_that_finds_nothing(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                   capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("compiler.compile.compile_checked", fails_beyond(-1))
    status, out, _ = run_here(monkeypatch, capfd, "-d", "-k", "2", "-o", str(tmp_path / "new"), str(place / "chain.tflite"))
    assert status == 1
    (run,) = parse_output(out)
    assert run.tries == [5, 3, 1]
    assert not run.succeeded
    assert files(tmp_path) == set()


def test_time_limit(place: Path, tmp_path: Path) -> None:
    result = call(place, "--timeout_sec", "0", "-o", str(tmp_path / "new"), "chain.tflite")
    assert result.returncode == 1
    (run,) = parse_output(result.stdout)
    assert not run.succeeded
    assert "longer than 0 seconds" in result.stderr
    assert "Compilation timeout." in result.stdout
    assert files(tmp_path) == set()


def test_a_compilation_that_never_ends_is_killed(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                 capfd: pytest.CaptureFixture[str]) -> None:
    def hangs(models: Sequence[Model], options: CompileOptions) -> None:
        (tmp_path / "alive").write_text("")
        while True:
            time.sleep(0.05)
            (tmp_path / "alive").touch()

    monkeypatch.setattr("compiler.compile.compile_checked", hangs)
    started = time.monotonic()
    status, out, _ = run_here(monkeypatch, capfd, "-t", "1", "-o", str(tmp_path), str(place / "chain.tflite"))
    assert status == 1
    assert 0.9 < time.monotonic() - started < 20
    assert "Compilation failed! " in out
    last = (tmp_path / "alive").stat().st_mtime_ns
    time.sleep(0.3)
    assert (tmp_path / "alive").stat().st_mtime_ns == last
    assert files(tmp_path) == {"alive"}


def test_internal_faults_are_named(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                   capfd: pytest.CaptureFixture[str]) -> None:
    def broken(models: Sequence[Model], options: CompileOptions) -> None:
        raise KeyError("fault")

    monkeypatch.setattr("compiler.compile.compile_checked", broken)
    status, _, err = run_here(monkeypatch, capfd, "-o", str(tmp_path), str(place / "chain.tflite"))
    assert status == 1
    assert "Compilation failed: Internal error." in err
    assert "KeyError: 'fault' (test_drop_in.py" in err
    assert "Traceback" not in err
    assert files(tmp_path) == set()
