"""A connection that breaks at a chosen operation, and stays broken."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from deploy.errors import ConnectionLostError
from deploy.transports import CommandResult, Progress
from deploy.transports.local import LocalTransport


class BreakingTransport(LocalTransport):
    """Operations from number `survive` on fail; an upload that fails leaves half of the file."""

    def __init__(self, root: Path) -> None:
        super().__init__("board", str(root))
        self.survive: int | None = None

    def _count(self) -> None:
        if self.survive is None:
            return
        if self.survive == 0:
            raise ConnectionLostError(self.where, "test")
        self.survive -= 1

    def put(self, source: bytes | Path, remote: str, *, progress: Progress | None = None) -> None:
        try:
            self._count()
        except ConnectionLostError:
            assert isinstance(source, bytes)
            super().put(source[: len(source) // 2], remote)
            raise
        super().put(source, remote, progress=progress)

    def run(self, command: Sequence[str], *, timeout: float = 30.0) -> CommandResult:
        self._count()
        return super().run(command, timeout=timeout)

    def make_folder(self, remote: str) -> None:
        self._count()
        super().make_folder(remote)

    def rename(self, old: str, new: str) -> None:
        self._count()
        super().rename(old, new)

    def symlink(self, target: str, link: str) -> None:
        self._count()
        super().symlink(target, link)

    def remove(self, remote: str) -> None:
        self._count()
        super().remove(remote)
