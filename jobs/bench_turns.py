"""How the parts of `fourfold bench store` measure: tables, ids, and calls that take turns."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fourfold.storage import Pad, RowSpec, RowWiseAdagrad, Segment, SegmentedRequest, Uniform

DISTANCES = (4, 8, 16, 32, 64)  # rows that the reference may look ahead
ZIPF = 1.05
CHUNK = 1 << 20  # rows created at a time

Ids = NDArray[np.int64]
Call = Callable[[int], object]
Seconds = dict[str, list[float]]


@dataclass(frozen=True, slots=True)
class Result:
    """One comparison. Rates are million rows (or lookups) per second."""

    what: str
    dim: int
    pooling: int
    ids: str
    threads: int
    ours: float
    ours_best: float
    reference: float
    reference_best: float
    against: str

    @property
    def ratio(self) -> float:
        """Median over median."""
        return self.ours / self.reference

    @property
    def ratio_best(self) -> float:
        """Best over best."""
        return self.ours_best / self.reference_best


def draw(rows: int, n: int, skewed: bool, rng: np.random.Generator) -> Ids:
    """Draw ids (n,) in [0, rows): uniform, or Zipf with the popular ids spread over the table."""
    if not skewed:
        return rng.integers(0, rows, n)
    power = 1 - ZIPF
    rank = (1 + rng.random(n) * (float(rows) ** power - 1)) ** (1 / power) - 1
    scattered: Ids = (np.minimum(rank, rows - 1).astype(np.int64) * 2654435761 + 12345) % rows
    return scattered


def distinct(ids: Ids) -> Ids:
    """Keep the first of equal ids, in the order in which they come (as an exchange sends them)."""
    first = np.unique(ids, return_index=True)[1]
    return ids[np.sort(first)]


def aligned(rows: int, dim: int) -> NDArray[np.float32]:
    """Make a table (rows, dim) of ones that starts on a cache line, its memory all touched."""
    room = np.ones(rows * dim + 16, np.float32)
    skip = -room.ctypes.data % 64 // 4
    return room[skip : skip + rows * dim].reshape(rows, dim)


def filled_pad(
    rows: int, dim: int, threads: int, *, dynamic: bool = False, dtype: str = "fp32"
) -> Pad:
    """Make a pad with one table whose rows all exist."""
    spec = RowSpec(
        table=0,
        name="bench",
        dim=dim,
        rows=None if dynamic else rows,
        dtype=dtype,
        optimizer=RowWiseAdagrad(),
        init=Uniform(0.01),
    )
    pad = Pad([spec], threads=threads)
    for start in range(0, rows, CHUNK):
        ids = np.arange(start, min(rows, start + CHUNK))
        pad.release(pad.plan(SegmentedRequest.of([Segment(0, ids)]), train=True))
    return pad


def bags_of(ids: Ids, pooling: int) -> SegmentedRequest:
    """Ask for sums of `pooling` consecutive ids, or for rows as they are."""
    if pooling == 1:
        return SegmentedRequest.of([Segment(0, ids)])
    lengths = np.full(len(ids) // pooling, pooling, np.int32)
    return SegmentedRequest.of([Segment(0, ids, lengths)])


def interleave(calls: dict[str, Call], rounds: int) -> Seconds:
    """Let all calls take turns, `rounds` times; the first two rounds only warm up."""
    seconds: Seconds = {name: [] for name in calls}
    for turn in range(rounds + 2):
        for name, call in calls.items():
            start = time.perf_counter()
            call(turn)
            if turn >= 2:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def take_turns(ours: Call, loop: Callable[[int, int], object], rounds: int) -> Seconds:
    """Pick the loop's best prefetch distance, then let it and ours take turns.

    Two only, so that both find the caches as the other left them.
    """

    def at(distance: int) -> Call:
        return lambda turn: loop(turn, distance)

    trial = interleave({str(d): at(d) for d in DISTANCES}, 5)
    best = min(DISTANCES, key=lambda d: float(np.median(trial[str(d)])))
    return interleave({"ours": ours, "reference": at(best)}, rounds)


def compare(
    seconds: Seconds, work: float, ours: str, reference: str, against: str, **labels: Any
) -> Result:
    """Set ours against the reference. `work` is what one call does."""
    rate = [work / float(np.median(seconds[name])) / 1e6 for name in (ours, reference)]
    peak = [work / min(seconds[name]) / 1e6 for name in (ours, reference)]
    return Result(
        ours=rate[0],
        ours_best=peak[0],
        reference=rate[1],
        reference_best=peak[1],
        against=against,
        **labels,
    )
