"""The plan of `fourfold bench tiers`: what look-ahead costs against what it hides behind.

Batches of distinct keys, most of whose rows are in the pad and the others in host memory, are
planned and fetched, then gathered and updated. plan + fetch may run beside the step of an earlier
batch, so they should not take longer than gather + update, which are the least of a step.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from fourfold.storage import Pad, RowSpec, RowWiseAdagrad, Segment, SegmentedRequest, Uniform
from fourfold.storage.tier import HostTier

DIM = 64
HOT, ROOM, COLD = 8, 10, 15  # batches: rows asked for often, rows that fit, rows asked for rarely
BESIDE = 22 + 27  # bytes that the pad keeps of a row: who it is, and the index
STAGES = ("plan", "fetch", "gather", "update", "release")

Ids = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Result:
    """Milliseconds of a batch by stage, medians of the rounds."""

    threads: int
    keys: int
    hit_rate: float
    ms: dict[str, float]
    ratio: float
    """(plan + fetch) / (gather + update), median of the rounds; below 1 it hides."""
    ratio_best: float
    """Of the best round of each side."""


class Bench:
    """A pad whose rows all exist, in it or in the host tier below it."""

    def __init__(self, keys: int, threads: int) -> None:
        spec = RowSpec(
            table=0,
            name="bench",
            dim=DIM,
            rows=(HOT + COLD) * keys,
            optimizer=RowWiseAdagrad(),
            init=Uniform(0.1),
        )
        budget = int(ROOM * keys * (spec.row_bytes + BESIDE) * 1.05)
        self.pad = Pad([spec], budget_bytes=budget, host=HostTier([spec]), threads=threads)
        self.keys = keys
        self.rng = np.random.default_rng(0)
        self.ids = self.rng.permutation((HOT + COLD) * keys)
        self.replies = np.empty((keys, DIM), np.float32)
        self.gradient = self.rng.standard_normal((keys, DIM), np.float32) * np.float32(1e-3)
        self.steps = 0
        for part in (*range(HOT, HOT + COLD), *range(HOT)):
            self.step(self.ids[part * keys : (part + 1) * keys])
        self.pad.take_traffic()

    def draw(self, hits: float) -> Ids:
        """Draw distinct keys, about such a share of which are in the pad: hot ones, and a few."""
        stray = (ROOM - HOT) / COLD
        hot = round(self.keys * max(0.0, hits - stray) / (1 - stray))
        first = self.rng.choice(HOT * self.keys, hot, replace=False)
        last = HOT * self.keys + self.rng.choice(COLD * self.keys, self.keys - hot, replace=False)
        return self.rng.permutation(self.ids[np.concatenate([first, last])])

    def step(self, ids: Ids) -> list[float]:
        """Take one batch through all stages; seconds of each."""
        request = SegmentedRequest.of([Segment(0, ids)])
        self.steps += 1
        times = [time.perf_counter()]
        ticket = self.pad.plan(request, True)
        times.append(time.perf_counter())
        self.pad.wait(ticket)
        times.append(time.perf_counter())
        self.pad.gather(ticket, request.addresses([self.replies]), "fp32")
        times.append(time.perf_counter())
        gradient = request.addresses([self.gradient])
        self.pad.update(ticket, gradient, "fp32", 0.01, self.steps)
        times.append(time.perf_counter())
        self.pad.release(ticket)
        times.append(time.perf_counter())
        return [end - begin for begin, end in pairwise(times)]


def measure(keys: int, hits: float, threads: list[int], rounds: int) -> Iterator[Result]:
    """Measure with each number of threads; their batches are the same."""
    for count in threads:
        bench = Bench(keys, count)
        for _ in range(2):
            bench.step(bench.draw(hits))
        bench.pad.take_traffic()
        seconds = [bench.step(bench.draw(hits)) for _ in range(rounds)]
        hit = bench.pad.take_traffic().pad_hits / (rounds * keys)
        bench.pad.close()
        medians = np.median(np.array(seconds), axis=0) * 1e3
        ahead, in_step = ([sum(s[i : i + 2]) for s in seconds] for i in (0, 2))
        yield Result(
            threads=count,
            keys=keys,
            hit_rate=hit,
            ms=dict(zip(STAGES, map(float, medians), strict=True)),
            ratio=statistics.median(a / b for a, b in zip(ahead, in_step, strict=True)),
            ratio_best=min(ahead) / min(in_step),
        )
