"""From the inventory to a release on an embedded virtual device."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest

from compiler.graph import serialize_model
from compiler.graph.build import GraphBuilder
from compiler.graph.interpreter import TfliteModel
from deploy.deployer import SmokeTest, Target, deploy, releases, rollback
from deploy.errors import AgentError, ReleaseError, SmokeTestFailedError
from deploy.inference import load_pipeline
from deploy.inventory import VirtualDevice
from deploy.session import DeviceSession, connect


def dense(name_in: str, name_out: str, seed: int) -> bytes:
    """A layer of 16 values whose input and output have given names."""
    rng = np.random.default_rng(seed)
    builder = GraphBuilder()
    x = builder.add_input((1, 16), scale=0.1, name=name_in)
    y = builder.fully_connected(x, builder.quantized_weights(rng.normal(size=(16, 16))), scale=0.4)
    tensor = builder.tensors[y]
    builder.tensors[y] = type(tensor)(tensor.index, name_out, tensor.shape, tensor.type, tensor.quantization)
    return serialize_model(builder.build(y))


FIRST, SECOND = dense("in", "between", 1), dense("between", "out", 2)


def smoke_of(*segments: bytes) -> SmokeTest:
    value = np.arange(-8, 8, dtype=np.int8).reshape(1, 16)
    data = value
    for segment in segments:
        (data,) = TfliteModel(segment).run([data])
    return SmokeTest((value.tobytes(),), (data.tobytes(),))


@pytest.fixture
def device(tmp_path: Path) -> VirtualDevice:
    return VirtualDevice("desk", tpus=2, runtime_version=12, bus="pcie", state=str(tmp_path / "state"))


@pytest.fixture
def desk(device: VirtualDevice) -> Iterator[DeviceSession]:
    with connect(device) as session:
        yield session


def test_device_of_the_inventory(desk: DeviceSession, tmp_path: Path) -> None:
    runtime = desk.agent.runtime()
    assert (runtime.version, runtime.simulated, runtime.text) == (12, True, "BuildLabel(N/A), RuntimeVersion(12)")
    assert [tpu.type for tpu in runtime.tpus] == ["pcie", "pcie"]
    assert desk.agent.temperatures() == ()
    assert desk.transport.root == str(tmp_path / "state" / "etpu")


def test_segments_run_one_after_the_other(desk: DeviceSession) -> None:
    asked: list[int] = []

    def compile_model(target: Target) -> Mapping[str, bytes]:
        asked.append(target.min_runtime_version)
        return {"m_segment_0_of_2_edgetpu.tflite": FIRST, "m_segment_1_of_2_edgetpu.tflite": SECOND}

    report = deploy(desk, "m", b"source", compile_model, smoke_of(FIRST, SECOND))
    assert asked == [12] and report.simulated
    assert [file.name[:11] for file in report.release.manifest.files] == ["m_segment_0", "m_segment_1"]
    assert len(report.smoke.result.timings) == 2
    assert report.release.manifest.min_runtime_version == 0, "nothing of it is for the Edge TPU"
    pipeline = load_pipeline(desk, report.release.paths, [False, False])
    smoke = smoke_of(FIRST, SECOND)
    assert pipeline.run(smoke.inputs).outputs == smoke.expected
    pipeline.close()
    with pytest.raises(AgentError, match="no model"):
        desk.agent.run(pipeline.models[0], smoke.inputs)


def test_segments_in_the_wrong_order(desk: DeviceSession) -> None:
    with pytest.raises(SmokeTestFailedError, match=r"b\.tflite takes tensor 'in', which no earlier segment gives"):
        deploy(desk, "m", b"", lambda _: {"a.tflite": SECOND, "b.tflite": FIRST}, smoke_of(SECOND))
    assert releases(desk) == ()


def test_which_model_is_meant(desk: DeviceSession) -> None:
    with pytest.raises(ReleaseError, match="holds 0 models"):
        rollback(desk)
    for name in ("one", "two", "two"):
        deploy(desk, name, b"", lambda _: {"a.tflite": FIRST}, smoke_of(FIRST))
    with pytest.raises(ReleaseError, match="holds 2 models: one, two"):
        rollback(desk)
    assert rollback(desk, "two").manifest.release.startswith("0001")
    assert [(r.manifest.model, r.current) for r in releases(desk)] == [("one", True), ("two", True), ("two", False)]
    assert len(releases(desk, "two")) == 2


def test_what_is_not_a_model(desk: DeviceSession) -> None:
    with pytest.raises(Exception, match=r"a\.tflite"):
        deploy(desk, "m", b"", lambda _: {"a.tflite": b"this is no model"}, smoke_of(FIRST))
    assert releases(desk) == ()


def test_agent_refuses_wrong_inputs(desk: DeviceSession) -> None:
    model = desk.agent.load(FIRST, None)
    assert (model.inputs[0].name, model.inputs[0].shape, model.inputs[0].dtype) == ("in", (1, 16), "int8")
    with pytest.raises(AgentError, match="the model takes in of 16 bytes"):
        desk.agent.run(model, [b"short"])
    with pytest.raises(AgentError, match="there is no Edge TPU 2; this device simulates 2"):
        desk.agent.load(FIRST, 2)
