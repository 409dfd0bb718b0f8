"""The pad never takes more than it was given, and says what is missing."""

import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fourfold.storage import (
    SGD,
    Adagrad,
    BudgetError,
    Pad,
    RowSpec,
    Segment,
    SegmentedRequest,
    StorageError,
    Uniform,
)


def spec_of(table: int, rows: int | None, dim: int = 64) -> RowSpec:
    return RowSpec(
        table=table, name=f"t{table}", dim=dim, rows=rows, optimizer=SGD(), init=Uniform(1.0)
    )


def create(pad: Pad, tile: int, ids: np.ndarray) -> None:
    pad.release(pad.plan(SegmentedRequest.of([Segment(tile, ids)]), True))


@settings(max_examples=60, deadline=None)
@given(
    budget=st.integers(0, 6 << 20),
    huge=st.booleans(),
    batches=st.lists(st.tuples(st.integers(0, 2), st.integers(1, 4000)), max_size=8),
)
def test_never_exceeded(budget: int, huge: bool, batches: list[tuple[int, int]]) -> None:
    try:
        specs = [spec_of(0, 9000), spec_of(1, None), spec_of(2, None, 8)]
        pad = Pad(specs, budget_bytes=budget, huge_pages=huge)
    except BudgetError:
        assert budget < 64 << 10
        return
    rng = np.random.default_rng(0)
    for tile, n in batches:
        before = pad.rows
        try:
            create(pad, tile, rng.permutation(9000)[:n])
        except BudgetError:
            # What was created is whole, what was not can still be read.
            assert pad.rows >= before
        assert pad.bytes <= budget
    for tile in range(3):
        ids = np.arange(9000)
        expected = Pad(specs).weights(tile, ids)
        assert (pad.weights(tile, ids) == expected).all()


def fill(pad: Pad, tile: int, rows: int, batch: int = 4000) -> None:
    """Create rows until there is no room."""
    for start in range(0, rows, batch):
        create(pad, tile, np.arange(start, start + batch))


@pytest.mark.parametrize("rows", [10**7, None])
def test_rows_fill_most_of_the_budget(rows: int | None) -> None:
    budget = 8 << 20
    pad = Pad([spec_of(0, rows)], budget_bytes=budget)
    with pytest.raises(BudgetError):
        fill(pad, 0, 10**7)
    bitmap = 0 if rows is None else rows // 8
    assert pad.rows * 260 > 0.8 * (budget - bitmap)


def test_the_message_names_budget_use_need_and_table() -> None:
    pad = Pad([spec_of(7, None)], budget_bytes=1 << 20)
    with pytest.raises(BudgetError) as caught:
        create(pad, 0, np.arange(10**5))
    text = str(caught.value)
    assert "table 't7' (bucket 0 of 1, columns 0:64) needs 16.0 KiB (16384 bytes) more" in text
    assert "the storage budget is 1.0 MiB (1048576 bytes)" in text
    assert "are in use; raise storage.host_bytes" in text
    assert isinstance(caught.value, StorageError)
    assert isinstance(caught.value, MemoryError)


def test_freed_memory_serves_another_table_with_larger_blocks() -> None:
    """A table in blocks of 64 KiB, then 200 small ones in blocks of 4 KiB, then the first again."""
    small = [spec_of(table, 2000, 1) for table in range(1, 201)]
    pad = Pad([spec_of(0, 10**6, 512), *small], budget_bytes=4 << 20)

    def fill_large() -> int:
        with pytest.raises(BudgetError):
            fill(pad, 0, 10**6, batch=100)
        return pad.tile_rows(0)

    large = fill_large()
    assert large * 2052 > 3 << 20
    assert pad.erase(0, np.arange(10**6)) == large
    for tile in range(1, 201):
        create(pad, tile, np.arange(2000))
        assert pad.tile_bytes(tile) < 6 * 4096
    for tile in range(1, 201):
        pad.erase(tile, np.arange(2000))
    assert fill_large() == large


def resident() -> int:
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize("huge", [True, False])
def test_resident_memory_is_what_is_counted(huge: bool) -> None:
    budget = 200 << 20
    before = resident()
    pad = Pad([spec_of(0, 10**7), spec_of(1, None)], budget_bytes=budget, huge_pages=huge)
    fill(pad, 0, 400_000)
    with pytest.raises(BudgetError):
        fill(pad, 1, 10**7)
    grown = resident() - before
    assert pad.bytes <= budget
    # Plans and the test's own arrays come on top.
    assert grown < budget + (40 << 20)
    assert grown > budget // 2
    del pad
    assert resident() < before + (40 << 20)


def test_row_bytes_are_what_rows_take() -> None:
    spec = RowSpec(table=0, name="t", dim=64, rows=10**5, optimizer=Adagrad(), init=Uniform(1.0))
    assert spec.row_bytes == 64 * 4 * 2 + 4
    pad = Pad([spec])
    create(pad, 0, np.arange(10**5))
    assert spec.row_bytes * 10**5 <= pad.tile_bytes(0) < 1.03 * spec.row_bytes * 10**5


def test_the_index_counts() -> None:
    rows = 200_000
    pad = Pad([spec_of(0, None, dim=1)])
    create(pad, 0, np.arange(rows))
    # A key and its slot take 12 bytes, and an index is not full.
    assert pad.bytes - pad.tile_bytes(0) > 15 * rows
    with pytest.raises(BudgetError, match="the index of the dynamic tables needs"):
        fill(Pad([spec_of(0, None, dim=1)], budget_bytes=pad.bytes * 2 // 3), 0, rows)
