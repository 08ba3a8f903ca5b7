"""Connecting to an ssh host: socket or jump host, handshake, host key, login, all within one budget of time."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deploy.errors import AuthenticationFailedError, ConnectionLostError, DeviceTimeoutError, HostUnreachableError
from deploy.transports.known_hosts import KnownHosts, entry_name
from deploy.transports.ssh_config import SshRoute, resolve_host

if TYPE_CHECKING:
    import paramiko

_MOST_JUMPS = 4
_KEEPALIVE_SECONDS = 15
_RSA_SIGNATURES = ("rsa-sha2-512", "rsa-sha2-256")


class Connector:
    """Connects to one device, over jump hosts where the ssh configuration names them.

    Parameters
    ----------
    where:
        The device as messages call it.
    timeout:
        Seconds for everything together.
    config_file:
        ssh configuration; None for the user's own.
    """

    def __init__(self, where: str, timeout: float, config_file: Path | None) -> None:
        self._where = where
        self._timeout = timeout
        self._config_file = config_file
        self._end = time.monotonic() + timeout
        self.hops: list[paramiko.Transport] = []

    def connect(self, route: SshRoute, depth: int = 0) -> paramiko.Transport:
        """Connect, verify the host key, log in."""
        import paramiko

        known = KnownHosts(route.known_hosts)
        entry = route.host_key_alias or entry_name(route.host, route.port)
        try:
            connection = paramiko.Transport(self._open_socket(route, depth))
            self.hops.append(connection)
            connection.set_keepalive(_KEEPALIVE_SECONDS)
            _ask_for(connection, known.key_types(entry))
            self._shake_hands(connection, route)
            known.verify(self._where, route.host, route.port, entry, connection.get_remote_server_key())
            self._log_in(connection, route)
        except (paramiko.SSHException, EOFError, OSError) as error:
            raise ConnectionLostError(self._where, "connecting", str(error)) from error
        return connection

    def close(self) -> None:
        """Close all hops, the nearest last."""
        for connection in reversed(self.hops):
            with contextlib.suppress(EOFError, OSError):
                connection.close()

    def _left(self, what: str) -> float:
        left = self._end - time.monotonic()
        if left <= 0:
            raise self._too_late(what)
        return left

    def _too_late(self, what: str) -> DeviceTimeoutError:
        return DeviceTimeoutError(self._where, what, self._timeout)

    # --- the way there ---------------------------------------------------------------------------------------------

    def _open_socket(self, route: SshRoute, depth: int) -> Any:
        if route.proxy_jump:
            return self._tunnel(route, depth)
        if route.proxy_command:
            import paramiko

            return paramiko.ProxyCommand(route.proxy_command)
        try:
            return socket.create_connection((route.host, route.port), timeout=self._left("connecting"))
        except TimeoutError as error:
            raise self._too_late("connecting") from error
        except socket.gaierror as error:
            raise HostUnreachableError(
                f"cannot reach {self._where}: the name {route.host!r} cannot be resolved.",
                advice="Check the spelling and the network, or add the host to ~/.ssh/config.",
            ) from error
        except OSError as error:
            raise HostUnreachableError(
                f"cannot reach {self._where}: port {route.port} of {route.host}: {error.strerror or error}.",
                advice="Check that the device is on the network and that its ssh server runs.",
            ) from error

    def _tunnel(self, route: SshRoute, depth: int) -> paramiko.Channel:
        """Reach the host through the last of its jump hosts, and that one through those before it."""
        if depth >= _MOST_JUMPS:
            raise HostUnreachableError(
                f"cannot reach {self._where}: more than {_MOST_JUMPS} jump hosts.",
                advice="Check ProxyJump in ~/.ssh/config for a circle.",
            )
        *earlier, last = route.proxy_jump
        user, _, address = last.removeprefix("ssh://").rpartition("@")
        host, _, port = address.partition(":")
        hop = resolve_host(host, user=user, port=int(port or 0), config_file=self._config_file)
        if earlier:
            hop = replace(hop, proxy_jump=tuple(earlier))
        connection = self.connect(hop, depth + 1)
        return connection.open_channel(
            "direct-tcpip", (route.host, route.port), ("127.0.0.1", 0), timeout=self._left("opening the tunnel")
        )

    def _shake_hands(self, connection: paramiko.Transport, route: SshRoute) -> None:
        what = "waiting for the ssh greeting"
        done = threading.Event()
        connection.banner_timeout = self._left(what)
        connection.start_client(event=done)
        finished = done.wait(self._left(what))
        if not finished or time.monotonic() > self._end - 0.05:
            raise self._too_late(what)
        if connection.is_active():
            return
        error = connection.get_exception()
        raise HostUnreachableError(
            f"{self._where}: port {route.port} of {route.host} does not speak ssh as we do: "
            f"{error or 'the connection was closed'}.",
            advice="Check host and port; `ssh -v` shows the greeting.",
        ) from error

    # --- logging in ------------------------------------------------------------------------------------------------

    def _log_in(self, connection: paramiko.Transport, route: SshRoute) -> None:
        import paramiko

        tried: list[str] = []
        unusable: list[str] = []
        reason = ""
        for label, key in self._keys(route, unusable):
            tried.append(label)
            connection.auth_timeout = self._left("logging in")
            try:
                if not connection.auth_publickey(route.user, key):
                    return
                reason = "it wants a second proof beside the key"
            except paramiko.BadAuthenticationType as error:
                reason = f"it accepts only {', '.join(error.allowed_types)}"
            except paramiko.AuthenticationException as error:
                if time.monotonic() > self._end - 0.05:
                    raise self._too_late("logging in") from error
            if not connection.is_active():
                reason = reason or "it closed the connection, perhaps after too many keys"
                break
        raise self._not_let_in(route, tried, unusable, reason)

    def _not_let_in(
        self, route: SshRoute, tried: list[str], unusable: list[str], reason: str
    ) -> AuthenticationFailedError:
        facts = [f"keys tried: {', '.join(tried) or 'none'}"]
        facts += [f"not usable: {', '.join(unusable)}"] if unusable else []
        facts += [reason] if reason else []
        port = "" if route.port == 22 else f" -p {route.port}"
        return AuthenticationFailedError(
            f"{self._where} does not let user {route.user!r} in ({'; '.join(facts)}).",
            advice=f"Put your public key there: `ssh-copy-id{port} {route.user}@{route.host}`, or name the right "
            "key with --identity-file; a key with a passphrase must be in the key agent (`ssh-add`).",
        )

    def _keys(self, route: SshRoute, unusable: list[str]) -> Iterator[tuple[str, paramiko.PKey]]:
        """Yield the keys to try, as ssh would: those named, those of the key agent, the usual files."""
        import paramiko

        files = route.identity_files or tuple(Path(f"~/.ssh/id_{k}").expanduser() for k in ("ed25519", "ecdsa", "rsa"))
        named = bool(route.identity_files)
        if named:
            yield from _keys_from_files(files, unusable, missing_matters=True)
        if not route.identities_only:
            for number, key in enumerate(paramiko.Agent().get_keys()):
                yield f"key agent #{number + 1}", key
        if not named:
            yield from _keys_from_files(files, unusable, missing_matters=False)


def _keys_from_files(
    files: tuple[Path, ...], unusable: list[str], *, missing_matters: bool
) -> Iterator[tuple[str, paramiko.PKey]]:
    import paramiko

    for path in files:
        if not path.is_file():
            if missing_matters:
                unusable.append(f"{path} (no such file)")
            continue
        try:
            key = paramiko.PKey.from_path(path)
        except (TypeError, paramiko.PasswordRequiredException):
            unusable.append(f"{path} (has a passphrase)")
        except (ValueError, OSError, paramiko.SSHException, paramiko.pkey.UnknownKeyType) as error:
            unusable.append(f"{path} ({type(error).__name__})")
        else:
            yield str(path), key


def _ask_for(connection: paramiko.Transport, known_types: tuple[str, ...]) -> None:
    """Prefer the kinds of host key that known_hosts lists, so that a host with several shows one of those."""
    if not known_types:
        return
    options = connection.get_security_options()
    wanted = [name for kind in known_types for name in (_RSA_SIGNATURES if kind == "ssh-rsa" else (kind,))]
    offered = tuple(options.key_types)
    first = tuple(name for name in wanted if name in offered)
    options.key_types = first + tuple(name for name in offered if name not in first)
