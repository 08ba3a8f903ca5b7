"""Releases of models on a device: atomic, verified, reversible.

On the device, below the root folder::

    models/<name>/current -> releases/0007-3fa9c1d2      what applications load from
    models/<name>/releases/0007-3fa9c1d2/manifest.json   and the compiled files
    models/<name>/incoming/...                           uploads that are not complete
    models/<name>/lock                                   held while deploying

A release is uploaded to ``incoming``, verified and tried out there, moved to ``releases`` by
one rename and made current by one rename of a symbolic link. Cutting the connection or the
power between any two steps leaves the old release current and no release that is incomplete.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import posixpath
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone

from compiler.errors import EtpuError
from deploy.errors import (
    ChecksumMismatchError,
    ConnectionLostError,
    DeviceTimeoutError,
    NoPreviousReleaseError,
    ReleaseError,
    UnknownReleaseError,
    UploadInterruptedError,
)
from deploy.session import DeviceSession
from deploy.transports import Progress, replace_symlink

DEFAULT_KEEP = 5
"""Releases that are kept beside the current one."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_RELEASE = re.compile(r"(\d{4,})-[0-9a-f]{8}")
_MANIFEST = "manifest.json"


@dataclass(frozen=True)
class ReleaseFile:
    """A compiled file of a release; segments of a model are several, in their order."""

    name: str
    sha256: str
    size: int
    on_tpu: bool


@dataclass(frozen=True)
class Manifest:
    """What a release is.

    Attributes
    ----------
    release:
        Its number and the beginning of the digest of its files, ``0007-3fa9c1d2``.
    source_sha256:
        Digest of the model that was compiled.
    min_runtime_version:
        Edge TPU runtime that it needs; 0 when nothing of it runs on the Edge TPU.
    tokens:
        Caching token of each file, hexadecimal; empty for one without.
    created:
        UTC, ISO 8601.
    previous:
        The release that was current when this one was made, empty for the first.
    simulated:
        Whether the Edge TPUs it was tried on are simulated.
    """

    release: str
    model: str
    source_sha256: str
    min_runtime_version: int
    tokens: tuple[str, ...]
    files: tuple[ReleaseFile, ...]
    created: str
    previous: str
    simulated: bool

    def to_json(self) -> bytes:
        """Return the manifest as it stands in the release's folder."""
        return (json.dumps(asdict(self), indent=2) + "\n").encode()

    @classmethod
    def from_json(cls, text: bytes) -> Manifest:
        """Read a manifest; ValueError, KeyError or TypeError when it is none."""
        table = json.loads(text)
        table["files"] = tuple(ReleaseFile(**file) for file in table["files"])
        table["tokens"] = tuple(table["tokens"])
        return cls(**table)


@dataclass(frozen=True)
class Release:
    """A release that is on a device."""

    manifest: Manifest
    folder: str
    current: bool

    @property
    def paths(self) -> tuple[str, ...]:
        """The compiled files on the device, in the order of the segments."""
        return tuple(posixpath.join(self.folder, file.name) for file in self.manifest.files)


@dataclass(frozen=True)
class NewRelease:
    """What is to be released.

    Attributes
    ----------
    files:
        Name and bytes of the compiled files, in the order of the segments.
    on_tpu:
        For each file whether it has operators for the Edge TPU.
    """

    files: Mapping[str, bytes]
    on_tpu: Sequence[bool]
    source_sha256: str
    min_runtime_version: int
    tokens: Sequence[str]
    simulated: bool


def check_model_name(name: str) -> None:
    """Refuse a name that cannot be a folder: :class:`ReleaseError`."""
    if not _NAME.fullmatch(name):
        raise ReleaseError(
            f"bad model name {name!r}.", advice="Use letters, digits, '.', '_' and '-', at most 100, no '.' in front."
        )


def models_on(session: DeviceSession) -> tuple[str, ...]:
    """Return the names of the models that have releases on a device."""
    return session.transport.list(posixpath.join(session.transport.root, "models"))


