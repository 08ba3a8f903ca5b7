"""Devices that are folders of this machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.inventory import LocalDevice
from deploy.session import DeviceSession, connect


@pytest.fixture
def local(tmp_path: Path) -> LocalDevice:
    return LocalDevice("here", root=str(tmp_path / "device"))


@pytest.fixture
def session(local: LocalDevice) -> Iterator[DeviceSession]:
    with connect(local) as session:
        yield session
