"""Models with operators on both sides, against TensorFlow Lite; the chip adds one to every value."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from virtual_packages import compiled_model

from compiler.graph import parse_model, serialize_model
from compiler.graph.interpreter import TfliteModel
from compiler.package import Executable
from deploy.compiled import CompiledFacts, facts_of
from deploy.deployer import SmokeTest, deploy, releases
from deploy.errors import (
    NoEdgeTpuError,
    PlacementError,
    RuntimeTooOldError,
    VirtualDeviceError,
)
from deploy.inventory import VirtualDevice
from deploy.session import connect
from deploy.virtual import VirtualRuntime
from deploy.virtual.steps import CpuStep, TpuStep, steps_of


@dataclass(frozen=True)
class Run:
    outputs: Mapping[str, bytes]


class AddingChip:
    def run(self, executable: Executable, inputs: Mapping[str, bytes]) -> Run:
        sizes = {layer.name: layer for layer in executable.outputs}
        values = b"".join(inputs.values())
        plus = bytes((value + 1) % 256 for value in values)
        return Run({name: plus[: layer.size] for name, layer in sizes.items()})


def runtime(version: int = 14) -> VirtualRuntime:
    return VirtualRuntime(2, version, simulator=AddingChip, times=lambda program, _: len(program.parameters) + 10.0)


def test_facts_are_read_off_the_file() -> None:
    assert facts_of(compiled_model(token=0xABC, version=13), "x") == CompiledFacts(True, 13, "0x0000000000000abc")


def test_steps() -> None:
    first, second, third = steps_of(parse_model(compiled_model()))
    assert isinstance(first, CpuStep) and isinstance(second, TpuStep) and isinstance(third, CpuStep)
    assert first.inputs == (0,) and first.outputs == second.operator.inputs
    assert third.inputs == second.operator.outputs


def test_mixed_model_gives_what_its_parts_give() -> None:
    data = compiled_model()
    first, _, third = steps_of(parse_model(data))
    assert isinstance(first, CpuStep) and isinstance(third, CpuStep)
    x = np.arange(-8, 8, dtype=np.int8).reshape(1, 16)
    (between,) = TfliteModel(serialize_model(first.model)).run([x])
    # what the chip sees and gives is unsigned: int8 with the sign bit flipped
    plus = ((between.view(np.uint8) ^ 0x80) + np.uint8(1)) ^ np.uint8(0x80)
    (y,) = TfliteModel(serialize_model(third.model)).run([plus.view(np.int8)])
    model = runtime().load(data, 0)
    outputs, timing = model.run([x.tobytes()])
    assert outputs == [y.tobytes(), between.tobytes()]
    assert timing["device_us"] > 0 and timing["host_us"] > 0
    assert timing["total_us"] == timing["device_us"] + timing["host_us"]
    assert [tensor["shape"] for tensor in model.inputs] == [[1, 16]]


def test_first_run_is_slower_on_each_edge_tpu() -> None:
    device, data = runtime(), compiled_model()
    for index in (0, 1):
        model = device.load(data, index)
        first, warm = (model.run([bytes(16)])[1]["device_us"] for _ in range(2))
        assert first > warm
        assert device.tpu(index).counters.cache_writes == 1


def test_refusals() -> None:
    with pytest.raises(RuntimeTooOldError, match=r"requires runtime version \(14\).*this runtime version \(13\)\."):
        runtime(13).load(compiled_model(version=14), 0)
    with pytest.raises(NoEdgeTpuError, match="no Edge TPU 2"):
        runtime().load(compiled_model(), 2)
    with pytest.raises(VirtualDeviceError, match="loaded without one"):
        runtime().load(compiled_model(), None)
    with pytest.raises(VirtualDeviceError, match="bad configuration"):
        VirtualRuntime.from_json("{")
    with pytest.raises(VirtualDeviceError, match="bad configuration"):
        VirtualRuntime.from_json(json.dumps({"colour": 1}))
    with pytest.raises(VirtualDeviceError, match="unknown bus"):
        VirtualRuntime(bus="isa")


def test_layer_without_tensor_is_named() -> None:
    model = parse_model(compiled_model())
    operator = model.main.operators[1]
    renamed = model.main.tensors[operator.outputs[0]]
    tensors = list(model.main.tensors)
    tensors[renamed.index] = type(renamed)(renamed.index, "other", renamed.shape, renamed.type, renamed.quantization)
    changed = model.with_main(type(model.main)("main", tuple(tensors), model.main.operators, model.main.inputs, (4,)))
    with pytest.raises(VirtualDeviceError, match="_out' of the package in edgetpu-custom-op"):
        runtime().load(serialize_model(changed), 0)


def test_old_device_refuses_a_new_package_before_anything_is_uploaded(tmp_path: Path) -> None:
    """The deploy asks the device, and what was compiled is checked against its answer."""
    device = VirtualDevice("old", runtime_version=12, state=str(tmp_path))
    model = compiled_model(version=14)
    with connect(device) as session:
        with pytest.raises(RuntimeTooOldError) as caught:
            deploy(session, "m", model, lambda _: {"m_edgetpu.tflite": model}, SmokeTest((), ()))
        assert releases(session) == ()
        with pytest.raises(RuntimeTooOldError) as loading:
            session.agent.load(model, 0)
    assert caught.value.message == loading.value.message
    assert caught.value.message == (
        "Package requires runtime version (14), which is newer than this runtime version (12)."
    )
    assert "old (virtual)" in caught.value.advice and "--min_runtime_version 12" in caught.value.advice


def test_more_segments_than_edge_tpus(tmp_path: Path) -> None:
    model = compiled_model()
    with connect(VirtualDevice("one", state=str(tmp_path))) as session:
        with pytest.raises(Exception, match="2 segments need an Edge TPU each") as caught:
            deploy(session, "m", b"", lambda _: {"a.tflite": model, "b.tflite": model}, SmokeTest((), ()))
        assert isinstance(caught.value.__cause__ or caught.value, PlacementError)
        assert releases(session) == ()
