"""Studies: progressive scores, trials, records that go on, commands that say what they found."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fourfold.jobs.study import kraken, optimizer, record
from fourfold.jobs.study.clicks import EFFECTS
from fourfold.jobs.study.log import make_log, open_log
from fourfold.jobs.study.memory import row_bytes
from fourfold.jobs.study.plot import to_one_mean
from fourfold.jobs.study.policy import Policy, reclaim_options
from fourfold.jobs.study.record import Record, run_trials
from fourfold.jobs.study.score import ProgressiveLoss
from fourfold.jobs.study.trial import ClickBatches, Outcome, Trial, run_trial
from fourfold.runtime.errors import DataError
from fourfold.runtime.table import TableConfig
from fourfold.storage.reclaim import Ranking

SAMPLES = 6_000
TRIAL = Trial(samples=SAMPLES, seed=0, batch=256, dim=4)


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("logs")
    make_log(folder, SAMPLES, 0)
    return folder


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def auc_by_hand(scores: list[float], labels: list[int]) -> float:
    clicked = [s for s, label in zip(scores, labels, strict=True) if label]
    passed = [s for s, label in zip(scores, labels, strict=True) if not label]
    wins = [(s > t) + 0.5 * (s == t) for s in clicked for t in passed]
    return sum(wins) / len(wins)


def test_progressive_auc_is_that_of_the_scores_before_training() -> None:
    scores, labels = [0.1, -0.4, 2.0, 0.1, 0.3, -1.0, 0.1, 0.9], [0, 1, 1, 1, 0, 0, 1, 1]
    loss = ProgressiveLoss()
    for start in (0, 3, 6):
        span = slice(start, start + 3)
        logits = torch.tensor(scores[span], requires_grad=True)
        given = loss(logits, torch.tensor(labels[span], dtype=torch.float32))
        given.backward()
        with torch.no_grad():
            logits += 100  # what training does to it afterwards does not count

    assert loss.metrics().auc == pytest.approx(auc_by_hand(scores, labels))
    assert loss.metrics(0.5).auc == pytest.approx(auc_by_hand(scores[4:], labels[4:]))
    assert loss.metrics(0.5).samples == 4


def test_a_first_batch_is_scored_by_the_model_as_it_was_born(logs: Path) -> None:
    """With a single batch nothing was learnt yet, whatever the learning rate."""
    one = replace(TRIAL, batch=SAMPLES)

    assert run_trial(one, logs).log_loss == run_trial(replace(one, lr=0.5), logs).log_loss


def test_a_trial_repeats_and_learns(logs: Path) -> None:
    first, second = run_trial(TRIAL, logs), run_trial(TRIAL, logs)

    assert (first.auc, first.curve, first.rows) == (second.auc, second.curve, second.rows)
    assert first.rows == open_log(logs, SAMPLES, 0).distinct
    assert first.most_bytes > 0
    assert first.auc > 0.52


def test_batches_come_in_the_order_of_time(logs: Path) -> None:
    clicks = open_log(logs, SAMPLES, 0).clicks
    source, ids, labels = ClickBatches(clicks, 256, None), [], []
    while (batch := source.next_batch()) is not None:
        ids.append(batch.ids.reshape(len(EFFECTS), -1))
        labels.append(batch.label)

    assert np.array_equal(np.concatenate(ids, axis=1), clicks.ids)
    assert np.array_equal(np.concatenate(labels), clicks.label)


def test_hashed_ids_lie_in_their_tables_and_closed_lists_do_not_collide(logs: Path) -> None:
    clicks = open_log(logs, SAMPLES, 0).clicks
    rows = tuple(2000 if name == "city" else 10 + i for i, name in enumerate(EFFECTS))
    batch = ClickBatches(clicks, SAMPLES, rows).next_batch()
    assert batch is not None
    ids = batch.ids.reshape(len(EFFECTS), -1)

    assert (ids < np.array(rows)[:, None]).all()
    assert np.array_equal(ids[6], clicks.ids[6])
    user = np.unique(np.stack([clicks.ids[0], ids[0]]), axis=1)  # an id has one row
    assert len(np.unique(user[0])) == user.shape[1]


@pytest.mark.parametrize("by", ["kraken", "frequency", "recency", "importance"])
def test_rows_that_are_reclaimed_stay_within_the_budget(logs: Path, by: Ranking) -> None:
    row = row_bytes(TRIAL.dim, TRIAL.optimizer)
    policy = Policy(by=by, bytes=2_000 * row, interval=4, times_to_live=(None, 3) + (None,) * 7)
    outcome = run_trial(replace(TRIAL, policy=policy), logs)

    # What a batch brings comes on top, until rows are taken back.
    assert 1_000 < outcome.rows <= outcome.most_rows < 5_000
    assert outcome.most_rows < open_log(logs, SAMPLES, 0).distinct / 2
    assert outcome == replace(
        run_trial(replace(TRIAL, policy=policy), logs),
        seconds=outcome.seconds,
        samples_per_s=outcome.samples_per_s,
    )


def test_budgets_that_are_not_reached_change_nothing(logs: Path) -> None:
    policy = Policy(by="kraken", bytes=10**9, interval=4)
    kept, reclaimed = run_trial(TRIAL, logs), run_trial(replace(TRIAL, policy=policy), logs)

    assert (kept.auc, kept.curve, kept.rows) == (reclaimed.auc, reclaimed.curve, reclaimed.rows)


def test_a_policy_says_who_is_admitted() -> None:
    policy = Policy(
        by="frequency", rows=9, interval=2, admission="probability", admit_probability=0.5
    )
    tables, shared = reclaim_options(replace(policy, times_to_live=(None, 7)), 2)

    assert [table["time_to_live"] for table in tables] == [None, 7]
    assert [TableConfig(name="t", **table).admit_probability for table in tables] == [0.5, 0.5]
    assert (shared["reclaim"].by, shared["reclaim"].rows) == ("frequency", 9)
    assert reclaim_options(None, 2) == (({}, {}), {})


def test_rows_that_ids_are_hashed_into_take_what_arrays_would(logs: Path) -> None:
    hashed = (100,) * len(EFFECTS)
    outcome = run_trial(replace(TRIAL, hashed=hashed), logs)

    assert outcome.most_rows == 900
    assert outcome.most_bytes == 900 * (row_bytes(TRIAL.dim, TRIAL.optimizer) - 4)


def counted(monkeypatch: pytest.MonkeyPatch) -> list[Trial]:
    ran: list[Trial] = []

    def trial(trial: Trial, logs: Path) -> Outcome:
        ran.append(trial)
        if trial.seed == 13:
            raise DataError("unlucky")
        return Outcome(0.7 + trial.seed / 1000, 0.5, [0.7] * 10, 9, 9, 99, 1.0, 60.0)

    monkeypatch.setattr(record, "run_trial", trial)
    return ran


def test_a_record_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = counted(monkeypatch)
    trials = [replace(TRIAL, seed=seed, hashed=(1, 2)) for seed in (0, 1, 13, 2)]
    with pytest.raises(DataError, match="unlucky"):
        run_trials(Record("x", tmp_path), trials, tmp_path, 1)
    assert [trial.seed for trial in ran] == [0, 1, 13]

    ran.clear()
    outcomes = run_trials(Record("x", tmp_path), trials[:2] + trials[3:], tmp_path, 1)
    assert [trial.seed for trial in ran] == [2]
    assert [outcomes[trial].auc for trial in trials[:2]] == [0.7, 0.701]

    ran.clear()
    run_trials(Record("x", tmp_path), [replace(trials[0], lr=0.1)], tmp_path, 1)
    assert len(ran) == 1  # another setting is another trial


def test_a_file_that_is_no_record_is_named(tmp_path: Path) -> None:
    (tmp_path / "study.json").write_text("[]")

    with pytest.raises(DataError, match=r"study\.json: no record of a study"):
        Record("x", tmp_path)


def run(module: object, tmp_path: Path, *options: str) -> int:
    parser = argparse.ArgumentParser()
    module.add_arguments(parser)  # type: ignore[attr-defined]
    places = ["--out", str(tmp_path / "out"), "--logs", str(tmp_path / "logs"), "--jobs", "1"]
    return module.run(parser.parse_args([*places, *options]))  # type: ignore[attr-defined]


def test_the_kraken_study_compares_at_equal_bytes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = "--samples 8000 --seeds 1 --dim 4 --shares 0.5"
    assert run(kraken, tmp_path, *options.split()) == 0
    content = json.loads((tmp_path / "out" / "study.json").read_text())
    groups = {group["contender"]: group for group in content["results"]["groups"]}

    assert list(groups) == ["unlimited", "fourfold", *kraken.SPLITS]
    assert len({groups[name]["bytes"] for name in ("fourfold", *kraken.SPLITS)}) == 1
    assert all(groups[name]["most_bytes"] <= groups[name]["bytes"] for name in kraken.SPLITS)
    assert groups["fourfold"]["most_rows"] < 0.6 * groups["unlimited"]["most_rows"]
    assert groups["sqrt"]["bytes"] == pytest.approx(groups["unlimited"]["bytes"] / 2, rel=1e-4)
    assert (tmp_path / "out" / "kraken.png").stat().st_size > 0
    assert "unlimited" in capsys.readouterr().out


def test_the_optimizer_study_tunes_on_another_log(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    grid = {"adam": (0.001, 0.002), "rowwise_adagrad": (0.1,)}
    monkeypatch.setattr(optimizer, "GRID", grid)
    monkeypatch.setattr(optimizer, "_WIDENINGS", 1)
    options = ["--samples", "5000", "--seeds", "1", "--dims", "8"]
    assert run(optimizer, tmp_path, *options) == 0
    content = json.loads((tmp_path / "out" / "study.json").read_text())

    assert len(content["trials"]) == 6  # two, one beyond, one; and those that count
    assert {entry["row_bytes"] for entry in content["results"]["entries"]} == {100, 40}
    assert "2.50 times fewer bytes" in capsys.readouterr().out
    run(optimizer, tmp_path, *options)
    assert "trial" not in capsys.readouterr().err


def test_a_grid_grows_where_the_best_is_at_its_end() -> None:
    assert optimizer.widen([1.0, 2.0, 8.0], 1.0) == [0.5, 1.0, 2.0, 8.0]
    assert optimizer.widen([1.0, 2.0, 8.0], 2.0) == [1.0, 2.0, 8.0]
    assert optimizer.widen([1.0, 2.0, 8.0], 8.0) == [1.0, 2.0, 8.0, 32.0]
    assert optimizer.widen([1.0], 1.0) == [1.0]


def test_plots_move_logs_to_one_mean() -> None:
    points = [[0.70, 0.60], [0.72, 0.61]]
    moved = np.array(points) + to_one_mean(points)

    assert moved.mean(axis=0) == pytest.approx([0.6575, 0.6575])
    assert moved[1] - moved[0] == pytest.approx([0.02, 0.01])
