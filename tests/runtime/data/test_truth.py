"""The true probabilities beside generated logs: found where they belong."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from fourfold.runtime.data import truth as truth_file
from fourfold.runtime.data.config import DataConfig
from fourfold.runtime.data.generate import GenerateConfig, generate
from fourfold.runtime.data.truth import find_truth
from fourfold.runtime.errors import DataError

SMALL = GenerateConfig(samples=20_000, eval_samples=5_000, seed=7)


@pytest.fixture
def job(tmp_path: Path) -> tuple[DataConfig, Path]:
    folder = tmp_path / "log"
    generate(replace(SMALL, samples=2000, eval_samples=1000), folder)
    return DataConfig(paths=(f"{folder}/train*",), eval_paths=(f"{folder}/eval*",)), folder


def test_truth_is_found_beside_the_evaluation_files(job: tuple[DataConfig, Path]) -> None:
    config, folder = job
    truth = find_truth(config)
    saved = json.loads((folder / truth_file.FILE).read_text())
    assert truth is not None
    assert asdict(truth).items() <= saved["splits"]["eval"].items()
    assert truth.samples == 1000
    assert saved["settings"]["seed"] == SMALL.seed


def test_nobody_knows_the_truth_of_other_files(job: tuple[DataConfig, Path]) -> None:
    config, folder = job
    assert find_truth(DataConfig(paths=config.paths)) is None
    assert find_truth(replace(config, eval_paths=config.paths)) is None
    assert find_truth(replace(config, eval_paths=config.paths + config.eval_paths)) is None
    (folder / truth_file.FILE).unlink()
    assert find_truth(config) is None


@pytest.mark.parametrize("content", ["", "[]", "{", '{"format": "fourfold truth 1"}'])
def test_a_damaged_truth_is_named(job: tuple[DataConfig, Path], content: str) -> None:
    config, folder = job
    (folder / truth_file.FILE).write_text(content)
    with pytest.raises(DataError, match=r"truth\.json: not as `fourfold generate` writes it"):
        find_truth(config)
