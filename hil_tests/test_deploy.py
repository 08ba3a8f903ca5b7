"""Deploying over a real OpenSSH server: what is current stays current until all is well."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from loopback import SshServer

from compiler.errors import EtpuError
from compiler.graph import serialize_model
from compiler.graph.build import GraphBuilder
from compiler.graph.interpreter import TfliteModel
from deploy.deployer import SmokeTest, Target, deploy, releases, rollback
from deploy.doctor import Verdict, examine
from deploy.errors import (
    DeployInProgressError,
    NoPreviousReleaseError,
    RuntimeTooOldError,
    SmokeTestFailedError,
    UnknownReleaseError,
    UploadInterruptedError,
)
from deploy.inventory import SshDevice
from deploy.session import connect


def network(seed: int, width: int = 64) -> bytes:
    """A dense network of one layer, for the CPU."""
    rng = np.random.default_rng(seed)
    builder = GraphBuilder()
    x = builder.add_input((1, width), scale=0.1)
    weights = builder.quantized_weights(rng.normal(size=(width, width)))
    return serialize_model(builder.build(builder.fully_connected(x, weights, scale=1.0)))


def smoke_of(model: bytes) -> SmokeTest:
    """An inference of the model on this machine."""
    rng = np.random.default_rng(1)
    interpreter = TfliteModel(model)
    inputs = [rng.integers(-128, 128, port.shape).astype(port.dtype) for port in interpreter.inputs]
    return SmokeTest(
        tuple(array.tobytes() for array in inputs), tuple(array.tobytes() for array in interpreter.run(inputs))
    )


def as_is(model: bytes, asked: list[int] | None = None) -> object:
    """A compiler that leaves everything on the CPU, and notes what it was asked for."""

    def compile_model(target: Target) -> Mapping[str, bytes]:
        if asked is not None:
            asked.append(target.min_runtime_version)
        return {"net_edgetpu.tflite": model}

    return compile_model


def release(board: SshDevice, model: bytes, **options: object) -> str:
    with connect(board) as session:
        report = deploy(session, "net", model, as_is(model), smoke_of(model), **options)  # type: ignore[arg-type]
        assert report.simulated and report.release.manifest.simulated
        return report.release.manifest.release


def current(server: SshServer) -> str:
    return (server.root / "models" / "net" / "current").readlink().name


def test_deploy_list_rollback(board: SshDevice, server: SshServer) -> None:
    first, second = release(board, network(1)), release(board, network(2))
    assert current(server) == second
    assert (server.root / "models/net/current/net_edgetpu.tflite").read_bytes() == network(2)
    with connect(board) as session:
        assert [r.manifest.release for r in releases(session)] == [first, second]
        assert rollback(session).manifest.release == first
        assert current(server) == first
        with pytest.raises(NoPreviousReleaseError):
            rollback(session, "net")
        with pytest.raises(UnknownReleaseError, match="no release of other"):
            rollback(session, "other")


@pytest.mark.parametrize("version", [12, 14])
def test_the_devices_runtime_decides(board: SshDevice, server: SshServer, version: int) -> None:
    server.stop()
    server.start({"tpus": 1, "runtime_version": version, "bus": "pcie"})
    asked: list[int] = []
    model = network(1)
    with connect(board) as session:
        deploy(session, "net", model, as_is(model, asked), smoke_of(model))  # type: ignore[arg-type]
    assert asked == [version]


def test_model_that_needs_more_is_refused(board: SshDevice, server: SshServer) -> None:
    server.stop()
    server.start({"runtime_version": 12})
    model = network(1)
    with connect(board) as session, pytest.raises(RuntimeTooOldError) as caught:
        deploy(session, "net", model, as_is(model), smoke_of(model), required_runtime=13)  # type: ignore[arg-type]
    assert caught.value.message == (
        "Package requires runtime version (13), which is newer than this runtime version (12)."
    )
    assert "coral-1" in caught.value.advice
    assert not (server.root / "models").exists()


def test_other_numbers_on_the_device(board: SshDevice, server: SshServer) -> None:
    first = release(board, network(1))
    model = network(2)
    good = smoke_of(model)
    wrong = bytes([good.expected[0][0] ^ 1]) + good.expected[0][1:]
    with connect(board) as session:
        with pytest.raises(SmokeTestFailedError, match="differs from the host's in 1 of 64 values, by up to 1 "):
            deploy(session, "net", model, as_is(model), SmokeTest(good.inputs, (wrong,)))  # type: ignore[arg-type]
        assert current(server) == first
        report = deploy(session, "net", model, as_is(model), SmokeTest(good.inputs, (wrong,), 1))  # type: ignore[arg-type]
    assert (report.smoke.values, report.smoke.differing, report.smoke.largest) == (64, 1, 1.0)


def test_model_that_does_not_load(board: SshDevice, server: SshServer) -> None:
    first = release(board, network(1))
    model = network(2)
    with connect(board) as session, pytest.raises(SmokeTestFailedError, match="takes input of 64 bytes"):
        deploy(session, "net", model, as_is(model), SmokeTest((b"short",), (b"",)))  # type: ignore[arg-type]
    assert current(server) == first
    assert len(list((server.root / "models/net/releases").iterdir())) == 1


def test_server_killed_during_upload(board: SshDevice, server: SshServer) -> None:
    first = release(board, network(1))
    model = network(2, 2000)
    smoke = smoke_of(model)

    def cut(sent: int, total: int) -> None:
        if sent > total // 3:
            server.kill()
            cut_at.append(sent)

    cut_at: list[int] = []
    with connect(board) as session, pytest.raises(UploadInterruptedError) as caught:
        deploy(session, "net", model, as_is(model), smoke, progress=lambda *at: cut(*at) if not cut_at else None)  # type: ignore[arg-type]
    assert 0 < cut_at[0] < len(model)
    assert f"release {first} is still current" in caught.value.message
    assert "coral-1" in caught.value.message and "while uploading" in caught.value.message
    assert current(server) == first
    assert [path.name for path in (server.root / "models/net/releases").iterdir()] == [first]
    server.start({"runtime_version": 14})
    with connect(board) as session:
        assert [r.manifest.release for r in releases(session)] == [first]
        assert releases(session)[0].current
    second = release(board, model)
    assert current(server) == second
    assert list((server.root / "models/net/incoming").iterdir()) == []


def test_server_hangs_during_upload(board: SshDevice, server: SshServer) -> None:
    first = release(board, network(1))
    model = network(2, 3000)
    smoke = smoke_of(model)
    start = 0.0

    def hang(sent: int, total: int) -> None:
        nonlocal start
        if not start and sent > total // 4:
            server.freeze()
            start = time.monotonic()

    with (
        connect(board, timeout=1.5) as session,
        pytest.raises(UploadInterruptedError, match=r"within 1\.5 s") as caught,
    ):
        deploy(session, "net", model, as_is(model), smoke, progress=hang)  # type: ignore[arg-type]
    assert f"release {first} is still current" in caught.value.message
    assert time.monotonic() - start < 10
    assert current(server) == first


def test_two_deploys_at_once(board: SshDevice, server: SshServer) -> None:
    model = network(2, 1000)
    errors: list[EtpuError] = []
    started = threading.Event()

    def second() -> None:
        try:
            release(board, network(3))
        except EtpuError as error:
            errors.append(error)

    def during(sent: int, total: int) -> None:
        if not started.is_set():
            started.set()
            other = threading.Thread(target=second)
            other.start()
            other.join()

    first = release(board, model, progress=during)
    assert isinstance(errors[0], DeployInProgressError)
    assert current(server) == first
    assert [path.name for path in (server.root / "models/net/releases").iterdir()] == [first]


def test_old_releases_go(board: SshDevice, server: SshServer) -> None:
    made = [release(board, network(seed), keep=2) for seed in range(4)]
    assert sorted(path.name for path in (server.root / "models/net/releases").iterdir()) == made[1:]


def test_doctor(board: SshDevice, server: SshServer, home: Path) -> None:
    checks = {check.name: check for check in examine(board)}
    assert all(check.verdict is Verdict.OK for check in checks.values()), checks
    assert "simulated" in checks["edge tpus"].detail and "simulated" in checks["runtime"].detail
    server.stop()
    server.start({"runtime_version": 12, "tpus": 1})
    checks = {check.name: check for check in examine(board)}
    assert checks["runtime"].verdict is Verdict.WARNING
    (home / ".ssh" / "known_hosts").write_text("")
    (check,) = examine(board)
    assert check.verdict is Verdict.FAILED and "ssh-keyscan" in check.advice


def test_latency_of_first_and_later_runs(board: SshDevice) -> None:
    model = network(1)
    with connect(board) as session:
        loaded = session.agent.load(model, 0)
        start = time.monotonic()
        runs = session.agent.time(loaded, 5)
        assert time.monotonic() - start < 30
        assert runs.simulated and runs.cold and len(runs.timings) == 5
        assert not session.agent.time(loaded, 1).cold
        assert runs.timings[0].device_us == 0.0
