"""The watchdog: what it takes for stuck, and what it does then."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from fourfold.comm.errors import CommError
from fourfold.comm.watchdog import Watchdog


class Stuck:
    """What a watchdog looks at."""

    def __init__(self) -> None:
        self.state: tuple[int, str] | None = None
        self.error: Exception | None = None
        self.aborted = threading.Event()
        self.looks = threading.Semaphore(0)

    def under_way(self) -> tuple[int, str] | None:
        self.looks.release()
        if self.error is not None:
            raise self.error
        return self.state

    def abort(self) -> None:
        self.aborted.set()

    def look(self, times: int) -> None:
        for _ in range(times):
            assert self.looks.acquire(timeout=30)


@pytest.fixture
def raised(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Exceptions that leave threads."""
    found: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", lambda args: found.append(args.exc_value))
    return found


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_call_that_does_not_end_is_given_up(raised: list[Any]) -> None:
    watched, clock = Stuck(), Clock()
    watchdog = Watchdog(watched, 3, patience=10, interval=0.001, clock=clock)
    watched.state = (1, "exchange of 64 bytes")
    watched.look(3)
    clock.now = 9.0
    watched.look(3)
    watched.state = (2, "exchange of 128 bytes")  # progress: patience begins again
    watched.look(3)
    clock.now = 18.0
    watched.look(3)
    assert not watched.aborted.is_set()
    clock.now = 20.0
    assert watched.aborted.wait(30)
    with pytest.raises(
        CommError, match="rank 3: exchange of 128 bytes has not ended within 10 sec"
    ):
        watchdog.raise_failure(RuntimeError("NCCL_ERROR_INVALID_ARGUMENT"))
    assert raised == [watchdog.failure]


def test_nothing_under_way_is_no_reason(raised: list[Any]) -> None:
    watched, clock = Stuck(), Clock()
    watchdog = Watchdog(watched, 0, patience=10, interval=0.001, clock=clock)
    watched.look(3)
    clock.now = 1000.0
    watched.look(3)
    watched.state = (1, "exchange")
    watched.look(3)
    watchdog.stop()
    watchdog.raise_failure(RuntimeError())
    assert not watched.aborted.is_set()
    assert not raised


def test_an_error_of_the_library_ends_the_rank(raised: list[Any]) -> None:
    watched = Stuck()
    watchdog = Watchdog(watched, 1, patience=10, interval=0.001)
    watched.error = RuntimeError("NCCL_ERROR_REMOTE_ERROR: remote process exited")
    assert watched.aborted.wait(30)
    with pytest.raises(CommError, match="rank 1: NCCL_ERROR_REMOTE_ERROR"):
        watchdog.raise_failure(RuntimeError())
    assert len(raised) == 1
