"""The user's devices: a TOML file in the user's configuration folder.

``$ETPU_CONFIG`` names the configuration folder; without it, it is ``$XDG_CONFIG_HOME/etpu``
or ``~/.config/etpu``. The file is ``devices.toml`` in it, one table per device::

    [devices.coral-1]
    kind = "ssh"
    host = "mendel@192.168.100.2"

    [devices.desk]
    kind = "virtual"
    tpus = 2
    runtime_version = 12
    bus = "usb3"
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import ClassVar, TypeVar

from compiler.facts import RUNTIME_VERSION_CURRENT, RUNTIME_VERSION_LOWEST
from deploy.errors import DuplicateDeviceError, InventoryError, UnknownDeviceError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

DEFAULT_ROOT = "~/.local/share/etpu"
"""Folder on a device that holds the agent and the releases."""

BUSES = ("usb2", "usb3", "pcie")
"""How an Edge TPU can be attached."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise InventoryError(
            f"bad device name {name!r}.",
            advice="Use letters, digits, '.', '_' and '-', at most 63, beginning with a letter or digit.",
        )


@dataclass(frozen=True)
class SshDevice:
    """A host that is reached over SSH and has Edge TPUs of its own.

    Parameters
    ----------
    host:
        ``host`` or ``user@host``; an alias of ``~/.ssh/config`` works as it does with ``ssh``.
    port:
        TCP port; 0 means the one of ``~/.ssh/config``, or 22.
    identity_file:
        Private key; empty means those of ``~/.ssh/config``, the key agent and ``~/.ssh/id_*``.
    root:
        Folder on the device for agent and releases.
    python:
        Python there; another than ``python3`` where the interpreter for models lives in a virtual environment.
    """

    kind: ClassVar[str] = "ssh"
    name: str
    host: str
    port: int = 0
    identity_file: str = ""
    root: str = DEFAULT_ROOT
    python: str = "python3"

    def __post_init__(self) -> None:
        _check_name(self.name)
        user, at, host = self.host.rpartition("@")
        if not host or (at and not user) or host.startswith("-") or any(c.isspace() for c in self.host):
            raise InventoryError(f"device {self.name!r}: bad host {self.host!r}.", advice="Give `host` or `user@host`.")
        if not 0 <= self.port <= 65535:
            raise InventoryError(f"device {self.name!r}: port {self.port} is not in 1..65535.")
        _check_root(self.name, self.root)

    @property
    def where(self) -> str:
        """The device as messages call it."""
        return f"{self.name} ({self.host}{f':{self.port}' if self.port else ''})"


@dataclass(frozen=True)
class VirtualDevice:
    """Simulated Edge TPUs on this machine.

    Parameters
    ----------
    tpus:
        How many, 1..16.
    runtime_version:
        Runtime version that the device claims and enforces, 10..14.
    bus:
        ``usb2``, ``usb3`` or ``pcie``; decides the simulated transfer times.
    state:
        Folder that stands in for the device's disk; empty means ``$XDG_STATE_HOME/etpu/virtual/<name>``.
    """

    kind: ClassVar[str] = "virtual"
    name: str
    tpus: int = 1
    runtime_version: int = RUNTIME_VERSION_CURRENT
    bus: str = "usb3"
    state: str = ""

    def __post_init__(self) -> None:
        _check_name(self.name)
        if not 1 <= self.tpus <= 16:
            raise InventoryError(f"device {self.name!r}: {self.tpus} Edge TPUs; 1..16 can be simulated.")
        if not RUNTIME_VERSION_LOWEST <= self.runtime_version <= RUNTIME_VERSION_CURRENT:
            raise InventoryError(
                f"device {self.name!r}: there is no runtime version {self.runtime_version}.",
                advice=f"Valid versions are {RUNTIME_VERSION_LOWEST}..{RUNTIME_VERSION_CURRENT}.",
            )
        if self.bus not in BUSES:
            raise InventoryError(
                f"device {self.name!r}: unknown bus {self.bus!r}.", advice=f"Choose one of {', '.join(BUSES)}."
            )

    @property
    def where(self) -> str:
        """The device as messages call it."""
        return f"{self.name} (virtual)"

    @property
    def folder(self) -> Path:
        """The folder that stands in for the device's disk."""
        if self.state:
            return Path(self.state).expanduser()
        base = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
        return Path(base).expanduser() / "etpu" / "virtual" / self.name


@dataclass(frozen=True)
class LocalDevice:
    """Edge TPUs of this machine, driven through libedgetpu.

    Parameters
    ----------
    root:
        Folder for agent and releases.
    """

    kind: ClassVar[str] = "local"
    name: str
    root: str = DEFAULT_ROOT

    def __post_init__(self) -> None:
        _check_name(self.name)
        _check_root(self.name, self.root)

    @property
    def where(self) -> str:
        """The device as messages call it."""
        return f"{self.name} (this machine)"


Device = SshDevice | VirtualDevice | LocalDevice

