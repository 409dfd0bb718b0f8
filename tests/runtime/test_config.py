"""The job: real sections, real job files."""

import dataclasses
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
