"""Executables of the official compiler, deployed to and run on a virtual device."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from compiler.graph.interpreter import TfliteModel
from deploy.compiled import facts_of
from deploy.deployer import SmokeTest, deploy
from deploy.errors import RuntimeTooOldError
from deploy.inventory import VirtualDevice
from deploy.session import connect

if TYPE_CHECKING:
    from conftest import Pair

pytestmark = pytest.mark.corpus


def named(pairs: list[Pair], name: str) -> Pair:
    return next(pair for pair in pairs if pair.name.endswith(f"/{name}"))


def test_facts_of_all_files(pairs: list[Pair]) -> None:
    for pair in pairs:
        facts = facts_of(pair.compiled.read_bytes(), pair.name)
        assert facts.on_tpu == bool(pair.facts["custom_ops"])
        assert facts.min_runtime_version == pair.facts["min_runtime_version"], pair.name
        tokens = [int(token, 16) for token in pair.facts["token"]]
        assert (int(facts.token, 16) if facts.token else 0) == (tokens[0] if tokens else 0), pair.name


def smoke_of(pair: Pair) -> SmokeTest:
    source = TfliteModel(pair.source, reference_kernels=True)
    (port,) = source.inputs
    x = np.random.default_rng(5).integers(-128, 128, port.shape).astype(np.int8).view(port.dtype)
    return SmokeTest((x.tobytes(),), tuple(y.tobytes() for y in source.run([x])))


@pytest.mark.parametrize("name", ["dense_256", "dense_1024"])
def test_official_executable_gives_the_numbers_of_its_source(pairs: list[Pair], tmp_path: Path, name: str) -> None:
    pair = named(pairs, name)
    compiled = pair.compiled.read_bytes()
    smoke = smoke_of(pair)
    with connect(VirtualDevice("v", state=str(tmp_path))) as session:
        report = deploy(session, name, pair.source.read_bytes(), lambda _: {"m.tflite": compiled}, smoke)
        assert (report.simulated, report.smoke.differing) == (True, 0)
        assert report.release.manifest.tokens == (facts_of(compiled, name).token,)
        loaded = session.agent.load(report.release.paths[0], 0)
        runs = session.agent.time(loaded, 3)
    first, *warm = [timing.device_us or 0.0 for timing in runs.timings]
    assert runs.cold and warm[0] == warm[1] < first


def test_old_runtime_refuses_official_executable(pairs: list[Pair], tmp_path: Path) -> None:
    pair = next(pair for pair in pairs if pair.facts["min_runtime_version"] == 14)
    sentence = r"version \(14\), which is newer than this runtime version \(13\)\."
    device = VirtualDevice("v", runtime_version=13, state=str(tmp_path))
    with connect(device) as session, pytest.raises(RuntimeTooOldError, match=sentence):
        session.agent.load(pair.compiled.read_bytes(), 0)