_KINDS: dict[str, type[SshDevice] | type[VirtualDevice] | type[LocalDevice]] = {
    kind.kind: kind for kind in (SshDevice, VirtualDevice, LocalDevice)
}


def _check_root(name: str, root: str) -> None:
    if not root.startswith(("/", "~/")):
        raise InventoryError(
            f"device {name!r}: root folder {root!r} is relative.", advice="Give a path that begins with / or ~/."
        )


def device_table(device: Device) -> dict[str, str | int]:
    """Return a device as the table that stands in the inventory (defaults left out, no name)."""
    table: dict[str, str | int] = {"kind": device.kind}
    for field in fields(device):
        value = getattr(device, field.name)
        if field.name != "name" and value != field.default:
            table[field.name] = value
    return table


def device_from_table(name: str, table: Mapping[str, object]) -> Device:
    """Build a device from a table of the inventory.

    Raises
    ------
    InventoryError
        Unknown kind, unknown or missing key, or a value that does not fit.
    """
    kind = table.get("kind")
    if not isinstance(kind, str) or kind not in _KINDS:
        raise InventoryError(
            f"device {name!r}: unknown kind {kind!r}.", advice=f"Choose one of {', '.join(sorted(_KINDS))}."
        )
    known = {field.name: field for field in fields(_KINDS[kind]) if field.name != "name"}
    values = {key: value for key, value in table.items() if key != "kind"}
    for key, value in values.items():
        if key not in known:
            raise InventoryError(
                f"device {name!r}: a {kind} device has no {key!r}.", advice=f"It has: {', '.join(known)}."
            )
        wanted = int if known[key].type in ("int", int) else str
        if type(value) is not wanted:
            raise InventoryError(f"device {name!r}: {key} is {value!r}, not of type {wanted.__name__}.")
    if kind == "ssh" and "host" not in values:
        raise InventoryError(f"device {name!r}: an ssh device needs a host.")
    build: Callable[..., Device] = _KINDS[kind]
    return build(name=name, **values)


def config_folder() -> Path:
    """Return the user's configuration folder of etpu (it need not exist)."""
    override = os.environ.get("ETPU_CONFIG")
    if override:
        return Path(override).expanduser()
    return Path(os.environ.get("XDG_CONFIG_HOME") or "~/.config").expanduser() / "etpu"


_T = TypeVar("_T")


class Inventory:
    """The devices that a user has told etpu about.

    Parameters
    ----------
    folder:
        Configuration folder; by default :func:`config_folder`.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.path = (folder or config_folder()) / "devices.toml"

    def devices(self) -> dict[str, Device]:
        """Return all devices by name, in the order of the file.

        Raises
        ------
        InventoryError
            The file is not valid TOML or holds something that is no device.
        """
        try:
            document = tomllib.loads(self.path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except (OSError, UnicodeDecodeError) as error:
            raise InventoryError(f"cannot read {self.path}: {error}.") from error
        except tomllib.TOMLDecodeError as error:
            raise InventoryError(f"{self.path} is not valid TOML: {error}.", advice="Correct or delete it.") from error
        tables = document.get("devices", {})
        if not isinstance(tables, dict) or not all(isinstance(table, dict) for table in tables.values()):
            raise InventoryError(f"{self.path}: [devices] must hold one table per device.")
        return {name: device_from_table(name, table) for name, table in tables.items()}

    def get(self, name: str) -> Device:
        """Return the device of that name; :class:`UnknownDeviceError` lists the known ones.

        The name ``virtual`` stands for one simulated Edge TPU unless a device of that name was added.
        """
        devices = self.devices()
        if name == VirtualDevice.kind:
            return devices.get(name, VirtualDevice(name))
        if name not in devices:
            raise UnknownDeviceError(name, devices)
        return devices[name]

    def add(self, device: Device) -> None:
        """Add a device; :class:`DuplicateDeviceError` when its name is taken."""

        def change(devices: dict[str, Device]) -> None:
            if device.name in devices:
                raise DuplicateDeviceError(device.name)
            devices[device.name] = device

        self._change(change)

    def remove(self, name: str) -> Device:
        """Take a device out of the inventory and return it. Nothing is changed on the device."""

        def change(devices: dict[str, Device]) -> Device:
            if name not in devices:
                raise UnknownDeviceError(name, devices)
            return devices.pop(name)

        return self._change(change)

    def _change(self, change: Callable[[dict[str, Device]], _T]) -> _T:
        with self._locked():
            devices = self.devices()
            result = change(devices)
            self._write(devices)
        return result

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            lock = self.path.with_suffix(".lock").open("w")
        except OSError as error:
            raise InventoryError(
                f"cannot write the inventory {self.path}: {error.strerror or error}.",
                advice="Set ETPU_CONFIG to a folder that you may write.",
            ) from error
        with lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _write(self, devices: Mapping[str, Device]) -> None:
        import tomli_w

        tables = {name: device_table(device) for name, device in devices.items()}
        fresh = self.path.with_suffix(".new")
        fresh.write_text(tomli_w.dumps({"devices": tables}), encoding="utf-8")
        fresh.replace(self.path)
