"""A real OpenSSH server on 127.0.0.1 that stands in for a board; its Edge TPUs are simulated."""

from __future__ import annotations

import contextlib
import getpass
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from deploy.session import simulated_environment

SSHD = shutil.which("sshd") or shutil.which("sshd", path="/usr/sbin:/sbin:/usr/local/sbin")
KEYGEN = shutil.which("ssh-keygen")


def missing() -> str:
    """Why no server can be started here, empty when one can."""
    if not SSHD or not KEYGEN:
        return "OpenSSH's sshd and ssh-keygen are not installed"
    return ""


def make_key(path: Path, kind: str = "ed25519") -> Path:
    """Make a key pair without a passphrase."""
    assert KEYGEN
    subprocess.run([KEYGEN, "-q", "-t", kind, "-N", "", "-C", "test", "-f", str(path)], check=True)
    return path


def free_port() -> int:
    """Return a port below those that connections begin from, so that none takes it before its server listens."""
    while True:
        port = random.SystemRandom().randrange(10_000, 32_000)
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            return port


class SshServer:
    """The server, with the client's files that fit it in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.host_key = make_key(folder / "host_key")
        self.client_key = make_key(folder / "client_key")
        self.root = folder / "board"
        self._process: subprocess.Popen[bytes] | None = None
        shutil.copy(self.client_key.with_suffix(".pub"), folder / "authorized_keys")

    @property
    def user(self) -> str:
        return getpass.getuser()

    @property
    def known_host(self) -> str:
        """The line of known_hosts for this server."""
        kind, key = self.host_key.with_suffix(".pub").read_text().split()[:2]
        return f"[127.0.0.1]:{self.port} {kind} {key}\n"

    def start(self, config: Mapping[str, object]) -> None:
        """Start the server; its board simulates what `config` says."""
        assert SSHD
        environment = simulated_environment(config)
        board = self.folder / "virtual.sh"
        # sshd's SetEnv has quoting rules of its own; a wrapper around python has none
        exports = "".join(f"export {key}={_quoted(value)}\n" for key, value in environment.items())
        board.write_text(f'#!/bin/sh\n{exports}exec {_quoted(sys.executable)} "$@"\n')
        board.chmod(0o755)
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        (self.folder / "sshd_config").write_text(self._settings())
        self._process = subprocess.Popen(
            [SSHD, "-D", "-e", "-f", str(self.folder / "sshd_config")],
            stderr=(self.folder / "sshd.log").open("ab"),
            stdin=subprocess.DEVNULL,
        )
        self._wait()

    @property
    def python(self) -> str:
        """Python on the board."""
        return str(self.folder / "virtual.sh")

    def _settings(self) -> str:
        return "\n".join(
            [
                f"Port {self.port}",
                "ListenAddress 127.0.0.1",
                f"HostKey {self.host_key}",
                f"AuthorizedKeysFile {self.folder / 'authorized_keys'}",
                f"PidFile {self.folder / 'sshd.pid'}",
                "StrictModes no",
                # without PAM, sshd itself refuses accounts whose password is locked
                f"UsePAM {'yes' if _is_locked(self.user) else 'no'}",
                "PermitRootLogin prohibit-password",
                "PasswordAuthentication no",
                "KbdInteractiveAuthentication no",
                "Subsystem sftp internal-sftp",
                "",
            ]
        )

    def _wait(self) -> None:
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1) as found:
                if found.recv(4) == b"SSH-":
                    return
            assert self._process is not None
            if self._process.poll() is not None:
                break
            time.sleep(0.05)
        raise RuntimeError(f"sshd did not start: {(self.folder / 'sshd.log').read_text()}")

    def kill(self) -> None:
        """Kill the server and its sessions at once; programs that they run only notice that nobody listens."""
        self._signal(signal.SIGKILL)
        assert self._process is not None
        self._process.wait()
        self._process = None

    def freeze(self) -> None:
        """Let the server hang, as a device does whose network cable is pulled."""
        self._signal(signal.SIGSTOP)

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        for process in [self._process.pid, *_descendants(self._process.pid)]:
            if _is_sshd(process):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, number)

    def stop(self) -> None:
        if self._process is not None:
            self.kill()


def _is_locked(user: str) -> bool:
    """Tell whether the account's password is locked; who may not look is not asked by sshd either."""
    with contextlib.suppress(OSError):
        for line in Path("/etc/shadow").read_text().splitlines():
            name, password, *_ = line.split(":")
            if name == user:
                return password.startswith("!")
    return False


def _is_sshd(process: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{process}/comm").read_text().startswith("sshd")
    return False


def _descendants(parent: int) -> list[int]:
    """Children of a process and theirs, from /proc."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                children.setdefault(int(fields[1]), []).append(int(entry.name))
    found: list[int] = []
    queue = [parent]
    while queue:
        mine = children.get(queue.pop(), [])
        found += mine
        queue += mine
    return found


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"
