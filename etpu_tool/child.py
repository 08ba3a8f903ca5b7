"""Runs work in a child process that can be ended when it takes too long."""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

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
    import multiprocessing

    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    sys.stdout.flush()
    sys.stderr.flush()
    process = context.Process(target=_answer, args=(theirs, work), daemon=True)
    process.start()
    theirs.close()
    try:
        if not ours.poll(max(seconds, 0)):
            raise TimeLimitError(f"the compilation took longer than {seconds:g} seconds and was given up.",
                                 advice="Give it more time with --timeout_sec.")
        try:
            kind, value = ours.recv()
        except EOFError:
            process.join()
            raise InternalError(f"the compilation ended with status {process.exitcode}.",
                                advice="Most likely there is not enough memory for it.") from None
    finally:
        process.kill()
        process.join()
        ours.close()
    if kind is None:
        result: T = value
        return result
    message, advice = value
    raise kind(message, advice=advice)


def _answer(channel: object, work: Callable[[], object]) -> None:
    """Send (None, result), or the kind of an error and its texts."""
    answer: tuple[object, object]
    try:
        answer = None, work()
    except EtpuError as error:
        answer = next(kind for kind in _KINDS if isinstance(error, kind)), (error.message, error.advice)
    except Exception as error:
        answer = InternalError, (_place(error), "Please report this together with the model.")
    with contextlib.suppress(BrokenPipeError):
        channel.send(answer)  # type: ignore[attr-defined]


def _place(error: Exception) -> str:
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"internal error: {type(error).__name__}: {error} ({Path(last.filename).name}, line {last.lineno})."
