"""What the tiers must hold: the arithmetic, without a pad and without MPI."""

from __future__ import annotations

import math
import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fourfold.comm.cut import Cut
from fourfold.comm.errors import PlacementError
from fourfold.comm.placement import Placement
from fourfold.runtime.load import TableLoad, Workload
from fourfold.runtime.row_cost import RowCost, file_memory
from fourfold.runtime.tiers import TierDemand, demand, joint_budget
from fourfold.storage import StorageConfig

ITEM = TableLoad(name="item", dim=64, rows=10_000, row_state_bytes=4)
USER = TableLoad(name="user", dim=16, expected_rows=20_000, row_state_bytes=4, lookups=3.0)


def ask(
    storage: StorageConfig,
    tables: tuple[TableLoad, ...] = (ITEM, USER),
    cuts: tuple[Cut, ...] = (Cut(rows=2, ranks=(0, 1)), Cut(ranks=(1,))),
    size: int = 3,
    batch: int = 100,
    lookahead: int = 3,
) -> TierDemand:
    placement = Placement.of([t.shape for t in tables], cuts, size)
    return demand(placement, tables, Workload(batch_size=batch), storage, lookahead)


def test_what_a_row_costs() -> None:
    """By hand: 256 bytes of weights, 4 of state, 4 of metadata, in blocks of 64 KiB."""
    storage = StorageConfig(pad_bytes="64MiB", host_bytes="64MiB")
    cost = RowCost.of(ITEM, 64, storage)

    assert cost.pad == 65536 / 248  # 248 rows of 264 bytes, 256 slots
    assert cost.pad_beside == (256 * 22 + 248 * 27) / 65536
    assert cost.host == 65536 / 237  # 237 of 272 + 4
    assert cost.host_beside == (256 * 16 + 237 * (27 + 24)) / 65536
    assert cost.file == pytest.approx(4096 / 14 / 0.95)  # pages with 14 of 264 + 16
    assert (cost.key, cost.place) == (0, 4)
    small = RowCost.of(ITEM, 64, StorageConfig(pad_bytes="1MiB"))
    assert small.pad == 16384 / 62
    large = RowCost.of(ITEM, 64, StorageConfig(pad_bytes="1GiB"))
    assert large.pad == 2**20 / 3971  # in blocks of a MiB
    user = RowCost.of(USER, 16, storage)
    assert user.file == pytest.approx(4096 / 46 / 0.95)
    assert (user.key, user.place) == (pytest.approx(36), 0)
    wide = RowCost.of(TableLoad(name="w", dim=2000, rows=1), 2000, storage)
    assert wide.file == pytest.approx(8192 / 0.95)


def in_pad(cost: RowCost) -> float:
    return cost.pad * (1 + cost.pad_beside)


def in_host(cost: RowCost) -> float:
    return cost.host * (1 + cost.host_beside)


def test_what_a_file_takes_of_host_memory() -> None:
    """By hand: a 64th of the file for reads, one for writes, a segment, and room to grow, of which
    most is for the index of a dynamic table."""
    storage = StorageConfig(pad_bytes="1MiB", host_bytes="8MiB", file_bytes="64MiB")
    costs = [RowCost.of(t, t.dim, storage) for t in (ITEM, USER)]
    written = (8 << 20) // 16 // 264 * 64
    assert file_memory(storage, costs) == (3 << 20) + 16384 + written + (512 << 10) + 8192
    assert file_memory(storage, costs[:1]) == (3 << 20) + 16384
    assert file_memory(storage, []) == 0
    assert file_memory(StorageConfig(pad_bytes="1MiB", host_bytes="8MiB"), costs) == 0


def test_rows_fill_the_tiers_from_the_fastest_down() -> None:
    storage = StorageConfig(pad_bytes="1MiB", host_bytes="11MiB", file_bytes="64MiB")
    found = ask(storage)
    item, user = costs = [RowCost.of(t, t.dim, storage) for t in (ITEM, USER)]

    assert list(found.tier_bytes) == ["pad", "host", "file"]
    assert found.rows.tolist() == [5_000, 25_000, 0]
    assert found.tier_bytes["pad"].tolist() == [2**20, 2**20, 0]
    items = (5_000 - 2**20 / in_pad(item)) * in_host(item)
    assert found.tier_bytes["host"][0] == math.ceil(
        items + file_memory(storage, [item]) * (1 + item.host_beside)
    )
    assert found.tier_bytes["file"][0] == 0
    # Of rank 1 the host tier is full: of rows, of a key for every user in the file, and of a place
    # for every item wherever it is.
    assert found.tier_bytes["host"][1] == 11 << 20
    pads, hosts = (1 + max(c.pad_beside for c in costs)), (1 + max(c.host_beside for c in costs))
    left = 1 - 2**20 / (pads * (5_000 * item.pad + 20_000 * user.pad))
    in_file = found.tier_bytes["file"][1] / (5_000 * item.file + 20_000 * user.file)
    assert 0 < in_file < left
    rows = (left - in_file) * hosts * (5_000 * item.host + 20_000 * user.host)
    index = in_file * 20_000 * user.key + 5_000 * item.place + file_memory(storage, costs)
    assert rows + hosts * index == pytest.approx(11 << 20, rel=1e-4)


