"""Models compiled together share the token and the memory, and run side by side."""

from __future__ import annotations

import numpy as np
from small_networks import Layers

from compiler.beagle.simulator import Machine
from compiler.compile import compile_models
from compiler.graph import Model, parse_model, serialize_model
from compiler.graph.build import GraphBuilder
from compiler.graph.interpreter import TfliteModel
from compiler.package import decode_output, encode_input
from compiler.package.container import packages_of


def dense(sizes: list[int], seed: int) -> Model:
    rng = np.random.default_rng(seed)
    b = GraphBuilder()
    x = b.add_input((1, sizes[0]), scale=0.02)
    for m in sizes[1:]:
        n = b.tensors[x].shape[-1]
        w = b.quantized_weights(rng.normal(size=(m, n)), per_channel=True)
        x = b.fully_connected(x, w, b.bias(rng.normal(size=m), x, w), scale=0.05 * n**0.5)
    return parse_model(serialize_model(b.build(x)), f"model {seed}")


def test_models_share_token_and_memory_without_overlap() -> None:
    models = [dense([200, 900, 40], 1), dense([64, 64, 64], 2), dense([1500, 300], 3)]
    compiled = compile_models(models)
    packages = [packages_of(parse_model(c.data))[0][1] for c in compiled]
    assert len({e.token for p in packages for e in p.executables}) == 1
    assert packages[0].execution.token != 0
    assert len({c.on_chip_remaining for c in compiled}) == 1
    machine = Machine()
    for package in packages:
        assert package.caching is not None
        machine.run(package.caching)
    # All caches are filled; every model still finds its own parameters.
    for model, package in zip(models, packages, strict=True):
        (source,), (target,) = package.execution.inputs, package.execution.outputs
        x = np.random.default_rng(9).integers(-128, 128, source.z, np.int8)
        result = machine.run(package.execution, {source.name: encode_input(source, x)})
        want = TfliteModel(serialize_model(model), reference_kernels=True).run([x.reshape(1, -1)])[0]
        got = decode_output(target, result.outputs[target.name])
        assert np.abs(got.reshape(-1).astype(int) - want.reshape(-1).astype(int)).max() <= 1


def test_later_models_stream_what_finds_no_room() -> None:
    big = dense([2048, 1024, 2048, 1024, 2048], 4)
    alone, = compile_models([big])
    first, second = compile_models([big, dense([2048, 1024, 10], 5)])
    assert first.on_chip_used <= alone.on_chip_used
    assert second.off_chip > 0 or second.on_chip_used > 0
    assert first.on_chip_used + second.on_chip_used + first.on_chip_remaining <= 16 * 2080 * 256


def test_layers_in_bands_read_their_parameters_once_per_band() -> None:
    layers = Layers(1)
    x = layers.input(320, 320, 3)
    model = layers.model(layers.conv(layers.conv(layers.conv(x, 24), 24), 16, stride=2))
    (plan,) = compile_models([model])[0].plans
    assert all(t.reads > 1 for t in plan.demand.tensors)