class ReleaseStore:
    """The releases of one model on one device.

    Parameters
    ----------
    name:
        Name of the model, the folder below ``models``.
    """

    def __init__(self, session: DeviceSession, name: str) -> None:
        check_model_name(name)
        self._session = session
        self._transport = session.transport
        self.name = name
        self.folder = posixpath.join(session.transport.root, "models", name)
        self._releases = posixpath.join(self.folder, "releases")
        self._incoming = posixpath.join(self.folder, "incoming")
        self._link = posixpath.join(self.folder, "current")

    # --- looking ---------------------------------------------------------------------------------------------------

    def releases(self) -> tuple[Release, ...]:
        """Return all releases, oldest first."""
        current = self._current_id()
        return tuple(self._read(release, current) for release in self._ids())

    def current(self) -> Release | None:
        """Return the release that applications load, None when there is none."""
        current = self._current_id()
        return self._read(current, current) if current else None

    def _ids(self) -> list[str]:
        return sorted(filter(_RELEASE.fullmatch, self._transport.list(self._releases)), key=_number)

    def _current_id(self) -> str:
        return posixpath.basename(self._transport.readlink(self._link) or "")

    def _read(self, release: str, current: str) -> Release:
        folder = posixpath.join(self._releases, release)
        try:
            manifest = Manifest.from_json(self._transport.get(posixpath.join(folder, _MANIFEST)))
        except (ValueError, KeyError, TypeError) as error:
            raise ReleaseError(
                f"release {release} of {self.name} on {self._transport.where} has a damaged manifest: {error}.",
                advice=f"Remove its folder {folder} on the device.",
            ) from error
        return Release(manifest, folder, release == current)

    # --- deploying -------------------------------------------------------------------------------------------------

    def publish(
        self,
        new: NewRelease,
        *,
        smoke: Callable[[Sequence[str]], None],
        keep: int = DEFAULT_KEEP,
        progress: Progress | None = None,
    ) -> Release:
        """Upload a release, verify it, try it out, make it current.

        Parameters
        ----------
        smoke:
            Called with the uploaded files' paths on the device before anything is switched;
            an exception of it ends the deploy and leaves everything as it was.
        keep:
            How many older releases stay.
        progress:
            Told the uploaded bytes of all files.

        Raises
        ------
        DeployInProgressError
            Another deploy of this model to this device is under way.
        UploadInterruptedError
            The connection was cut or stalled; the old release is still current.
        ChecksumMismatchError
            What arrived is not what was sent.
        """
        with self._lock():
            self._transport.remove(self._incoming)
            before = self._current_id()
            release = self._next_id(new)
            staging = posixpath.join(self._incoming, release)
            running = f"release {before} is still current" if before else "there is no earlier release"
            try:
                with self._interruptions("while uploading", running):
                    self._upload(new, release, staging, before, progress)
                with self._interruptions("during the smoke test", running):
                    smoke([posixpath.join(staging, name) for name in new.files])
            except UploadInterruptedError:
                raise  # nobody answers there: the next deploy clears the rest away
            except EtpuError:
                self._discard(staging)
                raise
            with self._interruptions(
                "before the switch was confirmed", f"{running}, or {release} if the switch was done"
            ):
                folder = posixpath.join(self._releases, release)
                self._transport.make_folder(self._releases)
                self._transport.rename(staging, folder)
                self._session.agent.sync(self._releases)
                self._switch(release)
            self._prune(keep)
        return self._read(release, release)

    def _upload(self, new: NewRelease, release: str, staging: str, previous: str, progress: Progress | None) -> None:
        manifest = _manifest(new, release, self.name, previous)
        contents = {**new.files, _MANIFEST: manifest.to_json()}
        total = sum(len(data) for data in contents.values())
        sent = 0
        self._transport.make_folder(staging)

        def report(done: int, _size: int) -> None:
            self._session.agent.keep_alive()
            if progress:
                progress(sent + done, total)

        for name, data in contents.items():
            self._transport.put(data, posixpath.join(staging, name), progress=report)
            sent += len(data)
        self._verify(
            {posixpath.join(staging, name): hashlib.sha256(data).hexdigest() for name, data in contents.items()}
        )

    def _verify(self, expected: Mapping[str, str]) -> None:
        found = self._session.agent.verify(list(expected))
        for path, digest in expected.items():
            if found.get(path) != digest:
                raise ChecksumMismatchError(self._transport.where, path, digest, found.get(path, "none"))

    def _next_id(self, new: NewRelease) -> str:
        digest = hashlib.sha256(b"".join(hashlib.sha256(data).digest() for data in new.files.values())).hexdigest()
        number = max((_number(release) for release in self._ids()), default=0) + 1
        return f"{number:04d}-{digest[:8]}"

    def _switch(self, release: str) -> None:
        replace_symlink(self._transport, posixpath.join("releases", release), self._link)
        self._session.agent.sync(self.folder)

    def _discard(self, staging: str) -> None:
        """Remove an upload that failed, as far as that is possible now."""
        with contextlib.suppress(EtpuError):
            self._transport.remove(staging)

    def _prune(self, keep: int) -> None:
        """Remove the oldest releases beyond `keep`, but neither the current one nor the one to go back to."""
        current = self.current()
        kept = {current.manifest.release, current.manifest.previous} if current else set()
        older = [release for release in self._ids() if release not in kept]
        room = max(keep - 1, 0) if current and current.manifest.previous else keep
        self._transport.make_folder(self._incoming)
        for release in older[: max(len(older) - room, 0)]:
            # out of sight in one step; what is cut off later is swept up by the next deploy
            doomed = posixpath.join(self._incoming, release)
            self._transport.rename(posixpath.join(self._releases, release), doomed)
            self._transport.remove(doomed)

    # --- going back ------------------------------------------------------------------------------------------------

    def rollback(self, to: str = "") -> Release:
        """Make an earlier release current again.

        Parameters
        ----------
        to:
            A release, or its number; by default the one that was current before this one.

        Raises
        ------
        NoPreviousReleaseError, UnknownReleaseError, DeployInProgressError
        """
        with self._lock():
            current = self.current()
            if current is None:
                raise UnknownReleaseError(
                    f"there is no release of {self.name} on {self._transport.where}.", advice="Deploy it first."
                )
            target = self._find(to) if to else self._before(current)
            if target != current.manifest.release:
                self._switch(target)
        return self._read(target, target)

    def _before(self, current: Release) -> str:
        ids = self._ids()
        earlier = [release for release in ids if _number(release) < _number(current.manifest.release)]
        if current.manifest.previous in ids:
            return current.manifest.previous
        if not earlier:
            raise NoPreviousReleaseError(
                f"{current.manifest.release} is the first release of {self.name} on {self._transport.where}.",
                advice="There is nothing to go back to; `etpu releases` lists what is there.",
            )
        return earlier[-1]

    def _find(self, to: str) -> str:
        ids = self._ids()
        for release in ids:
            if release == to or (to.isdigit() and _number(release) == int(to)):
                return release
        raise UnknownReleaseError(
            f"there is no release {to} of {self.name} on {self._transport.where}.",
            advice=f"There are: {', '.join(ids) or 'none'}.",
        )

    # --- helpers ---------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _lock(self) -> Iterator[None]:
        self._transport.make_folder(self.folder)
        with self._session.agent.lock(posixpath.join(self.folder, "lock")):
            yield

    @contextlib.contextmanager
    def _interruptions(self, when: str, running: str) -> Iterator[None]:
        try:
            yield
        except (ConnectionLostError, DeviceTimeoutError) as error:
            raise UploadInterruptedError(self._transport.where, when, running, error.message.rstrip(".")) from error


def _number(release: str) -> int:
    return int(release.partition("-")[0])


def _manifest(new: NewRelease, release: str, model: str, previous: str) -> Manifest:
    files = tuple(
        ReleaseFile(name, hashlib.sha256(data).hexdigest(), len(data), on_tpu)
        for (name, data), on_tpu in zip(new.files.items(), new.on_tpu, strict=True)
    )
    return Manifest(
        release=release,
        model=model,
        source_sha256=new.source_sha256,
        min_runtime_version=new.min_runtime_version,
        tokens=tuple(new.tokens),
        files=files,
        created=datetime.fromtimestamp(time.time(), timezone.utc).isoformat(timespec="seconds"),
        previous=previous,
        simulated=new.simulated,
    )
