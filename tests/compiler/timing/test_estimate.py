"""Estimates for planners: they are the timed run, operator by operator."""

from __future__ import annotations

import numpy as np
import pytest
from small_networks import Layers

from compiler.beagle.simulator import Machine
from compiler.beagle.timing import BUSES, Costs, estimate, record, schedule
from compiler.compile import CompiledModel, CompileOptions, compile_model
from compiler.graph import Model, parse_model
from compiler.package import Package
from compiler.package.container import packages_of


def image_model() -> Model:
    b = Layers()
    x = b.conv(b.input(16, 16, 8), 24)
    x = b.add(b.conv(x, 24), b.depthwise(x))
    return b.model(b.dense(b.conv(x, 8, stride=2), 40))


def dense_model() -> Model:
    b = Layers()
    return b.model(b.dense(b.dense(b.input(200), 300), 90))


def compiled(model: Model) -> tuple[CompiledModel, Package]:
    result = compile_model(model, CompileOptions(token=1))
    return result, packages_of(parse_model(result.data))[0][1]


@pytest.mark.parametrize("model", [dense_model(), image_model()], ids=["dense", "image"])
def test_a_run_that_computes_nothing_takes_as_long(model: Model) -> None:
    """The estimate's shortcut: the same steps as a run on random data."""
    _, package = compiled(model)
    machine = Machine()
    assert package.caching is not None
    machine.run(package.caching)
    rng = np.random.default_rng(3)
    inputs = {layer.name: rng.bytes(layer.size) for layer in package.execution.inputs}
    times = schedule(record(machine, package.execution, inputs), Costs(), BUSES["usb3"])
    assert estimate(package, "usb3").warm_us == times.total_us


@pytest.mark.parametrize("model", [dense_model(), image_model()], ids=["dense", "image"])
def test_every_operator_has_its_share(model: Model) -> None:
    result, package = compiled(model)
    cost = estimate(package, "usb3", parts=result.parts[0])
    titles = {op.title for op in model.main.operators if op.name != "RESHAPE"}
    named = [op for op in cost.operators if op.name in titles]
    assert len(named) == len(titles)
    assert sum(op.latency_us for op in cost.operators) == pytest.approx(cost.warm_us - BUSES["usb3"].overhead_us)
    assert all(op.compute_us > 0 for op in named)
    assert cost.cache_us > 0
    assert cost.first_us == cost.cache_us + cost.warm_us


def test_streamed_parameters_are_counted_for_their_operator() -> None:
    b = Layers()
    result, package = compiled(b.model(b.dense(b.dense(b.input(9000), 100), 50)))
    first, second = (op for op in estimate(package, parts=result.parts[0]).operators if "FULLY" in op.name)
    assert first.streamed_bytes >= 9000 * 100
    assert second.streamed_bytes == 0
    assert first.streamed_bytes == len(package.execution.parameters)
