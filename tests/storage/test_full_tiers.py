"""A host tier that fills up while a batch is planned: whoever found no room stays in the pad."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fourfold.storage import (
    BudgetError,
    Pad,
    RowSpec,
    RowWiseAdagrad,
    Segment,
    SegmentedRequest,
    Ticket,
    Uniform,
)
from fourfold.storage.tier import FileTier, HostTier

SPECS = [
    RowSpec(table=t, name="t", dim=dim, rows=None, optimizer=RowWiseAdagrad(), init=Uniform(0.1))
    for t, dim in enumerate((16, 40, 24))
]
"""Two shelves in each tier or more."""


def train(pad: Pad, ticket: Ticket, batch: SegmentedRequest, step: int) -> None:
    """Update the rows of a batch with gradients that depend on the step only."""
    pad.wait(ticket)
    rng = np.random.default_rng(step)
    dims = [SPECS[tile].dim for tile in batch.tile]
    rows = np.diff(batch.bags)
    gradients = [rng.standard_normal(n, np.float32) for n in zip(rows, dims, strict=True)]
    pad.update(ticket, batch.addresses(gradients), "fp32", 0.1, step)
    pad.release(ticket)


def contents(pad: Pad) -> list[dict[int, bytes]]:
    """All rows of each tile, as bytes by id."""
    return [
        {
            int(id): record.tobytes()
            for ids, records in pad.scan(tile)
            for id, record in zip(ids, records, strict=True)
        }
        for tile in range(len(SPECS))
    ]


def new_rows(step: int, ids: int = 50) -> SegmentedRequest:
    """A batch of rows that no other batch has, of all sizes."""
    drawn = np.arange(step * ids, (step + 1) * ids)
    return SegmentedRequest.of([Segment(tile, drawn) for tile in range(3)])


def one_tier(batches: list[SegmentedRequest]) -> list[dict[int, bytes]]:
    """What rows are after these batches."""
    pad = Pad(SPECS)
    for step, batch in enumerate(batches):
        train(pad, pad.plan(batch, True), batch, step + 1)
    found = contents(pad)
    pad.close()
    return found


def train_until_full(pad: Pad, batches: list[SegmentedRequest]) -> list[SegmentedRequest]:
    """Train on batches until one finds no room; gives those before."""
    for step, batch in enumerate(batches):
        try:
            ticket = pad.plan(batch, True)
        except BudgetError:
            return batches[:step]
        train(pad, ticket, batch, step + 1)
    raise AssertionError("there was room for all")


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("host_bytes", range(200_000, 320_000, 20_000))
def test_a_refused_batch_changes_no_row(host_bytes: int, threads: int) -> None:
    host = HostTier(SPECS, budget_bytes=host_bytes)
    pad = Pad(SPECS, budget_bytes=200_000, host=host, threads=threads)
    trained = train_until_full(pad, [new_rows(step) for step in range(100)])
    with pytest.raises(BudgetError, match="host tier is full"):
        pad.plan(new_rows(100), True)
    assert contents(pad) == one_tier(trained)
    again = trained[-1]
    train(pad, pad.plan(again, True), again, len(trained) + 1)
    assert contents(pad) == one_tier([*trained, again])
    pad.close()


def test_a_batch_that_waits_for_the_file_loses_no_row(tmp_path: Path) -> None:
    host = HostTier(SPECS, budget_bytes=600_000)
    file = FileTier(SPECS, tmp_path / "f.h5", run="r", buffer_bytes=2**14, segment_bytes=2**14)
    pad = Pad(SPECS, budget_bytes=300_000, host=host, file=file, threads=2)
    batches = [new_rows(step % 25, 100) for step in range(50)]
    waits = 0
    for step, batch in enumerate(batches):
        while (ticket := pad.try_plan(batch, True)) is None:
            waits += 1
            pad.wait_for_room(1)
        train(pad, ticket, batch, step + 1)
    assert waits > 0
    assert contents(pad) == one_tier(batches)
    pad.close()
    file.close()


@pytest.mark.parametrize("host_bytes", range(200_000, 320_000, 20_000))
def test_rows_that_give_way_to_others_are_moved(host_bytes: int) -> None:
    host = HostTier(SPECS, budget_bytes=host_bytes)
    pad = Pad(SPECS, budget_bytes=300_000, host=host)
    small = [SegmentedRequest.of([Segment(0, np.arange(n, n + 100))]) for n in range(0, 1200, 100)]
    large = [SegmentedRequest.of([Segment(1, np.arange(n))]) for n in range(100, 5000, 100)]
    trained = train_until_full(pad, small + large)
    assert contents(pad) == one_tier(trained)
    pad.close()
