"""The one exception tree of the tool.

Every error that a user can meet derives from :class:`EtpuError`. It carries one
line that names what is wrong and, where there is one, a way out; the command line
prints both and exits with :attr:`EtpuError.exit_status`, never with a traceback.
"""

from __future__ import annotations


class EtpuError(Exception):
    """Something that the user can act on.

    Parameters
    ----------
    message:
        One line: what is wrong, with the file, operator, tensor and limit in it.
    advice:
        One line: what to do next. May be empty.
    """

    exit_status = 1

    def __init__(self, message: str, *, advice: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.advice = advice

    def __str__(self) -> str:
        return f"{self.message} {self.advice}".rstrip()


class UsageError(EtpuError):
    """The command line itself does not fit together."""

    exit_status = 2


class InvalidModelError(EtpuError):
    """The input file is not a TensorFlow Lite model that can be compiled."""


class NotQuantizedError(InvalidModelError):
    """The model computes in floating point."""


class DynamicShapeError(InvalidModelError):
    """A tensor's shape is only known at run time."""


class CompilationError(EtpuError):
    """The model is valid but cannot be compiled as asked."""


class ActivationsTooLargeError(CompilationError):
    """Nothing of the model runs on the Edge TPU, because its activations do not fit the tiles' memory."""


class PackageError(EtpuError):
    """An executable container cannot be read or written."""


class ProgramError(EtpuError):
    """An instruction stream is malformed, or breaks a rule of the chip."""


class DeviceError(EtpuError):
    """A device cannot be reached, or refuses."""
