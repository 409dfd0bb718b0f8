"""What prepares a batch for its step: it is read, routed to the ranks that hold its rows, planned.

Each stage is a call here, on whatever thread; `fourfold.runtime.pipeline` says when.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from fourfold.comm.exchange import Exchange, Routed
from fourfold.runtime.data.batch import Batch
from fourfold.runtime.reclaim import Credit
from fourfold.runtime.stopwatch import Stopwatch
from fourfold.runtime.trace import Trace
from fourfold.runtime.upload import Inputs, Upload
from fourfold.storage import BudgetError, Pad, Ticket

_NO_IDS = np.empty(0, np.int64)
_NO_BAGS = np.zeros(1, np.int64)
_POLL_S = 0.05
"""A plan that waits for room looks this often whether it is still wanted."""


class Source(Protocol):
    """Anything that gives batches: a reader, a list of batches, a user's own data."""

    def next_batch(self) -> Batch | None:
        """Give the next batch of this rank, None when it has no more."""


@dataclass(slots=True)
class Taken:
    """What a rank took from its data."""

    number: int
    """Of the batch, the same on all ranks."""
    batch: Batch | None
    """None on a rank that reads no data or has run out."""
    position: dict[str, object] | None
    """Where the data continue after this batch."""

    def following(self) -> Taken | None:
        """Give what comes next without looking: nothing after nothing; None if data may come."""
        return Taken(self.number + 1, None, self.position) if self.batch is None else None


@dataclass(slots=True)
class Sent:
    """A batch whose ids have reached the ranks that hold its rows."""

    taken: Taken
    routed: Routed


@dataclass(slots=True)
class Prepared:
    """A batch whose rows are ready, or on their way to the pad: what a step needs."""

    batch: Batch | None
    """This rank's samples; None on a rank that reads no data or has run out."""
    routed: Routed
    ticket: Ticket
    exchange: Exchange
    """The exchange that routed it, and that the step uses."""
    position: dict[str, object] | None
    """Where the data continue after this batch."""
    number: int
    """Of the batch, the same on all ranks."""
    inputs: Inputs | None = None
    """What the dense model reads of the samples; None without samples, or if nobody asked."""


class Preparation:
    """The stages before the step, each for one batch at a time, and where their time goes.

    source: this rank's batches, None on a rank that reads no data. exchange, pad: where ids go and
    rows live. train: whether ids never seen before get a row. depth: batches that may wait for
    their step. fixed: whether the pad must have room for all of them and the one that trains.
    first: number of the first batch. credit: what samples count for, of an exchange that carries
    it. trace: where the stages leave their spans. upload: brings what the dense model reads to its
    device; None on a rank without a model.
    """

    def __init__(
        self,
        source: Source | None,
        exchange: Exchange,
        pad: Pad,
        *,
        train: bool,
        depth: int,
        fixed: bool = False,
        first: int = 1,
        credit: Credit | None = None,
        trace: Trace | None = None,
        upload: Upload | None = None,
    ) -> None:
        self.pad = pad
        self.reading = Stopwatch("read", ("read", "read_stalled"), trace)
        self.routing = Stopwatch("route", ("route", "route_starved", "route_stalled"), trace)
        self.planning = Stopwatch("plan", ("plan", "plan_starved", "plan_stalled"), trace)
        self._source = source
        self._exchange = exchange
        self._train = train
        self._depth = depth
        self._fixed = fixed
        self._next = first
        self._credit = credit
        self._upload = upload

    def take(self) -> Taken:
        """Take the next batch from the data. Raises what the source raises."""
        self.reading.batch = number = self._next
        self._next += 1
        if self._source is None:
            return Taken(number, None, None)
        with self.reading("read"):
            batch = self._source.next_batch()
            position = getattr(self._source, "position", None)
            return Taken(number, batch, position() if position is not None else None)

    def forget(self) -> None:
        """Tell the pad that batches routed and not planned by now will not come."""
        if self._train:
            self.pad.forget_foreseen()

    def send(self, taken: Taken) -> Sent | None:
        """Route a batch, and let the pad foresee its rows; None when no rank had data.

        Collective, on the exchange's route channel.
        """
        batch = taken.batch
        self.routing.batch = taken.number
        with self.routing("route"):
            if batch is None:
                routed = self._exchange.route(_NO_IDS, _NO_BAGS, None, 0, live=False)
            else:
                credits = None if self._credit is None else self._credit(batch)
                routed = self._exchange.route(
                    batch.ids, batch.offsets, batch.weights, batch.size, credits
                )
            if not routed.any_live:
                return None
            if self._train:
                self.pad.foresee(routed.request)
            return Sent(taken, routed)

    def plan(self, sent: Sent, unwanted: Callable[[], bool] = lambda: False) -> Prepared | None:
        """Plan the rows of a batch, as soon as the pad has room for them. Local.

        None if the batch was `unwanted` before there was room. Raises BudgetError for a batch that
        the pad cannot hold, and, with `fixed`, if it cannot hold so many at once.
        """
        self.planning.batch = sent.taken.number
        prepared = self._try(sent)
        if prepared is None:
            with self.planning("plan_stalled"):
                while prepared is None:
                    if unwanted():
                        return None
                    self.pad.wait_for_room(_POLL_S)
                    prepared = self._try(sent)
        return prepared

    def take_seconds(self) -> dict[str, float]:
        """Seconds by stage since the last call: busy, starved (no input), stalled (no room)."""
        return {
            name: seconds
            for watch in (self.reading, self.routing, self.planning)
            for name, seconds in watch.take().items()
        }

    def _try(self, sent: Sent) -> Prepared | None:
        with self.planning("plan"):
            ticket = self._ticket(sent.routed)
            if ticket is None:
                return None
            taken, upload = sent.taken, self._upload
            return Prepared(
                taken.batch,
                sent.routed,
                ticket,
                self._exchange,
                taken.position,
                taken.number,
                upload(taken.batch) if upload is not None and taken.batch is not None else None,
            )

    def _ticket(self, routed: Routed) -> Ticket | None:
        if not (self._fixed and self._train):
            return self.pad.try_plan(routed.request, self._train)
        try:
            return self.pad.plan(routed.request, self._train)
        except BudgetError as error:
            raise BudgetError(
                f"{error}; storage.fixed_lookahead asks for room for {self._depth + 1} batches"
                " at once: raise storage.pad_bytes or lower train.lookahead"
            ) from error
