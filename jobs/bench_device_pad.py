"""Pads of `fourfold bench device`, all rows of which exist, and batches that they work on."""

from __future__ import annotations

import time
from collections.abc import Sequence
from statistics import median

import numpy as np
from numpy.typing import NDArray

from fourfold.comm.route import WIRE_BYTES
from fourfold.jobs.bench_session import Session, random_rows
from fourfold.storage import (
    Pad,
    RowSpec,
    RowWiseAdagrad,
    Segment,
    SegmentedRequest,
    Ticket,
    Uniform,
)
from fourfold.storage.optimizer import Optimizer
from fourfold.storage.tier import HostTier

CHUNK = 1 << 20  # rows born at a time
LR = 0.01
ROOM = 4 << 20  # bytes of a tile's last blocks, at most

Ids = NDArray[np.int64]
Batch = Sequence[Ids]
"""Ids of one batch, table by table."""


def make_specs(
    tables: int,
    rows: int,
    dim: int,
    *,
    dtype: str = "fp32",
    optimizer: Optimizer | None = None,
    dynamic: bool = False,
) -> list[RowSpec]:
    """Describe tables of equal size."""
    return [
        RowSpec(
            table=table,
            name=f"table {table}",
            dim=dim,
            rows=None if dynamic else rows,
            dtype=dtype,
            optimizer=optimizer or RowWiseAdagrad(),
            init=Uniform(0.01),
        )
        for table in range(tables)
    ]


def budget_of(specs: Sequence[RowSpec], rows: int) -> int:
    """Bytes of the device that so many rows of each table take."""
    return sum(int(spec.row_bytes * rows * 1.02) + ROOM for spec in specs)


def make_pad(
    session: Session, specs: Sequence[RowSpec], budget: int, host: HostTier | None = None
) -> Pad:
    """Make an empty pad on the device."""
    return Pad(
        specs,
        budget_bytes=budget,
        threads=session.threads,
        host=host,
        device=session.device,
        stream=session.stream,
    )


def fill(pad: Pad, rows: int, chunk: int = CHUNK) -> None:
    """Let rows 0 to `rows` of every table be born, `chunk` at a time."""
    for tile in range(len(pad.specs)):
        for first in range(0, rows, chunk):
            ids = np.arange(first, min(rows, first + chunk))
            ticket = plan(pad, SegmentedRequest.of([Segment(tile, ids)]))
            pad.wait(ticket)
            pad.release(ticket)


def plan(pad: Pad, request: SegmentedRequest) -> Ticket:
    """Plan a training batch as soon as there is room for it."""
    while (ticket := pad.try_plan(request, True)) is None:
        pad.wait_for_room(0.05)
    return ticket


class Batches:
    """Batches of a pad: sums of bags of equal length, and where those and their gradients lie.

    Every batch has as many ids for each table. The gradients are the same for all.
    """

    def __init__(
        self, session: Session, pad: Pad, batches: Sequence[Batch], pooling: int, wire: str
    ) -> None:
        self.pad, self.wire = pad, wire
        self.bags, dim = len(batches[0][0]) // pooling, pad.specs[0].dim
        lengths = np.full(self.bags, pooling, np.int32)
        self.requests = [
            SegmentedRequest.of([Segment(tile, ids, lengths) for tile, ids in enumerate(batch)])
            for batch in batches
        ]
        tables = len(pad.specs)
        self._gradients = session.upload(random_rows(tables * self.bags, dim, wire))
        self._replies = session.empty(tables * self.bags * dim * WIRE_BYTES[wire])
        begins = np.arange(tables, dtype=np.uint64) * np.uint64(self.bags * dim * WIRE_BYTES[wire])
        self.replies = begins + np.uint64(self._replies.address)
        self.gradients = begins + np.uint64(self._gradients.address)
        self._steps = 0

    def gather(self, ticket: Ticket) -> None:
        """Enqueue the forward."""
        self.pad.gather(ticket, self.replies, self.wire)

    def update(self, ticket: Ticket) -> None:
        """Enqueue backward and optimizer."""
        self._steps += 1
        self.pad.update(ticket, self.gradients, self.wire, LR, self._steps)


class Planned(Batches):
    """Batches whose plans are made and kept; turn t is of batch t."""

    def __init__(
        self, session: Session, pad: Pad, batches: Sequence[Batch], pooling: int, wire: str
    ) -> None:
        super().__init__(session, pad, batches, pooling, wire)
        self._tickets: list[Ticket] = []
        for _ in range(2):  # once for the memory that is taken
            self.close()
            self._plan_all()
        session.wait()
        self.distinct = sum(ticket.unique for ticket in self._tickets) // len(self._tickets)
        """Rows of a batch."""

    def _plan_all(self) -> None:
        seconds = []
        for request in self.requests:
            begin = time.perf_counter()
            self._tickets.append(self.pad.plan(request, True))
            seconds.append(time.perf_counter() - begin)
        self.plan_s = median(seconds)

    def gather_turn(self, turn: int) -> None:
        """Enqueue the forward of a turn."""
        self.gather(self._tickets[turn % len(self._tickets)])

    def update_turn(self, turn: int) -> None:
        """Enqueue backward and optimizer of a turn."""
        self.update(self._tickets[turn % len(self._tickets)])

    def step(self, turn: int) -> None:
        """Enqueue both."""
        self.gather_turn(turn)
        self.update_turn(turn)

    def close(self) -> None:
        """Let the plans go."""
        while self._tickets:
            self.pad.release(self._tickets.pop())
