"""Budgets: nobody gets more bytes than another, and every split uses what it is given."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fourfold.jobs.study.memory import (
    INDEX_BYTES,
    SPLITS,
    Budget,
    TableUse,
    row_bytes,
    split_rows,
)
from fourfold.runtime.errors import ConfigError

TABLES = [
    TableUse(distinct=50_000, lookups=100_000, recurring=20_000),
    TableUse(distinct=9_000, lookups=100_000, recurring=8_000),
    TableUse(distinct=300, lookups=100_000, recurring=300, closed=310),
    TableUse(distinct=20, lookups=100_000, recurring=20, closed=20),
]


@pytest.mark.parametrize("optimizer", ["adam", "rowwise_adagrad", "sgd"])
@pytest.mark.parametrize("share", [0.05, 0.2, 1.0])
@pytest.mark.parametrize("split", SPLITS)
def test_no_contender_exceeds_the_budget(split: str, share: float, optimizer: str) -> None:
    distinct = sum(table.distinct for table in TABLES)
    row = row_bytes(16, optimizer)
    budget = Budget.of(share, distinct, 16, optimizer)
    rows = split_rows(split, TABLES, budget.hashed_rows)

    assert budget.bytes <= share * distinct * (row + INDEX_BYTES)
    assert sum(rows) * (row - 4) <= budget.bytes
    # and hardly anything is left over
    assert sum(rows) >= 0.999 * budget.hashed_rows


@given(
    tables=st.lists(
        st.builds(
            TableUse,
            distinct=st.integers(1, 10_000),
            lookups=st.integers(1, 10_000),
            recurring=st.integers(0, 5_000),
            closed=st.sampled_from([0, 0, 50]),
        ),
        min_size=1,
        max_size=6,
    ),
    rows=st.integers(1, 50_000),
    split=st.sampled_from(list(SPLITS)),
)
@example(
    tables=[TableUse(distinct=1, lookups=1, recurring=0, closed=0)] * 2, rows=5, split="recurring"
)
def test_a_split_gives_every_table_a_row_and_no_more_than_there_is(
    tables: list[TableUse], rows: int, split: str
) -> None:
    try:
        got = split_rows(split, tables, rows)
    except ConfigError:
        return

    assert sum(got) <= rows
    assert all(1 <= n <= table.most_rows for n, table in zip(got, tables, strict=True))


def test_splits_are_by_their_weights() -> None:
    assert split_rows("distinct", TABLES, 5_932)[:2] == pytest.approx((5_000, 900), rel=0.01)
    big, small, *_ = split_rows("lookups", TABLES, 4_000)
    assert big == pytest.approx(small, rel=0.01)
    assert split_rows("protected", TABLES, 6_000)[2:] == (310, 20)


def test_too_little_memory_is_an_error() -> None:
    with pytest.raises(ConfigError, match="too few"):
        split_rows("distinct", TABLES, 3)


@pytest.mark.parametrize(("dim", "ratio"), [(8, 2.4), (16, 2.7), (64, 2.9)])
def test_row_wise_adagrad_takes_a_fraction_of_adams_bytes(dim: int, ratio: float) -> None:
    assert row_bytes(dim, "adam") == 4 * (3 * dim + 1)
    assert row_bytes(dim, "adam") / row_bytes(dim, "rowwise_adagrad") >= ratio
