"""A thread that ends a rank whose messages do not move any more.

A kernel of a communication library waits for its peers without end, and nothing else on its GPU
can tell. So a thread looks on: an error that the library reports, or no progress for too long,
aborts the library's channels, which frees whoever waits for them, and is raised in the thread. An
exception that leaves a thread ends every rank of a run.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Protocol

from fourfold.comm.errors import CommError


class Watched(Protocol):
    """What can get stuck."""

    def under_way(self) -> tuple[int, str] | None:
        """Tell the oldest call that is not done, by number and in words; None if all are.

        Raises whatever was found to be wrong. Called from the watchdog's thread.
        """

    def abort(self) -> None:
        """Give up all that is under way."""


class Watchdog:
    """Watches until `stop`. patience: seconds of one call, waiting for other ranks included."""

    def __init__(
        self,
        watched: Watched,
        rank: int,
        *,
        patience: float,
        interval: float = 0.5,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.failure: CommError | None = None
        """Why the channels were aborted."""
        self._watched, self._rank = watched, rank
        self._patience, self._interval, self._clock = patience, interval, clock
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="nccl-watchdog", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._stopped.set()
        self._thread.join()

    def raise_failure(self, error: Exception) -> None:
        """Raise why the channels were aborted, if they were: `error` is what came of it.

        In a run the watchdog's own exception has ended the process before this returns.
        """
        if self._thread.is_alive() and self.failure is None:
            return
        self._thread.join()
        if self.failure is not None:
            raise self.failure from error

    def _watch(self) -> None:
        oldest: int | None = None
        since = self._clock()
        while not self._stopped.wait(self._interval):
            try:
                under_way = self._watched.under_way()
            except Exception as error:
                self._give_up(CommError(f"rank {self._rank}: {error}", op="NCCL"))
            number, what = under_way or (None, "")
            if number is None or number != oldest:
                oldest, since = number, self._clock()
            elif self._clock() - since > self._patience:
                self._give_up(
                    CommError(
                        f"rank {self._rank}: {what} has not ended within {self._patience:g}"
                        " seconds; another rank is dead, or far behind. Its own messages may say"
                        " why",
                        op=what,
                    )
                )

    def _give_up(self, failure: CommError) -> None:
        self.failure = failure
        self._watched.abort()
        raise failure
