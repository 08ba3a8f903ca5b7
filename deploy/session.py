"""A device that we are connected to: its transport and the agent that runs there."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

import deploy
from deploy.agent.client import AgentClient
from deploy.inventory import Device, SshDevice, VirtualDevice
from deploy.transports import Transport, open_transport


class DeviceSession:
    """Transport and agent of one device.

    Parameters
    ----------
    device:
        Record of the inventory.
    transport:
        An open connection to it; the session closes it.
    """

    def __init__(self, device: Device, transport: Transport) -> None:
        self.device = device
        self.transport = transport
        try:
            # our own interpreter where the device is this machine: it has the packages that the simulator needs
            python = device.python if isinstance(device, SshDevice) else sys.executable
            self.agent = AgentClient(transport, python=python, environment=agent_environment(device))
        except BaseException:
            transport.close()
            raise

    def close(self) -> None:
        """End agent and connection."""
        self.agent.close()
        self.transport.close()

    def __enter__(self) -> DeviceSession:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def connect(device: Device, *, timeout: float = 10.0) -> DeviceSession:
    """Connect to a device and start the agent there.

    Parameters
    ----------
    timeout:
        Seconds for connecting.

    Raises
    ------
    DeviceError
        The subclass and the message say what is wrong.
    """
    return DeviceSession(device, open_transport(device, timeout=timeout))


def agent_environment(device: Device) -> Mapping[str, str]:
    """Return the variables that make the agent of a virtual device simulate its Edge TPUs; none for others."""
    if not isinstance(device, VirtualDevice):
        return {}
    config = {"tpus": device.tpus, "runtime_version": device.runtime_version, "bus": device.bus}
    return simulated_environment(config)


def simulated_environment(config: Mapping[str, object]) -> dict[str, str]:
    """Return the variables with which an agent simulates Edge TPUs.

    Parameters
    ----------
    config:
        Any of ``tpus``, ``runtime_version`` and ``bus``, as in :class:`deploy.virtual.VirtualRuntime`.
    """
    project = str(Path(deploy.__file__).parent.parent)
    path = os.pathsep.join(filter(None, [project, os.environ.get("PYTHONPATH", "")]))
    return {"ETPU_AGENT_RUNTIME": f"virtual:{json.dumps(dict(config))}", "PYTHONPATH": path}
