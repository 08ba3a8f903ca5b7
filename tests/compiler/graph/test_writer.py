"""What was read is written back, table by table; what was changed is changed and nothing else."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from schema_trees import differences, filled, models, pack, schema, unpack

from compiler.errors import EtpuError
from compiler.graph import Quantization, Signature, parse_model, serialize_model, write_file, write_model
from compiler.graph.build import GraphBuilder
from compiler.graph.interpreter import TfliteModel


def dense_model(inputs: int = 16, outputs: int = 8) -> Any:
    builder = GraphBuilder()
    w = np.random.default_rng(1).normal(size=(outputs, inputs))
    x = builder.add_input((1, inputs), scale=0.1)
    return builder.build(builder.fully_connected(x, w, np.ones(outputs), scale=0.5))


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(models())
def test_round_trip_keeps_every_table(tree: Any) -> None:
    data = pack(tree)
    before = unpack(data)
    assert not list(differences(before, unpack(serialize_model(parse_model(data)))))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(models())
def test_round_trip_through_constants_behind_the_flatbuffer(tree: Any) -> None:
    data = pack(tree)
    behind = serialize_model(replace(parse_model(data), constants_behind=True))
    read = parse_model(behind)
    again = serialize_model(replace(read, constants_behind=False))
    assert not list(differences(unpack(data), unpack(again)))
    assert serialize_model(read) == behind


def test_a_built_model_reads_back_as_built() -> None:
    model = dense_model()
    read = parse_model(serialize_model(model))
    for a, b in zip(model.main.tensors, read.main.tensors, strict=True):
        assert (a.name, a.shape, a.type) == (b.name, b.shape, b.type)
        assert (a.data is None) == (b.data is None)
        if a.data is not None and b.data is not None:
            assert np.array_equal(a.array(), b.array())
        assert a.quantization is not None
        assert a.quantization.same_as(b.quantization)
    (op,) = read.main.operators
    assert (op.name, op.activation, op.version, op.inputs, op.outputs) == ("FULLY_CONNECTED", "NONE", 4, (0, 1, 2), (3,))


def test_changes_reach_the_file() -> None:
    model = parse_model(serialize_model(dense_model()))
    graph = model.main
    weights, result = graph.tensors[1], graph.tensors[3]
    options = schema.FullyConnectedOptionsT()
    options.fusedActivationFunction = schema.ActivationFunctionType.RELU
    changed = replace(
        graph, name="other",
        tensors=(graph.tensors[0], replace(weights, data=weights.data[::-1], name="backwards"), graph.tensors[2],
                 replace(result, quantization=Quantization(np.asarray([2], np.float32), np.asarray([7], np.int64)))),
        operators=(replace(graph.operators[0], options=options, version=5, intermediates=(1, 2),
                           mutating=(True, False, False)),))
    signature = Signature("run", (("in", 0),), (("out", 3),))
    read = parse_model(serialize_model(replace(
        model, graphs=(changed,), signatures=(signature,), metadata=(("note", np.arange(5, dtype=np.uint8)),))))
    assert read.main.name == "other"
    assert read.main.tensors[1].name == "backwards"
    assert np.array_equal(read.main.tensors[1].data, weights.data[::-1])
    assert read.main.tensors[3].quantization.scale == 2
    assert read.main.tensors[3].quantization.zero_point == 7
    assert (read.main.operators[0].activation, read.main.operators[0].version) == ("RELU", 5)
    assert read.main.operators[0].intermediates == (1, 2)
    assert read.main.operators[0].mutating == (True, False, False)
    assert read.signatures == (signature,)
    assert [(name, blob.tolist()) for name, blob in read.metadata] == [("note", [0, 1, 2, 3, 4])]
    assert len(read.raw.operatorCodes) == 1


def test_quantization_and_options_can_be_removed() -> None:
    model = parse_model(serialize_model(dense_model()))
    graph = model.main
    bare = replace(graph, tensors=tuple(replace(t, quantization=None) for t in graph.tensors),
                   operators=tuple(replace(op, options=None) for op in graph.operators))
    read = parse_model(serialize_model(model.with_main(bare)))
    assert all(t.quantization is None for t in read.main.tensors)
    assert read.main.operators[0].options is None


def test_a_range_alone_can_be_changed() -> None:
    model = parse_model(serialize_model(dense_model()))
    first = model.main.tensors[0]
    assert first.quantization is not None
    ranged = replace(first.quantization, minimum=np.asarray([-3], np.float32), maximum=np.asarray([4], np.float32))
    graph = replace(model.main, tensors=(replace(first, quantization=ranged), *model.main.tensors[1:]))
    read = parse_model(serialize_model(model.with_main(graph))).main.tensors[0].quantization
    assert read is not None
    assert (read.minimum.tolist(), read.maximum.tolist()) == ([-3], [4])
    assert read.same_as(first.quantization)


def test_constants_that_nothing_refers_to_any_more_are_left_out() -> None:
    model = parse_model(serialize_model(dense_model(256, 256)))
    graph = model.main
    without = replace(graph, tensors=(graph.tensors[0], graph.tensors[3]), outputs=(1,), operators=())
    data = serialize_model(model.with_main(without))
    assert len(data) < 1000
    assert len(parse_model(data).raw.buffers) == 1
    assert not parse_model(data).raw.operatorCodes


def test_equal_constants_of_one_array_are_stored_once() -> None:
    model = dense_model(64, 64)
    graph = model.main
    twin = replace(graph.tensors[1], index=4, name="twin")
    size = len(serialize_model(model))
    assert len(serialize_model(model.with_main(replace(graph, tensors=(*graph.tensors, twin))))) < size + 200


@pytest.mark.parametrize("behind", [False, True])
def test_constants_are_aligned(behind: bool) -> None:
    data = serialize_model(replace(dense_model(17, 5), constants_behind=behind))
    start = np.frombuffer(data, np.uint8).__array_interface__["data"][0]
    for tensor in parse_model(data).main.tensors:
        if tensor.data is not None:
            assert (tensor.data.__array_interface__["data"][0] - start) % 16 == 0


def test_constants_behind_the_flatbuffer_run() -> None:
    model = dense_model()
    x = np.arange(16, dtype=np.int8).reshape(1, 16)
    (expected,) = TfliteModel(serialize_model(model)).run([x])
    behind = serialize_model(replace(model, constants_behind=True))
    assert all(buffer.data is None for buffer in unpack(behind).buffers)
    assert np.array_equal(TfliteModel(behind).run([x])[0], expected)


def test_large_custom_options_stay_behind_the_flatbuffer() -> None:
    blob = np.arange(100, dtype=np.uint8)
    builder = GraphBuilder()
    x = builder.add_input((1, 4), scale=0.1)
    model = builder.build(builder.custom("mine", (x,), (builder.tensor((1, 4), scale=0.1),), blob.tobytes()))
    tree = unpack(serialize_model(model))
    inline = pack(tree)
    position = len(inline) + 64
    filled(tree.subgraphs[0].operators[0], customOptions=None, largeCustomOptionsOffset=position,
           largeCustomOptionsSize=blob.size)
    data = pack(tree)
    data += bytes(position - len(data)) + blob.tobytes()
    read = parse_model(serialize_model(parse_model(data)))
    (op,) = read.main.operators
    assert np.array_equal(op.custom_options, blob)
    assert op.raw.largeCustomOptionsOffset > 1


def test_writing_a_large_model_is_quick() -> None:
    data = serialize_model(dense_model(2048, 2048))
    durations = []
    for _ in range(3):
        started = time.perf_counter()
        serialize_model(parse_model(data))
        durations.append(time.perf_counter() - started)
    assert min(durations) < 0.3


def test_written_file_is_complete_and_alone(tmp_path: Path) -> None:
    path = tmp_path / "model.tflite"
    path.write_bytes(b"old")
    size = write_model(dense_model(), path)
    assert path.read_bytes() == serialize_model(dense_model())
    assert path.stat().st_size == size
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("target", ["missing/model.tflite", "file/model.tflite", "folder"])
def test_unwritable_place_leaves_nothing_behind(tmp_path: Path, target: str) -> None:
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "folder").mkdir()
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(EtpuError, match=r"cannot be written: .+\. Choose a folder") as caught:
        write_file(tmp_path / target, b"data")
    assert str(tmp_path / target) in caught.value.message
    assert sorted(tmp_path.rglob("*")) == before


def test_interrupted_write_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.tflite"
    path.write_bytes(b"old")

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_file(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
