"""Tiers of `fourfold bench device`: rows in host memory below a pad in the GPU's.

A step is gather and update of batches never seen before, Zipf 1.05, while a thread plans two
batches ahead and the pad fetches their rows: once with 10% of the rows in the GPU's memory, once
with all of them there. There is no dense model behind which to hide anything. Target: at least 0.9
of the speed with all rows there. Limit: what crosses PCIe, against the bandwidth of pinned copies.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from statistics import median

import numpy as np

from fourfold.jobs.bench_device_pad import (
    Batch,
    Batches,
    budget_of,
    fill,
    make_pad,
    make_specs,
    plan,
)
from fourfold.jobs.bench_session import Session
from fourfold.runtime.data.synthetic import zipf_ids
from fourfold.storage import Pad, Ticket
from fourfold.storage.in_place import InPlace
from fourfold.storage.tier import HostTier
from fourfold.storage.traffic import Traffic

TARGET = 0.9
SHARE = 0.1  # of the rows, in the GPU's memory
LOOKAHEAD = 2
ZIPF = 1.05
PAGE = 4096  # bytes in whole numbers of which a pad takes memory


@dataclass(frozen=True, slots=True)
class Setting:
    """Tables and batches."""

    tables: int = 8
    rows: int = 2_000_000
    """Of a table."""
    dim: int = 128
    batch: int = 8192
    pooling: int = 4
    warm: int = 60
    """Batches that fill the pad before."""
    steps: int = 10
    """Of a round."""

    @property
    def needs(self) -> int:
        """Memory of the device: all rows, a tenth of them once more, and batches."""
        ids = self.tables * self.batch * self.pooling
        rows = self.tables * self.rows * (self.dim * 4 + 16)
        return int(rows * (1 + SHARE)) + 2 * ids * (self.dim * 8 + 4 * 64)


FULL = Setting()
SMALL = Setting(tables=2, rows=4000, dim=32, batch=16, pooling=4, warm=4, steps=2)


@dataclass(frozen=True, slots=True)
class Result:
    """Per step, median of the rounds."""

    tiered_ms: float
    memory_ms: float
    ratio: float
    """Speed with tiers over that with all rows in the GPU's memory; at least TARGET."""
    plan_ms: float
    """Of the host, ahead of the step, with tiers; the longer of plan and step is the pace."""
    hit_rate: float
    """Rows of a batch that were in the pad."""
    in_bytes: float
    """Over PCIe to the GPU,"""
    out_bytes: float
    """and back; rows only, without plans."""
    in_share: float
    """Of the bandwidth of pinned copies, over the time of the step."""
    out_share: float
    fetch_ms: float
    """That the thread was busy which moves rows."""
    in_place: InPlace
    """Which records the GPU reads and writes where they lie, from what size on."""
    ids: int
    threads: int


class Variant:
    """A pad that trains on a stream of batches."""

    def __init__(
        self, session: Session, pad: Pad, batches: Sequence[Batch], setting: Setting
    ) -> None:
        self.pad = pad
        self._session = session
        self._batches = Batches(session, pad, batches, setting.pooling, "fp32")
        self._coming = iter(self._batches.requests)
        self._planner = ThreadPoolExecutor(1)
        self.plan_s: list[float] = []
        self._ahead = deque(self._planner.submit(self._plan) for _ in range(LOOKAHEAD))

    def _plan(self) -> Ticket | None:
        request = next(self._coming, None)
        if request is None:
            return None
        begin = time.perf_counter()
        ticket = plan(self.pad, request)
        self.plan_s.append(time.perf_counter() - begin)
        return ticket

    def step(self) -> None:
        """Train on the next batch; what runs ahead goes on after."""
        ticket = self._ahead.popleft().result()
        assert ticket is not None, "as many batches as steps"
        self._ahead.append(self._planner.submit(self._plan))
        try:
            self.pad.wait(ticket)
            self._batches.gather(ticket)
            self._batches.update(ticket)
        finally:  # or the planner waits for room
            self.pad.release(ticket)

    def round(self, steps: int) -> float:
        """Seconds of a step."""
        self._session.wait()
        begin = time.perf_counter()
        for _ in range(steps):
            self.step()
        self._session.wait()
        return (time.perf_counter() - begin) / steps

    def close(self) -> None:
        """End the threads."""
        for future in self._ahead:
            ticket = future.result()
            if ticket is not None:
                self.pad.wait(ticket)
                self.pad.release(ticket)
        self._planner.shutdown()
        self._session.wait()
        self.pad.close()


def measure(session: Session, setting: Setting, rounds: int) -> Iterator[Result]:
    """Let both take turns on the same batches."""
    rng = np.random.default_rng(4)
    size = setting.batch * setting.pooling
    batches = [
        [zipf_ids(rng, size, setting.rows, ZIPF) for _ in range(setting.tables)]
        for _ in range(setting.warm + rounds * setting.steps)
    ]
    specs = make_specs(setting.tables, setting.rows, setting.dim)
    part = int(SHARE * setting.rows * sum(spec.row_bytes for spec in specs))
    pads = [
        make_pad(session, specs, part // PAGE * PAGE, HostTier(specs)),
        make_pad(session, specs, budget_of(specs, setting.rows)),
    ]
    for pad in pads:
        fill(pad, setting.rows, max(1, int(setting.rows * SHARE) // 2))
    tiered, memory = (Variant(session, pad, batches, setting) for pad in pads)
    with closing(tiered), closing(memory):
        for variant in (tiered, memory):
            variant.round(setting.warm)
        tiered.plan_s.clear()
        tiered.pad.take_traffic()
        seconds = [
            (tiered.round(setting.steps), memory.round(setting.steps)) for _ in range(rounds)
        ]
        traffic, in_place = tiered.pad.take_traffic(), tiered.pad.in_place
    steps, ids = rounds * setting.steps, setting.tables * size
    yield _result(session, seconds, traffic, in_place, median(tiered.plan_s), steps, ids)


def _result(
    session: Session,
    seconds: list[tuple[float, float]],
    traffic: Traffic,
    in_place: InPlace,
    plan_s: float,
    steps: int,
    ids: int,
) -> Result:
    mine, other = (median(column) for column in zip(*seconds, strict=True))
    came = traffic.host_read_bytes / steps
    left = traffic.host_written_bytes / steps
    rows = traffic.pad_hits + traffic.host_hits + traffic.born
    return Result(
        tiered_ms=mine * 1e3,
        memory_ms=other * 1e3,
        ratio=median(b / a for a, b in seconds),
        plan_ms=plan_s * 1e3,
        hit_rate=traffic.pad_hits / max(1.0, rows),
        in_bytes=came,
        out_bytes=left,
        in_share=came / mine / session.limits.to_device,
        out_share=left / mine / session.limits.to_host,
        fetch_ms=traffic.fetch_s / steps * 1e3,
        in_place=in_place,
        ids=ids,
        threads=session.threads,
    )
