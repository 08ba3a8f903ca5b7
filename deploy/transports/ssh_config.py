"""How to reach a host: what the device's record says, then ``~/.ssh/config``, then the defaults of ssh."""

from __future__ import annotations

import getpass
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from deploy.errors import HostUnreachableError
from deploy.inventory import SshDevice

_USER_KNOWN_HOSTS = "~/.ssh/known_hosts ~/.ssh/known_hosts2"
_GLOBAL_KNOWN_HOSTS = "/etc/ssh/ssh_known_hosts"


@dataclass(frozen=True)
class SshRoute:
    """Everything that is needed to connect to one host."""

    host: str
    port: int
    user: str
    identity_files: tuple[Path, ...]
    identities_only: bool
    known_hosts: tuple[Path, ...]
    host_key_alias: str
    proxy_command: str
    proxy_jump: tuple[str, ...]


def resolve(device: SshDevice, config_file: Path | None = None) -> SshRoute:
    """Resolve a device's host through the user's ssh configuration.

    Parameters
    ----------
    config_file:
        By default ``~/.ssh/config``.
    """
    user, _, host = device.host.rpartition("@")
    return resolve_host(host, user=user, port=device.port, identity=device.identity_file, config_file=config_file)


def resolve_host(
    host: str, *, user: str = "", port: int = 0, identity: str = "", config_file: Path | None = None
) -> SshRoute:
    """Resolve one host name or alias; the arguments win over the file."""
    options = _lookup(host, config_file or Path("~/.ssh/config").expanduser())
    proxy = options.get("proxycommand", "")
    jump = options.get("proxyjump", "")
    # a key that the device's record names is the only one tried
    named = [identity] if identity else options.get("identityfile", "").split("\n")
    known = (
        options.get("userknownhostsfile", _USER_KNOWN_HOSTS),
        options.get("globalknownhostsfile", _GLOBAL_KNOWN_HOSTS),
    )
    return SshRoute(
        host=options.get("hostname", host),
        port=port or int(options.get("port", "22")),
        user=user or options.get("user", "") or getpass.getuser(),
        identity_files=tuple(Path(path).expanduser() for path in dict.fromkeys(named) if path),
        identities_only=bool(identity) or options.get("identitiesonly", "no").lower() == "yes",
        known_hosts=tuple(Path(name).expanduser() for names in known for name in shlex.split(names)),
        host_key_alias=options.get("hostkeyalias", ""),
        proxy_command="" if proxy.lower() == "none" else proxy,
        proxy_jump=() if jump.lower() in ("", "none") else tuple(hop.strip() for hop in jump.split(",")),
    )


def _lookup(host: str, path: Path) -> Mapping[str, str]:
    """Look a host up in an ssh configuration file; several identity files come one per line."""
    import paramiko

    if not path.is_file():
        return {}
    try:
        found = paramiko.SSHConfig.from_path(str(path)).lookup(host)
    except (paramiko.SSHException, OSError, UnicodeDecodeError) as error:
        raise HostUnreachableError(
            f"cannot read {path}: {error}.", advice="Correct the file; `ssh -G` shows what it says."
        ) from error
    return {key: "\n".join(value) if isinstance(value, list) else str(value) for key, value in found.items()}
