"""The look-ahead pipeline: read -> route -> plan, ahead of the step that trains.

Three threads and the queues between them. The reader takes batches from the data; the router
carries their ids to the ranks that hold the rows (a collective on a communicator of its own) and
tells the pad what will be needed; the planner has the pad make room and fetch the rows. The step
finds them ready.

Routing is collective, so every rank must route the same number of batches, however far ahead its
own threads run. The training loop, which is in step on all ranks, therefore hands out permits: each
`next()` lets one more batch be routed. Closing waits for the permits already given and never for
more.

Planning is local. It goes as far ahead as batches are routed and the pad has room, so each rank
finds its own depth; where there is room for one batch only, it waits until the step has released
the last one, which needs nothing of another rank but that it steps too.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from dataclasses import dataclass

from fourfold.comm.exchange import Exchange
from fourfold.runtime.preparation import Preparation, Prepared, Sent, Source, Taken
from fourfold.runtime.reclaim import Credit
from fourfold.runtime.stopwatch import Stopwatch
from fourfold.runtime.trace import Trace
from fourfold.runtime.upload import Upload
from fourfold.storage import Pad


@dataclass(slots=True)
class _Failure:
    error: BaseException


class Pipeline:
    """Iterate over prepared batches, `depth` of them in preparation while one trains.

    source: this rank's batches, None on a rank that reads no data. exchange, pad: where ids go and
    rows live. depth: batches ahead; 0 does everything in line, as is needed where MPI allows no
    second thread. foresight: batches routed beyond those, which the pad then knows will come.
    fixed: make it an error if the pad has no room for depth + 1 batches; otherwise it plans ahead
    as far as there is room. train: whether ids never seen before get a row. limit: stop after that
    many batches (the same on every rank). first: number of the first batch. credit: what samples
    count for, of an exchange that carries it. trace: where the stages leave their spans. upload:
    brings what the dense model reads to its device. Ends when no rank has data left. Every rank of
    the world must iterate.
    """

    def __init__(
        self,
        source: Source | None,
        exchange: Exchange,
        pad: Pad,
        *,
        depth: int,
        foresight: int = 0,
        fixed: bool = False,
        train: bool = True,
        limit: int | None = None,
        first: int = 1,
        credit: Credit | None = None,
        trace: Trace | None = None,
        upload: Upload | None = None,
    ) -> None:
        self._work = Preparation(
            source,
            exchange,
            pad,
            train=train,
            depth=depth,
            fixed=fixed,
            first=first,
            credit=credit,
            trace=trace,
            upload=upload,
        )
        self._stepping = Stopwatch("step", ("starved",), trace)
        self._pad = pad
        if train:
            pad.plan_ahead(depth)
        self._limit = limit
        self._depth = depth
        self._foresight = foresight
        self._closing = threading.Event()
        self._routing_over = threading.Event()
        self._permits: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._plan_permits: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._taken: queue.Queue[Taken | _Failure] = queue.Queue(maxsize=max(depth, 1))
        self._sent: queue.SimpleQueue[Sent | _Failure | None] = queue.SimpleQueue()
        self._ready: queue.SimpleQueue[Prepared | _Failure | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []

    def __iter__(self) -> Iterator[Prepared]:
        """Give prepared batches in order; release each one's ticket before asking for the next."""
        if self._depth == 0:
            yield from self._in_line()
            return
        self._start()
        try:
            for _ in range(self._depth + self._foresight):
                self._permits.put(True)
            for _ in range(self._depth):
                self._plan_permits.put(True)
            while (prepared := self._next()) is not None:
                self._permits.put(True)
                self._plan_permits.put(True)
                yield prepared
        finally:
            self.close()

    def close(self) -> None:
        """Route what was permitted, drop what is not planned yet, end the threads.

        Collective, as routing is. Never waits for room in the pad.
        """
        if not self._threads:
            return
        reader, router, planner = self._threads
        self._closing.set()
        self._permits.put(False)
        self._plan_permits.put(False)
        router.join()
        planner.join()
        self._routing_over.set()
        while reader.is_alive():  # it may be waiting for room
            try:
                self._taken.get(timeout=0.01)
            except queue.Empty:
                continue
        self._threads = []
        self._work.forget()
        while not self._ready.empty():
            left = self._ready.get()
            if isinstance(left, Prepared):
                self._pad.release(left.ticket)

    def take_seconds(self) -> dict[str, float]:
        """Seconds by stage since the last call: busy, starved (no input), stalled (no room).

        `starved` alone is the step's: it waited for a batch to be planned.
        """
        return self._work.take_seconds() | self._stepping.take()

    def _start(self) -> None:
        self._threads = [
            threading.Thread(target=self._read_all, name="read", daemon=True),
            threading.Thread(target=self._route_all, name="route", daemon=True),
            threading.Thread(target=self._plan_all, name="plan", daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def _next(self) -> Prepared | None:
        with self._stepping("starved"):
            item = self._ready.get()
        if isinstance(item, _Failure):
            raise item.error
        return item

    def _read_all(self) -> None:
        while not self._routing_over.is_set():
            try:
                item: Taken | _Failure = self._work.take()
            except BaseException as error:  # handed to the training loop, which raises it
                item = _Failure(error)
            with self._work.reading("read_stalled"):
                self._taken.put(item)
            if isinstance(item, _Failure) or item.batch is None:
                return

    def _route_all(self) -> None:
        sent, last = 0, None
        try:
            while self._permitted() and sent != self._limit:
                last = self._take_after(last)
                item = self._work.send(last)
                if item is None:
                    break
                sent += 1
                self._sent.put(item)
            self._sent.put(None)
        except BaseException as error:  # handed to the training loop, which raises it
            self._sent.put(_Failure(error))

    def _permitted(self) -> bool:
        with self._work.routing("route_stalled"):
            return self._permits.get()

    def _take_after(self, last: Taken | None) -> Taken:
        if last is not None and (nothing := last.following()):
            return nothing
        with self._work.routing("route_starved"):
            item = self._taken.get()
        if isinstance(item, _Failure):
            raise item.error
        return item

    def _plan_all(self) -> None:
        try:
            while (sent := self._next_sent()) is not None:
                with self._work.planning("plan_stalled"):
                    if self._closing.is_set() or not self._plan_permits.get():
                        continue
                prepared = self._work.plan(sent, unwanted=self._closing.is_set)
                if prepared is not None:
                    self._ready.put(prepared)
            self._ready.put(None)
        except BaseException as error:  # handed to the training loop, which raises it
            self._ready.put(_Failure(error))

    def _next_sent(self) -> Sent | None:
        with self._work.planning("plan_starved"):
            item = self._sent.get()
        if isinstance(item, _Failure):
            raise item.error
        return item

    def _in_line(self) -> Iterator[Prepared]:
        last: Taken | None = None
        sent = 0
        while sent != self._limit:
            with self._stepping("starved"):
                last = (last and last.following()) or self._work.take()
                item = self._work.send(last)
                prepared = None if item is None else self._work.plan(item)
            if prepared is None:
                return
            sent += 1
            yield prepared
