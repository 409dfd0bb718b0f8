"""The pad as a window on tiers below it: rows are the same bits as with all of them in one tier."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pad_on_tiers
import pytest
from pad_on_tiers import (
    SMALL,
    MakePad,
    contents,
    pads_on_tiers,
    requests,
    smallest_pad,
    tile_specs,
    train,
    train_step,
)

from fourfold.storage import (
    FTRL,
    SGD,
    Adagrad,
    Adam,
    Optimizer,
    Pad,
    RowSpec,
    RowWiseAdagrad,
    RowWiseAdam,
    Segment,
    SegmentedRequest,
    Uniform,
)
from fourfold.storage.tier import FileTier, HostTier

OPTIMIZERS = [SGD(), Adagrad(), RowWiseAdagrad(), Adam(), RowWiseAdam(), FTRL()]


@pytest.fixture
def make_pad(tmp_path: Path) -> Iterator[MakePad]:
    with pads_on_tiers(tmp_path) as make:
        yield make


@pytest.mark.parametrize("tiers", ["host", "host+file"])
@pytest.mark.parametrize("dtype", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda o: type(o).__name__)
def test_weights_are_the_bits_of_one_tier(
    make_pad: MakePad, optimizer: Optimizer, dtype: str, tiers: str
) -> None:
    specs = tile_specs(optimizer, dtype)
    batches = requests(1, 60)
    one = Pad(specs)
    expected = train(one, batches)
    smallest = smallest_pad(make_pad, specs, batches)
    for budget in (smallest, 2 * smallest, 8 * smallest):
        pad = make_pad(specs, budget, tiers, host_bytes=500_000 if tiers != "host" else 2**23)
        got = train(pad, batches)
        for a, b in zip(got, expected, strict=True):
            assert all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))
        assert contents(pad) == contents(one)
        assert [pad.tile_rows(t) for t in range(4)] == [one.tile_rows(t) for t in range(4)]


@pytest.mark.parametrize("tiers", ["host", "host+file"])
def test_many_seeds(make_pad: MakePad, tiers: str) -> None:
    specs = tile_specs()
    for seed in range(20):
        batches = requests(seed, 25)
        one = Pad(specs)
        expected = train(one, batches)
        for lookahead in (0, 1, 5):
            pad = make_pad(specs, 90_000 + 7_000 * seed, tiers, host_bytes=400_000)
            got = train(pad, batches, lookahead=lookahead, foresee=seed % 2 == 0)
            for a, b in zip(got, expected, strict=True):
                assert all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))
            assert contents(pad) == contents(one)


def test_every_tier_is_used(make_pad: MakePad) -> None:
    pad = make_pad(tile_specs(), 100_000, "host+file", host_bytes=350_000)
    train(pad, requests(0, 150))
    traffic = pad.take_traffic()
    assert traffic.pad_hits > 0
    assert traffic.host_hits > 0
    assert traffic.file_hits > 0
    assert traffic.born == pad.rows
    assert traffic.file_read_bytes > 0
    assert traffic.file_written_bytes > 0
    assert pad.take_traffic().pad_hits == 0


@pytest.mark.parametrize("cycle", range(840, 1040, 20))
def test_rows_dropped_from_host_memory_while_they_are_planned(
    make_pad: MakePad, cycle: int
) -> None:
    """Ids in turn: those asked for are the oldest in host memory, and leave it for victims."""
    spec = RowSpec(table=0, name="a", dim=64, rows=None, optimizer=SGD(), init=Uniform(0.1))
    plain = Pad([spec], budget_bytes=2**22)
    pad = make_pad([spec], 100_000, "host+file", host_bytes=400_000)
    for step in range(1, 60):
        ids = np.arange(step * 100, step * 100 + 100) % cycle
        request = SegmentedRequest.of([Segment(0, np.repeat(ids, 2), np.full(100, 2, np.int32))])
        expected, found = (
            train_step(p, p.plan(request, True), request, step)[0] for p in (plain, pad)
        )
        assert np.array_equal(found, expected)
    traffic = pad.take_traffic()
    assert traffic.born == cycle
    assert traffic.pad_hits + traffic.host_hits + traffic.file_hits == 59 * 200 - cycle


def test_budgets_hold(make_pad: MakePad, tmp_path: Path) -> None:
    specs = tile_specs()
    host_bytes = 500_000 + pad_on_tiers.beside(specs, 100_000)
    host = HostTier(specs, budget_bytes=host_bytes)
    with FileTier(specs, tmp_path / "f.h5", run="r", budget_bytes=2**20, **SMALL) as file:
        pad = Pad(specs, budget_bytes=100_000, host=host, file=file)
        for step, batch in enumerate(requests(3, 200)):
            train_step(pad, pad.plan(batch, True), batch, step + 1)
            assert pad.bytes <= 100_000
            assert host.bytes <= host_bytes
            assert file.bytes <= 2**20
        pad.close()


def test_foresight_moves_fewer_rows(make_pad: MakePad) -> None:
    batches = requests(5, 200)
    moved = {}
    for foresee in (False, True):
        pad = make_pad(tile_specs(), 120_000)
        train(pad, batches, foresee=foresee)
        moved[foresee] = pad.take_traffic().host_hits
    assert moved[True] < 0.95 * moved[False]


def test_a_planned_row_stays_until_its_batch_has_trained(make_pad: MakePad) -> None:
    """A pad with room for two batches of three: the third waits for the first."""
    spec = RowSpec(table=0, name="a", dim=64, rows=None, optimizer=SGD(), init=Uniform(0.1))
    parts = (np.arange(n, n + 120) for n in (0, 1000, 2000, 0))
    batches = [SegmentedRequest.of([Segment(0, ids)]) for ids in parts]
    one = Pad([spec])
    expected = train(one, batches, lookahead=0)
    pad = make_pad([spec], 90_000)
    first, second = (pad.try_plan(batch, True) for batch in batches[:2])
    assert first is not None
    assert second is not None
    assert pad.try_plan(batches[2], True) is None
    got = [train_step(pad, first, batches[0], 1)]
    third = pad.try_plan(batches[2], True)
    assert third is not None
    got.append(train_step(pad, second, batches[1], 2))
    fourth = pad.try_plan(batches[3], True)  # its rows left when the third came
    assert fourth is not None
    got += [train_step(pad, third, batches[2], 3), train_step(pad, fourth, batches[3], 4)]
    for a, b in zip(got, expected, strict=True):
        assert np.array_equal(a[0], b[0])


@pytest.mark.parametrize("tiers", ["host", "host+file"])
def test_reading_sees_every_tier_and_moves_nothing(make_pad: MakePad, tiers: str) -> None:
    specs = tile_specs()
    batches = requests(2, 60)
    one, pad = Pad(specs), make_pad(specs, 100_000, tiers, host_bytes=400_000)
    train(one, batches)
    train(pad, batches)
    before = pad.take_traffic()
    assert before.host_hits > 0
    for batch in batches:
        replies = []
        for each in (one, pad):
            ticket = each.plan(batch, False)
            dims = [specs[tile].dim for tile in batch.tile]
            out = [
                np.empty((n, d), np.float32) for n, d in zip(np.diff(batch.bags), dims, strict=True)
            ]
            each.wait(ticket)
            each.gather(ticket, batch.addresses(out), "fp32")
            each.release(ticket)
            replies.append(out)
        assert all(np.array_equal(a, b) for a, b in zip(*replies, strict=True))
    unseen = SegmentedRequest.of([Segment(1, np.arange(10**6, 10**6 + 5))])
    assert pad.plan(unseen, False).missing == 5
    assert pad.take_traffic().host_hits == 0


def test_reading_needs_no_room(make_pad: MakePad) -> None:
    spec = RowSpec(table=0, name="a", dim=64, rows=None, optimizer=SGD(), init=Uniform(0.1))
    pad = make_pad([spec], 30_000)
    old = SegmentedRequest.of([Segment(0, np.arange(50))])
    train_step(pad, pad.plan(old, True), old, 1)
    held = pad.plan(SegmentedRequest.of([Segment(0, np.arange(1000, 1060))]), True)
    assert pad.try_plan(old, True) is None
    ticket = pad.try_plan(old, False)
    assert ticket is not None
    assert ticket.missing == 0
    pad.release(ticket)
    pad.release(held)


def test_rows_by_id_wherever_they_are(make_pad: MakePad) -> None:
    specs = tile_specs()
    pad = make_pad(specs, 100_000, "host+file", host_bytes=350_000)
    train(pad, requests(4, 60))
    ids = np.sort(np.concatenate([ids for ids, _ in pad.scan(1)]))
    before, found = pad.read(1, ids)
    assert found.all()
    changed = before.copy()
    changed["weights"] += 1
    for start in range(0, len(ids), 16):
        pad.write(1, ids[start : start + 16], changed[start : start + 16])
    assert pad.read(1, ids)[0].tobytes() == changed.tobytes()
    assert pad.erase(1, ids[::2]) == len(ids[::2])
    assert pad.erase(1, ids[::2]) == 0
    assert pad.read(1, ids)[1].tolist() == [i % 2 == 1 for i in range(len(ids))]
    assert pad.tile_rows(1) == len(ids[1::2])
