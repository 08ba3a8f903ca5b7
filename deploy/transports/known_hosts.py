"""Which host key a host must show: OpenSSH's known_hosts files, read strictly.

A host that is not listed is refused. There is no option to accept any key.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from deploy.errors import HostKeyChangedError, UnknownHostKeyError

if TYPE_CHECKING:
    from paramiko import HostKeys, PKey


def fingerprint(key: PKey) -> str:
    """Return a key's fingerprint as ``ssh-keygen -l`` prints it."""
    digest = hashlib.sha256(key.asbytes()).digest()
    return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")


def entry_name(host: str, port: int) -> str:
    """Return the name under which known_hosts lists a host: the port stands with it unless it is 22."""
    return host if port == 22 else f"[{host}]:{port}"


class KnownHosts:
    """The keys of all hosts that the user trusts.

    Parameters
    ----------
    files:
        known_hosts files; those that do not exist are skipped. New hosts belong into the first.
    """

    def __init__(self, files: Sequence[Path]) -> None:
        import paramiko

        self._files = tuple(files)
        self._keys: HostKeys = paramiko.HostKeys()
        for path in self._files:
            if path.is_file():
                self._keys.load(str(path))

    def key_types(self, entry: str) -> tuple[str, ...]:
        """Return the kinds of key known for a host, so that the host can be asked for just those."""
        known = self._keys.lookup(entry)
        return tuple(known.keys()) if known else ()

    def verify(self, where: str, host: str, port: int, entry: str, key: PKey) -> None:
        """Accept the key that a host has shown, or refuse the host.

        Raises
        ------
        UnknownHostKeyError
            The host is in no file.
        HostKeyChangedError
            It is, with other keys.
        """
        known = self._keys.lookup(entry)
        if not known:
            raise self._unknown(where, host, port, entry, key)
        trusted = known.get(key.get_name())
        if trusted is None or trusted.asbytes() != key.asbytes():
            raise self._changed(where, entry, key)

    def _unknown(self, where: str, host: str, port: int, entry: str, key: PKey) -> UnknownHostKeyError:
        option = "" if port == 22 else f" -p {port}"
        return UnknownHostKeyError(
            f"{where} is unknown: no key for {entry} in known_hosts; it shows {key.get_name()} {fingerprint(key)}.",
            advice=f"Compare that fingerprint with the device's own, then add it: "
            f"`ssh-keyscan{option} {host} >> {self._files[0]}` (or connect once with `ssh{option} {host}`).",
        )

    def _changed(self, where: str, entry: str, key: PKey) -> HostKeyChangedError:
        return HostKeyChangedError(
            f"the host key of {where} has CHANGED: it shows {key.get_name()} {fingerprint(key)}, "
            f"known_hosts has another key for {entry}.",
            advice="Someone may be in between. Only if you know why it changed (board flashed anew), "
            f"forget the old key: `ssh-keygen -f {self._files[0]} -R '{entry}'`.",
        )
