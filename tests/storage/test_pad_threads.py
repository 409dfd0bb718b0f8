"""What a pad does, down to where rows lie, on any number of threads."""

import hashlib

import numpy as np
import pytest

from fourfold.storage import Pad, RowSpec, RowWiseAdagrad, Segment, SegmentedRequest, Uniform

SPACE = (50, 300_000, 10, 200_000, 10**12)  # ids of the tables; the first two are static
DTYPES = ("fp32", "bf16", "fp32", "fp16", "fp32")


def make_pad(threads: int) -> Pad:
    """Make a pad with few rows and many, static and dynamic, of all types."""
    specs = [
        RowSpec(
            table=table,
            name=f"t{table}",
            dim=8 * (1 + table % 2),
            dtype=dtype,
            rows=space if table < 2 else None,
            optimizer=RowWiseAdagrad(),
            init=Uniform(0.01),
        )
        for table, (space, dtype) in enumerate(zip(SPACE, DTYPES, strict=True))
    ]
    return Pad(specs, threads=threads)


def draw(n: int, weighted: bool, rng: np.random.Generator) -> list[Segment]:
    """Draw two segments of about n ids for each table: rows, or bags that name ids many times."""
    segments = []
    for table in np.repeat(range(5), 2).tolist():
        if rng.random() < 0.3:
            segments.append(Segment(table, rng.permutation(min(SPACE[table], 100_000))[:n]))
            continue
        skewed = (rng.zipf(1.15, n) % SPACE[table]).astype(np.int64)
        ids = skewed if table < 4 else rng.integers(0, SPACE[table], n)
        lengths = rng.multinomial(n, np.full(n // 7 + 2, 1 / (n // 7 + 2))).astype(np.int32)
        segments.append(
            Segment(table, ids, lengths, rng.random(n, np.float32) if weighted else None)
        )
    return segments


def trace(threads: int, n: int, weighted: bool) -> str:
    """Train, and read ids of which many have no row; a hash of all that can be seen."""
    rng = np.random.default_rng(n)
    pad = make_pad(threads)
    seen = hashlib.sha256()
    for step, train in enumerate((True, False, True), 1):
        segments = draw(n, weighted, rng)
        request = SegmentedRequest.of(segments)
        ticket = pad.plan(request, train)
        seen.update(repr((ticket.rows, ticket.unique, ticket.new, ticket.missing)).encode())
        rows = [len(s.ids) if s.lengths is None else len(s.lengths) for s in segments]
        replies = [
            np.zeros((count, pad.specs[s.tile].dim), np.float32)
            for count, s in zip(rows, segments, strict=True)
        ]
        pad.gather(ticket, request.addresses(replies), "fp32")
        for reply in replies:
            seen.update(reply.tobytes())
            reply += np.float32(0.01)
        if train:
            pad.update(ticket, request.addresses(replies), "fp32", 0.1, step)
        pad.release(ticket)
    for tile in range(5):
        for ids, records in pad.scan(tile):
            seen.update(ids.tobytes() + records.tobytes())
    return seen.hexdigest()


@pytest.mark.parametrize(
    ("n", "weighted"), [(1, True), (900, False), (20_000, True), (50_000, False)]
)
def test_threads_change_nothing(n: int, *, weighted: bool) -> None:
    one = trace(1, n, weighted)

    for threads in (2, 3, 7, 16):
        assert trace(threads, n, weighted) == one
