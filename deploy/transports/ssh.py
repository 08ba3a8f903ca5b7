"""SSH, as the user's own ``ssh`` would connect, but never to a host whose key is not known."""

from __future__ import annotations

import contextlib
import io
import posixpath
import shlex
import stat
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from deploy.errors import ConnectionLostError, DeviceTimeoutError, RemoteFileError
from deploy.inventory import SshDevice
from deploy.transports.ssh_config import resolve
from deploy.transports.ssh_connect import Connector
from deploy.transports.transport import CommandResult, Progress, RemoteProcess, Transport, copy_stream

if TYPE_CHECKING:
    import paramiko

_STDERR_KEPT = 2000


class SshProcess(RemoteProcess):
    """A program at the other end of a session channel."""

    def __init__(self, where: str, channel: paramiko.Channel, timeout: float) -> None:
        self._where = where
        self._channel = channel
        self._stderr = b""
        channel.settimeout(timeout)

    def write(self, data: bytes) -> None:
        """Send all of `data`."""
        import paramiko

        try:
            self._channel.sendall(data)
        except (paramiko.SSHException, EOFError, OSError) as error:
            raise ConnectionLostError(self._where, "sending a request", str(error) or self.stderr_tail()) from error

    def read(self, size: int, deadline: float) -> bytes:
        """Return 1..`size` bytes, or ``b""`` at the end of the stream."""
        self._drain()
        # a channel without time left would not block at all; the smallest wait still gives the error
        self._channel.settimeout(max(deadline - time.monotonic(), 0.001))
        return self._channel.recv(size)

    def stderr_tail(self) -> str:
        """Return the last lines that the program wrote to its standard error."""
        self._drain()
        return self._stderr.decode("utf-8", "replace").strip()

    def close(self) -> None:
        """Close the channel; the server closes the program's standard input."""
        _close(self._channel)

    def _drain(self) -> None:
        while self._channel.recv_stderr_ready() and (block := self._channel.recv_stderr(65_536)):
            self._stderr = (self._stderr + block)[-_STDERR_KEPT:]


