"""What rows are said to cost, against what they take of a real pad, host tier and file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from fourfold.runtime.load import INDEX_BYTES, TableLoad
from fourfold.runtime.row_cost import RESERVE, TABLE_BYTES, RowCost, file_memory
from fourfold.storage import (
    BudgetError,
    Pad,
    RowSpec,
    RowWiseAdagrad,
    Segment,
    SegmentedRequest,
    StorageConfig,
    Uniform,
)
from fourfold.storage.tier import FileTier, HostTier, Tier

MOST = 400_000
"""Rows of the static table."""
ROOM = {"pad_bytes": 4 << 20, "host_bytes": 8 << 20, "file_bytes": 8 << 20}
TOLERANCE = 0.05
"""Fewer rows may fit than are said to, as a share: the last block of each kind may be left over."""
KINDS = [(dim, rows) for dim in (4, 64, 500) for rows in (None, MOST)]


def specs(dim: int, rows: int | None) -> list[RowSpec]:
    return [
        RowSpec(
            table=0, name="t", dim=dim, rows=rows, optimizer=RowWiseAdagrad(), init=Uniform(0.01)
        )
    ]


def cost_of(dim: int, rows: int | None, storage: StorageConfig) -> RowCost:
    load = TableLoad(name="t", dim=dim, rows=rows, expected_rows=MOST, row_state_bytes=4)
    return RowCost.of(load, dim, storage)


def chunks(count: int) -> Iterator[NDArray[np.int64]]:
    for first in range(0, MOST, count):
        yield np.arange(first, min(MOST, first + count))


def fill(tier: Tier) -> int:
    """Write rows until no more fit; gives how many did."""
    for ids in chunks(512):
        try:
            tier.write(0, ids, np.zeros(len(ids), tier.specs[0].record))
        except BudgetError:
            return tier.rows
    raise AssertionError("the tier is never full")


def near(real: float, said: float) -> bool:
    return (1 - TOLERANCE) * said <= real <= (1 + TOLERANCE) * said


@pytest.mark.parametrize(("dim", "rows"), KINDS)
def test_rows_of_the_pad(dim: int, rows: int | None) -> None:
    storage = StorageConfig(pad_bytes=ROOM["pad_bytes"])
    cost = cost_of(dim, rows, storage)
    said = ROOM["pad_bytes"] / (cost.pad * (1 + cost.pad_beside))
    host = HostTier(specs(dim, rows))
    pad = Pad(specs(dim, rows), budget_bytes=ROOM["pad_bytes"], host=host)
    for ids in chunks(256):
        ticket = pad.plan(SegmentedRequest.of([Segment(0, ids)]), True)
        pad.wait(ticket)
        pad.release(ticket)
        if pad.rows > 2 * said:
            break
    real = pad.rows - host.rows  # the others had to go
    pad.close()

    assert near(real, said)


@pytest.mark.parametrize(("dim", "rows"), KINDS)
def test_rows_of_the_host_tier(dim: int, rows: int | None) -> None:
    storage = StorageConfig(pad_bytes=ROOM["pad_bytes"], host_bytes=ROOM["host_bytes"])
    cost = cost_of(dim, rows, storage)
    host = HostTier(specs(dim, rows), budget_bytes=ROOM["host_bytes"])

    assert near(fill(host), ROOM["host_bytes"] / (cost.host * (1 + cost.host_beside)))


@pytest.mark.parametrize(("dim", "rows"), KINDS)
def test_rows_of_the_file_and_the_memory_that_it_takes(
    dim: int, rows: int | None, tmp_path: Path
) -> None:
    storage = StorageConfig(**ROOM)
    cost = cost_of(dim, rows, storage)
    with FileTier(
        specs(dim, rows), tmp_path / "r.h5", run="r", budget_bytes=ROOM["file_bytes"]
    ) as file:
        empty = file.memory_bytes
        real = fill(file)
        taken = file.memory_bytes

    assert near(real, ROOM["file_bytes"] / cost.file)
    buffers = file_memory(storage, [cost_of(dim, MOST, storage)]) - TABLE_BYTES
    if rows is not None and rows * cost.place <= INDEX_BYTES * real:
        assert near(empty, buffers + rows * cost.place)
        assert taken == empty
        return
    # Few rows of a large table are indexed like those of a dynamic one.
    assert near(empty, buffers)
    assert 0.75 < (taken - empty) / (real * INDEX_BYTES) <= 1
    if rows is None:
        assert cost.key == RESERVE * INDEX_BYTES
    assert taken <= file_memory(storage, [cost]) + real * cost.key + MOST * cost.place


@pytest.mark.parametrize("dynamic", [True, False])
def test_the_least_host_memory_beside_a_file(dynamic: bool, tmp_path: Path) -> None:
    """With less than is said no pad can be made; with more than that and a block it can."""
    rows = None if dynamic else 1_000

    def make(host_bytes: int, path: Path) -> None:
        host = HostTier(specs(64, rows), budget_bytes=host_bytes)
        with FileTier(specs(64, rows), path, run="r", budget_bytes=ROOM["file_bytes"]) as file:
            pad = Pad(specs(64, rows), budget_bytes=ROOM["pad_bytes"], host=host, file=file)
            pad.close()

    def said(host_bytes: int) -> float:
        storage = StorageConfig(**(ROOM | {"host_bytes": host_bytes}))
        cost = cost_of(64, rows, storage)
        return file_memory(storage, [cost]) * (1 + cost.host_beside) + cost.place * 1_000

    enough = least(said)
    make(int(enough * 1.04) + (64 << 10), tmp_path / "enough.h5")
    with pytest.raises(BudgetError):
        make(int(enough * 0.96), tmp_path / "few.h5")


def least(said: Callable[[int], float]) -> int:
    """Find the budget that is what is said of it."""
    low, high = 1 << 10, 1 << 30
    while high - low > 1 << 10:
        middle = (low + high) // 2
        low, high = (middle, high) if said(middle) > middle else (low, middle)
    return high
