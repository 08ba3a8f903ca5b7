"""A folder of this machine as a device's disk; commands run here."""

from __future__ import annotations

import contextlib
import io
import os
import select
import shlex
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from deploy.errors import AgentError, ConnectionLostError, DeviceTimeoutError, RemoteFileError
from deploy.transports.transport import CommandResult, Progress, RemoteProcess, Transport, copy_stream


class LocalProcess(RemoteProcess):
    """A child process; its standard error goes to a file so that it can never block."""

    def __init__(self, where: str, command: Sequence[str], environment: Mapping[str, str] | None) -> None:
        self._where = where
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - closed in close()
        try:
            self._process = subprocess.Popen(
                list(command),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._stderr,
                bufsize=0,
                env={**os.environ, **(environment or {})},
            )
        except OSError as error:
            self._stderr.close()
            raise AgentError(f"cannot start {command[0]} on {where}: {error.strerror}.") from error

    def write(self, data: bytes) -> None:
        """Send all of `data`."""
        assert self._process.stdin is not None
        view = memoryview(data)
        try:
            while view:
                view = view[self._process.stdin.write(view) or 0 :]
        except OSError as error:
            raise ConnectionLostError(self._where, "sending a request", self.stderr_tail()) from error

    def read(self, size: int, deadline: float) -> bytes:
        """Return 1..`size` bytes, or ``b""`` at the end of the stream."""
        assert self._process.stdout is not None
        left = deadline - time.monotonic()
        if not select.select([self._process.stdout], [], [], max(left, 0.0))[0]:
            raise TimeoutError
        return self._process.stdout.read(size) or b""

    def stderr_tail(self) -> str:
        """Return the last lines that the program wrote to its standard error."""
        if self._stderr.closed:
            return ""
        size = os.fstat(self._stderr.fileno()).st_size
        return os.pread(self._stderr.fileno(), 2000, max(size - 2000, 0)).decode("utf-8", "replace").strip()

    def close(self) -> None:
        """Close the program's standard input, wait a moment, then kill it."""
        for stream in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):
                if stream:
                    stream.close()
        try:
            self._process.wait(timeout=2.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._stderr.close()


class LocalTransport(Transport):
    """This machine itself.

    Parameters
    ----------
    home:
        Folder that ``~`` stands for; by default the user's own.
    """

    def __init__(self, where: str, root: str, *, home: Path | None = None) -> None:
        super().__init__(where, root)
        self._home = (home or Path.home()).resolve()

    def home(self) -> str:
        """Return the home folder."""
        return str(self._home)

    def run(self, command: Sequence[str], *, timeout: float = 30.0) -> CommandResult:
        """Run a command to its end."""
        text = shlex.join(command)
        try:
            done = subprocess.run(
                list(command), stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise DeviceTimeoutError(self.where, f"running `{text}`", timeout) from error
        except OSError as error:
            return CommandResult(text, 127, b"", f"{command[0]}: {error.strerror}".encode())
        return CommandResult(text, done.returncode, done.stdout, done.stderr)

    def open_process(self, command: Sequence[str], *, environment: Mapping[str, str] | None = None) -> RemoteProcess:
        """Start a program that we talk to."""
        return LocalProcess(self.where, command, environment)

    def put(self, source: bytes | Path, remote: str, *, progress: Progress | None = None) -> None:
        """Write a file."""
        with self._explained("write", remote), contextlib.ExitStack() as stack:
            stream = stack.enter_context(io.BytesIO(source) if isinstance(source, bytes) else source.open("rb"))
            total = len(source) if isinstance(source, bytes) else source.stat().st_size
            copy_stream(stream, stack.enter_context(self._path(remote).open("wb")), total, progress)

    def get(self, remote: str) -> bytes:
        """Read a whole file."""
        with self._explained("read", remote):
            return self._path(remote).read_bytes()

    def exists(self, remote: str) -> bool:
        """Tell whether there is something at that path."""
        return os.path.lexists(self._path(remote))

    def list(self, remote: str) -> tuple[str, ...]:
        """Return the sorted names in a folder."""
        with self._explained("list", remote):
            try:
                return tuple(sorted(entry.name for entry in self._path(remote).iterdir()))
            except FileNotFoundError:
                return ()

    def make_folder(self, remote: str) -> None:
        """Make a folder and those above it."""
        with self._explained("create", remote):
            self._path(remote).mkdir(parents=True, exist_ok=True)

    def rename(self, old: str, new: str) -> None:
        """Rename, replacing what is there."""
        with self._explained("rename", old):
            self._path(old).replace(self._path(new))

    def symlink(self, target: str, link: str) -> None:
        """Make a symbolic link."""
        with self._explained("link", link):
            self._path(link).symlink_to(target)

    def readlink(self, link: str) -> str | None:
        """Return the text of a symbolic link."""
        path = self._path(link)
        return str(path.readlink()) if path.is_symlink() else None

    def remove(self, remote: str) -> None:
        """Remove a file, link or whole folder."""
        path = self._path(remote)
        with self._explained("remove", remote):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)

    def close(self) -> None:
        """Nothing is held open."""

    def _path(self, remote: str) -> Path:
        return Path(self.absolute(remote))

    @contextlib.contextmanager
    def _explained(self, action: str, remote: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise RemoteFileError(self.where, action, remote, error.strerror or str(error)) from error
