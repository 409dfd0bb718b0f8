"""What tables need whose rows come and go: the arithmetic, without a pad and without MPI."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest

from fourfold.comm.cut import Cut
from fourfold.comm.errors import PlacementError
from fourfold.comm.placement import Placement
from fourfold.runtime.cut_config import CutConfig, PlacementConfig
from fourfold.runtime.errors import ConfigError
from fourfold.runtime.load import INDEX_BYTES, TableLoad
from fourfold.runtime.table import EmbeddingConfig, TableConfig, complete_tables
from fourfold.runtime.turnover import Turnover, first_that_fits
from fourfold.storage import ReclaimConfig

ITEMS, USERS, SHOPS = 1_000, 50_000, 2_000
"""Rows of a static table, of one whose rows go, and of one whose rows stay."""
BATCHES, SAMPLES = 3, 300
OTHERS = (TableConfig(name="item", rows=ITEMS), TableConfig(name="shop", priority="high"))


def turnover(memory: int | None = None, *, user: dict[str, Any] | None = None, **reclaim: Any):
    """Three tables, each with an id per sample that never repeats."""
    own = TableConfig(name="user", **(user or {}))
    names = ["item", "shop", "user"]
    tables, _ = complete_tables([*OTHERS, own], EmbeddingConfig(dim=16), names)
    loads = (
        TableLoad(name="item", dim=16, rows=ITEMS),
        TableLoad(name="shop", dim=16, expected_rows=SHOPS),
        TableLoad(name="user", dim=16, expected_rows=USERS),
    )
    config = ReclaimConfig(**({"by": "kraken"} | reclaim))
    return Turnover(config, tables, loads, BATCHES, SAMPLES, memory)


ROW = TableLoad(name="user", dim=16, expected_rows=1).row_bytes(16)
FIXED = ITEMS * (ROW - INDEX_BYTES) + SHOPS * ROW


def kept(case: Turnover, ranks: int) -> list[int]:
    """Rows of `user` in each attempt; those of the others are all there."""
    attempts = list(case.attempts(ranks))
    assert all([a.held_rows for a in loads[:2]] == [ITEMS, SHOPS] for loads in attempts)
    return [loads[2].held_rows for loads in attempts]


def test_rows_that_stay_are_all_planned_for() -> None:
    case = turnover(by="none")

    assert not case.any
    assert kept(case, 2) == [USERS]


@pytest.mark.parametrize(
    ("reclaim", "memory", "room"),
    [
        ({"rows": 4_000}, None, 8_000),
        ({"bytes": 4_000 * ROW}, None, 8_000),
        ({"share": 0.5}, FIXED // 2 + 8_000 * ROW, 8_000),
        ({"rows": 4_000, "bytes": 5_000 * ROW}, FIXED + 10_000 * ROW, 8_000),
        ({"rows": 5_000, "bytes": 4_000 * ROW}, FIXED + 10_000 * ROW, 8_000),
        ({"rows": 10**6}, None, USERS),
    ],
    ids=["rows", "bytes", "memory", "fewest rows", "fewest bytes", "enough"],
)
def test_at_most_what_the_budgets_of_all_ranks_hold(
    reclaim: dict[str, Any], memory: int | None, room: int
) -> None:
    attempts = kept(turnover(memory, **reclaim), ranks=2)

    assert attempts[0] == pytest.approx(room, abs=10)
    assert attempts[0] <= room
    assert attempts[1] == pytest.approx(room / 2, abs=10)
    assert attempts[-1] == SAMPLES  # and at least the window


def test_the_window_is_never_given_up() -> None:
    assert kept(turnover(rows=10), 2) == [SAMPLES] * 4


@pytest.mark.parametrize(
    ("user", "least"),
    [
        ({"admission": "probability", "admit_probability": 0.5}, SAMPLES // 2),
        ({"admission": "bloom"}, 1),
        ({"admission": "count", "admit_count": 3}, 1),
    ],
)
def test_of_ids_that_may_be_refused_fewer_are_certain(user: dict[str, Any], least: int) -> None:
    assert kept(turnover(rows=10, user=user), 2)[-1] == least


def test_what_fits_first_is_taken() -> None:
    case = turnover(rows=4_000)

    def place(most: int):
        def attempt(loads: list[TableLoad]) -> str:
            if loads[2].held_rows > most:
                raise PlacementError(f"no room for {loads[2].held_rows}")
            return "placed"

        return attempt

    for most, rows in ((10_000, 8_000), (7_000, 4_000), (SAMPLES, SAMPLES)):
        loads, placed = first_that_fits(case.attempts(2), place(most))
        assert (loads[2].held_rows, placed) == (pytest.approx(rows, abs=10), "placed")
    with pytest.raises(PlacementError, match=f"no room for {SAMPLES}"):
        first_that_fits(case.attempts(2), place(SAMPLES - 1))


def test_memory_must_hold_what_stays() -> None:
    need = (ITEMS // 2) * (ROW - INDEX_BYTES) + (SHOPS + SAMPLES) // 2 * ROW
    turnover(need).check_memory(2)
    turnover(None).check_memory(2)
    turnover(1, by="none").check_memory(2)  # the planner says it
    with pytest.raises(ConfigError) as raised:
        turnover(need - 1).check_memory(2)
    message = str(raised.value)

    assert message.startswith("storage.host_bytes: the rows of 3 batches under way")
    assert re.search(r"take \S+ KiB on each of 2 embedding ranks: expected .* at least", message)
    assert "got " in message
    assert "lower train.batch_size or train.lookahead, or add embedding ranks" in message


def placed(case: Turnover, user: Cut) -> Placement:
    cuts = [Cut(ranks=(0,)), Cut(ranks=(1,)), user]
    return Placement.of([load.shape for load in case.loads], cuts, 4)


ROWS = Cut(rows=3, ranks=(1, 2, 3))


@pytest.mark.parametrize(
    ("cut", "user", "rows"),
    [
        (ROWS, {}, 100),
        (Cut(rows=3, columns=2, ranks=(1, 2, 3)), {}, 200),
        (Cut(ranks=(2,)), {}, 300),
        (ROWS, {"admission": "probability", "admit_probability": 0.5}, 50),
        (ROWS, {"priority": "high", "time_to_live": 9}, -(-USERS // 3)),
    ],
    ids=["rows", "columns", "whole", "half refused", "age alone"],
)
def test_a_budget_below_what_stays_is_named(cut: Cut, user: dict[str, Any], rows: int) -> None:
    row = ROW - INDEX_BYTES - (32 if cut.columns > 1 else 0)
    for name, enough in (("rows", rows), ("bytes", rows * row)):
        case = turnover(user=user, **{name: enough})
        case.on_ranks(placed(case, cut))
        few = turnover(user=user, **{name: enough - 1})
        with pytest.raises(ConfigError) as raised:
            few.on_ranks(placed(few, cut))
        message = str(raised.value)
        assert re.match(rf"reclaim.{name}: rank [12] must hold the rows of 3 batches", message)
        assert re.search(r"expected at least [\d,.]+( KiB| MiB)?, got [\d,.]+", message)
        if name == "rows":
            assert f"expected at least {rows:,}, got {rows - 1:,}; raise it" in message


def test_it_is_told_for_ranks_that_are_alike() -> None:
    case = turnover(8 << 20, rows=1_000_000, bytes="1MiB", share=0.9)
    case = replace(case, config=replace(case.config, bytes=1 << 20))
    found = case.on_ranks(placed(case, ROWS))

    assert found.protected.tolist() == [0, SHOPS, 0, 0]
    assert found.window.tolist() == [0, 100, 100, 100]
    budget = (
        "rows that come and go: budget 1,000,000 rows per rank, 1.00 MiB per rank,"
        " 90% of the memory that other rows leave; "
    )
    assert found.describe([1, 2, 3]) == [
        f"{budget}protected 2,000; window 100 (3 batches), on ranks 1",
        f"{budget}protected 0; window 100 (3 batches), on ranks 2-3",
    ]
    assert found.describe([2, 3]) == [f"{budget}protected 0; window 100 (3 batches)"]
    many = replace(found, window=found.window * range(4), protected=found.protected + range(4))
    assert len(many.describe(range(4))) == 4
    many = replace(many, protected=[*range(9)], window=[*range(0, 90, 10)])
    assert many.describe(range(9)) == [f"{budget}protected 0 to 8; window 0 to 80 (3 batches)"]


def test_tables_whose_rows_go_can_be_spread() -> None:
    case, wide = turnover(rows=9), CutConfig(rows=-1)

    assert case.spread(PlacementConfig()).tables == {"user": wide}
    own = PlacementConfig(tables={"user": CutConfig(columns=2)})
    assert case.spread(own) == own
    for theirs in (PlacementConfig(default=CutConfig()), PlacementConfig(path="p.toml")):
        assert case.spread(theirs) == theirs
