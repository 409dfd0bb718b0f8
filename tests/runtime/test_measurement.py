"""Measuring the ids of a log that is known."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest
from measured_job import PLENTY, ROWS, write_job, write_log

from fourfold.comm.route import measure_lookups
from fourfold.runtime.blueprint import make_blueprint
from fourfold.runtime.config import Job, load_job
from fourfold.runtime.data.reader import open_reader
from fourfold.runtime.errors import ConfigError, DataError
from fourfold.runtime.measurement import COUNTS, LIVES, PROBABILITIES, measure
from fourfold.runtime.roles import assign_roles
from fourfold.runtime.table import complete_tables
from fourfold.runtime.world import World


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Job:
    monkeypatch.chdir(tmp_path)
    write_job(tmp_path)
    return load_job("job.toml")


def test_what_is_measured(job: Job) -> None:
    people, item = measure(job, samples=ROWS, memory_bytes=PLENTY).tables

    assert (people.lookups, people.bags, people.distinct) == (2 * ROWS, 2 * ROWS, ROWS)
    assert (people.dynamic, item.dynamic) == (True, False)
    assert people.once == (ROWS - 100) / ROWS
    # Ids below 100 are users and friends in one batch: all of the first's, 40 of the second's.
    assert people.unique == (60 + 80 + 48 * 120) / 50
    assert people.growth == 1.0
    assert item.growth == 0.0
    assert item.gap_samples == (7, 7, 7, 7)
    assert people.gap_samples[1:] == (100, 100, 100)
    assert people.gap_batches[-1] == 2
    # Ids below 100 are seen once as a friend, in a sample that has them as user too.
    assert [(r.least, r.ids) for r in people.reuse if r.ids] == [
        (1, (ROWS - 100) / ROWS),
        (17, 100 / ROWS),
    ]
    assert sum(r.lookups for r in people.reuse) == pytest.approx(1)


def test_what_is_tried(job: Job) -> None:
    """Rows cost 64 bytes of weights, 4 of state, 4 of metadata and 27 of index."""
    people, item = measure(job, samples=ROWS, memory_bytes=PLENTY).tables
    tried = {(s.kind, s.value): s for s in people.settings}

    assert [s.kind for s in item.settings] == ["always"]
    assert (item.settings[0].rows, item.settings[0].row_bytes) == (500, 500 * 72)
    assert len(people.settings) == 1 + len(COUNTS) + len(PROBABILITIES) + len(LIVES)
    assert all(s.row_bytes == 99 * s.rows for s in people.settings)
    assert tried["always", 0].rows == ROWS
    assert tried["count", 2].rows == 100
    # Once per friend, and once per user: at first in a sample that has it twice.
    assert tried["count", 2].refused == pytest.approx((ROWS + 100) / (2 * ROWS))
    # Two batches, so a row lives in three: 180 friends of them, and the users.
    assert tried["time_to_live", 2].rows == pytest.approx(180 + 100, abs=1)
    assert tried["time_to_live", 2].cold == 0


def test_lookups_are_those_of_the_batches(job: Job) -> None:
    """As if the batches were looked at by themselves."""
    schema = ("user", "friend", "item")
    tables, features = complete_tables(job.table, job.embedding, schema)
    with open_reader(job.data, shard=0, shards=1, batch_size=60) as reader:
        batches = [(b.ids, b.offsets, b.size) for b in reader]
    statistics = measure(job, samples=ROWS, memory_bytes=PLENTY)
    found = [statistics.lookup_stats(table, 60) for table in statistics.tables]

    for one, other in zip(found, measure_lookups(features, len(tables), batches), strict=True):
        assert dataclasses.astuple(one) == pytest.approx(dataclasses.astuple(other))
    double = statistics.lookup_stats(statistics.tables[0], 120)
    assert (double.lookups, double.bags) == pytest.approx((240, 240))
    assert found[0].unique < double.unique < 240


def test_a_row_lives_for_a_batch_at_least(job: Job) -> None:
    """Each user is there for ten samples of one batch: a time to live of 0 would be none."""
    lines = [f"1,{i // 10},{i // 10},0" for i in range(ROWS)]
    write_log(Path(), lines)
    people = measure(job, samples=ROWS, memory_bytes=PLENTY).tables[0]

    assert people.gap_batches == (0, 0, 0, 0)
    assert [(s.value, s.rows) for s in people.settings if s.kind == "time_to_live"] == [(1, 12)] * 2


def test_growth_is_that_of_the_second_half(job: Job) -> None:
    """100 users in each of the first two thousands of samples, and no new one after them."""
    lines = [f"1,{i % 100 + 100 * min(i // 1000, 1)},{i % 2},0" for i in range(ROWS)]
    write_log(Path(), lines)
    lasting = measure(job, samples=ROWS, memory_bytes=PLENTY).tables[0]
    growing = measure(job, samples=1200, memory_bytes=PLENTY).tables[0]

    assert lasting.growth == 0
    assert growing.growth == pytest.approx(1.0)
    assert measure(job, samples=1020, memory_bytes=PLENTY).tables[0].growth == pytest.approx(
        math.log2(1.2)
    )


def test_training_with_statistics_needs_data_all_the_same(job: Job) -> None:
    measure(job, samples=ROWS, memory_bytes=PLENTY).save(Path("stats.json"))
    overrides = ["--placement.stats=stats.json", '--data.dense=["age"]']
    job = load_job("job.toml", overrides)
    world, roles = World.imagine(1, 1), assign_roles(1, job.world)
    drawn = make_blueprint(job, world, roles, needs_data=True)
    assert [load.num_rows for load in drawn.loads] == [ROWS, 500]
    assert drawn.loads[0].lookups == 2

    Path("clicks.csv").unlink()
    make_blueprint(job, world, roles)
    with pytest.raises(DataError, match=r"clicks\.csv"):
        make_blueprint(job, world, roles, needs_data=True)


def test_samples_are_whole_batches(job: Job) -> None:
    some = measure(job, samples=100, memory_bytes=PLENTY)

    assert (some.samples, some.batches, some.complete) == (120, 2, False)


def test_a_share_of_the_ids_stands_for_all(job: Job) -> None:
    whole = measure(job, samples=ROWS, memory_bytes=PLENTY).tables[0]
    part = measure(job, samples=ROWS, memory_bytes=PLENTY, share=0.5).tables[0]

    assert part.share == 0.5
    assert (part.lookups, part.bags) == (whole.lookups, whole.bags)
    assert part.distinct == pytest.approx(whole.distinct, rel=0.1)
    assert part.unique == pytest.approx(whole.unique, rel=0.1)
    assert part.gap_samples[1:] == whole.gap_samples[1:]
    for one, other in zip(part.settings, whole.settings, strict=True):
        assert one.rows == pytest.approx(other.rows, rel=0.3)
        assert (one.refused, one.cold) == pytest.approx((other.refused, other.cold), abs=0.1)


def test_no_sparse_feature_is_an_error(job: Job) -> None:
    job = dataclasses.replace(
        job, data=dataclasses.replace(job.data, dense=("user",), sparse=()), table=()
    )
    with pytest.raises(ConfigError, match="no sparse feature"):
        measure(job, samples=10, memory_bytes=PLENTY)
