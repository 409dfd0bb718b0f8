"""A pad on tiers at its limits: no room, a failing disk, an early end, uses long ago."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pad_on_tiers
import pytest
from faulty_disk import FaultyTier
from numpy.typing import NDArray
from pad_on_tiers import (
    SMALL,
    MakePad,
    pads_on_tiers,
    requests,
    tile_specs,
    train,
    train_step,
)

from fourfold.storage import (
    SGD,
    BudgetError,
    Pad,
    RowSpec,
    Segment,
    SegmentedRequest,
    StorageError,
    Ticket,
    Uniform,
)
from fourfold.storage.tier import HostTier


@pytest.fixture
def make_pad(tmp_path: Path) -> Iterator[MakePad]:
    with pads_on_tiers(tmp_path) as make:
        yield make


def test_a_batch_beyond_the_pad_says_how_much_it_needs(make_pad: MakePad) -> None:
    spec = RowSpec(table=0, name="a", dim=64, rows=None, optimizer=SGD(), init=Uniform(0.1))
    pad = make_pad([spec], 40_000)
    small = SegmentedRequest.of([Segment(0, np.arange(50))])
    large = SegmentedRequest.of([Segment(0, np.arange(1000))])
    with pytest.raises(BudgetError, match=r"1000 ids, which need .* storage.pad_bytes is 39.1 KiB"):
        pad.try_plan(large, True)
    with pytest.raises(BudgetError) as error:
        pad.plan(large, True)
    needed = int(str(error.value).split("need ")[1].split("(")[1].split(" ")[0])
    train_step(pad, pad.plan(small, True), small, 1)
    enough = make_pad([spec], needed)
    train_step(enough, enough.plan(large, True), large, 1)


def test_a_full_host_tier_says_what_to_raise(make_pad: MakePad) -> None:
    spec = RowSpec(table=0, name="a", dim=64, rows=None, optimizer=SGD(), init=Uniform(0.1))
    pad = make_pad([spec], 40_000, host_bytes=100_000)
    batches = [SegmentedRequest.of([Segment(0, np.arange(n, n + 50))]) for n in range(0, 5000, 50)]
    with pytest.raises(BudgetError, match=r"host tier is full.*storage.host_bytes"):
        train(pad, batches, lookahead=0)


@pytest.mark.parametrize("what", ["read", "write"])
def test_a_failing_disk_reaches_whoever_waits(tmp_path: Path, what: str) -> None:
    specs = tile_specs()
    host = HostTier(specs, budget_bytes=400_000 + pad_on_tiers.beside(specs, 100_000))
    file = FaultyTier(specs, tmp_path / "f.h5", run="r", **SMALL)
    pad = Pad(specs, budget_bytes=100_000, host=host, file=file)
    batches = requests(6, 400)
    train(pad, batches[:60])
    if what == "read":
        file.faults.fail_next_read()
    else:
        file.faults.fail_next_write()
    with pytest.raises(StorageError, match=r"f\.h5"):
        train(pad, batches[60:])
    with pytest.raises(StorageError):  # and it stays so
        pad.try_plan(batches[0], True)
    pad.close()
    file.close()


def test_closing_with_work_under_way(make_pad: MakePad) -> None:
    pad = make_pad(tile_specs(), 400_000, "host+file", host_bytes=400_000)
    batches = requests(7, 40)
    train(pad, batches)
    tickets = [pad.try_plan(batch, True) for batch in batches[:4]]
    for ticket in tickets:
        if ticket is not None:
            pad.release(ticket)  # never trained, perhaps never fetched
    pad.close()
    pad.close()


def test_tiers_must_hold_the_same_tiles() -> None:
    specs = tile_specs()
    with pytest.raises(ValueError, match="other tiles"):
        Pad(specs, budget_bytes=10**6, host=HostTier(specs[:2]))


def test_rows_out_of_use_for_65_536_batches_leave_first() -> None:
    """Last uses are kept in 16 bits: what was long ago must not come to look recent."""
    spec = RowSpec(table=0, name="a", dim=16, rows=None, optimizer=SGD(), init=Uniform(0.1))
    pad = Pad([spec], budget_bytes=2**18, host=HostTier([spec]))
    old, often, new = np.arange(500), np.arange(500, 600), np.arange(1000, 2800)

    def touch(ids: NDArray[np.int64]) -> None:
        request = SegmentedRequest.of([Segment(0, ids.astype(np.int64))])
        ticket = pad.plan(request, True)
        pad.wait(ticket)
        pad.release(ticket)

    for ids, times in (often[:1], 40_000), (old, 1), (often[:1], 30_000), (often, 1):
        for _ in range(times):
            touch(ids)
    pad.take_traffic()
    for part in np.split(new, 8):
        touch(part)
    touch(often)
    assert pad.take_traffic().pad_hits > 0.9 * len(often)
    touch(old)
    assert pad.take_traffic().pad_hits < len(old) / 2
    pad.close()


def test_a_ticket_that_is_out_for_long_holds_its_own_rows_only() -> None:
    spec = RowSpec(table=0, name="a", dim=16, rows=None, optimizer=SGD(), init=Uniform(0.1))
    pad = Pad([spec], budget_bytes=2**18, host=HostTier([spec]))

    def plan(first: int, last: int) -> Ticket:
        ids = np.arange(first, last, dtype=np.int64)
        return pad.plan(SegmentedRequest.of([Segment(0, ids)]), True)

    for first in range(0, 1500, 500):
        pad.release(plan(first, first + 500))
    for batches in 20_000, 46_000:
        held = plan(0, 100)
        for _ in range(batches):
            pad.release(plan(1500, 1501))
        if batches == 20_000:
            pad.release(held)
    pad.take_traffic()
    pad.release(plan(2000, 3500))  # the others of the first 1,500 go
    pad.release(plan(0, 100))
    assert pad.take_traffic().pad_hits == 100
    pad.release(held)
    pad.close()
    pad.close()
