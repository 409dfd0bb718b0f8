"""Gather and update of `fourfold bench store`, against prefetching C++ loops over a plain table.

The loops (storage/native/bench_rows.cpp) look ahead as far as is best for them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from fourfold.jobs.bench_turns import (
    Ids,
    Result,
    Seconds,
    aligned,
    bags_of,
    compare,
    distinct,
    draw,
    filled_pad,
    take_turns,
)
from fourfold.storage import Pad, _native

LOOKUPS = 655_360  # per call, at any pooling


def bench_gather(rows: int, threads: Sequence[int], rounds: int) -> Iterator[Result]:
    """Rows and sums against the prefetching gather loop."""
    rng = np.random.default_rng(1)
    for dim in (64, 128):
        count = rows * 64 // dim
        table = aligned(count, dim)
        for n in threads:
            pad = filled_pad(count, dim, n)
            for skewed in (False, True):
                batches = [draw(count, LOOKUPS, skewed, rng) for _ in range(3)]
                for pooling in (1, 20):
                    seconds = gather_turns(pad, table, batches, pooling, n, rounds)
                    yield compare(
                        seconds,
                        LOOKUPS,
                        "ours",
                        "reference",
                        "gather loop",
                        what="gather",
                        dim=dim,
                        pooling=pooling,
                        ids="zipf" if skewed else "uniform",
                        threads=n,
                    )


def gather_turns(
    pad: Pad,
    table: NDArray[np.float32],
    batches: list[Ids],
    pooling: int,
    threads: int,
    rounds: int,
) -> Seconds:
    """Time ours and the loop, in turns, into buffers of the same size."""
    dim = table.shape[1]
    out, reply = aligned(LOOKUPS // pooling, dim), aligned(LOOKUPS // pooling, dim)
    requests = [bags_of(ids, pooling) for ids in batches]
    tickets = [pad.plan(request, train=False) for request in requests]
    addresses = requests[0].addresses([reply])

    def loop(turn: int, distance: int) -> None:
        ids = batches[turn % 3]
        _native.reference_gather(table, ids, pooling, distance, out.ravel(), threads)

    def ours(turn: int) -> None:
        pad.gather(tickets[turn % 3], addresses, "fp32")

    seconds = take_turns(ours, loop, rounds)
    for ticket in tickets:
        pad.release(ticket)
    return seconds


def bench_update(rows: int, threads: Sequence[int], rounds: int) -> Iterator[Result]:
    """Row-wise Adagrad of distinct rows against the prefetching read-modify-write loop."""
    rng = np.random.default_rng(2)
    for dim in (64, 128):
        count = rows * 64 // dim
        table, sums = aligned(count, dim), np.ones(count, np.float32)
        for n in threads:
            pad = filled_pad(count, dim, n)
            for skewed in (False, True):
                batches = [distinct(draw(count, LOOKUPS, skewed, rng)) for _ in range(3)]
                size = min(map(len, batches))
                batches = [ids[:size] for ids in batches]
                seconds = update_turns(pad, table, sums, batches, n, rounds)
                yield compare(
                    seconds,
                    size,
                    "ours",
                    "reference",
                    "update loop",
                    what="update",
                    dim=dim,
                    pooling=1,
                    ids="zipf" if skewed else "uniform",
                    threads=n,
                )


def update_turns(
    pad: Pad,
    table: NDArray[np.float32],
    sums: NDArray[np.float32],
    batches: list[Ids],
    threads: int,
    rounds: int,
) -> Seconds:
    """Time ours and the loop, in turns, with the same gradients."""
    gradient = aligned(len(batches[0]), table.shape[1])
    gradient[:] = 0.01
    requests = [bags_of(ids, 1) for ids in batches]
    tickets = [pad.plan(request, train=True) for request in requests]
    addresses = requests[0].addresses([gradient])

    def loop(turn: int, distance: int) -> None:
        ids = batches[turn % 3]
        _native.reference_update(table, sums, ids, gradient.ravel(), distance, threads)

    def ours(turn: int) -> None:
        pad.update(tickets[turn % 3], addresses, "fp32", 0.01, turn + 1)

    seconds = take_turns(ours, loop, rounds)
    for ticket in tickets:
        pad.release(ticket)
    return seconds
