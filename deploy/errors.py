"""Everything that can go wrong between this machine and a device, by name.

Each error says in one line what happened and in a second one what to do next.
Where a program may want to react, the error carries the data as attributes.
"""

from __future__ import annotations

from collections.abc import Iterable

from compiler.errors import DeviceError


def _listing(names: Iterable[str]) -> str:
    return ", ".join(names) or "none"


# --- the inventory -------------------------------------------------------------------------------------------------


class InventoryError(DeviceError):
    """The inventory file, or an entry of it, does not make sense."""


class UnknownDeviceError(InventoryError):
    """No device of that name is in the inventory.

    Attributes
    ----------
    known:
        The names that are.
    """

    def __init__(self, name: str, known: Iterable[str]) -> None:
        self.known = tuple(known)
        super().__init__(
            f"unknown device {name!r}; known devices: {_listing(self.known)}.",
            advice="Add it with `etpu devices add`, or use the simulated device `virtual`.",
        )


class DuplicateDeviceError(InventoryError):
    """A device of that name is in the inventory already."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"a device named {name!r} exists already.",
            advice=f"Choose another name, or remove it first: `etpu devices remove {name}`.",
        )


# --- reaching the device -------------------------------------------------------------------------------------------


class HostUnreachableError(DeviceError):
    """No connection to the host: no such name, refused, or no route."""


class UnknownHostKeyError(DeviceError):
    """The host is not in any known_hosts file, so it could be anyone."""


class HostKeyChangedError(DeviceError):
    """The host shows another key than the one in known_hosts."""


class AuthenticationFailedError(DeviceError):
    """The host does not let us in."""


class DeviceTimeoutError(DeviceError):
    """No answer in time."""

    def __init__(self, where: str, what: str, seconds: float, *, advice: str = "") -> None:
        self.seconds = seconds
        super().__init__(
            f"{where} did not answer within {seconds:g} s ({what}).",
            advice=advice or "Check that it is switched on and reachable, or allow more time with a longer timeout.",
        )


class ConnectionLostError(DeviceError):
    """The connection broke while something was under way."""

    def __init__(self, where: str, what: str, detail: str = "") -> None:
        suffix = f": {detail}" if detail else ""
        super().__init__(
            f"the connection to {where} was lost ({what}){suffix}.",
            advice="Check the cable and the power supply of the device, then try again.",
        )


class RemoteCommandFailedError(DeviceError):
    """A command on the device ended with a status other than 0."""

    def __init__(self, where: str, command: str, status: int, stderr: str) -> None:
        self.status = status
        last = stderr.strip().splitlines()[-1] if stderr.strip() else "no message"
        super().__init__(f"`{command}` failed on {where} with status {status}: {last}.")


class RemoteFileError(DeviceError):
    """A file on the device cannot be read, written or moved."""

    def __init__(self, where: str, action: str, path: str, reason: str) -> None:
        super().__init__(
            f"cannot {action} {path} on {where}: {reason}.",
            advice="Check free space and permissions of the device's root folder.",
        )


# --- the agent and the runtime -------------------------------------------------------------------------------------


class PythonMissingError(DeviceError):
    """The device has no python3, or one that is too old for the agent."""


class AgentError(DeviceError):
    """The agent on the device answered with an error, or not in its protocol.

    Attributes
    ----------
    code:
        The agent's own word for the error.
    """

    def __init__(self, message: str, *, code: str = "protocol", advice: str = "") -> None:
        self.code = code
        super().__init__(message, advice=advice)


class RuntimeLibraryMissingError(AgentError):
    """The device has no usable libedgetpu."""


class InterpreterMissingError(AgentError):
    """The device has none of pycoral, tflite_runtime and ai_edge_litert."""


class NoEdgeTpuError(AgentError):
    """The device has no Edge TPU, or not the one asked for, or it cannot be opened."""


class RuntimeTooOldError(DeviceError):
    """A package needs a newer Edge TPU runtime than the device has.

    The sentence is the runtime's own.

    Attributes
    ----------
    required, offered:
        Runtime version that the package needs, and the one of the device.
    """

    def __init__(self, required: int, offered: int, *, where: str = "the device") -> None:
        self.required = required
        self.offered = offered
        super().__init__(
            f"Package requires runtime version ({required}), which is newer than this runtime version ({offered}).",
            advice=f"Update libedgetpu on {where}, or compile with --min_runtime_version {offered} "
            "if the model's operators allow it.",
        )


class VirtualDeviceError(DeviceError):
    """The virtual Edge TPU cannot run what it was given."""


# --- releases ------------------------------------------------------------------------------------------------------


class ReleaseError(DeviceError):
    """A release cannot be made, found or switched to."""


class UploadInterruptedError(ReleaseError):
    """The connection broke, or stalled, before the new release was in place."""

    def __init__(self, where: str, what: str, running: str, cause: str) -> None:
        self.running = running
        super().__init__(
            f"the connection to {where} was cut {what} ({cause}); {running}.",
            advice="Nothing of the new release is visible. Repeat the deploy when the device is reachable again.",
        )


class ChecksumMismatchError(ReleaseError):
    """What arrived on the device is not what was sent."""

    def __init__(self, where: str, path: str, expected: str, found: str) -> None:
        super().__init__(
            f"{path} arrived damaged on {where}: sha256 {found[:16]}, expected {expected[:16]}.",
            advice="The release was not switched. Check the device's storage and try again.",
        )


class SmokeTestFailedError(ReleaseError):
    """The new release ran on the device and gave other numbers than the host, or did not run at all."""


class DeployInProgressError(ReleaseError):
    """Someone else is deploying the same model to the same device."""


class NoPreviousReleaseError(ReleaseError):
    """There is nothing to go back to."""


class UnknownReleaseError(ReleaseError):
    """No release of that model or number is on the device."""


class PlacementError(DeviceError):
    """The segments of a model do not fit the Edge TPUs of the device."""
