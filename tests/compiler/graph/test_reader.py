"""Intact files become graphs; everything else becomes one line that names the file."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from schema_trees import differences, filled, models, pack, schema, unpack

from compiler.errors import EtpuError, InvalidModelError
from compiler.graph import Model, parse_model, read_model, serialize_model
from compiler.graph.build import GraphBuilder
from compiler.graph.unpacking import unpack_model


def valid_file() -> bytes:
    builder = GraphBuilder()
    rng = np.random.default_rng(5)
    x = builder.add_input((1, 6, 6, 3), scale=0.1, name="picture")
    y = builder.conv2d(x, rng.normal(size=(4, 3, 3, 3)), np.ones(4), scale=0.3, per_channel=True, activation="RELU")
    y = builder.reshape(y, (1, 144))
    y = builder.fully_connected(y, rng.normal(size=(5, 144)), scale=0.5)
    return serialize_model(builder.build(builder.softmax(y)))


VALID = valid_file()


def refusal(data: bytes) -> str:
    with pytest.raises(InvalidModelError) as caught:
        parse_model(data, "some.tflite")
    assert "\n" not in str(caught.value)
    assert caught.value.message.startswith("some.tflite: ")
    assert caught.value.advice
    return caught.value.message


def damaged(change: Callable[[Any], object]) -> bytes:
    tree = unpack(VALID)
    change(tree)
    return pack(tree)


# -- files ------------------------------------------------------------------------------------


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(InvalidModelError, match=r"nothing\.tflite: no such file\."):
        read_model(tmp_path / "nothing.tflite")


def test_empty_file(tmp_path: Path) -> None:
    (tmp_path / "empty.tflite").touch()
    with pytest.raises(InvalidModelError, match=r"empty\.tflite: is empty\."):
        read_model(tmp_path / "empty.tflite")


def test_folder_pipe_and_impossible_path(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(InvalidModelError, match="is not a file"):
            read_model(path)
    for name in ("nul\0.tflite", "x" * 5000):
        with pytest.raises(InvalidModelError):
            read_model(tmp_path / name)


def test_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "model.tflite"
    path.write_bytes(VALID)
    model = read_model(path)
    assert (model.source, model.size) == (str(path), len(VALID))
    assert [op.name for op in model.main.operators] == ["CONV_2D", "RESHAPE", "FULLY_CONNECTED", "SOFTMAX"]


# -- damage -----------------------------------------------------------------------------------


@pytest.mark.parametrize("data", [b"\0", b"TFL3", b"\x10\0\0\0TFL2" + bytes(60), os.urandom(3) + bytes(500)])
def test_not_a_model(data: bytes) -> None:
    assert "identifier TFL3 is missing" in refusal(data)


@pytest.mark.parametrize("length", [8, 9, 40, len(VALID) // 4, len(VALID) // 2])
def test_truncated(length: int) -> None:
    assert "damaged or truncated" in refusal(VALID[:length])


def test_every_truncation_is_noticed_or_harmless() -> None:
    for length in range(8, len(VALID), 7):
        outcome(VALID[:length])


@pytest.mark.parametrize(("change", "message"), [
    (lambda m: filled(m, version=2), "has schema version 2, only version 3 is known"),
    (lambda m: filled(m, subgraphs=[]), "holds no subgraph"),
    (lambda m: filled(m, subgraphs=None), "holds no subgraph"),
    (lambda m: filled(m.subgraphs[0].tensors[2], buffer=99), "refers to buffer 99, the model has"),
    (lambda m: filled(m.subgraphs[0].tensors[0], buffer=2**32 - 1), "tensor picture refers to buffer 4294967295"),
    (lambda m: filled(m.subgraphs[0], inputs=[50]), "graph input refers to tensor 50, the graph has"),
    (lambda m: filled(m.subgraphs[0], outputs=[-1]), "graph output refers to tensor -1"),
    (lambda m: filled(m.subgraphs[0].operators[0], inputs=[0, -2]), "CONV_2D (operator 0) refers to tensor -2"),
    (lambda m: filled(m.subgraphs[0].operators[0], outputs=[-1]), "CONV_2D (operator 0) refers to tensor -1"),
    (lambda m: filled(m.subgraphs[0].operators[1], opcodeIndex=7), "operator 1 refers to operator code 7"),
    (lambda m: filled(m.subgraphs[0].operators[1], builtinOptions=None, builtinOptionsType=250), "newer than the known"),
    (lambda m: filled(m.subgraphs[0].tensors[0], type=100), "tensor picture: 100 is not a valid TensorType"),
    (lambda m: filled(m.subgraphs[0].tensors[0], shape=[1, -7]), "tensor picture has the shape [1, -7]"),
    (lambda m: filled(m.subgraphs[0].tensors[1], shape=[4, 3, 3, 2]), "has 108 bytes of data, its shape [4, 3, 3, 2] "
                                                                     "needs 72"),
    (lambda m: filled(m.subgraphs[0].tensors[1].quantization, zeroPoint=[0, 0]), "has 4 scales but 2 zero points"),
    (lambda m: filled(m, metadataBuffer=[-3]), "the list of metadata refers to buffer -3"),
    (lambda m: filled(m.buffers[1], data=None, offset=10**9, size=4), "is truncated: buffer 1 ends at byte 1000000004"),
    (lambda m: filled(m, signatureDefs=[filled(schema.SignatureDefT(), signatureKey="run", subgraphIndex=3)]),
     "signature run refers to subgraph 3"),
    (lambda m: filled(m, signatureDefs=[filled(schema.SignatureDefT(), signatureKey="run", inputs=[
        filled(schema.TensorMapT(), name="x", tensorIndex=90)])]), "signature run refers to tensor 90"),
])
def test_wrong_content(change: Callable[[Any], object], message: str) -> None:
    assert message in refusal(damaged(change))


def test_message_is_one_line_whatever_the_names() -> None:
    message = refusal(damaged(lambda m: filled(m.subgraphs[0].tensors[0], name="a\n\x1b[2Jb", buffer=99)))
    assert "tensor a\ufffd\ufffd[2Jb refers to buffer 99" in message


def outcome(data: bytes) -> None:
    """A model, or an error of ours; if a model, then one that can be written and inspected."""
    try:
        model = parse_model(data)
    except EtpuError:
        return
    assert isinstance(model, Model)
    assert isinstance(serialize_model(model), bytes)
    assert all(t.title for t in model.main.operators)


edits = st.lists(st.tuples(st.integers(0, len(VALID) - 1), st.sampled_from([0, 1, 4, 0x7F, 0x80, 0xFF])
                           | st.integers(0, 255)), min_size=1, max_size=6)


@settings(max_examples=400, deadline=2000)
@given(edits)
def test_changed_bytes(changes: list[tuple[int, int]]) -> None:
    data = bytearray(VALID)
    for position, value in changes:
        data[position] = value
    outcome(bytes(data))


@settings(max_examples=300, deadline=2000)
@given(st.integers(0, len(VALID) // 4 - 1), st.integers(-2**31, 2**31 - 1) | st.integers(-64, 64))
def test_changed_words(word: int, value: int) -> None:
    data = np.frombuffer(VALID[:len(VALID) // 4 * 4], np.int32).copy()
    data[word] = value
    outcome(data.tobytes())


@settings(max_examples=60, deadline=2000, suppress_health_check=[HealthCheck.too_slow])
@given(models(), st.data())
def test_changed_bytes_of_unusual_models(tree: Any, draw: st.DataObject) -> None:
    data = bytearray(pack(tree))
    for _ in range(3):
        data[draw.draw(st.integers(0, len(data) - 1))] = draw.draw(st.integers(0, 255))
    outcome(bytes(data))


@settings(max_examples=200, deadline=2000)
@given(st.binary(max_size=300))
@example(b"\x08\0\0\0TFL3")
def test_random_bytes(tail: bytes) -> None:
    outcome(tail)
    outcome(b"\x1c\0\0\0TFL3" + tail)


def test_overlapping_tables_do_not_multiply() -> None:
    """One table of operators that all subgraphs share is unpacked for each: refused, not waited for."""
    count = 2000
    builder = schema.flatbuffers.Builder(1024)
    operator = schema.OperatorT().Pack(builder)
    schema.SubGraphStartOperatorsVector(builder, count)
    for _ in range(count):
        builder.PrependUOffsetTRelative(operator)
    operators = builder.EndVector()
    schema.SubGraphStart(builder)
    schema.SubGraphAddOperators(builder, operators)
    graph = schema.SubGraphEnd(builder)
    schema.ModelStartSubgraphsVector(builder, count)
    for _ in range(count):
        builder.PrependUOffsetTRelative(graph)
    graphs = builder.EndVector()
    schema.ModelStart(builder)
    schema.ModelAddVersion(builder, 3)
    schema.ModelAddSubgraphs(builder, graphs)
    builder.Finish(schema.ModelEnd(builder), b"TFL3")
    started = time.perf_counter()
    assert "its tables overlap" in refusal(bytes(builder.Output()))
    assert time.perf_counter() - started < 1


# -- content ----------------------------------------------------------------------------------


@settings(max_examples=60, deadline=2000, suppress_health_check=[HealthCheck.too_slow])
@given(models())
@example(unpack(VALID))
def test_everything_is_read_as_the_bindings_read_it(tree: Any) -> None:
    data = pack(tree)
    assert not list(differences(unpack(data), unpack_model(data, "some.tflite")))


# -- frugality --------------------------------------------------------------------------------


def test_constants_are_views_of_the_file() -> None:
    file = np.frombuffer(VALID, np.uint8)
    for tensor in parse_model(VALID).main.tensors:
        if tensor.data is not None:
            assert np.shares_memory(tensor.data, file)
            assert not tensor.data.flags.writeable


MEMORY = """
import resource, sys
from compiler.graph import read_model, write_model
read_model(sys.argv[1])
base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
write_model(read_model(sys.argv[2]), sys.argv[3])
print(1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - base))
"""


def test_memory_stays_below_three_times_the_file(tmp_path: Path) -> None:
    builder = GraphBuilder()
    x = builder.add_input((1, 64), scale=0.1)
    w = builder.constant(np.ones((1_000_000, 64), np.int8), scale=0.1)
    large = serialize_model(builder.build(builder.fully_connected(x, w, scale=0.1)))
    paths = [tmp_path / name for name in ("small", "large", "copy")]
    paths[0].write_bytes(VALID)
    paths[1].write_bytes(large)
    run = subprocess.run([sys.executable, "-c", MEMORY, *map(str, paths)], capture_output=True, text=True, check=True)
    assert paths[2].stat().st_size >= 64_000_000
    assert int(run.stdout) < 3 * len(large)


def test_importing_the_package_loads_no_interpreter_and_no_schema() -> None:
    code = "import sys, compiler.graph, compiler.graph.build, compiler.graph.interpreter; " \
           "print([m for m in sys.modules if m.startswith(('ai_edge_litert', 'tflite_runtime', 'flatbuffers'))])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
