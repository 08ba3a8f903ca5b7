"""Reaching a board over a real OpenSSH server, and being refused for the right reason."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from pathlib import Path

import pytest
from loopback import SshServer, free_port, make_key

from deploy.errors import (
    AgentError,
    AuthenticationFailedError,
    ConnectionLostError,
    DeviceTimeoutError,
    HostKeyChangedError,
    HostUnreachableError,
    PythonMissingError,
    RemoteFileError,
    UnknownHostKeyError,
)
from deploy.inventory import SshDevice
from deploy.session import connect
from deploy.transports import open_transport


def test_connects_by_key_and_finds_the_simulated_board(board: SshDevice) -> None:
    with connect(board) as session:
        hello = session.agent.hello()
        runtime = session.agent.runtime()
    assert hello.simulated and runtime.simulated
    assert runtime.version == 14
    assert [tpu.index for tpu in runtime.tpus] == [0, 1]


def test_device_record_wins_over_the_configuration(server: SshServer, home: Path) -> None:
    (home / ".ssh" / "config").write_text("Host *\n  User nobody\n  Port 1\n  IdentityFile /nowhere\n")
    device = SshDevice("b", f"{server.user}@127.0.0.1", server.port, str(server.client_key), str(server.root))
    with open_transport(device) as transport:
        assert transport.check(["echo", "a  b", "$HOME"]) == b"a  b $HOME\n"


def test_unknown_host_is_refused_and_its_advice_works(server: SshServer, board: SshDevice, home: Path) -> None:
    known = home / ".ssh" / "known_hosts"
    known.write_text("")
    with pytest.raises(UnknownHostKeyError, match="SHA256:") as caught:
        open_transport(board)
    assert not server.root.exists()
    command = caught.value.advice.split("`")[1]
    assert command.startswith("ssh-keyscan")
    subprocess.run(["sh", "-c", command], check=True, capture_output=True, timeout=20)
    open_transport(board).close()


def test_changed_host_key_is_refused(server: SshServer, board: SshDevice, home: Path, tmp_path: Path) -> None:
    other = make_key(tmp_path / "other").with_suffix(".pub").read_text().split()
    (home / ".ssh" / "known_hosts").write_text(f"[127.0.0.1]:{server.port} {other[0]} {other[1]}\n")
    with pytest.raises(HostKeyChangedError, match="CHANGED") as caught:
        open_transport(board)
    assert f"-R '[127.0.0.1]:{server.port}'" in caught.value.advice


def test_key_of_another_kind_counts_as_changed(server: SshServer, board: SshDevice, home: Path, tmp_path: Path) -> None:
    other = make_key(tmp_path / "other", "ecdsa").with_suffix(".pub").read_text().split()
    (home / ".ssh" / "known_hosts").write_text(f"[127.0.0.1]:{server.port} {other[0]} {other[1]}\n")
    with pytest.raises(HostKeyChangedError):
        open_transport(board)


def test_hashed_known_hosts(server: SshServer, board: SshDevice, home: Path) -> None:
    known = home / ".ssh" / "known_hosts"
    subprocess.run(["ssh-keygen", "-q", "-H", "-f", str(known)], check=True, capture_output=True)
    assert "127.0.0.1" not in known.read_text()
    open_transport(board).close()


def test_wrong_user_key_is_explained(server: SshServer, home: Path, tmp_path: Path) -> None:
    stranger = make_key(tmp_path / "stranger")
    device = SshDevice("b", "board", identity_file=str(stranger))
    with pytest.raises(AuthenticationFailedError) as caught:
        open_transport(device)
    assert str(stranger) in caught.value.message
    assert "ssh-copy-id" in caught.value.advice


def test_missing_and_locked_keys_are_named(server: SshServer, home: Path, tmp_path: Path) -> None:
    locked = tmp_path / "locked"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "secret", "-f", str(locked)], check=True)
    (home / ".ssh" / "config").write_text(
        f"Host board\n  HostName 127.0.0.1\n  Port {server.port}\n  IdentityFile /no/key\n  IdentityFile {locked}\n"
    )
    with pytest.raises(AuthenticationFailedError) as caught:
        open_transport(SshDevice("b", "board"))
    assert "/no/key (no such file)" in caught.value.message
    assert f"{locked} (has a passphrase)" in caught.value.message


def test_key_agent(server: SshServer, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started = subprocess.run(["ssh-agent", "-s"], check=True, capture_output=True, text=True).stdout
    settings = dict(part.split("=", 1) for part in started.replace("\n", ";").split(";") if "=" in part)
    monkeypatch.setenv("SSH_AUTH_SOCK", settings["SSH_AUTH_SOCK"])
    try:
        subprocess.run(["ssh-add", "-q", str(server.client_key)], check=True, capture_output=True)
        (home / ".ssh" / "config").write_text(f"Host board\n  HostName 127.0.0.1\n  Port {server.port}\n")
        open_transport(SshDevice("b", "board")).close()
    finally:
        os.kill(int(settings["SSH_AGENT_PID"]), 15)


def test_jump_host(server: SshServer, home: Path) -> None:
    with (home / ".ssh" / "config").open("a") as config:
        config.write(
            f"Host inner\n  HostName 127.0.0.1\n  Port {server.port}\n  User {server.user}\n"
            f"  IdentityFile {server.client_key}\n  ProxyJump board\n"
        )
    with open_transport(SshDevice("b", "inner")) as transport:
        assert transport.check(["echo", "here"]) == b"here\n"


def test_proxy_command(server: SshServer, home: Path) -> None:
    config = home / ".ssh" / "config"
    outer = f"ssh -F {config} -o UserKnownHostsFile={home}/.ssh/known_hosts -W %h:%p board"
    with config.open("a") as file:
        file.write(
            f"Host inner\n  HostName 127.0.0.1\n  Port {server.port}\n  User {server.user}\n"
            f"  IdentityFile {server.client_key}\n  ProxyCommand {outer}\n"
        )
    with open_transport(SshDevice("b", "inner")) as transport:
        assert transport.check(["echo", "here"]) == b"here\n"


def test_silent_listener_times_out_in_time(home: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        device = SshDevice("b", "127.0.0.1", listener.getsockname()[1])
        start = time.monotonic()
        with pytest.raises(DeviceTimeoutError, match=r"within 1.5 s"):
            open_transport(device, timeout=1.5)
        assert time.monotonic() - start < 2.5


def test_nothing_listens(home: Path) -> None:
    with pytest.raises(HostUnreachableError, match="refused"):
        open_transport(SshDevice("b", "127.0.0.1", free_port()))


def test_name_that_does_not_exist(home: Path) -> None:
    with pytest.raises(HostUnreachableError, match="cannot be resolved"):
        open_transport(SshDevice("b", "no-such-board.invalid"))


def test_something_else_listens(home: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        import threading

        def greet() -> None:
            connection, _ = listener.accept()
            connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            connection.close()

        thread = threading.Thread(target=greet)
        thread.start()
        with pytest.raises(HostUnreachableError, match="does not speak ssh"):
            open_transport(SshDevice("b", "127.0.0.1", listener.getsockname()[1]), timeout=5)
        thread.join()


def test_files(board: SshDevice, server: SshServer) -> None:
    with open_transport(board) as transport:
        folder = f"{transport.root}/a b/c"
        transport.make_folder(folder)
        transport.make_folder(folder)
        seen: list[tuple[int, int]] = []
        data = os.urandom(300_000)
        transport.put(data, f"{folder}/x", progress=lambda done, total: seen.append((done, total)))
        assert transport.get(f"{folder}/x") == data
        assert seen[-1] == (300_000, 300_000) and len(seen) > 2
        transport.put(b"new", f"{folder}/y")
        transport.rename(f"{folder}/y", f"{folder}/x")
        assert transport.list(folder) == ("x",)
        transport.symlink("c", f"{transport.root}/a b/link")
        assert transport.readlink(f"{transport.root}/a b/link") == "c"
        assert transport.readlink(folder) is None
        assert transport.get(f"{transport.root}/a b/link/x") == b"new"
        transport.remove(f"{transport.root}/a b/link")
        assert transport.exists(f"{folder}/x")
        transport.remove(folder)
        transport.remove(folder)
        assert not transport.exists(folder)
        assert transport.list(folder) == ()
        with pytest.raises(RemoteFileError, match="No such file"):
            transport.get(f"{folder}/x")


def test_command_timeout_and_status(board: SshDevice) -> None:
    with open_transport(board) as transport:
        with pytest.raises(DeviceTimeoutError, match="sleep 5"):
            transport.run(["sleep", "5"], timeout=0.5)
        result = transport.run(["sh", "-c", "echo out; echo err >&2; exit 3"])
        assert (result.status, result.stdout, result.stderr) == (3, b"out\n", b"err\n")


def test_agent_is_uploaded_once_and_repaired(board: SshDevice, server: SshServer) -> None:
    connect(board).close()
    (agent,) = (server.root / "agent").iterdir()
    before = agent.stat().st_mtime_ns
    connect(board).close()
    assert agent.stat().st_mtime_ns == before
    agent.write_text("damaged")
    connect(board).close()
    assert agent.stat().st_size > 1000
    assert len(list((server.root / "agent").iterdir())) == 1


def test_device_without_python(server: SshServer) -> None:
    device = SshDevice("b", "board", root=str(server.root), python="python3-is-not-here")
    with pytest.raises(PythonMissingError, match="not found"):
        connect(device)


def test_noise_before_the_greeting_is_skipped(server: SshServer) -> None:
    noisy = server.folder / "noisy.sh"
    noisy.write_text(f'#!/bin/sh\necho "Welcome to the board"\nexec {server.python} "$@"\n')
    noisy.chmod(0o755)
    with connect(SshDevice("b", "board", root=str(server.root), python=str(noisy))) as session:
        assert session.agent.hello().simulated


def test_agent_that_dies_at_once(server: SshServer) -> None:
    broken = server.folder / "broken.sh"
    broken.write_text(f'#!/bin/sh\n[ "$1" = -u ] && echo "no memory" >&2 && exit 1\nexec {server.python} "$@"\n')
    broken.chmod(0o755)
    with pytest.raises(AgentError, match="no memory"):
        connect(SshDevice("b", "board", root=str(server.root), python=str(broken)))


def test_server_dies_while_connected(board: SshDevice, server: SshServer) -> None:
    with connect(board) as session:
        session.agent.hello()
        server.kill()
        with pytest.raises(ConnectionLostError, match="was lost"):
            session.agent.hello()
