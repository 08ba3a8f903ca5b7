"""Gives work up when it takes too long."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from compiler.errors import CompilationError, EtpuError

T = TypeVar("T")
_AGAIN = 0.1
"""Seconds until the alarm rings once more: an exception is lost where Python calls back from C."""


class TimeLimitError(CompilationError):
    """The work took longer than it may."""


class InternalError(CompilationError):
    """A fault of ours."""


class _TimeIsUp(BaseException):
    """The alarm rang."""


def limited(work: Callable[[], T], seconds: float) -> T:
    """Do work and return its result.

    Where there are no alarms - outside of the main thread, and on Windows - it may take its time.

    Parameters
    ----------
    seconds:
        Limit; the work is interrupted then.

    Raises
    ------
    TimeLimitError
        It took longer.
    InternalError
        It ended with an error that is not meant for users.
    EtpuError
        What the work raised.
    """
    try:
        with _alarm(seconds):
            return work()
    except _TimeIsUp:
        raise TimeLimitError(f"the compilation took longer than {seconds:g} seconds and was given up.",
                             advice="Give it more time with --timeout_sec.") from None
    except EtpuError:
        raise
    except MemoryError as error:
        raise InternalError(_place(error), advice="There is not enough memory for the compilation.") from error
    except Exception as error:
        raise InternalError(_place(error), advice="Please report this together with the model.") from error


@contextmanager
def _alarm(seconds: float) -> Iterator[None]:
    """Raise _TimeIsUp when the time is up."""
    if not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        yield
        return

    over = False

    def ring(*_: object) -> None:
        if not over:
            raise _TimeIsUp

    timer = signal.getitimer(signal.ITIMER_REAL)
    handler = signal.signal(signal.SIGALRM, ring)
    try:
        signal.setitimer(signal.ITIMER_REAL, min(max(seconds, 1e-6), threading.TIMEOUT_MAX), _AGAIN)
        yield
    finally:
        over = True
        signal.setitimer(signal.ITIMER_REAL, *timer)
        signal.signal(signal.SIGALRM, handler)


def _place(error: Exception) -> str:
    import traceback

    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"internal error: {type(error).__name__}: {error} ({Path(last.filename).name}, line {last.lineno})."
