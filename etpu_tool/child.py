"""Runs work in a child process that can be ended when it takes too long."""

from __future__ import annotations

import os
import pickle
import select
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn, TypeVar

from compiler.errors import ActivationsTooLargeError, CompilationError, EtpuError, InvalidModelError, UsageError

T = TypeVar("T")
_KINDS = (ActivationsTooLargeError, CompilationError, InvalidModelError, UsageError, EtpuError)
"""Errors that come back as themselves; others as the nearest of these."""


class TimeLimitError(CompilationError):
    """The work took longer than it may."""


class InternalError(CompilationError):
    """A fault of ours."""


def in_child(work: Callable[[], T], seconds: float) -> T:
    """Do work in a child process and return its result, which must be able to travel (pickle).

    Where processes cannot be forked the work is done in this one, without a limit.

    Parameters
    ----------
    seconds:
        Limit; the child is killed then.

    Raises
    ------
    TimeLimitError
        It took longer.
    InternalError
        It ended with an error that is not meant for users, or was killed.
    EtpuError
        What the work raised.
    """
    if not hasattr(os, "fork"):
        return work()
    ours, theirs = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if not child:
        _be_the_child(theirs, work)
    os.close(theirs)
    with os.fdopen(ours, "rb") as channel:
        try:
            if not select.select([channel], [], [], max(seconds, 0))[0]:
                raise TimeLimitError(f"the compilation took longer than {seconds:g} seconds and was given up.",
                                     advice="Give it more time with --timeout_sec.")
            answer = channel.read()
        except BaseException:
            os.kill(child, signal.SIGKILL)
            raise
        finally:
            status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status:
        raise InternalError(f"the compilation ended with status {status}.",
                            advice="Most likely there is not enough memory for it.")
    kind, value = pickle.loads(answer)
    if kind is None:
        result: T = value
        return result
    message, advice = value
    raise kind(message, advice=advice)


def _be_the_child(channel: int, work: Callable[[], object]) -> NoReturn:
    """Send the answer; nothing of the parent's is cleaned up here."""
    status = 1
    try:
        with os.fdopen(channel, "wb") as pipe:
            pickle.dump(_answer(work), pipe, pickle.HIGHEST_PROTOCOL)
        status = 0
    finally:
        os._exit(status)


def _answer(work: Callable[[], object]) -> tuple[object, object]:
    """Return (None, result), or the kind of an error and its texts."""
    try:
        return None, work()
    except EtpuError as error:
        return next(kind for kind in _KINDS if isinstance(error, kind)), (error.message, error.advice)
    except Exception as error:
        return InternalError, (_place(error), "Please report this together with the model.")


def _place(error: Exception) -> str:
    import traceback

    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"internal error: {type(error).__name__}: {error} ({Path(last.filename).name}, line {last.lineno})."
