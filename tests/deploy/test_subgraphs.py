"""Models with several Edge TPU subgraphs: compiled as packages that share memory and token, run whole."""

from __future__ import annotations

import numpy as np
import pytest
from small_networks import Layers, little_memory, random_inputs

from compiler.beagle.judge import try_executables
from compiler.beagle.reference import evaluate
from compiler.compile import CompileOptions, compile_model, compile_models
from compiler.facts import CUSTOM_OPERATOR
from compiler.graph import Model, parse_model
from compiler.mapping import Status
from compiler.package import encode_input
from compiler.package.container import packages_of
from deploy.virtual import VirtualRuntime

ALL = CompileOptions(multiple_subgraphs=True)


def chain(name: str = "net.tflite") -> Model:
    """Images, CPU, images, CPU, dense layers."""
    net = Layers(1)
    x = net.cpu(net.conv(net.input(12, 12, 8), 16))
    x = net.cpu(net.conv(net.depthwise(x), 8, stride=2))
    return net.model(net.dense(net.dense(x, 40, "RELU"), 10), name=name)


def diamond() -> Model:
    """Results of every part leave the model or go on to the CPU."""
    net = Layers(2)
    first = net.conv(net.input(12, 12, 8), 16)
    left = net.cpu(net.conv(first, 16, 1))
    second = net.conv(net.conv(left, 16), 16, 1)
    return net.model(second, net.dense(net.cpu(second), 6), first)


def run_and_compare(model: Model, data: bytes, device: VirtualRuntime) -> None:
    graph = model.main
    values = random_inputs(graph)
    want = evaluate(graph, dict(zip(graph.inputs, values, strict=True)))
    found = device.run_model(data, [v.tobytes() for v in values])
    for index, blob in zip(graph.outputs, found, strict=True):
        assert blob == want[index].tobytes()


@pytest.mark.parametrize(("make", "parts"), [(chain, 3), (diamond, 3)], ids=["chain", "diamond"])
def test_every_part_becomes_an_operator(make: object, parts: int) -> None:
    model = make()  # type: ignore[operator]
    compiled = compile_model(model, ALL)
    assert compiled.subgraphs == parts
    read = parse_model(compiled.data)
    packages = [package for _, package in packages_of(read)]
    assert len(packages) == parts
    assert len({e.token for p in packages for e in p.executables}) == 1
    names = [op.custom_name or op.name for op in read.main.operators]
    assert names.count("LEAKY_RELU") == compiled.on_cpu == 2
    assert names.count(CUSTOM_OPERATOR) == parts
    for package in packages:
        rng = np.random.default_rng(5)
        data = {layer.name: encode_input(layer, rng.integers(-128, 128, (layer.y, layer.x, layer.z), np.int8))
                for layer in package.execution.inputs}
        report = try_executables([e for e in (package.caching, package.execution) if e is not None], data)
        assert not report.findings
    device = VirtualRuntime()
    run_and_compare(model, compiled.data, device)
    assert device.tpu(0).counters.wipes == 0


def test_parts_share_the_memory() -> None:
    compiled = compile_model(chain(), ALL)
    rows = [{(p.tile, r) for pieces in plan.pieces for p in pieces for r in range(p.row, p.row + p.rows)}
            for plan in compiled.plans]
    assert all(rows)
    assert len(set.union(*rows)) == sum(map(len, rows))
    assert compiled.on_chip_used == 256 * sum(map(len, rows))


def test_no_part_is_written_twice_whatever_runs_between() -> None:
    first, second = compile_models([chain("a"), chain("b")], ALL)
    device = VirtualRuntime()
    models = [device.load(c.data, 0) for c in (first, second)]
    inputs = [v.tobytes() for v in random_inputs(chain().main)]
    results = [model.run(inputs)[0] for _ in range(2) for model in models]
    assert results[0] == results[1] == results[2] == results[3]
    assert device.tpu(0).counters.cache_writes == 6
    assert device.tpu(0).counters.wipes == 0


def test_without_the_option_only_the_first_part_is_mapped() -> None:
    compiled = compile_model(chain())
    assert compiled.subgraphs == 1
    assert [v.status for v in compiled.mapped.verdicts].count(Status.SUBGRAPH) == 5
    run_and_compare(chain(), compiled.data, VirtualRuntime())


def test_refusal_in_a_later_part_leaves_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """An operator that only code generation can refuse lies in the second part; the rest stays on the Edge TPU."""
    little_memory(monkeypatch, 4000)
    net = Layers(3)
    x = net.cpu(net.conv(net.input(12, 12, 8), 16))
    refused = net.conv(x, 4096, 1)  # a single row of a tile takes more memory
    operator = len(net.b.operators) - 1
    model = net.model(net.dense(net.cpu(net.conv(x, 8)), 5), refused)
    compiled = compile_model(model, ALL)
    assert compiled.subgraphs == 3
    assert compiled.on_cpu == 3
    assert compiled.mapped.verdicts[operator].status is Status.LIMITATION
    run_and_compare(model, compiled.data, VirtualRuntime())