@given(
    st.integers(1, 10**7), st.sampled_from([4, 64, 500]), st.integers(20, 40), st.integers(14, 30)
)
def test_every_row_is_somewhere_and_no_tier_is_overfull(
    rows: int, dim: int, host: int, pad: int
) -> None:
    table = TableLoad(name="t", dim=dim, rows=rows)
    storage = StorageConfig(pad_bytes=2**pad, host_bytes=2**host, file_bytes=2**50)
    cost = RowCost.of(table, dim, storage)
    beside = file_memory(storage, [cost]) * (1 + cost.host_beside)
    place = cost.place * (1 + cost.host_beside)
    left = max(0.0, rows - 2**pad / in_pad(cost))
    if left * in_host(cost) + beside > 2**host < beside + rows * place:
        with pytest.raises(PlacementError, match="for the index of the file"):
            ask(storage, (table,), (Cut(ranks=(0,)),), size=1)
        return
    found = ask(storage, (table,), (Cut(ranks=(0,)),), size=1).tier_bytes

    assert found["pad"][0] <= 2**pad
    assert found["host"][0] <= 2**host
    index = beside + (rows * place if found["file"][0] else 0)
    placed = found["pad"][0] / in_pad(cost) + found["file"][0] / cost.file
    placed += (found["host"][0] - index) / in_host(cost)
    assert placed == pytest.approx(rows, abs=0.1, rel=1e-6)


@pytest.mark.parametrize("last", ["host", "file"])
def test_rows_that_fit_no_tier_are_an_error_that_says_what_would_do(last: str) -> None:
    room = {"pad_bytes": 1 << 20, "host_bytes": 1792 << 10, "file_bytes": 2 << 20}
    if last == "host":
        del room["file_bytes"]
    with pytest.raises(PlacementError) as raised:
        ask(StorageConfig(**room))
    message = str(raised.value)

    assert (
        "the tiers of rank 1 are too small for its 25,000 rows (pad 1.00 MiB, host 1.75" in message
    )
    found = re.search(rf"raise storage\.{last}_bytes to ([\d.]+) MiB, or add", message)
    assert found is not None
    enough = int((float(found[1]) + 0.005) * 2**20)  # it is rounded to three digits
    enough += enough // 50 if last == "file" else 0  # a larger file has larger buffers
    assert ask(StorageConfig(**room | {f"{last}_bytes": enough})).tier_bytes[last][1] <= enough
    with pytest.raises(PlacementError):
        ask(StorageConfig(**room | {f"{last}_bytes": int(0.95 * enough)}))


def test_host_memory_must_hold_the_index_of_the_file() -> None:
    with pytest.raises(PlacementError, match=r"host_bytes to \d.* KiB for the index of the file"):
        ask(StorageConfig(pad_bytes="1MiB", host_bytes="300KiB", file_bytes="4MiB"))


