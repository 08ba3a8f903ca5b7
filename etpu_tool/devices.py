"""``etpu devices``: the inventory."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from compiler.errors import UsageError

if TYPE_CHECKING:
    from deploy.inventory import Device

app = typer.Typer(help="Devices that models are deployed to.", no_args_is_help=True, rich_markup_mode=None)


@app.command("add")
def add(
    name: Annotated[str, typer.Argument(help="Name of the device.")],
    host: Annotated[str, typer.Argument(help="host or user@host; not for --virtual and --local.")] = "",
    port: Annotated[int, typer.Option(help="SSH port; 0: from ~/.ssh/config, or 22.")] = 0,
    identity_file: Annotated[str, typer.Option("--identity-file", help="Private SSH key.")] = "",
    python: Annotated[str, typer.Option(help="Python on the device.")] = "python3",
    virtual: Annotated[bool, typer.Option("--virtual", help="Simulated Edge TPUs on this machine.")] = False,
    local: Annotated[bool, typer.Option("--local", help="Edge TPUs of this machine.")] = False,
    tpus: Annotated[int, typer.Option(help="Virtual: number of Edge TPUs.")] = 1,
    runtime_version: Annotated[int, typer.Option("--runtime-version", help="Virtual: runtime version.")] = 14,
    bus: Annotated[str, typer.Option(help="Virtual: usb2, usb3 or pcie.")] = "usb3",
) -> None:
    """Add a device."""
    from deploy.inventory import Inventory, LocalDevice, SshDevice, VirtualDevice

    if virtual + local + bool(host) != 1:
        raise UsageError("give exactly one of a host, --virtual and --local.",
                         advice="For example: etpu devices add coral-1 mendel@192.168.100.2")
    device: Device
    if virtual:
        device = VirtualDevice(name, tpus, runtime_version, bus)
    elif local:
        device = LocalDevice(name)
    else:
        device = SshDevice(name, host, port, identity_file, python=python)
    inventory = Inventory()
    inventory.add(device)
    print(f"added {device.where} to {inventory.path}")


@app.command("list")
def list_devices(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """List all devices."""
    from deploy.inventory import Inventory, device_table

    devices = Inventory().devices()
    if as_json:
        print(json.dumps({name: device_table(d) for name, d in devices.items()}, indent=2))
        return
    for name, device in devices.items():
        facts = " ".join(f"{k}={v}" for k, v in device_table(device).items() if k != "kind")
        print(f"{name:<20} {device.kind:<8} {facts}".rstrip())
    if not devices:
        print("no devices yet; add one with: etpu devices add NAME HOST")


@app.command("show")
def show(name: Annotated[str, typer.Argument(help="Name of the device.")]) -> None:
    """Show one device."""
    from deploy.inventory import Inventory, device_table

    for key, value in device_table(Inventory().get(name)).items():
        print(f"{key} = {value}")


@app.command("remove")
def remove(name: Annotated[str, typer.Argument(help="Name of the device.")]) -> None:
    """Remove a device from the inventory; nothing on the device changes."""
    from deploy.inventory import Inventory

    print(f"removed {Inventory().remove(name).where}")


@app.command("path")
def path() -> None:
    """Print where the inventory is."""
    from deploy.inventory import Inventory

    print(Inventory().path)
