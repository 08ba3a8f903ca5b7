"""Ways of reaching a device; modules of each are loaded only when it is used."""

from __future__ import annotations

from deploy.inventory import Device, SshDevice, VirtualDevice
from deploy.transports.transport import (
    CommandResult,
    Progress,
    RemoteProcess,
    Transport,
    replace_symlink,
)

__all__ = ["CommandResult", "Progress", "RemoteProcess", "Transport", "open_transport", "replace_symlink"]


def open_transport(device: Device, *, timeout: float = 10.0) -> Transport:
    """Connect to a device.

    Parameters
    ----------
    timeout:
        Seconds for connecting.

    Raises
    ------
    DeviceError
        The device cannot be reached; the subclass and the message say why.
    """
    if isinstance(device, SshDevice):
        from deploy.transports.ssh import SshTransport

        return SshTransport(device, timeout=timeout)
    from deploy.transports.local import LocalTransport

    if isinstance(device, VirtualDevice):
        device.folder.mkdir(parents=True, exist_ok=True)
        return LocalTransport(device.where, "~/etpu", home=device.folder)
    return LocalTransport(device.where, device.root)
