"""Reading back what a run reported."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from fourfold.runtime.errors import DataError
from fourfold.runtime.history import History

COUNTS = {"rows": 5, "bytes": 400, "admitted": 3, "refused": 2, "expired": 1, "reclaimed": 0}
LINES = [
    {"step": 10, "loss": 0.5, "population": {"user": COUNTS}},
    {"step": 10, "eval_auc": 0.7},
    {"step": 20, "loss": "nan", "population": {"user": {**COUNTS, "rows": 9}, "item": COUNTS}},
]


def write(folder: Path, text: str) -> Path:
    (folder / "metrics.jsonl").write_text(text)
    return folder


def text_of(*lines: object) -> str:
    return "".join(f"{json.dumps(line)}\n" for line in lines)


def test_figures_over_steps(tmp_path: Path) -> None:
    history = History.load(write(tmp_path, text_of(*LINES)))

    assert history.series("loss").steps.tolist() == [10, 20]
    np.testing.assert_array_equal(history.series("loss").values, [0.5, np.nan])
    assert history.series("eval_auc").steps.tolist() == [10]
    assert len(history.series("hit_rate")) == 0
    rows = history.population("rows")
    assert {name: found.steps.tolist() for name, found in rows.items()} == {
        "user": [10, 20],
        "item": [20],
    }
    assert rows["user"].values.tolist() == [5, 9]


def test_a_run_without_population(tmp_path: Path) -> None:
    history = History.load(write(tmp_path, text_of({"step": 1, "loss": 2})))

    assert history.population("rows") == {}


def test_a_last_line_that_is_being_written(tmp_path: Path) -> None:
    whole = text_of(*LINES)

    for left_out, lines in ((1, 2), (9, 1)):  # the newline alone; then more
        history = History.load(write(tmp_path, whole[:-left_out]))
        assert len(history.series("loss")) == lines


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no lines: the run reported nothing yet"),
        ('{"step": 1}\n{"step": 2,\n', "metrics.jsonl:2: not JSON: .* at column"),
        ('{"step": 1}\n\n', "metrics.jsonl:2: not JSON"),
        ("[1]\n", r"metrics.jsonl:1: expected an object with a step, got \[1\]"),
        ('{"loss": 1}\n', "metrics.jsonl:1: expected an object with a step"),
        ('{"step": "a"}\n', "metrics.jsonl:1: expected an object with a step"),
        ('{"step": true}\n', "metrics.jsonl:1: expected an object with a step"),
        ('{"step": 1, "loss": "low"}\n', "metrics.jsonl:1: loss: expected a number, got 'low'"),
        ('{"step": 1, "loss": true}\n', "metrics.jsonl:1: loss: expected a number, got True"),
        (
            '{"step": 1, "population": {"user": {"rows": 1}}}\n',
            "metrics.jsonl:1: population: expected rows, bytes, admitted, .* of every table, got",
        ),
        ('{"step": 1, "population": 7}\n', "metrics.jsonl:1: population: expected rows, .* got 7"),
        (
            text_of({"step": 1, "population": {"user": {**COUNTS, "rows": "many"}}}),
            "metrics.jsonl:1: population.user.rows: expected a number, got 'many'",
        ),
    ],
)
def test_broken_lines_are_named(tmp_path: Path, text: str, message: str) -> None:
    def read() -> None:
        history = History.load(write(tmp_path, text))
        history.series("loss")
        history.population("rows")

    with pytest.raises(DataError, match=message):
        read()


def test_folders_without_metrics_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"{tmp_path} has no metrics.jsonl: expected the folder of"):
        History.load(tmp_path)
    with pytest.raises(DataError, match="nowhere does not exist: expected the folder of a run"):
        History.load(tmp_path / "nowhere")
    (tmp_path / "metrics.jsonl").write_bytes(b"\xff\xfe\n")
    with pytest.raises(DataError, match=r"metrics.jsonl is not text"):
        History.load(tmp_path)
    (tmp_path / "metrics.jsonl").unlink()
    (tmp_path / "metrics.jsonl").mkdir()
    with pytest.raises(DataError, match=r"metrics.jsonl cannot be read: Is a directory"):
        History.load(tmp_path)
