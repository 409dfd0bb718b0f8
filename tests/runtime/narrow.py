"""A pad with room for so many batches, and an exchange without ranks: for the tests."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np

from fourfold.runtime.data.batch import Batch
from fourfold.storage import BudgetError


@dataclass
class Ticket:
    number: int
    train: bool
    inner: Any = None


class NarrowPad:
    """Has room for `room` training batches at once. Keeps what it was told, in order.

    inner: a real pad that does the work, if there is work to do. allowed: attempts to plan; further
    ones wait.
    """

    def __init__(self, room: int, inner: Any = None, *, allowed: int = 100_000) -> None:
        self.room = room
        self.inner = inner
        self.told: list[tuple[str, int]] = []
        self.allowed = threading.Semaphore(allowed)
        self.held = 0
        self.most_held = 0
        self.waits = 0
        self._planned = 0
        self._foreseen = 0
        self._changed = threading.Condition()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def plan_ahead(self, batches: int) -> None:
        if self.inner is not None:
            self.inner.plan_ahead(batches)

    def foresee(self, request: Any) -> None:
        self._foreseen += 1
        self.told.append(("foresee", self._foreseen))

    def forget_foreseen(self) -> None:
        self.told.append(("forget", self._foreseen - self._planned))

    def try_plan(self, request: Any, train: bool) -> Ticket | None:
        self.allowed.acquire()
        with self._changed:
            if train and self.held >= self.room:
                return None
            inner = self.inner and self.inner.plan(request, train)
            if not train:
                return Ticket(0, train, inner)
            self._planned += 1
            self.held += 1
            self.most_held = max(self.most_held, self.held)
            self.told.append(("plan", self._planned))
            return Ticket(self._planned, train, inner)

    def plan(self, request: Any, train: bool) -> Ticket:
        ticket = self.try_plan(request, train)
        if ticket is None:
            raise BudgetError("the pad is full")
        return ticket

    def wait_for_room(self, timeout_s: float) -> None:
        with self._changed:
            self.waits += 1
            self._changed.wait(timeout_s)

    def release(self, ticket: Ticket) -> None:
        with self._changed:
            if self.inner is not None:
                self.inner.release(ticket.inner)
            if ticket.train:
                self.held -= 1
                self.told.append(("release", ticket.number))
            self._changed.notify_all()


@dataclass
class LoneExchange:
    """Routes within one process, as many batches as `allowed`; fails at batch `fails`, if not 0."""

    fails: int = 0
    routed: int = 0
    allowed: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(1000))

    def route(
        self, ids: Any, offsets: Any, weights: Any, batch: int, credits: Any = None,
        live: bool = True,
    ) -> Any:  # fmt: skip
        self.allowed.acquire()
        self.routed += 1
        if self.routed == self.fails:
            raise ValueError("no such row")
        return SimpleNamespace(any_live=live, request=self.routed, global_batch=batch)


@dataclass
class Numbers:
    """A source of `count` batches, whose label is their number; fails at batch `fails`."""

    count: int
    fails: int = 0
    pause_s: float = 0.0
    given: int = 0

    def next_batch(self) -> Batch | None:
        threading.Event().wait(self.pause_s)
        self.given += 1
        if self.given == self.fails:
            raise OSError("disk on fire")
        if self.given > self.count:
            return None
        return Batch(
            dense=np.zeros((1, 0), np.float32),
            label=np.full(1, self.given, np.float32),
            ids=np.zeros(1, np.int64),
            offsets=np.array([0, 1], np.int64),
            weights=None,
        )
