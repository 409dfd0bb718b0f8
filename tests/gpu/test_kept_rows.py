"""A pad that forgets rows keeps as many as its memory holds, on a GPU and on the CPU, and as many
as the planner says."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from device_pad import DevicePad
from reclaim_pad import Trainer, ids_of, spec

from fourfold.runtime.load import INDEX_BYTES, TableLoad
from fourfold.runtime.tiers import joint_budget
from fourfold.storage import Pad, ReclaimConfig, Segment, SegmentedRequest, StorageConfig
from fourfold.storage.tier import FileTier, HostTier

MIB = 1 << 20
SHARE = 0.95
LEAST = 0.92
"""Of the rows that fit. Rows are taken back from 0.95 of them on; blocks are taken whole."""
KINDS = {"cpu": Pad, "cuda": DevicePad}


def most_rows(pad: Pad, batch: int, budget: int) -> int:
    """The most rows that the pad, and the tier below it, ever had of endless new ids."""
    most = 0
    for step in range(250):
        request = SegmentedRequest.of([Segment(0, np.arange(step * batch, (step + 1) * batch))])
        ticket = pad.plan(request, True)
        pad.wait(ticket)
        pad.release(ticket)
        most = max(most, pad.rows)
        assert pad.bytes <= budget
    return most


def fitting(storage: StorageConfig, dim: int, device: Any) -> float:
    """Rows that fit, says the planner."""
    load = TableLoad(
        name="t", dim=dim, expected_rows=1, scored=True,
        index_bytes=INDEX_BYTES if device == "cpu" else 0,
    )  # fmt: skip
    room = joint_budget([load], storage, device)
    assert room is not None
    return room / load.row_bytes(dim)


@pytest.mark.parametrize("device", KINDS)
@pytest.mark.parametrize("dim", [4, 32])
def test_in_one_tier(dim: int, device: str) -> None:
    """The index of a GPU's rows is in host memory, so that the GPU's holds rows alone."""
    budget = MIB if dim == 4 else 4 * MIB
    fit = fitting(StorageConfig(host_bytes=budget), dim, device)
    pad = KINDS[device]([spec(dim=dim)], budget_bytes=budget,
                        reclaim=ReclaimConfig(by="recency", share=SHARE))  # fmt: skip
    batch = int(fit) // 100
    most = most_rows(pad, batch, budget)

    assert pad.population(0).reclaimed > fit
    assert LEAST * fit <= most <= 1.005 * fit
    if device == "cuda":
        assert most * (dim * 4 + 4) >= LEAST * budget
    pad.close()


@pytest.mark.parametrize("device", KINDS)
@pytest.mark.parametrize(
    ("pad_bytes", "host_bytes", "file_bytes"),
    [(8 * MIB, 10 * MIB, None), (8 * MIB, 24 * MIB, None), (MIB, 4 * MIB, 4 * MIB)],
    ids=["small host", "large host", "file"],
)
def test_with_tiers_below(
    pad_bytes: int, host_bytes: int, file_bytes: int | None, device: str, tmp_path: Path
) -> None:
    """What is kept beside a GPU's pad takes part of the host's: 3.6 of 10 MiB."""
    storage = StorageConfig(pad_bytes=pad_bytes, host_bytes=host_bytes, file_bytes=file_bytes)
    fit = fitting(storage, 32, device)
    specs = [spec(dim=32)]
    with contextlib.ExitStack() as stack:
        host, file = HostTier(specs, budget_bytes=host_bytes), None
        if file_bytes is not None:
            path = tmp_path / "rows.h5"
            file = stack.enter_context(FileTier(specs, path, run="r", budget_bytes=file_bytes))
        pad = KINDS[device](specs, budget_bytes=pad_bytes, host=host, file=file,
                            reclaim=ReclaimConfig(by="recency", share=SHARE))  # fmt: skip
        stack.callback(pad.close)
        most = most_rows(pad, int(fit) // 100, pad_bytes)

        assert pad.population(0).reclaimed > fit
        assert LEAST * fit <= most <= 1.005 * fit
        assert host.bytes <= host_bytes


@pytest.mark.parametrize("limit", [{"rows": 4000}, {"bytes": MIB // 2}], ids=["rows", "bytes"])
@pytest.mark.parametrize("by", ["recency", "importance"])
def test_budgets_with_room_for_the_same_rows_keep_the_same(by: Any, limit: Any) -> None:
    """A CPU's budget has the index, too. Where rows are limited, both keep the same, however large
    the budgets are; blocks are of one size here."""
    kept = []
    for device, budget in (("cpu", 2 * MIB), ("cuda", 2 * MIB), ("cuda", 3 * MIB)):
        policy = ReclaimConfig(by=by, share=1.0, **limit)
        pad = KINDS[device]([spec(dim=32)], budget_bytes=budget, reclaim=policy)
        run, rng = Trainer(pad), np.random.default_rng(0)
        for step in range(100):
            ids = np.unique(rng.zipf(1.3, 400) % 3000 + step * 90)
            run.batch(ids, gradient=float(rng.integers(1, 9)))
        assert pad.population(0).reclaimed > 3000
        kept.append(ids_of(pad))
        pad.close()

    assert kept[0] == kept[1] == kept[2]
    assert len(kept[0]) > 3000
