from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from breaking_transport import BreakingTransport

from deploy.errors import (
    ChecksumMismatchError,
    ConnectionLostError,
    DeployInProgressError,
    NoPreviousReleaseError,
    ReleaseError,
    UnknownReleaseError,
    UploadInterruptedError,
)
from deploy.inventory import LocalDevice
from deploy.releases import Manifest, NewRelease, Release, ReleaseStore, models_on
from deploy.session import DeviceSession, connect


def new(*contents: bytes) -> NewRelease:
    files = {f"m_segment_{i}.tflite": data for i, data in enumerate(contents)}
    return NewRelease(files, [False] * len(files), "0" * 64, 12, ["0x01"] * len(files), simulated=True)


def ignore(paths: Sequence[str]) -> None:
    """A smoke test that has nothing against anything."""


def publish(store: ReleaseStore, *contents: bytes, keep: int = 5) -> Release:
    return store.publish(new(*contents), smoke=ignore, keep=keep)


def names(store: ReleaseStore) -> list[int]:
    return [int(release.manifest.release[:4]) for release in store.releases()]


def test_publish_switches_and_keeps_what_was_there(session: DeviceSession, tmp_path: Path) -> None:
    store = ReleaseStore(session, "net")
    assert store.releases() == () and store.current() is None
    seen: list[tuple[int, int]] = []
    first = store.publish(new(b"one" * 50_000, b"two"), smoke=ignore, progress=lambda *at: seen.append(at))
    assert first.current and first.manifest.previous == ""
    assert seen[-1][0] == seen[-1][1] > 150_000
    current = tmp_path / "device" / "models" / "net" / "current"
    assert current.is_symlink() and not Path(current.readlink()).is_absolute()
    assert (current / "m_segment_0.tflite").read_bytes() == b"one" * 50_000
    second = publish(store, b"three")
    assert second.manifest.previous == first.manifest.release
    assert (current / "m_segment_0.tflite").read_bytes() == b"three"
    assert [release.current for release in store.releases()] == [False, True]
    assert Path(first.paths[1]).read_bytes() == b"two"
    assert models_on(session) == ("net",)
    assert Manifest.from_json((current / "manifest.json").read_bytes()) == second.manifest


def test_old_releases_are_pruned_but_never_the_way_back(session: DeviceSession) -> None:
    store = ReleaseStore(session, "net")
    for i in range(8):
        publish(store, b"%d" % i, keep=3)
    assert names(store) == [5, 6, 7, 8]
    store.rollback(to="5")
    publish(store, b"new", keep=2)
    assert names(store) == [5, 8, 9]
    assert store.rollback().manifest.release.startswith("0005")


def test_rollback_follows_what_was_current(session: DeviceSession) -> None:
    store = ReleaseStore(session, "net")
    for i in range(3):
        publish(store, b"%d" % i)
    assert store.rollback().manifest.release.startswith("0002")
    assert publish(store, b"3").manifest.previous.startswith("0002")
    assert store.rollback().manifest.release.startswith("0002")
    assert store.rollback().manifest.release.startswith("0001")
    with pytest.raises(NoPreviousReleaseError, match="first release"):
        store.rollback()
    assert store.rollback(to="4").current
    with pytest.raises(UnknownReleaseError, match="no release 9") as caught:
        store.rollback(to="9")
    assert "0001-" in caught.value.advice


def test_rollback_without_any_release(session: DeviceSession) -> None:
    with pytest.raises(UnknownReleaseError, match="there is no release of net"):
        ReleaseStore(session, "net").rollback()


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".x", "-x"])
def test_bad_model_names(session: DeviceSession, name: str) -> None:
    with pytest.raises(ReleaseError, match="bad model name"):
        ReleaseStore(session, name)


def test_smoke_failure_leaves_the_old_release(session: DeviceSession, tmp_path: Path) -> None:
    store = ReleaseStore(session, "net")
    first = publish(store, b"good")
    tried: list[bytes] = []

    def fail(paths: Sequence[str]) -> None:
        tried.append(Path(paths[0]).read_bytes())
        raise ReleaseError("other numbers.")

    with pytest.raises(ReleaseError, match="other numbers"):
        store.publish(new(b"bad"), smoke=fail)
    assert tried == [b"bad"]
    assert store.releases() == (first,)
    assert list((tmp_path / "device" / "models" / "net" / "incoming").iterdir()) == []


def test_damage_on_the_way_is_seen(tmp_path: Path, local: LocalDevice) -> None:
    class Damaging(BreakingTransport):
        def put(self, source: bytes | Path, remote: str, **rest: object) -> None:
            if remote.endswith(".tflite"):
                source = b"\0" + bytes(source)[1:]  # type: ignore[arg-type]
            super().put(source, remote)

    with DeviceSession(local, Damaging(tmp_path / "device")) as session:
        store = ReleaseStore(session, "net")
        with pytest.raises(ChecksumMismatchError, match="arrived damaged"):
            publish(store, b"payload")
        assert store.releases() == ()


def test_two_deploys_at_once(session: DeviceSession, local: LocalDevice) -> None:
    store = ReleaseStore(session, "net")
    outcome: list[BaseException] = []

    def second() -> None:
        with connect(local) as other:
            try:
                publish(ReleaseStore(other, "net"), b"second")
            except DeployInProgressError as error:
                outcome.append(error)
            publish(ReleaseStore(other, "another"), b"unhindered")

    def during(paths: Sequence[str]) -> None:
        thread = threading.Thread(target=second)
        thread.start()
        thread.join()

    store.publish(new(b"first"), smoke=during)
    assert "another deploy" in str(outcome[0])
    assert names(store) == [1]
    publish(store, b"third")
    assert models_on(session) == ("another", "net")


def test_a_cut_anywhere_is_harmless(tmp_path: Path, local: LocalDevice) -> None:
    """Break the connection at each operation of a deploy in turn; the device must stay whole."""
    root = tmp_path / "device"

    def attempt(act: Callable[[ReleaseStore], object], survive: int | None) -> bool:
        transport = BreakingTransport(root)
        with DeviceSession(local, transport) as session:
            store = ReleaseStore(session, "net")
            transport.survive = survive
            try:
                act(store)
            except ConnectionLostError:
                return False
            except UploadInterruptedError as error:
                assert "is still current" in error.message
                return False
        return True

    assert attempt(lambda store: publish(store, b"old" * 1000), None)
    current = root / "models" / "net" / "current"
    cut, switched = 0, 0
    while True:
        before = (current / "m_segment_0.tflite").read_bytes()
        payload = b"new%d" % cut * 1000
        done = attempt(lambda store, data=payload: publish(store, data, keep=2), cut)  # type: ignore[misc]
        after = (current / "m_segment_0.tflite").read_bytes()
        assert after in (before, payload)
        switched += after == payload and not done
        with connect(local) as session:
            for release in ReleaseStore(session, "net").releases():
                assert [Path(path).stat().st_size for path in release.paths] == [f.size for f in release.manifest.files]
        if done:
            break
        cut += 1
    assert after == payload
    assert cut > 8, "the deploy has more steps than that"
    assert switched, "cuts after the switch are part of this test"
