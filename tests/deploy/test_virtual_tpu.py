"""The runtime's rules for one Edge TPU; a counting chip takes the place of the simulator."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pytest
from small_networks import Layers

from compiler.beagle.simulator import Machine
from compiler.beagle.timing import BUSES, Bus, estimate
from compiler.compile import compile_model
from compiler.graph import parse_model
from compiler.package import Executable, ExecutableType, InstructionChunk, Package
from compiler.package.container import packages_of
from deploy.errors import RuntimeTooOldError
from deploy.virtual.tpu import Counters, VirtualTpu


@dataclass(frozen=True)
class Run:
    outputs: Mapping[str, bytes]


class Chip:
    """Remembers which executables ran on it."""

    made: list[Chip]

    def __init__(self) -> None:
        self.ran: list[str] = []

    def run(self, executable: Executable, inputs: Mapping[str, bytes]) -> Run:
        self.ran.append(executable.name)
        return Run({"out": bytes(100)} if executable.type is not ExecutableType.PARAMETER_CACHING else {})


class Chips(list[Chip]):
    def __call__(self) -> Chip:
        self.append(Chip())
        return self[-1]


def package(name: str, token: int, *, cached: int = 1000, streamed: int = 0, version: int = 12) -> Package:
    kind = ExecutableType.EXECUTION_ONLY if cached else ExecutableType.STAND_ALONE
    chunk = (InstructionChunk(bytes(64)),)
    executables = [Executable(kind, name, chunk, bytes(streamed), token=token, estimated_cycles=50_000)]
    if cached:
        executables.append(
            Executable(ExecutableType.PARAMETER_CACHING, f"{name}:cache", chunk, bytes(cached), token=token)
        )
    return Package(tuple(executables), version)


@pytest.fixture
def chips() -> Chips:
    return Chips()


@pytest.fixture
def tpu(chips: Chips) -> VirtualTpu:
    return VirtualTpu(13, BUSES["usb3"], chips)


def test_cache_is_written_once(tpu: VirtualTpu, chips: Chips) -> None:
    model = package("a", 7)
    assert [tpu.invoke(model, {"in": b"x"}).wrote_parameters for _ in range(3)] == [True, False, False]
    assert chips[0].ran == ["a:cache", "a", "a", "a"]
    assert tpu.counters == Counters(cache_writes=1, wipes=0, invocations=3)


def test_other_token_wipes(tpu: VirtualTpu, chips: Chips) -> None:
    a, b = package("a", 7), package("b", 8)
    for model in (a, b, a):
        tpu.invoke(model, {})
    assert tpu.counters == Counters(cache_writes=3, wipes=2, invocations=3)
    assert [chip.ran for chip in chips] == [["a:cache", "a"], ["b:cache", "b"], ["a:cache", "a"]]


def test_members_of_a_set_share_the_cache(tpu: VirtualTpu, chips: Chips) -> None:
    a, b = package("a", 7), package("b", 7)
    for model in (a, b, a, b):
        tpu.invoke(model, {})
    assert chips[0].ran == ["a:cache", "a", "b:cache", "b", "a", "b"]
    assert tpu.counters == Counters(cache_writes=2, wipes=0, invocations=4)


def test_stand_alone_program_costs_the_cache(tpu: VirtualTpu) -> None:
    a, alone = package("a", 7), package("s", 0, cached=0)
    for model in (a, alone, alone, a):
        tpu.invoke(model, {})
    assert tpu.counters == Counters(cache_writes=2, wipes=1, invocations=4)


def test_newer_package_is_refused_in_the_runtimes_words(tpu: VirtualTpu, chips: Chips) -> None:
    with pytest.raises(RuntimeTooOldError) as caught:
        tpu.invoke(package("a", 7, version=14), {})
    assert caught.value.message == (
        "Package requires runtime version (14), which is newer than this runtime version (13)."
    )
    assert (caught.value.required, caught.value.offered) == (14, 13)
    assert "--min_runtime_version 13" in caught.value.advice
    assert chips[0].ran == []
    tpu.invoke(package("b", 7, version=13), {})


def test_the_first_inference_takes_the_time_of_the_cache_too(chips: Chips) -> None:
    def times(program: Executable, bus: Bus) -> float:
        return len(program.parameters) / bus.to_chip + 3.0

    tpu = VirtualTpu(14, BUSES["usb2"], chips, times)
    model = package("a", 7, cached=1000, streamed=200)
    first, warm = (tpu.time_us(tpu.invoke(model, {})) for _ in range(2))
    assert warm == pytest.approx(200 / BUSES["usb2"].to_chip + 3.0)
    assert first == pytest.approx(warm + 1000 / BUSES["usb2"].to_chip + 3.0)


def test_time_is_that_of_the_cycle_model() -> None:
    """A dense layer of 9000 x 100 is never cached: its bytes take their time on every bus."""
    b = Layers()
    compiled = compile_model(b.model(b.dense(b.dense(b.input(9000), 100), 50)))
    (_, own), = packages_of(parse_model(compiled.data))
    took = {}
    for name, bus in BUSES.items():
        tpu = VirtualTpu(14, bus, Machine)
        inputs = {layer.name: bytes(layer.size) for layer in own.execution.inputs}
        first, warm = (tpu.time_us(tpu.invoke(own, inputs)) for _ in range(2))
        assert first > warm > len(own.execution.parameters) / bus.to_chip
        assert (warm, first) == (estimate(own, bus).warm_us, estimate(own, bus).first_us)
        took[name] = warm
    assert took["usb2"] > 5 * max(took["usb3"], took["pcie"])


def test_rates_agree_with_what_was_published() -> None:
    """VGG19 on the official benchmark page: 308 ms on USB 3, 357 ms on the Dev Board, about 136 MB streamed."""
    assert 136_000_000 / BUSES["usb3"].to_chip == pytest.approx(308_000, rel=0.05)
    assert 136_000_000 / BUSES["pcie"].to_chip == pytest.approx(357_000, rel=0.05)
