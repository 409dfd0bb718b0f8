"""The job: real sections, real job files."""

import dataclasses
import re
from pathlib import Path

import pytest

from fourfold.runtime.config import Job, load_job
from fourfold.runtime.errors import ConfigError
from fourfold.runtime.toml import Where, build
from fourfold.runtime.toml_text import dump

JOBS = sorted((Path(__file__).parents[2] / "jobs").glob("*.toml"))


@pytest.mark.parametrize("path", JOBS, ids=lambda path: path.stem)
def test_every_job_that_we_ship_loads_and_is_rerunnable(path: Path, tmp_path: Path) -> None:
    job = load_job(path)
    again = tmp_path / "config.toml"
    again.write_text(dump(job))

    assert job.run.job == path.stem
    assert load_job(again) == job


def test_every_section_refuses_keys_it_does_not_have() -> None:
    for section in dataclasses.fields(Job):
        tree = {section.name: [{"qqq": 1}] if section.name == "table" else {"qqq": 1}}
        with pytest.raises(ConfigError, match=f"{section.name}.*unknown key"):
            build(Job, tree, Where("job.toml", Job))


def test_a_section_that_refuses_its_values_is_named(tmp_path: Path) -> None:
    path = tmp_path / "job.toml"
    path.write_text(JOBS[0].read_text())

    with pytest.raises(ConfigError, match=r"job\.toml: world: .*embedding.*--world\.dense=2"):
        load_job(path, ["--world.dense=2"])
    with pytest.raises(
        ConfigError, match=r"job\.toml: train: batch_size must be at least 1, got 0"
    ):
        load_job(path, ["--train.batch_size=0"])


@pytest.mark.parametrize(
    ("overrides", "tiers", "budgets", "total"),
    [
        ([], ("host",), (None, None, None), None),
        (["host_bytes=8MiB"], ("host",), (8 << 20, 8 << 20, None), 8 << 20),
        (["pad_bytes=1MiB"], ("pad", "host"), (1 << 20, None, None), None),
        (
            ["pad_bytes=1MiB", "host_bytes=8MiB"],
            ("pad", "host"),
            (1 << 20, 8 << 20, None),
            9 << 20,
        ),
        (
            ["pad_bytes=1MiB", "host_bytes=8MiB", "file_bytes=1 GB", "folder=/x", "io=threads"],
            ("pad", "host", "file"),
            (1 << 20, 8 << 20, 10**9),
            (9 << 20) + 10**9,
        ),
    ],
)
def test_the_tiers_that_a_job_asks_for(
    overrides: list[str], tiers: tuple[str, ...], budgets: tuple[int | None, ...], total: int | None
) -> None:
    storage = load_job(JOBS[0], [f"--storage.{text}" for text in overrides]).storage

    assert storage.tiers == tiers
    assert (storage.pad_budget, storage.host_budget, storage.file_budget) == budgets
    assert storage.budget_bytes == total


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["file_bytes=1GiB"], "storage.file_bytes needs pad_bytes and host_bytes too"),
        (["file_bytes=1GiB", "pad_bytes=1MiB"], "storage.file_bytes needs host_bytes too"),
        (["file_bytes=1GiB", "host_bytes=1MiB"], "storage.file_bytes needs pad_bytes too"),
        (["pad_bytes=0"], "storage.pad_bytes must be above 0, got 0"),
        (["pad_bytes=1 parsec"], "expected a number with a unit"),
        (["fixed_lookahead=true"], "storage.fixed_lookahead has no use without storage.pad_bytes"),
        (["pad_bytes=1MiB", "folder=x"], "storage.folder has no use without storage.file_bytes"),
        (["io=aio"], 'expected one of "auto", "uring", "threads"'),
        (["io_depth=0"], "storage.io_depth must be at least 1, got 0"),
    ],
)
def test_tiers_that_cannot_be(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        load_job(JOBS[0], [f"--storage.{text}" for text in overrides])
