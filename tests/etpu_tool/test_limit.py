"""Work that takes too long is given up."""

from __future__ import annotations

import signal
import threading
import time

import pytest

from compiler.errors import UsageError
from etpu_tool.limit import InternalError, TimeLimitError, limited


def forever() -> None:
    while True:
        time.sleep(0.01)


def test_work_is_interrupted_and_the_alarm_put_away() -> None:
    handler = signal.getsignal(signal.SIGALRM)
    started = time.monotonic()
    with pytest.raises(TimeLimitError, match=r"longer than 0\.2 seconds"):
        limited(forever, 0.2)
    assert 0.2 <= time.monotonic() - started < 10
    assert signal.getsignal(signal.SIGALRM) is handler
    assert limited(lambda: 7, 60) == 7
    assert signal.getsignal(signal.SIGALRM) is handler


def test_an_alarm_that_is_lost_rings_again() -> None:
    def stubborn() -> None:
        try:
            forever()
        except BaseException:
            forever()

    with pytest.raises(TimeLimitError):
        limited(stubborn, 0.1)


def test_errors_for_users_come_as_they_are_and_others_named() -> None:
    def refuses() -> None:
        raise UsageError("no")

    def breaks() -> None:
        raise KeyError("fault")

    def swallows() -> None:
        raise MemoryError

    with pytest.raises(UsageError):
        limited(refuses, 60)
    with pytest.raises(InternalError, match=r"KeyError: 'fault' \(test_limit.py"):
        limited(breaks, 60)
    with pytest.raises(InternalError) as caught:
        limited(swallows, 60)
    assert "memory" in caught.value.advice


def test_other_threads_have_no_limit() -> None:
    found: list[int] = []
    thread = threading.Thread(target=lambda: found.append(limited(lambda: 7, 0)))
    thread.start()
    thread.join()
    assert found == [7]
