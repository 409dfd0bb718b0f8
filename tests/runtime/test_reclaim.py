"""What a job may say of rows that come and go, and what follows from it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fourfold.comm.cut import Cut
from fourfold.comm.placement import Placement
from fourfold.runtime.assembly import table_loads
from fourfold.runtime.config import load_job
from fourfold.runtime.cut_config import CutConfig, PlacementConfig
from fourfold.runtime.data.batch import Batch
from fourfold.runtime.errors import ConfigError
from fourfold.runtime.reclaim import (
    check_budget,
    check_reclaim,
    check_replicas,
    credit_of,
    takes_credits,
)
from fourfold.runtime.table import EmbeddingConfig, Table, TableConfig, complete_tables
from fourfold.storage import Admission, ReclaimConfig, StorageConfig

JOB = '[data]\npaths = ["clicks.txt"]\n'
KEYS = ("admission", "time_to_live", "priority", "absent")


def table(defaults: dict[str, Any] | None = None, **own: Any) -> Table:
    config = TableConfig(name="t", **own)
    return complete_tables([config], EmbeddingConfig(**(defaults or {})), ["t"])[0][0]


@pytest.mark.parametrize(
    ("defaults", "own", "admission"),
    [
        ({}, {}, Admission()),
        ({}, {"admission": "bloom"}, Admission(kind="bloom")),
        ({}, {"admission": "count", "admit_count": 3}, Admission(kind="count", count=3)),
        ({"admission": "count", "admit_count": 15}, {}, Admission(kind="count", count=15)),
        (
            {"admission": "count", "admit_count": 2},
            {"admit_count": 4},
            Admission(kind="count", count=4),
        ),
        (
            {"admission": "count", "admit_count": 2},
            {"admission": "probability", "admit_probability": 1.0},
            Admission(kind="probability", probability=1.0),
        ),
        ({"admission": "count", "admit_count": 2}, {"admission": "always"}, Admission()),
        (
            {"admission": "probability", "admit_probability": 0.5},
            {"admission": "probability"},
            Admission(kind="probability", probability=0.5),
        ),
    ],
)
def test_admission_is_of_one_kind(
    defaults: dict[str, Any], own: dict[str, Any], admission: Admission
) -> None:
    """A table's own kind does without the constants of another kind's default."""
    assert table(defaults, **own).admission == admission


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"admission": "probability"}, 'admission = "probability" needs admit_probability'),
        ({"admission": "count"}, 'admission = "count" needs admit_count'),
        (
            {"admit_probability": 0.5},
            'admit_probability = 0.5 is of admission = "probability", but',
        ),
        (
            {"admission": "bloom", "admit_count": 2},
            'admit_count = 2 is of admission = "count", but',
        ),
        (
            {"admission": "probability", "admit_probability": 0.0},
            "admit_probability must be in (0, 1], got 0.0",
        ),
        (
            {"admission": "probability", "admit_probability": 1.5},
            "admit_probability must be in (0, 1], got 1.5",
        ),
        ({"admission": "count", "admit_count": 1}, "admit_count must be 2 to 15, got 1"),
        ({"admission": "count", "admit_count": 16}, "admit_count must be 2 to 15, got 16"),
        (
            {"time_to_live": 0},
            "time_to_live must be at least 1 training batch, got 0; leave it out for rows that do"
            ' not expire, or say "never"',
        ),
    ],
)
def test_keys_that_do_not_fit_are_named(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        EmbeddingConfig(**keys)
    with pytest.raises(ConfigError, match="table 't': .*" + re.escape(message)):
        table(**keys)


def test_what_a_table_does_not_say_comes_from_embedding() -> None:
    defaults = {"time_to_live": 7, "priority": "high", "absent": "zeros"}
    own = {"time_to_live": 9, "priority": "low", "absent": "newborn"}

    assert [getattr(table(defaults), key) for key in KEYS[1:]] == [7, "high", "zeros"]
    assert [getattr(table(defaults, **own), key) for key in KEYS[1:]] == [9, "low", "newborn"]


def test_rows_may_stay_where_those_of_other_tables_expire() -> None:
    assert table({"time_to_live": 7}, time_to_live="never").time_to_live is None
    assert table({"time_to_live": "never"}).time_to_live is None
    assert table({"time_to_live": "never"}, time_to_live=3).time_to_live == 3


def test_static_tables_keep_their_rows() -> None:
    """Defaults do not apply to them, and what they say themselves is a mistake."""
    defaults = {"admission": "bloom", "time_to_live": 7, "priority": "high", "absent": "zeros"}
    assert [getattr(table(defaults, rows=9), key) for key in KEYS] == [
        Admission(), None, "low", "newborn"
    ]  # fmt: skip
    for key, value in [*defaults.items(), ("admit_count", 3), ("admit_probability", 0.5)]:
        with pytest.raises(ConfigError, match=f"table 't': {key} is for dynamic tables.*rows = 9"):
            TableConfig(name="t", rows=9, **{key: value})


def test_the_section_of_a_job(tmp_path: Path) -> None:
    path = tmp_path / "job.toml"
    path.write_text(
        JOB + '[reclaim]\nby = "kraken"\nrows = 100\nbytes = "1GiB"\n'
        '[[table]]\nname = "C1"\nadmission = "count"\nadmit_count = 3\ntime_to_live = 20_000\n'
    )
    job = load_job(path, ["--table.C1.absent=zeros"])

    assert job.reclaim == ReclaimConfig(by="kraken", rows=100, bytes=1 << 30)
    assert (job.table[0].time_to_live, job.table[0].absent) == (20_000, "zeros")
    kept = load_job(path, ["--table.C1.time_to_live=never", "--embedding.time_to_live=5"])
    assert (kept.table[0].time_to_live, kept.embedding.time_to_live) == ("never", 5)
    for override, message in (
        ("--reclaim.by=none", "reclaim.*no use while reclaim.by is"),
        ("--reclaim.by=lru", "nearest|expected one of"),
        ("--reclaim.share=0", r"reclaim.share must be in \(0, 1\]"),
        ("--reclaim.decay=1", r"reclaim.decay must be in \[0, 1\)"),
        ("--reclaim.interval=0", "reclaim.interval must be at least 1"),
        ("--reclaim.positive_weight=-1", "reclaim.positive_weight must be"),
        ("--reclaim.rows=0", "reclaim.rows must be at least 1"),
        ("--reclaim.admission_bytes=1 parsec", "reclaim.admission_bytes"),
        ("--table.C1.admit_count=99", "table 'C1': admit_count must be 2 to 15"),
        ("--table.C1.rows=5", "table 'C1': admission is for dynamic tables"),
        ("--table.C1.time_to_live=ever", 'expected .never. or a whole number .*nearest: "never"'),
    ):
        with pytest.raises(ConfigError, match=message):
            load_job(path, [override])


def test_a_time_to_live_that_nothing_looks_at() -> None:
    check_reclaim([table(time_to_live=5)], ReclaimConfig(by="recency"))
    with pytest.raises(ConfigError, match=r"table 't': time_to_live = 5 has no use while reclaim"):
        check_reclaim([table(time_to_live=5)], ReclaimConfig())


@pytest.mark.parametrize(
    ("reclaim", "storage"),
    [
        ({"rows": 9}, {}),
        ({"bytes": 9}, {}),
        ({}, {"host_bytes": 9}),
        ({}, {"pad_bytes": 9, "host_bytes": 9}),
    ],
)
def test_rows_go_for_a_budget(reclaim: dict[str, Any], storage: dict[str, Any]) -> None:
    check_budget(ReclaimConfig(by="kraken", **reclaim), StorageConfig(**storage))


def test_rows_that_nothing_limits_do_not_go() -> None:
    check_budget(ReclaimConfig(), StorageConfig())
    for storage in (StorageConfig(), StorageConfig(pad_bytes=9)):
        with pytest.raises(ConfigError) as raised:
            check_budget(ReclaimConfig(by="kraken"), storage)
        assert str(raised.value) == (
            'reclaim.by = "kraken" has no use without a budget: set reclaim.rows, reclaim.bytes or'
            " storage.host_bytes, or leave out reclaim.by"
        )


@pytest.mark.parametrize(
    ("own", "by", "setting"),
    [
        ({}, "kraken", 'reclaim.by = "kraken"'),
        ({"admission": "bloom"}, "none", 'admission = "bloom"'),
        ({"time_to_live": 3, "priority": "high"}, "recency", "time_to_live = 3"),
        ({"priority": "high"}, "kraken", ""),
        ({"absent": "zeros"}, "none", ""),
        ({"rows": 10}, "kraken", ""),
    ],
)
def test_replicas_lose_no_rows(own: dict[str, Any], by: Any, setting: str) -> None:
    config, one = ReclaimConfig(by=by), table(**own)
    alone = Placement.of([one.shape], [Cut(ranks=(0,))], 2)
    copied = Placement.of([one.shape], [Cut(replicas=2, ranks=(0, 1))], 2)

    check_replicas([one], alone, config)
    if not setting:
        check_replicas([one], copied, config)
        return
    copies = CutConfig(replicas=2)
    for source, remedy in (
        (None, "place it with replicas = 1"),
        (PlacementConfig(tables={"t": copies}), "set placement.tables.t.replicas = 1"),
        (PlacementConfig(default=copies), "placement.tables.t = {}"),
        (PlacementConfig(path="p.toml"), "in p.toml (placement.path)"),
    ):
        with pytest.raises(ConfigError) as raised:
            check_replicas([one], copied, config, source)
        assert str(raised.value).startswith("table 't': its rows may come and go")
        assert f"({setting}), so that its 2 replicas would differ" in str(raised.value)
        assert remedy in str(raised.value)


def test_the_planner_is_told_which_tables_lose_rows() -> None:
    tables, features = complete_tables(
        [
            TableConfig(name="a", rows=9),
            TableConfig(name="b"),
            TableConfig(name="c", priority="high"),
        ],
        EmbeddingConfig(),
        ["a", "b", "c"],
    )

    for by, copies in (("none", [True, True, True]), ("kraken", [True, False, True])):
        loads = table_loads(tables, features, reclaim=ReclaimConfig(by=by))
        assert [load.copies for load in loads] == copies
        assert [load.scored for load in loads] == [not copy for copy in copies]


def test_rows_that_go_for_their_age_alone_have_a_time_below_the_pad() -> None:
    tables, features = complete_tables(
        [TableConfig(name="a", priority="high", time_to_live=9)], EmbeddingConfig(), ["a"]
    )

    assert table_loads(tables, features, reclaim=ReclaimConfig(by="kraken"))[0].scored


@pytest.mark.parametrize(
    ("config", "credits"),
    [
        (ReclaimConfig(), None),
        (ReclaimConfig(by="recency"), None),
        (ReclaimConfig(by="importance"), None),
        (ReclaimConfig(by="frequency", positive_weight=9.0), [1, 1, 1]),
        (ReclaimConfig(by="kraken"), [1, 1, 1]),
        (ReclaimConfig(by="kraken", positive_weight=2.5), [1, 2.5, 1]),
        (ReclaimConfig(by="kraken", positive_weight=0.0), [1, 0, 1]),
    ],
)
def test_what_a_sample_counts_for(config: ReclaimConfig, credits: list[float] | None) -> None:
    batch = Batch(
        dense=np.zeros((3, 0), np.float32),
        label=np.array([0, 1, 0.5], np.float32),
        ids=np.zeros(0, np.int64),
        offsets=np.zeros(4, np.int64),
    )
    credit = credit_of(config)

    assert takes_credits(table(), config) == (credits is not None)
    assert not takes_credits(table(rows=3), config)
    assert not takes_credits(table(priority="high"), config)
    if credit is not None:
        assert credit(batch).dtype == np.float32
        assert credit(batch).tolist() == credits
        assert credit(batch.keep(np.zeros(3, bool))).shape == (0,)
