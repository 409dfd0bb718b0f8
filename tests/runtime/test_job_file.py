"""Job files: every key and value is checked, one clear error each, and what is written loads."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fourfold.runtime.errors import ConfigError
from fourfold.runtime.job_file import load_file, split_overrides
from fourfold.runtime.toml_text import dump


class Color(StrEnum):
    RED = "red"
    BLUE = "blue"


@dataclass(frozen=True, kw_only=True, slots=True)
class Retry:
    times: int = 3
    pause_s: float = 0.5


@dataclass(frozen=True, kw_only=True, slots=True)
class Train:
    steps: int | None = None
    lr: float = 0.001
    optimizer: Literal["adam", "sgd"] = "adam"
    autocast: bool = False
    note: str = ""
    limit: int | None = 7
    """None is not the default: it must be written."""
    retry: Retry = Retry(times=5)

    def __post_init__(self) -> None:
        if self.lr <= 0:
            raise ValueError(f"lr must be positive, got {self.lr}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    name: str
    dim: int = 64
    options: dict[str, float] | None = None
    ranks: int | tuple[int, ...] = 0
    span: tuple[int, str] = (1, "x")
    color: Color = Color.RED


@dataclass(frozen=True, kw_only=True, slots=True)
class Storage:
    host_bytes: int | None = None
    folders: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    title: str = ""
    train: Train = field(default_factory=Train)
    table: tuple[Table, ...] = ()
    storage: Storage = field(default_factory=Storage)


TEXT = """
title = "a job"
[train]
steps = 3
retry = { pause_s = 2 }
[[table]]
name = "user"
[[table]]
name = "a.b"
ranks = [0, 1]
"""


@pytest.fixture
def job_path(tmp_path: Path) -> Path:
    path = tmp_path / "job.toml"
    path.write_text(TEXT)
    return path


def test_load_keeps_types_and_defaults(job_path: Path) -> None:
    job = load_file(Job, job_path)

    assert job == Job(
        title="a job",
        train=Train(steps=3, retry=Retry(times=5, pause_s=2.0)),
        table=(Table(name="user"), Table(name="a.b", ranks=(0, 1))),
    )
    assert isinstance(job.train.retry.pause_s, float)


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("--train.steps=100", lambda job: job.train.steps == 100),
        ("--train.steps=none", lambda job: job.train.steps is None),
        ("--train.limit=none", lambda job: job.train.limit is None),
        ("--train.lr=1", lambda job: job.train.lr == 1.0 and isinstance(job.train.lr, float)),
        ("--train.autocast=true", lambda job: job.train.autocast is True),
        ("--train.note=123", lambda job: job.train.note == "123"),
        ("--train.note=plain text", lambda job: job.train.note == "plain text"),
        ('--train.note="quoted"', lambda job: job.train.note == "quoted"),
        ("--train.note=", lambda job: job.train.note == ""),
        ("--train.retry.times=9", lambda job: job.train.retry == Retry(times=9, pause_s=2.0)),
        ("--train.optimizer=sgd", lambda job: job.train.optimizer == "sgd"),
        ("--storage.host_bytes=64GiB", lambda job: job.storage.host_bytes == 64 * 2**30),
        ("--storage.host_bytes=1.5 kB", lambda job: job.storage.host_bytes == 1500),
        ("--storage.host_bytes=4096", lambda job: job.storage.host_bytes == 4096),
        ('--storage.folders=["a", "b"]', lambda job: job.storage.folders == ("a", "b")),
        ("--table.user.dim=32", lambda job: [t.dim for t in job.table] == [32, 64]),
        ('--table."a.b".dim=32', lambda job: [t.dim for t in job.table] == [64, 32]),
        ("--table.1.dim=32", lambda job: [t.dim for t in job.table] == [64, 32]),
        ("--table.user.options.eps=1", lambda job: job.table[0].options == {"eps": 1.0}),
        ("--table.user.ranks=[2]", lambda job: job.table[0].ranks == (2,)),
        ("--table.user.color=blue", lambda job: job.table[0].color is Color.BLUE),
        ('--table.user.span=[2, "y"]', lambda job: job.table[0].span == (2, "y")),
        ("--table.user.name=client", lambda job: job.table[0].name == "client"),
    ],
)
def test_override(job_path: Path, override: str, expected) -> None:
    assert expected(load_file(Job, job_path, [override]))


def test_last_override_wins(job_path: Path) -> None:
    job = load_file(
        Job, job_path, ["--train.steps=1", "--train.retry={times=1}", "--train.steps=2"]
    )

    assert job.train.steps == 2
    assert job.train.retry == Retry(times=1, pause_s=0.5)  # the file's table was replaced


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("--train.stepz=3", ["unknown key", "train.steps"]),
        ("--trian.lr=3", ["trian", "unknown key", "nearest valid key: train"]),
        ("--storage.steps=3", ["unknown key", "nearest valid key: train.steps"]),
        ("--train.qqq=3", ["unknown key", "valid keys: steps, lr"]),
        ("--train.steps=abc", ["whole number", '"abc"']),
        ("--train.steps=1.0", ["whole number", "got 1.0"]),
        ("--train.steps=true", ["whole number", "got true"]),
        ("--train.lr=fast", ["a number", '"fast"']),
        ("--train.lr=nan", ["a number", "nan"]),
        ("--train.lr=0", ["train: lr must be positive, got 0.0", "--train.lr=0"]),
        ("--train.autocast=1", ["true or false", "got 1"]),
        ("--train.optimizer=adma", ['"adam", "sgd"', 'nearest: "adam"']),
        ("--train.retry=3", ["a table", "got 3"]),
        ("--train.retry.time=3", ["unknown key", "train.retry.times"]),
        ("--storage.host_bytes=64Gigs", ["KiB", "64Gigs"]),
        ("--storage.host_bytes=0.3B", ["whole number of bytes"]),
        ("--storage.host_bytes=-1GiB", ["number of bytes", "-1GiB"]),
        ("--storage.folders=a", ["a list, each a string", '"a"']),
        ("--table.usr.dim=3", ["no entry 'usr'", "nearest: user"]),
        ("--table.2.dim=3", ["no entry '2'", "user, a.b"]),
        ("--table.user.dim.x=1", ["whole number", "{ x = 1 }"]),
        ("--table.user.span=[1]", ["a list of a whole number and a string"]),
        ("--table.user.color=green", ['"red", "blue"']),
        ("--table.user={dim = 3}", ["missing", "a string"]),
        ("--title.x.y=1", ["title is a value"]),
        ("--a..b=3", ["--section.key=value"]),
        ("--table.user.dim=3\nname='x'", ["whole number"]),
    ],
)
def test_bad_override_is_one_clear_error(job_path: Path, override: str, parts: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        load_file(Job, job_path, [override])

    for part in (*parts, override):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("[train]\nstepz = 3", ["train.stepz: unknown key; nearest valid key: train.steps"]),
        ("stepz = 3", ["stepz: unknown key; nearest valid key: train.steps"]),
        ("[train]\nsteps = 3.5", ["train.steps: expected a whole number", "got 3.5"]),
        ("[train]\nsteps = 2026-11-21", ["train.steps", "got 2026-11-21"]),
        ("[train]\nlr = -1.0", ["train: lr must be positive, got -1.0"]),
        ("train = 3", ["train: expected a table, got 3"]),
        ("[[train]]\nsteps = 3", ["train: expected a table, got [{ steps = 3 }]"]),
        ("[table]\nname = 'a'", ["table: expected a list, each a table"]),
        ("[[table]]\ndim = 3", ["table.0.name: missing; expected a string"]),
        ("[[table]]\nname = 'a'\ndmi = 3", ["table.a.dmi: unknown key; nearest", "table.a.dim"]),
        ("[[table]]\nname = 'a b'\ndim = '3'", ['table."a b".dim: expected', 'got "3"']),
        ("[train]\nsteps = 1\nsteps = 2", ["not valid TOML", "Cannot overwrite a value"]),
        ("[train\n", ["not valid TOML", "line 1"]),
        ("\xff", ["not UTF-8"]),
    ],
)
def test_bad_file_is_one_clear_error(tmp_path: Path, text: str, parts: list[str]) -> None:
    path = tmp_path / "job.toml"
    path.write_text(text, encoding="latin-1")

    with pytest.raises(ConfigError) as caught:
        load_file(Job, path)

    assert str(caught.value).startswith(f"{path}: ")
    for part in parts:
        assert part in str(caught.value)


def test_missing_file_names_those_beside_it(job_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"jbo\.toml: no such file.*job\.toml"):
        load_file(Job, job_path.with_name("jbo.toml"))


def test_folder_for_a_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load_file(Job, tmp_path)


def test_split_overrides() -> None:
    plain, overrides = split_overrides(
        ["job.toml", "--train.steps", "100", "--ranks", "4", "--train.lr=1e-3", "--out=a.b"]
    )

    assert plain == ["job.toml", "--ranks", "4", "--out=a.b"]
    assert overrides == ["--train.steps=100", "--train.lr=1e-3"]


@pytest.mark.parametrize("words", [["--train.steps"], ["--train.steps", "--train.lr=1"]])
def test_override_without_value(words: list[str]) -> None:
    with pytest.raises(ConfigError, match=r"--train\.steps: no value"):
        split_overrides(words)


names = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
# In a field that may be None the string "none" is None.
integers = st.integers(-(2**63), 2**63 - 1)
numbers = st.floats(allow_nan=False)
jobs = st.builds(
    Job,
    title=names,
    train=st.builds(
        Train,
        steps=st.none() | integers,
        lr=st.floats(min_value=0, exclude_min=True),
        optimizer=st.sampled_from(["adam", "sgd"]),
        autocast=st.booleans(),
        note=names,
        limit=st.none() | integers,
        retry=st.builds(Retry, times=integers, pause_s=numbers),
    ),
    table=st.lists(
        st.builds(
            Table,
            name=names,
            dim=integers,
            options=st.none() | st.dictionaries(names, numbers, max_size=3),
            ranks=integers | st.lists(integers, max_size=3).map(tuple),
            span=st.tuples(integers, names),
            color=st.sampled_from(Color),
        ),
        max_size=3,
    ).map(tuple),
    storage=st.builds(
        Storage,
        host_bytes=st.none() | st.integers(0, 2**50) | st.integers(1, 2**20).map(lambda n: n << 30),
        folders=st.lists(names, max_size=3).map(tuple),
    ),
)


@given(job=jobs)
def test_what_is_written_loads_to_an_equal_job(job: Job, tmp_path_factory) -> None:
    path = tmp_path_factory.getbasetemp() / "written.toml"
    path.write_text(dump(job), encoding="utf-8")

    assert load_file(Job, path) == job


def test_written_job_is_readable() -> None:
    job = Job(table=(Table(name="user", ranks=(0, 1)),), storage=Storage(host_bytes=64 * 2**30))

    text = dump(job)

    assert 'host_bytes = "64GiB"' in text
    assert '[[table]]\nname = "user"\n' in text
    assert "steps" not in text  # None is its default, and TOML has no null
    assert "retry = { times = 5, pause_s = 0.5 }" in text
