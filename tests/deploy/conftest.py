"""Devices that are folders of this machine."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.inventory import LocalDevice
from deploy.session import DeviceSession, connect

# the modules beside this file that several tests share
sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture
def local(tmp_path: Path) -> LocalDevice:
    return LocalDevice("here", root=str(tmp_path / "device"))


@pytest.fixture
def session(local: LocalDevice) -> Iterator[DeviceSession]:
    with connect(local) as session:
        yield session
