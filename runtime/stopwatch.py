"""A stopwatch: how long one thread spent on what, for the metrics and, if wanted, for a trace."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager

from fourfold.runtime.trace import Span, Trace


class Stopwatch:
    """Adds up the seconds of one thread by name.

    `with watch("gather"): ...` times a lap. Laps nest, and a lap's seconds are its own, without
    those of the laps inside it. row: the thread's row in the trace. names: laps that `take` shall
    always give. trace: where laps go as spans; None for nowhere. Only one thread may time laps;
    another may `take`.

    The time is the host's. Where a GPU works, a lap is the time to hand it the work and to wait for
    what it says, unless `sync`, a function that waits for the GPU, is set: then a lap begins and
    ends with an idle GPU, and is the work itself.
    """

    def __init__(self, row: str, names: Sequence[str] = (), trace: Trace | None = None) -> None:
        self.row = row
        self.trace = trace
        self.sync: Callable[[], None] | None = None
        self.batch: int | None = None
        """Number of the batch that the thread works on, for the trace."""
        self._total_ns = dict.fromkeys(names, 0)
        self._taken_ns: dict[str, int] = {}
        self._inner_ns = [0]  # of the open laps, outermost first: what the laps inside them took

    def __call__(self, name: str, *, shown: str = "") -> Lap:
        """Make the lap that `with` times. shown: its name in the trace, if not the same."""
        return Lap(self, name, shown or name.replace("_", " "))

    def take(self) -> dict[str, float]:
        """Give the seconds of every lap since the last call; one that is open comes later."""
        now = dict(self._total_ns)
        taken = {name: (now[name] - self._taken_ns.get(name, 0)) / 1e9 for name in now}
        self._taken_ns = now
        return taken

    @contextmanager
    def aside(self) -> Generator[None]:
        """Leave the laps inside out of the sums; they are traced all the same."""
        total = dict(self._total_ns)
        try:
            yield
        finally:
            self._total_ns = total

    def _begin(self) -> None:
        if self.sync is not None:
            self.sync()
        self._inner_ns.append(0)

    def _end(self, name: str, shown: str, begin_ns: int, end_ns: int) -> None:
        lasted = end_ns - begin_ns
        own = lasted - self._inner_ns.pop()
        self._inner_ns[-1] += lasted
        self._total_ns[name] = self._total_ns.get(name, 0) + own
        if self.trace is not None:
            self.trace.add(Span(self.row, shown, begin_ns, end_ns, self.batch))


class Lap:
    """One lap of a stopwatch."""

    __slots__ = ("_begin_ns", "_name", "_shown", "_watch")

    def __init__(self, watch: Stopwatch, name: str, shown: str) -> None:
        self._watch = watch
        self._name = name
        self._shown = shown
        self._begin_ns = 0

    def __enter__(self) -> None:
        self._watch._begin()
        self._begin_ns = time.perf_counter_ns()

    def __exit__(self, *_: object) -> None:
        if self._watch.sync is not None:
            self._watch.sync()
        self._watch._end(self._name, self._shown, self._begin_ns, time.perf_counter_ns())
