from __future__ import annotations

import string
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.errors import DuplicateDeviceError, InventoryError, UnknownDeviceError
from deploy.inventory import (
    Device,
    Inventory,
    LocalDevice,
    SshDevice,
    VirtualDevice,
    config_folder,
    device_from_table,
    device_table,
)

names = st.text(string.ascii_letters + string.digits + "._-", min_size=1, max_size=20).filter(
    lambda name: name[0].isalnum()
)
devices = st.one_of(
    st.builds(
        SshDevice,
        names,
        names,
        st.integers(0, 65535),
        st.text(max_size=10),
        st.text(max_size=9).map(lambda text: "/" + text),
        python=st.text(min_size=1, max_size=9),
    ),
    st.builds(
        VirtualDevice,
        names,
        st.integers(1, 16),
        st.integers(10, 14),
        st.sampled_from(["usb2", "usb3", "pcie"]),
        st.text(max_size=9),
    ),
    st.builds(LocalDevice, names),
)


@given(devices)
def test_tables_keep_devices(device: Device) -> None:
    assert device_from_table(device.name, device_table(device)) == device


def test_a_virtual_device_is_always_there(tmp_path: Path) -> None:
    inventory = Inventory(tmp_path)
    assert inventory.get("virtual") == VirtualDevice("virtual")
    inventory.add(VirtualDevice("virtual", tpus=3))
    assert inventory.get("virtual") == VirtualDevice("virtual", tpus=3)


def test_add_list_show_remove(tmp_path: Path) -> None:
    inventory = Inventory(tmp_path / "new")
    assert inventory.devices() == {}
    first, second = SshDevice("coral-1", "mendel@10.0.0.7", 2222), VirtualDevice("desk", 2, 12, "pcie")
    inventory.add(first)
    inventory.add(second)
    assert Inventory(tmp_path / "new").devices() == {"coral-1": first, "desk": second}
    assert inventory.get("desk") == second
    assert inventory.remove("coral-1") == first
    assert list(inventory.devices()) == ["desk"]
    assert inventory.path == tmp_path / "new" / "devices.toml"


def test_unknown_device_lists_the_known_ones(tmp_path: Path) -> None:
    inventory = Inventory(tmp_path)
    with pytest.raises(UnknownDeviceError, match=r"known devices: none"):
        inventory.get("x")
    inventory.add(LocalDevice("here"))
    inventory.add(LocalDevice("there"))
    for action in (inventory.get, inventory.remove):
        with pytest.raises(UnknownDeviceError, match=r"'x'; known devices: here, there"):
            action("x")


def test_duplicate_changes_nothing(tmp_path: Path) -> None:
    inventory = Inventory(tmp_path)
    inventory.add(LocalDevice("here"))
    before = inventory.path.read_bytes()
    with pytest.raises(DuplicateDeviceError, match="'here' exists already"):
        inventory.add(VirtualDevice("here"))
    assert inventory.path.read_bytes() == before


@pytest.mark.parametrize("name", ["", "-x", "a b", "a/b", "ü", "x" * 64, ".x"])
def test_bad_names(name: str) -> None:
    with pytest.raises(InventoryError, match="bad device name"):
        LocalDevice(name)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({}, "unknown kind"),
        ({"kind": "telnet"}, "unknown kind 'telnet'"),
        ({"kind": "ssh"}, "needs a host"),
        ({"kind": "ssh", "host": "-oProxyCommand=x"}, "bad host"),
        ({"kind": "ssh", "host": "a b"}, "bad host"),
        ({"kind": "ssh", "host": "@b"}, "bad host"),
        ({"kind": "ssh", "host": "h", "port": 70000}, "70000"),
        ({"kind": "ssh", "host": "h", "port": "22"}, "not of type int"),
        ({"kind": "ssh", "host": "h", "root": "x"}, "relative"),
        ({"kind": "ssh", "host": "h", "colour": "x"}, "has no 'colour'"),
        ({"kind": "virtual", "tpus": 0}, "0 Edge TPUs"),
        ({"kind": "virtual", "tpus": True}, "not of type int"),
        ({"kind": "virtual", "runtime_version": 15}, "no runtime version 15"),
        ({"kind": "virtual", "bus": "isa"}, "unknown bus"),
    ],
)
def test_bad_tables(table: dict[str, object], message: str) -> None:
    with pytest.raises(InventoryError, match=message):
        device_from_table("x", table)


@pytest.mark.parametrize("text", ["[devices", "devices = 3", "devices.x = 3", b"\xff\xfe"])
def test_damaged_file(tmp_path: Path, text: str | bytes) -> None:
    inventory = Inventory(tmp_path)
    inventory.path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InventoryError, match=r"devices\.toml"):
        inventory.devices()


def test_unwritable_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InventoryError, match="cannot write the inventory"):
        Inventory(tmp_path / "file" / "etpu").add(LocalDevice("x"))


def test_where_the_inventory_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("ETPU_CONFIG", raising=False)
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert config_folder() == tmp_path / ".config" / "etpu"
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "xdg"))
    assert config_folder() == tmp_path / "xdg" / "etpu"
    monkeypatch.setenv("ETPU_CONFIG", str(tmp_path / "mine"))
    assert config_folder() == tmp_path / "mine"
