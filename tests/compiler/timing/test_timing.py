"""Timing of recorded runs: what must hold whatever the costs are."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from compiler.beagle.simulator import Machine
from compiler.beagle.timing import BUSES, Costs, Trace, chrome_trace, engine_times, part_times, record, schedule, timeline
from compiler.beagle.timing.trace import Step, Work
from compiler.compile import CompileOptions, compile_model
from compiler.graph import parse_model, serialize_model
from compiler.graph.build import GraphBuilder
from compiler.package import encode_input
from compiler.package.container import packages_of

USB3 = BUSES["usb3"]


def dense_trace(*sizes: int) -> Trace:
    rng = np.random.default_rng(1)
    b = GraphBuilder()
    x = b.add_input((1, sizes[0]), scale=0.02)
    for m in sizes[1:]:
        w = b.quantized_weights(rng.normal(size=(m, b.tensors[x].shape[-1])), per_channel=True)
        x = b.fully_connected(x, w, b.bias(rng.normal(size=m), x, w), scale=0.4)
    model = parse_model(serialize_model(b.build(x)), "dense")
    package = packages_of(parse_model(compile_model(model, CompileOptions(token=1)).data))[0][1]
    machine = Machine()
    if package.caching is not None:
        machine.run(package.caching)
    (layer,) = package.execution.inputs
    return record(machine, package.execution, {layer.name: encode_input(layer, np.zeros(layer.z, np.int8))})


@pytest.fixture(scope="module")
def trace() -> Trace:
    return dense_trace(300, 200, 100)


def test_steps_of_one_engine_follow_each_other_and_wait_overlaps() -> None:
    """Two engines: the second begins at half of the first, and cannot end before it."""
    trace = Trace([Step(0, Work.COMPUTE, 100, None), Step(1, Work.MESH, 16, None, [(0, 0.5)], [(0, 1.0)]),
                   Step(1, Work.MESH, 160, None)], ["a", "b"])
    costs = Costs(megahertz=1.0, per_element={Work.COMPUTE: 2.0, Work.MESH: 1.0}, start={})
    times = schedule(trace, costs, dataclasses.replace(USB3, overhead_us=7.0))
    assert times.begin.tolist() == [0, 100, 200]
    assert times.end.tolist() == [200, 200, 360]
    assert times.total_us == 367


def test_a_slower_clock_or_bus_is_never_faster(trace: Trace) -> None:
    fast = schedule(trace, Costs(megahertz=500), USB3).total_us
    assert schedule(trace, Costs(megahertz=250), USB3).total_us > fast
    slow = dataclasses.replace(USB3, to_chip=USB3.to_chip / 4)
    assert schedule(trace, Costs(), slow).total_us > fast


def test_every_step_waits_for_earlier_ones_only(trace: Trace) -> None:
    for number, step in enumerate(trace.steps):
        assert all(other < number for other, _ in step.begins_after + step.ends_after)
    times = schedule(trace, Costs(), USB3)
    assert np.all(times.end >= times.begin)
    assert np.all(times.work_us >= 0)


def test_streamed_parameters_cost_the_bus() -> None:
    """9000 inputs are never cached: 9000 x 500 bytes take their time."""
    streamed = schedule(dense_trace(9000, 500), Costs(), USB3).total_us
    assert streamed > 9000 * 500 / USB3.to_chip


def test_reports_agree_with_the_schedule(trace: Trace) -> None:
    times = schedule(trace, Costs(), USB3)
    parts = part_times(times)
    assert any(p.compute_us > 0 for p in parts)
    assert all(0 <= p.begin_us <= p.end_us <= times.total_us for p in parts)
    assert all(0 <= e.share <= 1 for e in engine_times(times))
    assert timeline(times)["simulated"] is True
    events = json.loads(json.dumps(chrome_trace(times)))["traceEvents"]
    spans = [e for e in events if e["ph"] == "X"]
    assert spans
    assert {e["ph"] for e in events} == {"M", "X"}
    named = {(e["pid"], e["tid"]) for e in events if e["name"] == "thread_name"}
    assert all((e["pid"], e["tid"]) in named and e["name"] and e["ts"] >= 0 and e["dur"] >= 0 for e in spans)
    assert max(e["ts"] + e["dur"] for e in spans) <= times.total_us
