"""Why does it not work? Looks at everything between here and a device's Edge TPUs, and says what to do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from compiler.errors import EtpuError
from compiler.facts import RUNTIME_VERSION_CURRENT
from deploy.agent.client import Hello
from deploy.inventory import Device
from deploy.session import DeviceSession, connect

_LITTLE_SPACE = 200 << 20
_SLOW_USB_MEGABITS = 5000.0


class Verdict(Enum):
    """How an examination ended."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes
    ----------
    advice:
        What to do about it, empty when nothing need be done.
    """

    name: str
    verdict: Verdict
    detail: str
    advice: str = ""


def examine(device: Device, *, timeout: float = 10.0) -> tuple[Check, ...]:
    """Examine a device from the connection to its temperature; never raises for what is wrong there.

    Parameters
    ----------
    timeout:
        Seconds for connecting.
    """
    try:
        session = connect(device, timeout=timeout)
    except EtpuError as error:
        return (_failure("connection", error),)
    with session:
        checks = [Check("connection", Verdict.OK, f"{session.transport.where} answers")]
        try:
            checks.extend(_examine_session(session))
        except EtpuError as error:
            checks.append(_failure("agent", error))
    return tuple(checks)


def _failure(name: str, error: EtpuError) -> Check:
    return Check(name, Verdict.FAILED, error.message, error.advice)


def _examine_session(session: DeviceSession) -> Iterator[Check]:
    hello = session.agent.hello()
    facts = session.agent.diagnose(session.transport.root)
    yield Check("agent", Verdict.OK, f"version {hello.agent} on Python {hello.python}, {hello.machine}")
    yield _disk(facts)
    yield _interpreter(hello, facts["interpreter"])
    yield _runtime(facts["runtime"], simulated=hello.simulated)
    if not hello.simulated:
        yield from _usb(facts["usb"])
        yield from _pcie(facts["pcie"])
        yield from _temperatures(session.agent.temperatures())
    yield _tpus(facts["runtime"], facts, simulated=hello.simulated)


def _disk(facts: Mapping[str, Any]) -> Check:
    free = int(facts["free_bytes"])
    detail = f"{free / (1 << 20):.0f} MiB free"
    if not facts["writable"]:
        return Check("storage", Verdict.FAILED, "the root folder cannot be written", "Choose another root folder.")
    if free < _LITTLE_SPACE:
        return Check("storage", Verdict.WARNING, detail, "Remove old releases or other files.")
    return Check("storage", Verdict.OK, detail)


def _interpreter(hello: Hello, found: Mapping[str, Any]) -> Check:
    if "name" not in found:
        return Check("interpreter", Verdict.FAILED, found["message"], found["advice"])
    versions = ", ".join(f"{name} {version}" for name, version in sorted(hello.runtimes.items()) if version)
    numpy = (hello.runtimes.get("numpy") or "0").split(".")[0]
    if found["name"] == "tflite_runtime" and numpy.isdigit() and int(numpy) >= 2:
        return Check(
            "interpreter",
            Verdict.FAILED,
            f"tflite_runtime does not work with numpy 2 ({versions})",
            "Install `numpy<2`, or ai-edge-litert in place of tflite_runtime.",
        )
    return Check("interpreter", Verdict.OK, versions)


def _runtime(found: Mapping[str, Any], *, simulated: bool) -> Check:
    if "version" not in found:
        return Check("runtime", Verdict.FAILED, found["message"], found["advice"])
    version = int(found["version"])
    detail = f"version {version}{' (simulated)' if simulated else ''}: {found['text']}"
    if version < RUNTIME_VERSION_CURRENT:
        advice = f"Models are compiled for version {version}; a newer libedgetpu1-std allows more operators."
        return Check("runtime", Verdict.WARNING, detail, advice)
    return Check("runtime", Verdict.OK, detail)


def _usb(accelerators: list[Mapping[str, Any]]) -> Iterator[Check]:
    for usb in accelerators:
        detail = f"{usb['sysfs'].rsplit('/', 1)[-1]}: {usb['state']}, {usb['megabits'] or '?'} Mbit/s"
        if not usb["accessible"]:
            advice = "Add the user to group plugdev, install libedgetpu's udev rules, plug the device in anew."
            yield Check("usb", Verdict.FAILED, f"{detail}; no access to {usb['node']}", advice)
        elif usb["state"] == "running" and float(usb["megabits"] or 0) < _SLOW_USB_MEGABITS:
            advice = "Use a USB 3 port and cable; transfers are about ten times slower like this."
            yield Check("usb", Verdict.WARNING, detail, advice)
        else:
            yield Check("usb", Verdict.OK, detail)


def _pcie(pcie: Mapping[str, Any]) -> Iterator[Check]:
    functions, nodes = pcie["functions"], pcie["nodes"]
    if functions and not nodes:
        advice = "Install gasket-dkms for this kernel and load modules gasket and apex."
        if pcie["driver"]:
            advice = "The driver is loaded but made no node: see `dmesg | grep apex`; reboot."
        yield Check("pcie", Verdict.FAILED, f"{len(functions)} on PCIe, no /dev/apex_*", advice)
    elif len(nodes) < len(functions):
        advice = "The slot or adapter may pass on one lane only; the card needs two."
        yield Check("pcie", Verdict.WARNING, f"{len(functions)} on PCIe, {len(nodes)} with a node", advice)
    for node in nodes:
        if node["accessible"]:
            yield Check("pcie", Verdict.OK, node["node"])
        else:
            advice = "Add the user to group apex and log in anew."
            yield Check("pcie", Verdict.FAILED, f"no access to {node['node']}", advice)


def _temperatures(devices: tuple[Mapping[str, Any], ...]) -> Iterator[Check]:
    for device in devices:
        celsius = device["celsius"]
        limits = [limit for limit in device["trip_points"] if limit is not None]
        if celsius is None:
            continue
        detail = f"{device['device']}: {celsius:.1f} degrees Celsius"
        if limits and celsius >= min(limits):
            advice = "It slows itself down: latencies measured now are not to be believed. Cool it."
            yield Check("temperature", Verdict.WARNING, detail, advice)
        else:
            yield Check("temperature", Verdict.OK, detail)


def _tpus(runtime: Mapping[str, Any], facts: Mapping[str, Any], *, simulated: bool) -> Check:
    devices = runtime.get("devices", [])
    if devices:
        names = ", ".join(f"{device['index']}: {device['path'] or device['type']}" for device in devices)
        return Check("edge tpus", Verdict.OK, f"{len(devices)}{' simulated' if simulated else ''} ({names})")
    seen = facts["usb"] or facts["pcie"]["functions"]
    advice = "See the failed checks above." if seen else "Plug one in; `lsusb` shows it as 1a6e:089a or 18d1:9302."
    return Check("edge tpus", Verdict.FAILED, "the runtime lists none", advice)
