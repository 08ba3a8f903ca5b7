"""The runtime's flow chart of the parameter cache: what switching between models costs."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from small_networks import Layers

from compiler.compile import CompileOptions, compile_model, compile_models
from compiler.errors import UsageError
from compiler.graph import Model, parse_model
from compiler.package.container import packages_of
from deploy.virtual import VirtualRuntime


def model(seed: int) -> Model:
    layers = Layers(seed)
    x = layers.input(8, 8, 3)
    return layers.model(layers.dense(layers.conv(x, 12), 10), name=f"{seed}.tflite")


def tokens(data: bytes) -> set[int]:
    return {e.token for _, p in packages_of(parse_model(data)) for e in p.executables}


def writes_when_switching(files: Sequence[bytes], rounds: int) -> int:
    """How often parameters are written when the models take turns."""
    runtime = VirtualRuntime(1)
    loaded = [runtime.load(data, 0) for data in files]
    for _ in range(rounds):
        for one in loaded:
            one.run([bytes(8 * 8 * 3)], timed=False)
    return runtime.tpu(0).counters.cache_writes


def test_switching_between_cocompiled_models_writes_nothing_again() -> None:
    compiled = compile_models([model(1), model(2), model(3)])
    assert len(set.union(*(tokens(c.data) for c in compiled))) == 1
    assert writes_when_switching([c.data for c in compiled], 3) == 3


def test_switching_between_models_compiled_alone_writes_every_time() -> None:
    compiled = [compile_model(model(seed)) for seed in (1, 2, 3)]
    assert len(set.union(*(tokens(c.data) for c in compiled))) == 3
    assert writes_when_switching([c.data for c in compiled], 3) == 9
    assert writes_when_switching([compiled[0].data], 3) == 1


def test_tokens_are_new_each_time_reproducible_on_request_and_never_zero() -> None:
    first, second = (tokens(compile_model(model(1)).data) for _ in range(2))
    assert first != second
    assert 0 not in first | second
    chosen = [compile_model(model(1), CompileOptions(token=0xC0FFEE)) for _ in range(2)]
    assert chosen[0].data == chosen[1].data
    assert tokens(chosen[0].data) == {0xC0FFEE}
    with pytest.raises(UsageError):
        CompileOptions(token=0)


def test_the_official_block_tells_what_is_left_for_all() -> None:
    alone = compile_model(model(1))
    first, second = compile_models([model(1), model(2)])
    assert first.on_chip_used == second.on_chip_used == alone.on_chip_used
    assert first.on_chip_remaining == second.on_chip_remaining == alone.on_chip_remaining - alone.on_chip_used
