from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from deploy import doctor, usb
from deploy.agent.client import Hello
from deploy.doctor import Verdict, examine
from deploy.errors import NoEdgeTpuError
from deploy.inventory import LocalDevice, SshDevice

NOTHING: dict[str, Any] = {
    "usb": [],
    "pcie": {"functions": [], "nodes": [], "driver": False},
    "free_bytes": 1 << 40,
    "writable": True,
    "runtime": {"version": 14, "text": "RuntimeVersion(14)", "devices": []},
    "interpreter": {"name": "tflite_runtime"},
}
USB = {"sysfs": "/sys/bus/usb/devices/2-1", "state": "running", "megabits": "5000", "node": "/n", "accessible": True}


def look(
    facts: dict[str, Any], *, runtimes: dict[str, str | None] | None = None, temperatures: tuple[Any, ...] = ()
) -> dict[str, doctor.Check]:
    """Examine a device that answers with these facts."""
    hello = Hello("1", "3.7.3", "aarch64", "board", runtimes or {"tflite_runtime": "2.5"}, simulated=False)
    agent = SimpleNamespace(
        hello=lambda: hello, diagnose=lambda root: {**NOTHING, **facts}, temperatures=lambda: temperatures
    )
    session: Any = SimpleNamespace(agent=agent, transport=SimpleNamespace(root="/r", where="board"))
    return {check.name: check for check in doctor._examine_session(session)}


def test_healthy() -> None:
    device = {"index": 0, "type": "usb", "path": "/sys/bus/usb/devices/2-1"}
    checks = look({"usb": [USB], "runtime": {**NOTHING["runtime"], "devices": [device]}})
    assert {check.verdict for check in checks.values()} == {Verdict.OK}


@pytest.mark.parametrize(
    ("facts", "name", "verdict", "advice"),
    [
        ({}, "edge tpus", Verdict.FAILED, "Plug one in"),
        ({"writable": False}, "storage", Verdict.FAILED, "root folder"),
        ({"free_bytes": 1000}, "storage", Verdict.WARNING, "Remove"),
        ({"usb": [{**USB, "accessible": False}]}, "usb", Verdict.FAILED, "plugdev"),
        ({"usb": [{**USB, "megabits": "480"}]}, "usb", Verdict.WARNING, "USB 3"),
        ({"usb": [{**USB, "megabits": "480", "state": "dfu"}]}, "usb", Verdict.OK, ""),
        ({"pcie": {"functions": ["a"], "nodes": [], "driver": False}}, "pcie", Verdict.FAILED, "gasket"),
        ({"pcie": {"functions": ["a"], "nodes": [], "driver": True}}, "pcie", Verdict.FAILED, "dmesg"),
        (
            {"pcie": {"functions": ["a"], "nodes": [{"node": "/dev/apex_0", "accessible": False}], "driver": True}},
            "pcie",
            Verdict.FAILED,
            "group apex",
        ),
        ({"runtime": {"code": "x", "message": "m", "advice": "install"}}, "runtime", Verdict.FAILED, "install"),
        ({"interpreter": {"code": "x", "message": "m", "advice": "install"}}, "interpreter", Verdict.FAILED, "install"),
    ],
)
def test_what_is_wrong(facts: dict[str, Any], name: str, verdict: Verdict, advice: str) -> None:
    check = look(facts)[name]
    assert (check.verdict, advice in check.advice) == (verdict, True)


def test_numpy_2_under_tflite_runtime() -> None:
    check = look({}, runtimes={"tflite_runtime": "2.14.0", "numpy": "2.1.0"})["interpreter"]
    assert check.verdict is Verdict.FAILED and "numpy<2" in check.advice


def test_hot_chip() -> None:
    hot = {"device": "apex_0", "celsius": 91.0, "trip_points": [85.0, 90.0, 95.0]}
    assert look({}, temperatures=(hot,))["temperature"].verdict is Verdict.WARNING
    cool = {**hot, "celsius": 45.5}
    assert look({}, temperatures=(cool,))["temperature"].verdict is Verdict.OK


def test_this_machine(local: LocalDevice) -> None:
    checks = {check.name: check for check in examine(local)}
    assert checks["connection"].verdict is Verdict.OK
    assert checks["interpreter"].verdict is Verdict.OK
    assert "runtime" in checks and "edge tpus" in checks


def test_unreachable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (check,) = examine(SshDevice("x", "no-such-host.invalid"))
    assert (check.name, check.verdict) == ("connection", Verdict.FAILED)


def test_usb_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    core = pytest.importorskip("usb.core")

    def device(vendor: int, product: int, ports: tuple[int, ...], speed: int) -> SimpleNamespace:
        return SimpleNamespace(idVendor=vendor, idProduct=product, bus=2, address=5, port_numbers=ports, speed=speed)

    present = [
        device(0x18D1, 0x9302, (1, 4), 4),
        device(0x1D6B, 0x0003, (), 4),
        device(0x1A6E, 0x089A, (1, 3), 3),
    ]
    monkeypatch.setattr(core, "find", lambda find_all: iter(present))
    assert [(a.port, a.state, a.megabits) for a in usb.usb_accelerators()] == [
        ("2-1.3", "dfu", 480.0),
        ("2-1.4", "running", 5000.0),
    ]

    def fail(find_all: bool) -> None:
        raise core.NoBackendError("No backend available")

    monkeypatch.setattr(core, "find", fail)
    with pytest.raises(NoEdgeTpuError, match="No backend available"):
        usb.usb_accelerators()
