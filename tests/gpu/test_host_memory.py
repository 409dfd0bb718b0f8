"""Host memory that is kept beside the rows of a GPU: what is said of it, charged, and taken."""

from __future__ import annotations

import gc
import os

import gpu
import numpy as np
import pytest
from device_pad import DevicePad

from fourfold.runtime.load import TableLoad
from fourfold.runtime.row_cost import RowCost, pad_memory
from fourfold.storage import (
    BudgetError,
    Pad,
    ReclaimConfig,
    RowSpec,
    RowWiseAdagrad,
    Segment,
    SegmentedRequest,
    StorageConfig,
    Uniform,
    _native,
)
from fourfold.storage.tier import HostTier

MIB = 1 << 20
PAD = 32 * MIB
DIM, BATCH, MOST = 14, 8192, 600_000
"""A row takes 72 bytes: slots of a block, which are a power of two, are nearly all in use."""
TOLERANCE = 0.06
"""Of what is said: indexes take up to so much less than the most that a key can."""
SLACK = 2 * MIB
"""Windows of batches and lists of free slots, which nobody counts, on a CPU neither."""


def resident() -> int:
    """Bytes of this process; those of the stand-in's device are there as soon as they are taken."""
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def spec_of(rows: int | None) -> RowSpec:
    return RowSpec(
        table=0, name="t", dim=DIM, rows=rows, optimizer=RowWiseAdagrad(), init=Uniform(0.01)
    )


def cost_of(rows: int | None, storage: StorageConfig) -> RowCost:
    load = TableLoad(name="t", dim=DIM, rows=rows, expected_rows=MOST, row_state_bytes=4)
    return RowCost.of(load, DIM, storage, "cuda")


def plan(pad: Pad, first: int, count: int) -> None:
    request = SegmentedRequest.of([Segment(0, np.arange(first, first + count))])
    ticket = pad.plan(request, True)
    pad.wait(ticket)
    pad.release(ticket)


def fill(pad: Pad, count: int) -> int:
    """So many rows, a batch at a time; gives the bytes that the process took for them."""
    plan(pad, 0, BATCH)  # whatever is allocated once
    before = resident()
    for first in range(BATCH, count, BATCH):
        plan(pad, first, min(BATCH, count - first))
    return (resident() - before) * count // (count - BATCH)


def near(real: float, said: float, slack: float = 0) -> bool:
    return (1 - TOLERANCE) * said <= real <= (1 + TOLERANCE) * said + slack


@pytest.mark.parametrize(
    ("rows", "reclaims"), [(MOST, False), (None, False), (None, True)],
    ids=["static", "dynamic", "reclaimed"],
)  # fmt: skip
def test_beside_the_only_tier(rows: int | None, reclaims: bool) -> None:
    cost = cost_of(rows, StorageConfig(host_bytes=PAD))
    reclaim = ReclaimConfig(by="recency", share=0.99) if reclaims else None
    device = gpu.open_device("stand-in", _native)
    pad = Pad([spec_of(rows)], budget_bytes=PAD, device=device, reclaim=reclaim)
    count = int(0.97 * PAD / cost.pad)
    taken = fill(pad, 2 * count if reclaims else count)

    said = pad.rows * cost.pad * cost.pad_in_host
    assert pad.bytes <= PAD
    if reclaims:  # an index grows when it must
        assert 0.8 * said < pad.beside_bytes <= said
        assert taken <= said + SLACK
    else:
        assert near(pad.beside_bytes, said)
        assert near(taken, said, SLACK)


@pytest.mark.parametrize("rows", [MOST, None], ids=["static", "dynamic"])
def test_beside_a_pad_with_tiers_below(rows: int | None) -> None:
    storage = StorageConfig(pad_bytes=PAD, host_bytes=64 * MIB)
    said = pad_memory(storage, [cost_of(rows, storage)])
    device = gpu.open_device("stand-in", _native)
    host = HostTier([spec_of(rows)], budget_bytes=64 * MIB)
    before = host.bytes
    pad = Pad([spec_of(rows)], budget_bytes=PAD, device=device, host=host)
    charged = host.bytes - before
    taken = fill(pad, int(0.97 * PAD / cost_of(rows, storage).pad))
    pad.close()

    assert charged == pad.beside_bytes
    assert host.bytes == before + charged  # all of it before the first row came
    assert near(charged, said)
    assert near(taken, said, SLACK)


def test_a_host_tier_that_has_no_room_for_it_is_refused() -> None:
    """With 3% less than is said no pad can be made; with 2% more it can."""

    def make(host_bytes: int) -> None:
        host = HostTier([spec_of(None)], budget_bytes=host_bytes)
        device = gpu.open_device("stand-in", _native)
        Pad([spec_of(None)], budget_bytes=PAD, device=device, host=host).close()

    def needed(host_bytes: int) -> float:
        storage = StorageConfig(pad_bytes=PAD, host_bytes=host_bytes)
        cost = cost_of(None, storage)
        return pad_memory(storage, [cost]) * (1 + cost.host_beside)

    enough = int(needed(64 * MIB))
    make(int(enough * 1.02))
    with pytest.raises(BudgetError, match=r"beside the pad needs .* raise storage.host_bytes"):
        make(int(enough * 0.97))


def test_a_pad_that_goes_gives_it_back() -> None:
    specs = [spec_of(None)]
    host = HostTier(specs, budget_bytes=24 << 20)
    before = host.bytes
    for _ in range(2):
        pad = DevicePad(specs, budget_bytes=8 << 20, host=host)
        assert host.bytes > before
        pad.close()
        del pad
        gc.collect()
        assert host.bytes == before


def test_blocks_that_change_hands_leave_nothing_behind() -> None:
    """Metadata is a third of narrow rows: their table has all blocks, then others have them."""
    budget, dims = 6 * MIB, (1, 64, 12)
    specs = [
        RowSpec(table=t, name=f"t{t}", dim=dim, rows=int(0.9 * budget / (4 * dim + 8)),
                optimizer=RowWiseAdagrad(), init=Uniform(0.01))
        for t, dim in enumerate(dims)
    ]  # fmt: skip
    pad = Pad(specs, budget_bytes=budget, device=gpu.open_device("stand-in", _native))
    empty = pad.beside_bytes
    for tile in (0, 1, 2, 1, 2, 1, 2):
        rows = specs[tile].rows
        assert rows is not None
        batches = [np.arange(n, min(n + BATCH, rows)) for n in range(0, rows, BATCH)]
        for ids in batches:
            pad.release(pad.plan(SegmentedRequest.of([Segment(tile, ids)]), True))
        metadata, full = pad.beside_bytes - empty, resident()
        assert metadata >= 4 * rows
        for ids in batches:
            pad.erase(tile, ids)
        assert pad.beside_bytes == empty
        assert full - resident() > 0.9 * metadata
    pad.close()
