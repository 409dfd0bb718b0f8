"""`fourfold generate`: options become settings, and the best figures are printed."""

import argparse
import json
from pathlib import Path

import pytest

from fourfold.jobs import generate
from fourfold.runtime.data.truth import FILE
from fourfold.runtime.errors import ConfigError


def run(folder: Path, *options: str) -> int:
    parser = argparse.ArgumentParser()
    generate.add_arguments(parser)
    return generate.run(parser.parse_args(["--out", str(folder), *options]))


def test_what_is_asked_for_is_written_and_the_best_figures_are_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = "--samples 3000 --eval-samples 500 --files 2 --gzip --hot 2 --drift 0.5 --seed 3"
    assert run(tmp_path / "log", *options.split()) == 0
    names = {path.name for path in (tmp_path / "log").iterdir()}
    assert names == {"train-0.tsv.gz", "train-1.tsv.gz", "eval.tsv.gz", FILE}
    saved = json.loads((tmp_path / "log" / FILE).read_text())
    asked = {"samples": 3000, "files": 2, "gzip": True, "hot": [2], "drift": 0.5, "seed": 3}
    assert asked.items() <= saved["settings"].items()
    printed = capsys.readouterr().out
    assert f"AUC {saved['splits']['eval']['auc']:.4f}" in printed
    assert f"log loss {saved['splits']['train']['log_loss']:.4f}" in printed


@pytest.mark.parametrize("hot", ["", "1,x", "1.5"])
def test_bags_that_are_no_numbers_are_named(tmp_path: Path, hot: str) -> None:
    with pytest.raises(ConfigError, match="--hot: expected whole numbers between commas"):
        run(tmp_path / "log", "--hot", hot)


def test_figures_that_do_not_exist_are_null_in_the_file(tmp_path: Path) -> None:
    """One impression has no pair to rank, and none has no figure at all."""
    assert run(tmp_path / "log", "--samples", "1", "--eval-samples", "0") == 0
    splits = json.loads((tmp_path / "log" / FILE).read_text(), parse_constant=pytest.fail)["splits"]
    assert splits["train"]["auc"] is None
    assert splits["eval"]["log_loss"] is None
