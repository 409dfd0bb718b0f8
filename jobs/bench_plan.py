"""Planning in `fourfold bench store`: pooled requests of multi-hot tables.

Tables are large, medium and tiny, with up to 100 ids a bag, Zipf. The limit is a copy of as many
bytes as a plan has to read and write: per lookup an id, and the slot, the address and the gradient
row that come of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from fourfold.jobs.bench_turns import Call, Result, Seconds, aligned, compare, draw, interleave
from fourfold.storage import (
    Pad,
    RowSpec,
    RowWiseAdagrad,
    Segment,
    SegmentedRequest,
    Uniform,
    _native,
)

SAMPLES = (2_048, 32_768)
TABLES = ((1.0, 100), (0.1, 27), (0.01, 12), (0.001, 1), (0.0, 1))
"""Share of the rows, and ids of a bag; of a share of 0, three rows."""
DIM = 16
BYTES_PER_LOOKUP = 8 + 4 + 8 + 8
BATCHES = 4


def sizes(rows: int) -> list[int]:
    """Rows of the tables."""
    return [max(3, int(rows * share)) for share, _ in TABLES]


def pooled_requests(rows: int, samples: int) -> list[SegmentedRequest]:
    """Draw BATCHES requests with a pooled segment for every table."""
    rng = np.random.default_rng(5)

    def segment(table: int) -> Segment:
        ids = TABLES[table][1]
        drawn = draw(sizes(rows)[table], samples * ids, True, rng)
        return Segment(table, drawn, np.full(samples, ids, np.int32))

    return [SegmentedRequest.of(list(map(segment, range(len(TABLES))))) for _ in range(BATCHES)]


def make_pad(rows: int, threads: int, *, dynamic: bool) -> Pad:
    """Make an empty pad for the tables."""
    specs = [
        RowSpec(
            table=table,
            name=f"bench{table}",
            dim=DIM,
            rows=None if dynamic else size,
            optimizer=RowWiseAdagrad(),
            init=Uniform(0.01),
        )
        for table, size in enumerate(sizes(rows))
    ]
    return Pad(specs, threads=threads)


def plan_turns(pad: Pad, requests: list[SegmentedRequest], threads: int, rounds: int) -> Seconds:
    """Time plans, whose rows have all been born before, and copies of the same bytes, in turns."""
    rows = BYTES_PER_LOOKUP * len(requests[0].ids) // 2 // (4 * DIM)  # a copy moves each byte twice
    source, target = aligned(rows, DIM).ravel(), aligned(rows, DIM).ravel()

    def plan(turn: int) -> None:
        pad.release(pad.plan(requests[turn % BATCHES], train=True))

    for turn in range(BATCHES):
        plan(turn)
    calls: dict[str, Call] = {
        "plan": plan,
        "copy": lambda _: _native.stream_copy(source, target, threads),
    }
    return interleave(calls, rounds)


def bench_plan(rows: int, threads: Sequence[int], rounds: int) -> Iterator[Result]:
    """Static and dynamic tables, small and large batches."""
    for samples in SAMPLES:
        requests = pooled_requests(rows, samples)
        for dynamic in (False, True):
            for n in threads:
                seconds = plan_turns(make_pad(rows, n, dynamic=dynamic), requests, n, rounds)
                yield compare(
                    seconds,
                    len(requests[0].ids),
                    "plan",
                    "copy",
                    "copy of as many bytes",
                    what=f"plan {samples} {'dynamic' if dynamic else 'static'}",
                    dim=DIM,
                    pooling=max(ids for _, ids in TABLES),
                    ids="zipf",
                    threads=n,
                )
