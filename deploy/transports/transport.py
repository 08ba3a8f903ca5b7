"""What every way of reaching a device can do.

Paths on the device are POSIX strings. A leading ``~/`` is the home folder there.
"""

from __future__ import annotations

import posixpath
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol

from deploy.errors import RemoteCommandFailedError

Progress = Callable[[int, int], None]
"""Called with (bytes sent, bytes in all) while something is uploaded."""


@dataclass(frozen=True)
class CommandResult:
    """What a command on the device left behind."""

    command: str
    status: int
    stdout: bytes
    stderr: bytes


class RemoteProcess(ABC):
    """A running program on the device with its standard input and output in our hands."""

    @abstractmethod
    def write(self, data: bytes) -> None:
        """Send all of `data`; :class:`ConnectionLostError` when nobody is there to take it."""

    @abstractmethod
    def read(self, size: int, deadline: float) -> bytes:
        """Return 1..`size` bytes, or ``b""`` at the end of the stream.

        Parameters
        ----------
        deadline:
            On the clock of :func:`time.monotonic`; after it :class:`TimeoutError` is raised.
        """

    @abstractmethod
    def stderr_tail(self) -> str:
        """Return the last lines that the program wrote to its standard error."""

    @abstractmethod
    def close(self) -> None:
        """End the program by closing its standard input; never raises."""


class Transport(ABC):
    """A connection to a device: runs commands there and moves files.

    Parameters
    ----------
    where:
        The device as messages call it.
    root:
        The device's root folder, `~/` allowed.
    """

    def __init__(self, where: str, root: str) -> None:
        self.where = where
        self._root = root

    @property
    def root(self) -> str:
        """The root folder, absolute."""
        return self.absolute(self._root)

    def absolute(self, path: str) -> str:
        """Resolve a leading ``~/``."""
        if path == "~" or path.startswith("~/"):
            return posixpath.join(self.home(), path[2:])
        return path

    @abstractmethod
    def home(self) -> str:
        """Return the home folder on the device."""

    @abstractmethod
    def run(self, command: Sequence[str], *, timeout: float = 30.0) -> CommandResult:
        """Run a command to its end, with nothing on its standard input.

        Raises
        ------
        DeviceTimeoutError, ConnectionLostError
        """

    def check(self, command: Sequence[str], *, timeout: float = 30.0) -> bytes:
        """Run a command, return its output; :class:`RemoteCommandFailedError` unless its status is 0."""
        result = self.run(command, timeout=timeout)
        if result.status != 0:
            raise RemoteCommandFailedError(
                self.where, result.command, result.status, result.stderr.decode("utf-8", "replace")
            )
        return result.stdout

    @abstractmethod
    def open_process(self, command: Sequence[str], *, environment: Mapping[str, str] | None = None) -> RemoteProcess:
        """Start a program that we talk to."""

    @abstractmethod
    def put(self, source: bytes | Path, remote: str, *, progress: Progress | None = None) -> None:
        """Write a file; a failure may leave a part of it, so give a temporary name."""

    @abstractmethod
    def get(self, remote: str) -> bytes:
        """Read a whole file."""

    @abstractmethod
    def exists(self, remote: str) -> bool:
        """Tell whether there is something at that path; a dangling symlink counts."""

    @abstractmethod
    def list(self, remote: str) -> tuple[str, ...]:
        """Return the sorted names in a folder; none when the folder is not there."""

    @abstractmethod
    def make_folder(self, remote: str) -> None:
        """Make a folder and those above it; one that is there is fine."""

    @abstractmethod
    def rename(self, old: str, new: str) -> None:
        """Rename; atomic, and `new` is replaced when it is there (folders: only when `new` is not)."""

    @abstractmethod
    def symlink(self, target: str, link: str) -> None:
        """Make a symbolic link with that text."""

    @abstractmethod
    def readlink(self, link: str) -> str | None:
        """Return the text of a symbolic link, None when there is none."""

    @abstractmethod
    def remove(self, remote: str) -> None:
        """Remove a file, link or whole folder; nothing there is fine."""

    @abstractmethod
    def close(self) -> None:
        """End the connection; never raises."""

    def __enter__(self) -> Transport:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def replace_symlink(transport: Transport, target: str, link: str) -> None:
    """Point `link` at `target` in one step: whoever looks sees the old or the new target, never nothing."""
    fresh = f"{link}.new"
    transport.remove(fresh)
    transport.symlink(target, fresh)
    transport.rename(fresh, link)


class _Source(Protocol):
    def read(self, size: int, /) -> bytes: ...


class _Sink(Protocol):
    def write(self, data: bytes, /) -> object: ...


def copy_stream(source: _Source, target: _Sink, total: int, progress: Progress | None) -> None:
    """Copy in blocks of 64 KiB and report each."""
    sent = 0
    while block := source.read(65_536):
        target.write(block)
        sent += len(block)
        if progress:
            progress(sent, total)
