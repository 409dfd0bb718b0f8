"""Norms of gradients count when a CPU would count them, and nobody waits for them before that."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import gpu
import numpy as np
import pytest
from device_pad import DevicePad, device
from driver_calls import held
from reclaim_pad import Trainer, spec

from fourfold.storage import Pad, ReclaimConfig, SegmentedRequest
from fourfold.storage.request import Segment
from fourfold.storage.tier import HostTier

AHEAD, WINDOW = 1, 6
"""Batches planned before one trains, and that could be: then released ones do not count yet."""
DIM = 32
SMALL = 48 << 10
"""Bytes of a pad that has room for the rows of three batches."""
POLICY: dict[str, Any] = {"interval": 5, "rows": 600, "admission_bytes": 4096, "share": 1.0}


def outcome(make: Callable[..., Pad], by: str, *, tiered: bool) -> Any:
    """All rows, with time and score, and what became of their ids, after many batches.

    Gradients are whole numbers, so that their norms are the same whatever the order of a sum.
    """
    specs = [spec(0, dim=DIM), spec(1, dim=DIM, time_to_live=40)]
    host = HostTier(specs) if tiered else None
    config = ReclaimConfig(by=by, **POLICY)
    pad = make(specs, budget_bytes=SMALL if host else 1 << 20, host=host,
               reclaim=config, threads=2)  # fmt: skip
    pad.plan_ahead(WINDOW)
    rng = np.random.default_rng(0)
    run = LateTrainer(pad, AHEAD)
    for step in range(100):
        ids = {t: np.unique(rng.zipf(1.3, 60) % 900 + step * 3) for t in range(2)}
        run.batch(ids, gradient=float(rng.integers(1, 9)))
    run.finish()
    found = []
    for tile in range(2):
        ids = np.sort(np.concatenate([ids for ids, _ in pad.scan(tile)] or [np.empty(0, int)]))
        found.append(
            (ids.tolist(), pad.read(tile, ids)[0].tobytes(), pad.population(tile).admitted)
        )
    traffic = pad.take_traffic()
    pad.close()
    return found, traffic.host_written_bytes


@pytest.mark.parametrize("by", ["importance", "relative_importance"])
@pytest.mark.parametrize("tiered", [False, True])
def test_rows_and_scores_are_those_of_a_cpu(by: str, *, tiered: bool) -> None:
    """The pad is so small that rows leave it before the norms of their last batch count."""
    here, moved = outcome(Pad, by, tiered=tiered)
    with gpu.shaken(1, 100):
        there, _ = outcome(DevicePadThatWaitsForNobody, by, tiered=tiered)
    assert here == there
    assert sum(len(ids) for ids, _, _ in here) > 300
    assert here[0][2] > len(here[0][0]) + 50
    assert (moved > 0) == tiered


class DevicePadThatWaitsForNobody(DevicePad):
    """Leaves waiting to the pad."""

    def update(self, *args: Any, **options: Any) -> None:
        Pad.update(self, *args, **options)


class LateTrainer(Trainer):
    """Gradients stay where they are after the update has begun."""

    rows = tuple(np.full((100, DIM), value, np.float32) for value in range(9))

    def train(self) -> None:
        ticket, request, gradient = self.planned.popleft()
        self.steps += 1
        rows = [self.rows[int(gradient)][:n] for n in np.diff(request.first)]
        self.pad.update(ticket, request.addresses(rows), "fp32", 0.5, self.steps)
        self.pad.release(ticket)


def test_an_update_waits_for_nothing_that_the_device_does() -> None:
    pad = Pad([spec(0, dim=DIM)], budget_bytes=1 << 20, device=device(),
              reclaim=ReclaimConfig(by="importance", rows=1000))  # fmt: skip
    pad.plan_ahead(WINDOW)
    request = SegmentedRequest.of([Segment(0, np.arange(100))])
    gradients = gpu.to_device(np.ones((100, DIM), np.float32))
    addresses = np.array([gradients.address], np.uint64)
    step = 0

    def train() -> None:
        ticket = pad.plan(request, True)
        pad.update(ticket, addresses, "fp32", 0.1, step + 1)
        pad.release(ticket)

    for step in range(5):  # noqa: B007
        train()
    gpu.driver().synchronize()
    with held():
        thread = threading.Thread(target=train, daemon=True)
        thread.start()
        thread.join(20)
        waited = thread.is_alive()
    thread.join()
    assert not waited
    scores = pad.read(0, np.arange(100))[0]["score"]
    pad.close()
    assert (scores == scores[0]).all()
    assert scores[0] > 0


def update(pad: Pad, ids: range, step: int) -> None:
    """Train rows with gradients of 3; their norms count later."""
    request = SegmentedRequest.of([Segment(0, np.array(ids))])
    ticket = pad.plan(request, True)
    rows = np.full((len(ids), DIM), 3, np.float32)
    pad.update(ticket, request.addresses([rows]), "fp32", 0.5, step)
    pad.release(ticket)


def test_rows_that_are_written_keep_the_score_they_are_given() -> None:
    pad = DevicePad([spec(0, dim=DIM)], budget_bytes=1 << 20,
                    reclaim=ReclaimConfig(by="importance", rows=1000))  # fmt: skip
    pad.plan_ahead(WINDOW)
    ids = range(100)
    update(pad, ids, 1)
    records = pad.read(0, np.array(ids))[0].copy()
    update(pad, ids, 2)
    pad.write(0, np.array(ids), records)
    assert pad.read(0, np.array(ids))[0]["score"].tolist() == records["score"].tolist()
    pad.close()


@pytest.mark.parametrize("make", [Pad, DevicePad])
def test_a_write_between_a_refused_plan_and_the_next_takes_nothing_from_it(make: Any) -> None:
    specs = [spec(0, dim=DIM)]
    pad = make(specs, budget_bytes=64 << 10, host=HostTier(specs),
               reclaim=ReclaimConfig(by="importance", rows=5000))  # fmt: skip
    pad.plan_ahead(WINDOW)
    here, there = range(250), range(1000, 1250)
    update(pad, here, 1)
    records = pad.read(0, np.array(here))[0][:1].copy()
    first = pad.plan(SegmentedRequest.of([Segment(0, np.array(here))]), True)
    assert pad.try_plan(SegmentedRequest.of([Segment(0, np.array(there))]), True) is None
    pad.write(0, np.array(here[:1]), records)
    pad.release(first)
    update(pad, there, 2)
    scores = pad.read(0, np.array(there))[0]["score"]
    pad.close()
    assert (scores == scores[0]).all()
    assert scores[0] > 0


def test_a_ticket_is_updated_once() -> None:
    pad = DevicePad([spec(0, dim=DIM)], budget_bytes=1 << 20,
                    reclaim=ReclaimConfig(by="importance", rows=1000))  # fmt: skip
    request = SegmentedRequest.of([Segment(0, np.arange(10))])
    ticket = pad.plan(request, True)
    rows = request.addresses([np.ones((10, DIM), np.float32)])
    pad.update(ticket, rows, "fp32", 0.5, 1)
    with pytest.raises(ValueError, match="updated once"):
        pad.update(ticket, rows, "fp32", 0.5, 2)
    pad.release(ticket)
    pad.close()
