"""The stages of the pipeline in one process: a pad that is small, stages that fail, closing."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from narrow import LoneExchange, NarrowPad, Numbers

from fourfold.runtime.pipeline import Pipeline
from fourfold.storage import BudgetError


def pipeline(
    pad: Any,
    depth: int,
    source: Numbers | None = None,
    exchange: LoneExchange | None = None,
    **more: Any,
) -> Pipeline:
    source, exchange = source or Numbers(8), exchange or LoneExchange()
    return Pipeline(source, exchange, pad, depth=depth, **more)


def labels(batches: Iterator[Any] | Pipeline, pad: NarrowPad) -> list[int]:
    got = []
    for prepared in batches:
        got.append(int(prepared.batch.label[0]))
        assert prepared.number == got[-1]
        pad.release(prepared.ticket)
    return got


def threads_alive() -> set[str]:
    return {t.name for t in threading.enumerate()} & {"read", "route", "plan"}


def settled(condition: Any, patience_s: float = 5.0) -> bool:
    """Wait until the condition holds."""
    deadline = time.monotonic() + patience_s
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.001)
    return bool(condition())


@pytest.mark.parametrize("depth", [0, 1, 4, 20])
@pytest.mark.parametrize("room", [1, 2, 3, 100])
def test_it_goes_as_far_ahead_as_there_is_room(depth: int, room: int) -> None:
    pad = NarrowPad(room)
    steps = iter(pipeline(pad, depth))
    got = []
    for prepared in steps:
        got.append(prepared.number)
        ahead = min(room, 1 + depth, 9 - prepared.number)
        assert settled(lambda ahead=ahead: pad.held == ahead)
        pad.release(prepared.ticket)

    assert got == [1, 2, 3, 4, 5, 6, 7, 8]
    assert pad.most_held == min(room, 1 + depth, 8)
    assert pad.held == 0
    assert not threads_alive()


@pytest.mark.parametrize("depth", [0, 3])
def test_batches_are_foreseen_in_order_before_they_are_planned(depth: int) -> None:
    pad = NarrowPad(1)
    steps = iter(pipeline(pad, depth))
    first = next(steps)
    assert settled(lambda: ("foresee", 1 + depth) in pad.told)  # with room for one batch only
    assert ("plan", 2) not in pad.told
    pad.release(first.ticket)
    assert labels(steps, pad) == [2, 3, 4, 5, 6, 7, 8]

    foreseen = [n for what, n in pad.told if what == "foresee"]
    planned = [n for what, n in pad.told if what == "plan"]
    assert foreseen == planned == [1, 2, 3, 4, 5, 6, 7, 8]
    for n in planned:
        assert pad.told.index(("foresee", n)) < pad.told.index(("plan", n))


@pytest.mark.parametrize("depth", [0, 1, 4])
def test_a_fixed_look_ahead_needs_its_room(depth: int) -> None:
    pad = NarrowPad(depth + 1)
    assert len(labels(pipeline(pad, depth, fixed=True), pad)) == 8

    if depth:
        pad = NarrowPad(depth)
        steps = iter(pipeline(pad, depth, fixed=True))
        next(steps)  # its ticket is held
        for _ in range(depth - 1):
            next(steps)
        with pytest.raises(BudgetError, match=rf"room for {depth + 1} batches.*lower train.look"):
            next(steps)
        assert not threads_alive()


@pytest.mark.parametrize("room", [1, 2, 100])
def test_closing_does_not_wait_for_room(room: int) -> None:
    pad = NarrowPad(room)
    steps = iter(pipeline(pad, 4))
    first = next(steps)
    assert settled(lambda: pad.held == min(room, 5) and pad.told.count(("foresee", 5)) == 1)
    start = time.monotonic()
    steps.close()  # type: ignore[attr-defined]

    assert time.monotonic() - start < 2
    assert not threads_alive()
    assert pad.held == 1  # the one that trains
    assert [what for what, _ in pad.told].count("plan") <= 5
    told = dict(reversed(pad.told))
    assert told["forget"] == 5 - [what for what, _ in pad.told].count("plan")
    pad.release(first.ticket)


def test_closing_routes_what_was_permitted() -> None:
    """Other ranks route it too, and would wait for this one."""
    exchange = LoneExchange(allowed=threading.Semaphore(1))
    pad = NarrowPad(1)
    steps = iter(pipeline(pad, 3, exchange=exchange))
    pad.release(next(steps).ticket)
    threading.Timer(0.05, exchange.allowed.release, (10,)).start()
    steps.close()  # type: ignore[attr-defined]

    assert exchange.routed == 4  # three at the start, one with the first step
    assert not threads_alive()


def test_closing_plans_nothing_more() -> None:
    pad = NarrowPad(100, allowed=1)
    steps = iter(pipeline(pad, 4))
    first = next(steps)
    assert settled(lambda: ("foresee", 5) in pad.told)
    threading.Timer(0.05, pad.allowed.release, (10,)).start()
    steps.close()  # type: ignore[attr-defined]

    assert ("plan", 3) not in pad.told  # the one that was under way, and no other
    assert pad.held == 1
    pad.release(first.ticket)


def test_leaving_an_evaluation_early_leaves_the_training_batches_foreseen() -> None:
    pad = NarrowPad(100)
    steps = iter(pipeline(pad, 2, train=False))
    next(steps)
    steps.close()  # type: ignore[attr-defined]

    assert pad.told == []
    assert not threads_alive()


class Failing(NarrowPad):
    """Fails at its third batch."""

    def __init__(self, where: str) -> None:
        super().__init__(room=2)
        self.where = where
        self.calls = 0

    def _count(self, where: str, train: bool = True) -> None:
        if where == self.where and train:
            self.calls += 1
            if self.calls == 3:
                raise BudgetError("needs 3 GiB")

    def foresee(self, request: Any) -> None:
        self._count("foresee")
        super().foresee(request)

    def try_plan(self, request: Any, train: bool) -> Any:
        if self.held < self.room:
            self._count("plan", train)
        return super().try_plan(request, train)


@pytest.mark.parametrize("depth", [0, 1, 4])
@pytest.mark.parametrize("where", ["read", "route", "foresee", "plan"])
def test_an_error_in_any_stage_reaches_the_step_that_needs_the_batch(
    where: str, depth: int
) -> None:
    pad = Failing(where)
    source = Numbers(8, fails=3 if where == "read" else 0)
    exchange = LoneExchange(fails=3 if where == "route" else 0)
    steps = iter(pipeline(pad, depth, source, exchange))
    for number in (1, 2):
        prepared = next(steps)
        assert prepared.number == number
        pad.release(prepared.ticket)
    with pytest.raises((OSError, ValueError, BudgetError), match=r"disk on fire|no such|3 GiB"):
        next(steps)

    assert not threads_alive()
    assert pad.held == 0


def test_in_line_too_it_waits_for_a_write_to_make_room() -> None:
    pad = NarrowPad(0)
    threading.Timer(0.1, lambda: setattr(pad, "room", 1)).start()

    assert labels(pipeline(pad, 0), pad) == [1, 2, 3, 4, 5, 6, 7, 8]
    assert pad.waits > 0


def test_evaluation_while_training_batches_are_held() -> None:
    pad = NarrowPad(1)
    steps = iter(pipeline(pad, 4))
    first = next(steps)
    held = list(pad.told)
    scored = [p.number for p in pipeline(pad, 0, Numbers(3), train=False)]
    pad.release(first.ticket)

    assert scored == [1, 2, 3]
    assert "forget" not in dict(pad.told)
    assert [t for t in pad.told if t[0] == "plan"] == [t for t in held if t[0] == "plan"]
    assert labels(steps, pad) == [2, 3, 4, 5, 6, 7, 8]


def test_where_the_time_goes() -> None:
    pad = NarrowPad(1)
    slow = pipeline(pad, 2, Numbers(5, pause_s=0.02))
    assert len(labels(slow, pad)) == 5
    starving = slow.take_seconds()
    stalled = pipeline(pad, 2, Numbers(8))
    for prepared in stalled:
        time.sleep(0.02)
        pad.release(prepared.ticket)
    stalling = stalled.take_seconds()

    assert starving["read"] > 0.08
    assert min(starving[f"{stage}starved"] for stage in ("", "route_", "plan_")) > 0.05
    assert starving["plan_stalled"] < 0.01
    assert stalling["plan_stalled"] > 0.08
    assert min(stalling["route_stalled"], stalling["read_stalled"]) > 0.05
    assert stalling["starved"] < 0.05
    assert set(slow.take_seconds().values()) == {0.0}
