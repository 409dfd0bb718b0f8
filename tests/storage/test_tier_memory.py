"""A process that trains over tables beyond its memory takes what its tiers were given."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from fourfold.storage import SGD, Pad, RowSpec, Segment, SegmentedRequest, Ticket, Uniform
from fourfold.storage.tier import FileTier, HostTier

MIB = 1 << 20
PAD, HOST, FILE = 24 * MIB, 48 * MIB, 512 * MIB
DIM, ROWS, BATCH = 64, 800_000, 12_000
SLACK = 24 * MIB
"""For tickets, the batches that are moved, and the buffers of the test."""


def resident() -> int:
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def spec_of(rows: int | None) -> RowSpec:
    return RowSpec(table=0, name="t", dim=DIM, rows=rows, optimizer=SGD(), init=Uniform(1.0))


def train(pad: Pad, ticket: Ticket, request: SegmentedRequest, rows: NDArray[np.float32]) -> None:
    """One step whose gradients are the rows: a table that forgets nothing shrinks by halves."""
    addresses = request.addresses([rows])
    pad.wait(ticket)
    pad.gather(ticket, addresses, "fp32")
    pad.update(ticket, addresses, "fp32", 0.5, 1)
    pad.release(ticket)


@pytest.mark.parametrize("rows", [ROWS, None], ids=["static", "dynamic"])
def test_resident_memory_stays_within_the_tiers(tmp_path: Path, rows: int | None) -> None:
    rng = np.random.default_rng(0)
    order = np.arange(ROWS) if rows is None else rng.permutation(ROWS)
    reply = np.ones((BATCH, DIM), np.float32)
    spec = spec_of(rows)
    before = most = resident()
    host = HostTier([spec], budget_bytes=HOST)
    path = tmp_path / "rows.h5"
    with FileTier([spec], path, run="r", budget_bytes=FILE) as file:
        pad = Pad([spec], budget_bytes=PAD, host=host, file=file, threads=2)
        tickets: list[tuple[Ticket, SegmentedRequest]] = []
        batches = [order[at : at + BATCH] for at in range(0, ROWS - BATCH + 1, BATCH)]
        batches += [rng.choice(order[: ROWS // 2], BATCH, replace=False) for _ in range(20)]
        for ids in batches:
            request = SegmentedRequest.of([Segment(0, ids)])
            while (ticket := pad.try_plan(request, True)) is None:
                if tickets:
                    train(pad, *tickets.pop(0), reply)
                else:
                    pad.wait_for_room(1.0)
            tickets.append((ticket, request))
            most = max(most, resident())
            assert pad.bytes <= PAD
            assert host.bytes <= HOST
            assert file.bytes <= FILE
        for out in tickets:
            train(pad, *out, reply)
        assert pad.rows * spec.record.itemsize > 2 * (PAD + HOST)
        assert most - before < PAD + HOST + SLACK
        assert most - before > (PAD + HOST) // 2
        pad.close()