@given(
    st.integers(1, 10**6), st.sampled_from([4, 64, 500]), st.integers(18, 40), st.integers(14, 30)
)
def test_the_planner_packs_what_fits(rows: int, dim: int, file: int, pad: int) -> None:
    """The joint budget of one table is exact: that many rows fit, some more do not."""
    storage = StorageConfig(pad_bytes=2**pad, host_bytes=2**28, file_bytes=2**file)
    static, expected = (rows, 0) if pad % 2 else (None, rows)
    table = TableLoad(name="t", dim=dim, rows=static, expected_rows=expected)
    joint = joint_budget([table], storage)
    assert joint is not None
    most = joint // table.row_bytes(dim)
    for number, fits in ((most, True), (most + most // 50 + 10, False)):
        full = replace(table, **{"rows" if static else "expected_rows": max(1, number)})
        if fits:
            ask(storage, (full,), (Cut(ranks=(0,)),), size=1)
        else:
            with pytest.raises(PlacementError):
                ask(storage, (full,), (Cut(ranks=(0,)),), size=1)


def test_the_joint_budget_of_a_mix_is_on_the_safe_side() -> None:
    storage = StorageConfig(pad_bytes="1MiB", host_bytes="4MiB", file_bytes="8MiB")
    joint = joint_budget([ITEM, USER], storage)

    assert joint is not None
    assert joint < 13 << 20
    counted = 5_000 * ITEM.row_bytes(64)
    mix = TableLoad(
        name="user",
        dim=16,
        expected_rows=(joint - counted) // USER.row_bytes(16),
        row_state_bytes=4,
    )
    ask(storage, (ITEM, mix))
    assert joint_budget([ITEM], StorageConfig(host_bytes=77)) == 77
    assert joint_budget([ITEM], StorageConfig()) is None
    assert joint_budget([ITEM], StorageConfig(pad_bytes=77)) is None


def test_memory_of_a_gpu_holds_rows_alone() -> None:
    """By hand: blocks of 128 KiB have 1,560 rows of 84 bytes; on a CPU there is an index, too."""
    storage = StorageConfig(host_bytes="8MiB")
    row = 64 + 16 + 4
    wide = replace(USER, dim=16, row_state_bytes=16)
    there = replace(wide, index_bytes=0)

    assert wide.row_bytes(16) == row + 27
    assert there.row_bytes(16) == row
    assert joint_budget([wide], storage) == 8 << 20
    assert joint_budget([there], storage, "cuda") == int((8 << 20) * 1560 * row / 131072)
    below = StorageConfig(pad_bytes="8MiB", host_bytes="32MiB")
    more = joint_budget([there], below, "cuda")
    assert more is not None
    assert more > (8 << 20)


@pytest.mark.parametrize("file", [None, "64MiB"])
def test_time_and_score_of_rows_below_the_pad_take_host_memory(file: str | None) -> None:
    """By hand: 27 bytes each, and all that is known of rows in a file a quarter of what is free."""
    storage = StorageConfig(pad_bytes="1MiB", host_bytes="16MiB", file_bytes=file)
    scored = replace(USER, scored=True)
    cost, plain = (RowCost.of(table, 16, storage) for table in (scored, USER))
    assert cost.host == plain.host + 27
    assert cost.key == plain.key + 27
    room = joint_budget([scored], storage)
    assert room is not None

    free = (16 << 20) / (1 + cost.host_beside) - file_memory(storage, [cost])
    in_file = 0.25 * free / cost.key if file else 0
    rows = (1 << 20) / in_pad(cost) + in_file + (free - in_file * cost.key) / cost.host
    assert room // scored.row_bytes(16) == pytest.approx(rows, abs=2)
    kept = replace(scored, expected_rows=int(rows) - 10)
    ask(storage, (kept,), (Cut(ranks=(0,)),), size=1)
    wide = replace(scored, dim=500)
    narrow = replace(ITEM, dim=1, rows=100)
    assert joint_budget([wide, narrow], storage) is not None


def test_a_host_tier_without_limit_takes_all() -> None:
    found = ask(StorageConfig(pad_bytes="1MiB"))

    assert list(found.tier_bytes) == ["pad", "host"]
    assert found.tier_bytes["host"][1] > 2**20


def test_the_pad_that_a_batch_needs() -> None:
    """All ids distinct: 100 of item over two ranks, 300 of user on one; then four such batches."""
    storage = StorageConfig(pad_bytes="1GiB")
    found = ask(storage)
    item, user = (RowCost.of(t, t.dim, storage) for t in (ITEM, USER))

    assert found.ahead == 3
    for pad, times in ((found.batch_pad, 1), (found.ahead_pad, 4)):
        n, m = 50 * times, 300 * times
        assert pad[0] == math.ceil(1.25 * in_pad(item) * (n + 3 * math.sqrt(n)) + 65536)
        spread = 3 * math.sqrt(item.pad**2 * n + user.pad**2 * m)
        rows = item.pad * n + user.pad * m + spread
        beside = 1 + max(item.pad_beside, user.pad_beside)
        assert pad[1] == math.ceil(1.25 * beside * rows + 65536)
        assert pad[2] == 0


def test_no_pad_needs_to_be_larger_than_its_tables() -> None:
    storage = StorageConfig(pad_bytes="1GiB")
    found = ask(storage, batch=10**6)
    whole = 5_000 * in_pad(RowCost.of(ITEM, 64, storage))

    assert found.batch_pad[0] == found.ahead_pad[0] == math.ceil(1.25 * whole + 65536)


def test_ids_that_repeat_need_a_smaller_pad() -> None:
    storage = StorageConfig(pad_bytes="1GiB")
    tables = tuple(
        TableLoad(name="t", dim=16, rows=10**6, growth=growth) for growth in (1.0, 0.8, 0.5)
    )
    pads = [ask(storage, (t,), (Cut(ranks=(0,)),), size=1, batch=4096) for t in tables]

    assert np.all(np.diff([p.batch_pad[0] for p in pads]) < 0)
    for pad in pads:  # batches share rows
        assert pad.batch_pad[0] < pad.ahead_pad[0] <= 4 * pad.batch_pad[0]


def test_it_is_told_in_one_line() -> None:
    storage = StorageConfig(pad_bytes="32KiB", host_bytes="40MiB", file_bytes="1GiB")
    text = ask(storage).describe(storage)

    assert text.startswith("tiers of a rank, when full: pad 32.0 KiB, host ")
    assert re.search(r"; a batch needs a pad of \S+ KiB, 4 batches \S+ KiB", text)
    assert text.endswith("storage.pad_bytes = 32.0 KiB seems too small")
    assert "small" not in ask(storage, batch=2, lookahead=0).describe(
        StorageConfig(pad_bytes="80KiB", host_bytes="40MiB", file_bytes="1GiB")
    )
