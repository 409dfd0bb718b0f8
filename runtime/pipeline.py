"""The look-ahead pipeline: read -> route -> plan, ahead of the step that trains.

Two threads and two bounded queues. The reader thread takes batches from the data; the router thread
carries their ids to the ranks that hold the rows (a collective on a communicator of its own) and
lets those plan which rows the step will touch. The step finds everything ready.

Routing is collective, so every rank must route the same number of batches, however far ahead its
own threads run. The training loop, which is in step on all ranks, therefore hands out permits: each
`next()` lets one more batch be routed. Closing waits for the permits already given and never for
more.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from fourfold.comm.exchange import Exchange, Routed
from fourfold.runtime.data.batch import Batch
from fourfold.storage import Pad, Ticket

_NO_IDS = np.empty(0, np.int64)
_NO_BAGS = np.zeros(1, np.int64)


class Source(Protocol):
    """Anything that gives batches: a reader, a list of batches, a user's own data."""

    def next_batch(self) -> Batch | None:
        """Give the next batch of this rank, None when it has no more."""


@dataclass(slots=True)
class Prepared:
    """A batch whose rows are ready: what a step needs."""

    batch: Batch | None
    """This rank's samples; None on a rank that reads no data or has run out."""
    routed: Routed
    ticket: Ticket
    exchange: Exchange
    """The exchange that routed it, and that the step uses."""
    position: dict[str, object] | None
    """Where the data continue after this batch."""


@dataclass(slots=True)
class StageSeconds:
    """Where the pipeline's time went since the last reset: seconds busy, and seconds the step
    starved."""

    read: float = 0.0
    route: float = 0.0
    plan: float = 0.0
    starved: float = 0.0


@dataclass(slots=True)
class _Failure:
    error: BaseException


@dataclass(slots=True)
class _Read:
    batch: Batch | None
    position: dict[str, object] | None = field(default=None)


class Pipeline:
    """Iterate over prepared batches, `depth` of them in preparation while one trains.

    source: this rank's batches, None on a rank that reads no data. exchange, pad: where ids go and
    rows live. depth: batches ahead; 0 does everything in line, as is needed where MPI allows no
    second thread. train: whether ids never seen before get a row. limit: stop after that many
    batches (the same on every rank). Ends when no rank has data left. Every rank of the world must
    iterate.
    """

    def __init__(
        self,
        source: Source | None,
        exchange: Exchange,
        pad: Pad,
        *,
        depth: int,
        train: bool = True,
        limit: int | None = None,
    ) -> None:
        self.seconds = StageSeconds()
        self._source = source
        self._exchange = exchange
        self._pad = pad
        self._train = train
        self._limit = limit
        self._depth = depth
        self._closing = threading.Event()
        self._permits: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._read: queue.Queue[_Read | _Failure] = queue.Queue(maxsize=max(depth, 1))
        self._ready: queue.SimpleQueue[Prepared | _Failure | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []

    def __iter__(self) -> Iterator[Prepared]:
        """Give prepared batches in order; release each one's ticket after its step."""
        if self._depth == 0:
            yield from self._in_line()
            return
        self._start()
        try:
            for _ in range(self._depth):
                self._permits.put(True)
            while (prepared := self._take()) is not None:
                self._permits.put(True)
                yield prepared
        finally:
            self.close()

    def close(self) -> None:
        """Finish what was permitted and end the threads. Collective, as routing is."""
        if not self._threads:
            return
        self._permits.put(False)
        router, reader = self._threads
        router.join()
        self._closing.set()
        while reader.is_alive():  # it may be waiting for room
            try:
                self._read.get(timeout=0.01)
            except queue.Empty:
                continue
        self._threads = []
        while True:
            try:
                left = self._ready.get_nowait()
            except queue.Empty:
                return
            if isinstance(left, Prepared):
                self._pad.release(left.ticket)

    def _start(self) -> None:
        self._threads = [
            threading.Thread(target=self._route_all, name="route", daemon=True),
            threading.Thread(target=self._read_all, name="read", daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def _take(self) -> Prepared | None:
        start = time.perf_counter()
        item = self._ready.get()
        self.seconds.starved += time.perf_counter() - start
        if isinstance(item, _Failure):
            raise item.error
        return item

    def _read_next(self) -> _Read:
        if self._source is None:
            return _Read(None)
        start = time.perf_counter()
        batch = self._source.next_batch()
        position = getattr(self._source, "position", None)
        self.seconds.read += time.perf_counter() - start
        return _Read(batch, position() if position is not None else None)

    def _read_all(self) -> None:
        while not self._closing.is_set():
            try:
                item: _Read | _Failure = self._read_next()
            except BaseException as error:  # handed to the training loop, which raises it
                item = _Failure(error)
            self._read.put(item)
            if isinstance(item, _Failure) or item.batch is None:
                return

    def _route_all(self) -> None:
        routed = 0
        last: _Read | None = None
        try:
            while self._permits.get():
                if self._limit is not None and routed == self._limit:
                    break
                if last is None or last.batch is not None:
                    item = self._read.get()
                    if isinstance(item, _Failure):
                        raise item.error
                    last = item
                prepared = self._prepare(last)
                if prepared is None:
                    break
                routed += 1
                self._ready.put(prepared)
            self._ready.put(None)
        except BaseException as error:  # handed to the training loop, which raises it
            self._ready.put(_Failure(error))

    def _prepare(self, read: _Read) -> Prepared | None:
        """Route one batch and plan its rows; None when no rank had data. Collective."""
        start = time.perf_counter()
        batch = read.batch
        if batch is None:
            routed = self._exchange.route(_NO_IDS, _NO_BAGS, None, 0, live=False)
        else:
            routed = self._exchange.route(batch.ids, batch.offsets, batch.weights, batch.size)
        routed_at = time.perf_counter()
        self.seconds.route += routed_at - start
        if not routed.any_live:
            return None
        ticket = self._pad.plan(routed.request, self._train)
        self.seconds.plan += time.perf_counter() - routed_at
        return Prepared(batch, routed, ticket, self._exchange, read.position)

    def _in_line(self) -> Iterator[Prepared]:
        read: _Read | None = None
        routed = 0
        while self._limit is None or routed < self._limit:
            start = time.perf_counter()
            if read is None or read.batch is not None:
                read = self._read_next()
            prepared = self._prepare(read)
            self.seconds.starved += time.perf_counter() - start
            if prepared is None:
                return
            routed += 1
            yield prepared
