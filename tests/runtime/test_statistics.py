"""Statistics on disk, and matched to the tables of a job."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from measured_job import PLENTY, ROWS, write_job

from fourfold.runtime.config import Job, load_job
from fourfold.runtime.errors import ConfigError
from fourfold.runtime.measurement import measure
from fourfold.runtime.statistics import (
    Statistics,
    TableStatistics,
    load_statistics,
    match_tables,
)
from fourfold.runtime.table import complete_tables


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Job:
    monkeypatch.chdir(tmp_path)
    write_job(tmp_path)
    return load_job("job.toml")


def made(**values: Any) -> Statistics:
    table = TableStatistics(
        name="people",
        features=("user", "friend"),
        dynamic=True,
        share=1.0,
        lookups=1000,
        bags=900,
        distinct=400,
        once=0.5,
        unique=30.0,
        growth=0.5,
        reuse=(),
        gaps=600,
        gap_samples=(),
        gap_batches=(),
        settings=(),
    )
    known = {"samples": 500, "batch_size": 50, "batches": 10, "complete": False, "tables": (table,)}
    return Statistics(**{**known, **values})


@given(
    samples=st.integers(1, 10**7),
    distinct=st.integers(0, 10**7),
    growth=st.floats(0, 1),
    complete=st.booleans(),
)
def test_expected_rows(samples: int, distinct: int, growth: float, complete: bool) -> None:
    """At least what was seen, in proportion at most; all data hold no more."""
    statistics = made(complete=complete)
    table = dataclasses.replace(statistics.tables[0], distinct=distinct, growth=growth)
    seen = max(1, distinct)

    assert statistics.expected_rows(table, None) == seen
    rows = statistics.expected_rows(table, samples)
    assert seen <= rows <= max(1, -(-distinct * max(500, samples) // 500) + 1)
    if complete or samples <= 500:
        assert rows == seen


def test_rows_grow_with_the_exponent() -> None:
    statistics = made()

    assert statistics.expected_rows(statistics.tables[0], 2000) == 800


def test_it_reads_back_equal(job: Job, tmp_path: Path) -> None:
    statistics = measure(job, samples=ROWS, memory_bytes=PLENTY)
    statistics.save(tmp_path / "stats.json")

    assert load_statistics(tmp_path / "stats.json") == statistics


Change = Callable[[dict[str, Any]], object]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("format"), "not a file of `fourfold stats`"),
        (lambda t: t.update(format="fourfold.data"), "not a file of `fourfold stats`"),
        (lambda t: t.update(version=2), "version 2, this Fourfold reads 1"),
        (lambda t: t.pop("version"), "version None"),
        (lambda t: t.update(samples=0), "samples: expected at least 1, got 0"),
        (lambda t: t.update(batches="many"), "batches: expected a whole number, got"),
        (lambda t: t.update(tables=3), "tables: expected a list"),
        (lambda t: t["tables"][0].pop("unique"), r"tables\.people\.unique: missing"),
        (lambda t: t["tables"][0].update(unik=1), "unik: unknown key; nearest valid key"),
        (lambda t: t["tables"][0].update(distinct=-1), r"tables\.people\.distinct: expected 0 to"),
        (lambda t: t["tables"][0].update(unique=101), "unique: expected 0 to 100, got 101"),
        (lambda t: t["tables"][0].update(growth=1.5), "growth: expected 0 to 1, got 1.5"),
        (lambda t: t["tables"][0].update(bags=1001), "bags: expected 0 to 1000"),
        (lambda t: t["tables"].append(t["tables"][0]), "people: is there twice"),
        (lambda t: t["tables"][0].update(distinct=float("nan")), "not valid JSON: NaN is no"),
        (lambda t: t["tables"][0].update(once=float("inf")), "not valid JSON: Infinity is no"),
    ],
)
def test_a_wrong_file_is_named_with_its_key(change: Change, message: str, tmp_path: Path) -> None:
    path = tmp_path / "stats.json"
    made().save(path)
    tree = json.loads(path.read_text())
    change(tree)
    path.write_text(json.dumps(tree))

    with pytest.raises(ConfigError, match=message) as error:
        load_statistics(path)
    assert str(error.value).startswith(str(path))


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, "\xff", "[]", "3", '{"format": 1}'])
def test_what_is_no_statistics_at_all(text: str, tmp_path: Path) -> None:
    path = tmp_path / "stats.json"
    path.write_bytes(text.encode("latin-1"))

    with pytest.raises(ConfigError, match=r"stats\.json: not "):
        load_statistics(path)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"cannot be read: No such file.*fourfold stats JOB --out"
    ):
        load_statistics(tmp_path / "stats.json")
    with pytest.raises(ConfigError, match="cannot be written"):
        made().save(tmp_path / "no" / "stats.json")


def test_tables_of_another_job(job: Job) -> None:
    tables, _ = complete_tables(job.table, job.embedding, ("user", "friend", "item"))
    known = measure(job, samples=ROWS, memory_bytes=PLENTY)
    people, item = known.tables
    swapped = dataclasses.replace(known, tables=(item, people))
    assert match_tables(swapped, tables, "s.json") == (people, item)

    for others, message in (
        ((people,), r"s\.json: has no table 'item', which the job has: run `fourfold stats`"),
        (
            (people, dataclasses.replace(item, name="items")),
            "no table 'item', which the job has; nearest: items",
        ),
        (
            (people, dataclasses.replace(item, features=("goods",))),
            "'item' is of features goods there and of item in the job",
        ),
        (
            (people, item, dataclasses.replace(item, name="shop")),
            "has a table 'shop', which the job has not",
        ),
    ):
        with pytest.raises(ConfigError, match=message):
            match_tables(dataclasses.replace(known, tables=others), tables, "s.json")