class SshTransport(Transport):
    """A connection to an ssh host.

    Parameters
    ----------
    device:
        Record of the inventory.
    timeout:
        Seconds for connecting in all, and for each later answer.
    config_file:
        ssh configuration; by default ``~/.ssh/config``.

    Raises
    ------
    HostUnreachableError, DeviceTimeoutError, UnknownHostKeyError, HostKeyChangedError, AuthenticationFailedError
    """

    def __init__(self, device: SshDevice, *, timeout: float = 10.0, config_file: Path | None = None) -> None:
        super().__init__(device.where, device.root)
        self._timeout = timeout
        self._sftp_client: paramiko.SFTPClient | None = None
        self._home = ""
        self._connector = Connector(self.where, timeout, config_file)
        try:
            self._connection = self._connector.connect(resolve(device, config_file))
        except BaseException:
            self._connector.close()
            raise

    def home(self) -> str:
        """Return the home folder on the device, where sftp starts."""
        if not self._home:
            with self._explained("find", "~"):
                self._home = self._sftp.normalize(".")
        return self._home

    def run(self, command: Sequence[str], *, timeout: float = 30.0) -> CommandResult:
        """Run a command to its end."""
        import paramiko

        text = shlex.join(command)
        channel = self._channel(text)
        channel.settimeout(timeout)
        try:
            channel.shutdown_write()
            stdout = channel.makefile("rb").read()
            stderr = channel.makefile_stderr("rb").read()
            status = channel.recv_exit_status()
        except TimeoutError as error:
            raise DeviceTimeoutError(self.where, f"running `{text}`", timeout) from error
        except (paramiko.SSHException, EOFError, OSError) as error:
            raise ConnectionLostError(self.where, f"running `{text}`", str(error)) from error
        finally:
            _close(channel)
        if status == -1:
            raise ConnectionLostError(self.where, f"running `{text}`")
        return CommandResult(text, status, stdout, stderr)

    def open_process(self, command: Sequence[str], *, environment: Mapping[str, str] | None = None) -> RemoteProcess:
        """Start a program that we talk to."""
        settings = [f"{key}={value}" for key, value in (environment or {}).items()]
        words = ["env", *settings, *command] if settings else list(command)
        return SshProcess(self.where, self._channel(f"exec {shlex.join(words)}"), self._timeout)

    def put(self, source: bytes | Path, remote: str, *, progress: Progress | None = None) -> None:
        """Write a file over sftp, with many requests on the way at once."""
        path = self.absolute(remote)
        with self._explained("write", path), contextlib.ExitStack() as stack:
            stream = stack.enter_context(io.BytesIO(source) if isinstance(source, bytes) else source.open("rb"))
            total = len(source) if isinstance(source, bytes) else source.stat().st_size
            target = stack.enter_context(self._sftp.open(path, "wb"))
            target.set_pipelined(True)
            copy_stream(stream, target, total, progress)

    def get(self, remote: str) -> bytes:
        """Read a whole file."""
        path = self.absolute(remote)
        with self._explained("read", path), self._sftp.open(path, "rb") as source:
            source.prefetch()
            return source.read()

    def exists(self, remote: str) -> bool:
        """Tell whether there is something at that path."""
        path = self.absolute(remote)
        with self._explained("look at", path):
            try:
                self._sftp.lstat(path)
            except FileNotFoundError:
                return False
            return True

    def list(self, remote: str) -> tuple[str, ...]:
        """Return the sorted names in a folder."""
        path = self.absolute(remote)
        with self._explained("list", path):
            try:
                return tuple(sorted(self._sftp.listdir(path)))
            except FileNotFoundError:
                return ()

    def make_folder(self, remote: str) -> None:
        """Make a folder and those above it."""
        path = self.absolute(remote)
        if self.exists(path):
            return
        parent = posixpath.dirname(path)
        if parent != path:
            self.make_folder(parent)
        with self._explained("create", path):
            try:
                self._sftp.mkdir(path)
            except OSError:
                # another session may have made it since we looked
                if not stat.S_ISDIR(self._sftp.stat(path).st_mode or 0):
                    raise

    def rename(self, old: str, new: str) -> None:
        """Rename with the posix-rename extension, which replaces what is there."""
        with self._explained("rename", old):
            self._sftp.posix_rename(self.absolute(old), self.absolute(new))

    def symlink(self, target: str, link: str) -> None:
        """Make a symbolic link."""
        with self._explained("link", link):
            self._sftp.symlink(target, self.absolute(link))

    def readlink(self, link: str) -> str | None:
        """Return the text of a symbolic link."""
        path = self.absolute(link)
        with self._explained("read", path):
            try:
                mode = self._sftp.lstat(path).st_mode or 0
            except FileNotFoundError:
                return None
            return self._sftp.readlink(path) if stat.S_ISLNK(mode) else None

    def remove(self, remote: str) -> None:
        """Remove a file, link or whole folder with the device's own ``rm``, one round trip for all."""
        self.check(["rm", "-rf", "--", self.absolute(remote)])

    def close(self) -> None:
        """End the connection."""
        self._connector.close()

    @property
    def _sftp(self) -> paramiko.SFTPClient:
        if self._sftp_client is None:
            client = self._connection.open_sftp_client()
            if client is None:
                raise ConnectionLostError(self.where, "starting sftp")
            channel = client.get_channel()
            if channel is not None:
                channel.settimeout(self._timeout)
            self._sftp_client = client
        return self._sftp_client

    def _channel(self, command: str) -> paramiko.Channel:
        import paramiko

        try:
            channel = self._connection.open_session(timeout=self._timeout)
            channel.settimeout(self._timeout)
            channel.exec_command(command)
        except TimeoutError as error:
            raise DeviceTimeoutError(self.where, f"starting `{command}`", self._timeout) from error
        except (paramiko.SSHException, EOFError, OSError) as error:
            raise ConnectionLostError(self.where, f"starting `{command}`", str(error)) from error
        return channel

    @contextlib.contextmanager
    def _explained(self, action: str, path: str) -> Iterator[None]:
        """Turn what paramiko raises into our errors: a broken line, a silent one, a file that cannot be had."""
        import paramiko

        try:
            yield
        except TimeoutError as error:
            raise DeviceTimeoutError(self.where, f"trying to {action} {path}", self._timeout) from error
        except (paramiko.SSHException, EOFError) as error:
            raise ConnectionLostError(self.where, f"trying to {action} {path}", str(error)) from error
        except OSError as error:
            if not self._connection.is_active():
                raise ConnectionLostError(self.where, f"trying to {action} {path}", str(error)) from error
            reason = error.strerror or str(error) or type(error).__name__
            raise RemoteFileError(self.where, action, path, reason) from error


def _close(channel: paramiko.Channel) -> None:
    """Close a channel; when the connection is gone it is closed already."""
    with contextlib.suppress(EOFError, OSError):
        channel.close()
