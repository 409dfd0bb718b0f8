"""Suggestions: what is worth it, and when a sample cannot tell."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fourfold.runtime.statistics import Kind, Setting, Statistics, TableStatistics
from fourfold.runtime.suggestion import suggest


def setting(kind: Kind, value: float, rows: int, cold: float) -> Setting:
    return Setting(kind=kind, value=value, rows=rows, row_bytes=99 * rows, refused=0.1, cold=cold)


TABLE = TableStatistics(
    name="user",
    features=("user",),
    dynamic=True,
    share=1.0,
    lookups=100_000,
    bags=100_000,
    distinct=1000,
    once=0.4,
    unique=100.0,
    growth=0.5,
    reuse=(),
    gaps=99_000,
    gap_samples=(1, 2, 3, 4),
    gap_batches=(0, 1, 5, 20),
    settings=(
        setting("always", 0, 1000, 0.0),
        setting("count", 2, 600, 0.02),
        setting("count", 3, 500, 0.04),
        setting("probability", 0.1, 300, 0.06),
        setting("time_to_live", 5, 200, 0.01),
        setting("time_to_live", 20, 400, 0.001),
    ),
)
WHOLE = Statistics(samples=100_000, batch_size=1000, batches=100, complete=False, tables=(TABLE,))


def test_the_fewest_rows_that_cost_little() -> None:
    best = suggest(WHOLE, TABLE)

    assert (best.admission.kind, best.admission.value) == ("count", 3)
    assert "saves 50% of 1,000 rows" in best.admission_reason
    assert best.time_to_live is not None
    assert best.time_to_live.value == 20
    assert "400 of 1,000 rows live at a time" in best.time_to_live_reason


def test_admission_that_costs_much_or_saves_little() -> None:
    dear = replace(TABLE, settings=(TABLE.settings[0], setting("count", 2, 100, 0.051)))
    slight = replace(TABLE, settings=(TABLE.settings[0], setting("count", 2, 801, 0.0)))

    for table in (dear, slight):
        best = suggest(WHOLE, table)
        assert best.admission.kind == "always"
        assert "even count 2 saves" in best.admission_reason
        assert best.time_to_live is None
        assert best.time_to_live_reason == "no id comes again"


@pytest.mark.parametrize(
    ("table", "batches", "reason"),
    [
        (replace(TABLE, gaps=9999), 100, "9,999 gaps are too few"),
        (TABLE, 39, "too short: 99.9% of the gaps in it are up to 20 of its 39 batches"),
        (TABLE, 40, ""),
        (
            replace(TABLE, settings=(*TABLE.settings[:-1], setting("time_to_live", 20, 801, 0.0))),
            100,
            "20 would save 20% of the rows",
        ),
    ],
)
def test_time_to_live_that_the_sample_cannot_tell(
    table: TableStatistics, batches: int, reason: str
) -> None:
    best = suggest(replace(WHOLE, batches=batches), table)

    assert (best.time_to_live is None) == bool(reason)
    assert reason in best.time_to_live_reason


def test_tables_for_which_there_is_nothing_to_say() -> None:
    static = replace(TABLE, dynamic=False, settings=TABLE.settings[:1])
    empty = replace(TABLE, settings=(setting("always", 0, 0, 0.0),), gaps=0)
    huge = replace(TABLE, name="huge", settings=(setting("always", 0, 10**6, 0.0),))

    assert "from the start" in suggest(WHOLE, static).admission_reason
    assert (
        suggest(replace(WHOLE, tables=(empty,)), empty).admission_reason == "no id in this sample"
    )
    small = suggest(replace(WHOLE, tables=(TABLE, huge)), TABLE)
    assert small.admission.kind == "always"
    assert small.admission_reason == "its rows are 0.1% of the memory"
