"""USB accelerators of this machine, as libusb sees them (through pyusb)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from deploy.errors import NoEdgeTpuError

STATES = {(0x1A6E, 0x089A): "dfu", (0x18D1, 0x9302): "running"}
"""Vendor and product of an accelerator before and after its firmware is loaded."""

_MEGABITS = {1: 1.5, 2: 12.0, 3: 480.0, 4: 5000.0, 5: 10000.0}


@dataclass(frozen=True)
class UsbAccelerator:
    """A USB accelerator.

    Attributes
    ----------
    port:
        Bus and port chain, ``2-1.4``: stays the same when the device enumerates anew.
    state:
        ``dfu`` before the runtime has loaded its firmware, ``running`` after.
    megabits:
        Speed of the link, Mbit/s; 0 when unknown.
    """

    port: str
    address: int
    state: str
    megabits: float


def usb_accelerators() -> tuple[UsbAccelerator, ...]:
    """List the USB accelerators of this machine, sorted by port.

    Raises
    ------
    NoEdgeTpuError
        USB cannot be looked at: no libusb.
    """
    import usb.core

    try:
        devices = list(usb.core.find(find_all=True))
    except (usb.core.NoBackendError, usb.core.USBError) as error:
        raise NoEdgeTpuError(
            f"cannot look at USB: {error}.", code="no_usb", advice="Install libusb-1.0-0, and allow access to USB."
        ) from error
    found = [_accelerator(device) for device in devices if (device.idVendor, device.idProduct) in STATES]
    return tuple(sorted(found, key=lambda accelerator: accelerator.port))


def _accelerator(device: Any) -> UsbAccelerator:
    ports = ".".join(str(number) for number in device.port_numbers or ())
    return UsbAccelerator(
        port=f"{device.bus}-{ports}",
        address=device.address,
        state=STATES[device.idVendor, device.idProduct],
        megabits=_MEGABITS.get(device.speed, 0.0),
    )
