"""The pad as a window on tiers below it: rows are the same bits as with all of them in one tier."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from faulty_disk import FaultyTier
from numpy.typing import NDArray

from fourfold.storage import (
    FTRL,
    SGD,
    Adagrad,
    Adam,
    BudgetError,
    Optimizer,
    Pad,
    RowSpec,
    RowWiseAdagrad,
    RowWiseAdam,
    Segment,
    SegmentedRequest,
    StorageError,
    Ticket,
    Uniform,
)
from fourfold.storage.tier import FileTier, HostTier

MakePad = Callable[..., Pad]
OPTIMIZERS = [SGD(), Adagrad(), RowWiseAdagrad(), Adam(), RowWiseAdam(), FTRL()]
LOOKAHEAD = 3
IDS = 500
SMALL: dict[str, Any] = {"buffer_bytes": 2**14, "segment_bytes": 2**14}


def tile_specs(optimizer: Optimizer | None = None, dtype: str = "fp32") -> list[RowSpec]:
    """Static and dynamic tiles of three sizes of rows; two tiles of one table."""
    shared: dict[str, Any] = {
        "optimizer": optimizer or RowWiseAdagrad(),
        "init": Uniform(0.1),
        "dtype": dtype,
    }
    return [
        RowSpec(table=0, name="a", dim=16, rows=IDS, **shared),
        RowSpec(table=1, name="b", dim=16, rows=None, **shared),
        RowSpec(table=2, name="c", dim=40, rows=None, **shared),
        RowSpec(table=2, name="c", dim=24, column=40, rows=None, **shared),
    ]


@pytest.fixture
def make_pad(tmp_path: Path) -> Iterator[MakePad]:
    """Make a pad with `tiers` of "host" or "host+file"; closes all of them."""
    closing: list[Pad | FileTier] = []

    def make(
        specs: list[RowSpec],
        budget_bytes: int,
        tiers: str = "host",
        host_bytes: int = 2**23,
        **options: Any,
    ) -> Pad:
        host = HostTier(specs, budget_bytes=host_bytes)
        file = None
        if tiers == "host+file":
            path = tmp_path / f"{len(closing)}.h5"
            file = FileTier(specs, path, run="r", **SMALL, **options)
        pad = Pad(specs, budget_bytes=budget_bytes, host=host, file=file, threads=2)
        closing.append(pad)
        if file is not None:
            closing.append(file)
        return pad

    yield make
    for each in closing:
        each.close()


def requests(seed: int, steps: int, ids: int = 40) -> list[SegmentedRequest]:
    """Batches of skewed ids that drift; two requesters ask for the first table."""
    rng = np.random.default_rng(seed)

    def draw(step: int) -> NDArray[np.int64]:
        drawn = (rng.zipf(1.2, ids) + step) % IDS
        return np.unique(drawn).astype(np.int64)

    found = []
    for step in range(steps):
        shared = draw(step)
        segments = [Segment(0, draw(step)), Segment(0, draw(step)), Segment(1, draw(step))]
        segments += [Segment(2, shared), Segment(3, shared)]
        found.append(SegmentedRequest.of(segments))
    return found


def train_step(
    pad: Pad, ticket: Ticket, request: SegmentedRequest, step: int
) -> list[NDArray[np.float32]]:
    """Gather, update with gradients that depend on the step only, release."""
    rows = np.diff(request.bags)
    dims = [pad.specs[tile].dim for tile in request.tile]
    out = [np.empty((n, dim), np.float32) for n, dim in zip(rows, dims, strict=True)]
    pad.wait(ticket)
    pad.gather(ticket, request.addresses(out), "fp32")
    rng = np.random.default_rng(step)
    gradients = [rng.standard_normal(o.shape, np.float32) for o in out]
    pad.update(ticket, request.addresses(gradients), "fp32", 0.1, step)
    pad.release(ticket)
    return out


def train(
    pad: Pad, batches: list[SegmentedRequest], *, foresee: bool = True, lookahead: int = LOOKAHEAD
) -> list[list[NDArray[np.float32]]]:
    """Train on all batches, planning as far ahead as there is room; gives what was gathered."""
    tickets: list[Ticket] = []
    replies = []
    planned = foreseen = 0
    for step, batch in enumerate(batches):
        while planned < min(len(batches), step + lookahead + 1):
            while foresee and foreseen < min(len(batches), planned + 2 * lookahead):
                pad.foresee(batches[foreseen])
                foreseen += 1
            ticket = pad.try_plan(batches[planned], True)
            if ticket is None and tickets:
                break
            if ticket is None:
                pad.wait_for_room(1)
                continue
            tickets.append(ticket)
            planned += 1
        replies.append(train_step(pad, tickets.pop(0), batch, step + 1))
    return replies


def contents(pad: Pad) -> list[dict[int, bytes]]:
    """All rows of each tile, as bytes by id."""
    return [
        {
            int(id): record.tobytes()
            for ids, records in pad.scan(tile)
            for id, record in zip(ids, records, strict=True)
        }
        for tile in range(len(pad.specs))
    ]


def smallest_pad(make_pad: MakePad, specs: list[RowSpec], batches: list[SegmentedRequest]) -> int:
    """The least budget that trains one batch at a time."""
    low, high = 16 << 10, 4 << 20
    while high - low > 4096:
        middle = (low + high) // 2
        try:
            pad = make_pad(specs, middle)
            for batch in batches:
                pad.release(pad.plan(batch, True))
            high = middle
        except BudgetError:
            low = middle
    return high


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
    pad = make_pad(tile_specs(), 100_000, "host+file", host_bytes=500_000)
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
    host = HostTier(specs, budget_bytes=500_000)
    with FileTier(specs, tmp_path / "f.h5", run="r", budget_bytes=2**20, **SMALL) as file:
        pad = Pad(specs, budget_bytes=100_000, host=host, file=file)
        for step, batch in enumerate(requests(3, 200)):
            train_step(pad, pad.plan(batch, True), batch, step + 1)
            assert pad.bytes <= 100_000
            assert host.bytes <= 500_000
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
    batches = [SegmentedRequest.of([Segment(0, np.arange(n, n + 60))]) for n in (0, 1000, 2000, 0)]
    one = Pad([spec])
    expected = train(one, batches, lookahead=0)
    pad = make_pad([spec], 60_000)
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
    pad = make_pad(specs, 100_000, "host+file", host_bytes=400_000)
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
    host = HostTier(specs, budget_bytes=400_000)
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
