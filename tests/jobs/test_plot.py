"""`fourfold plot` as a person types it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from fourfold.jobs import plot
from fourfold.runtime.errors import ConfigError
from fourfold.runtime.history import History, Series

FIGURES = ("rows", "bytes", "admitted", "refused", "expired", "reclaimed")


def write(folder: Path, *, tables: int = 0) -> Path:
    """Write the metrics of a run of 30 steps, with the population of so many tables."""
    lines = []
    for step in (10, 20, 30):
        counts = {f"t{t}": dict.fromkeys(FIGURES, step * (t + 1)) for t in range(tables)}
        line = {"step": step, "loss": 1 / step, "samples_per_s": 100.0, "rows": step}
        lines += [line | ({"population": counts} if tables else {}), {"step": step, "eval_auc": 1}]
    folder.mkdir(exist_ok=True)
    (folder / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return folder


def command(*words: str) -> subprocess.CompletedProcess[str]:
    cli = [sys.executable, "-P", "-m", "fourfold.launch.cli", "plot", *words]
    return subprocess.run(cli, capture_output=True, text=True, check=False, timeout=60)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_command(tmp_path: Path) -> None:
    run = write(tmp_path / "run", tables=2)
    done = command(str(run))

    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [
        str(run / "plots" / f"{name}.png") for name in ("quality", "speed", "rows", "changes")
    ]
    for path in done.stdout.split():
        assert Path(path).read_bytes().startswith(b"\x89PNG")
    failed = command(str(tmp_path))
    assert failed.returncode == 1
    assert "has no metrics.jsonl: expected the folder of a run" in failed.stderr
    assert "Traceback" not in failed.stderr


def test_what_a_run_did_not_report_is_not_drawn(tmp_path: Path) -> None:
    history = History.load(write(tmp_path / "run"))
    plot.draw(history, tmp_path / "out")
    assert names(tmp_path / "out") == ["quality.png", "rows.png", "speed.png"]

    (tmp_path / "run" / "metrics.jsonl").write_text('{"step": 3, "eval_auc": 0.5}\n')
    plot.draw(History.load(tmp_path / "run"), tmp_path / "other")
    assert names(tmp_path / "other") == ["quality.png"]


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    history = History.load(write(tmp_path / "run"))
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"--out: .*quality.png cannot be written: Not a dir"):
        plot.draw(history, tmp_path / "file" / "out")


def axes_of(drawing, history: History):
    axes = Figure().add_subplot()
    assert drawing(history, axes)
    return axes


def test_quality_has_an_axis_for_each_figure(tmp_path: Path) -> None:
    axes = axes_of(plot.quality, History.load(write(tmp_path)))

    assert [text.get_text() for text in axes.get_legend().get_texts()] == [
        "loss (training)", "AUC (held out)"
    ]  # fmt: skip
    assert axes.lines[0].get_xydata().tolist() == [[s, 1 / s] for s in (10, 20, 30)]


def test_large_tables_are_drawn_one_by_one(tmp_path: Path) -> None:
    axes = axes_of(plot.rows, History.load(write(tmp_path, tables=12)))
    labels = axes.get_legend_handles_labels()[1]

    assert labels == [*(f"t{t}" for t in range(11, 3, -1)), "4 other tables"]
    assert axes.dataLim.y1 == 30 * sum(range(1, 13))


def test_changes_are_those_of_all_tables_per_step(tmp_path: Path) -> None:
    axes = axes_of(plot.changes, History.load(write(tmp_path, tables=3)))

    assert [line.get_label() for line in axes.lines] == [
        "admitted", "refused", "expired", "reclaimed"
    ]  # fmt: skip
    for line in axes.lines:
        assert line.get_ydata().tolist() == [6.0, 12.0, 18.0]  # 60, 120 and 180 in 10 steps each


def test_tables_are_brought_to_the_same_steps() -> None:
    tables = {
        "late": Series(np.array([20, 30]), np.array([7.0, 8.0])),
        "early": Series(np.array([10, 20]), np.array([1.0, 2.0])),
        "small": Series(np.array([30]), np.array([0.5])),
    }
    steps, stacked = plot.stack(tables, largest=1)

    assert steps.tolist() == [10, 20, 30]
    assert {name: values.tolist() for name, values in stacked.items()} == {
        "late": [0, 7, 8], "2 other tables": [1, 2, 0.5]
    }  # fmt: skip
    assert list(plot.stack(tables, largest=2)[1]) == ["late", "early", "small"]  # a rest of one
    assert plot.stack({})[1] == {}
