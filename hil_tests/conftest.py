"""A board on loopback: a fresh OpenSSH server and a user's home that knows it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from loopback import SshServer, missing

from deploy.inventory import SshDevice


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home folder of the user."""
    folder = tmp_path / "home"
    (folder / ".ssh").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    return folder


@pytest.fixture
def server(tmp_path: Path, home: Path) -> Iterator[SshServer]:
    """A server with a runtime of version 14 and two Edge TPUs; the user's ssh knows it as `board`."""
    reason = missing()
    if reason:
        pytest.skip(reason)
    folder = tmp_path / "server"
    folder.mkdir()
    server = SshServer(folder)
    server.start({"tpus": 2, "runtime_version": 14, "bus": "usb3"})
    (home / ".ssh" / "config").write_text(
        f"Host board\n  HostName 127.0.0.1\n  Port {server.port}\n  User {server.user}\n"
        f"  IdentityFile {server.client_key}\n"
    )
    (home / ".ssh" / "known_hosts").write_text(server.known_host)
    yield server
    server.stop()


@pytest.fixture
def board(server: SshServer) -> SshDevice:
    """The server as a device of the inventory."""
    return SshDevice("coral-1", "board", root=str(server.root), python=server.python)
