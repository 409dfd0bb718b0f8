"""Studies of reclamation with outcomes that are made up: what is asked for, and what is said."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType

import pytest

from fourfold.jobs.study import importance, kraken
from fourfold.jobs.study.log import open_log
from fourfold.jobs.study.memory import Budget
from fourfold.jobs.study.trial import Outcome, Trial

OPTIONS = "--samples 8000 --seeds 2 --jobs 1 --dim 8"


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("logs")


def run(
    module: ModuleType,
    folder: Path,
    logs: Path,
    monkeypatch: pytest.MonkeyPatch,
    auc: Callable[[Trial], float],
    options: str,
) -> list[Trial]:
    """Run a study whose trials end as `auc` says; give the trials."""
    asked: list[Trial] = []

    def run_trials(
        record: object, trials: Iterable[Trial], logs: Path, jobs: int
    ) -> dict[Trial, Outcome]:
        asked.extend(trials)
        return {t: Outcome(auc(t), 0.5, [0.7] * 10, 9, 9, 99, 1.0, 60.0) for t in asked}

    monkeypatch.setattr(module, "run_trials", run_trials)
    parser = argparse.ArgumentParser()
    module.add_arguments(parser)
    places = ["--out", str(folder / "out"), "--logs", str(logs)]
    assert module.run(parser.parse_args([*places, *OPTIONS.split(), *options.split()])) == 0
    return asked


def room(trial: Trial) -> int:
    """What a trial may use, so that more is better."""
    if trial.policy is not None:
        return trial.policy.bytes or trial.policy.rows or 0
    return 10**9 if trial.hashed is None else sum(trial.hashed)


@pytest.mark.parametrize(
    ("ahead", "verdict"),
    [
        (lambda share: 0.02 - share / 100, "every log: yes; gap grows as memory shrinks: yes"),
        (lambda share: share / 100, "every log: yes; gap grows as memory shrinks: NO"),
        (lambda share: 0.008 - share / 100, "every log: NO; gap grows as memory shrinks: yes"),
    ],
)
def test_the_verdict_is_that_of_the_figures(
    ahead: Callable[[float], float],
    verdict: str,
    tmp_path: Path,
    logs: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def auc(trial: Trial) -> float:
        if trial.policy is None or trial.policy.bytes is None:
            return 0.7
        whole = Budget.of(1.0, open_log(logs, 8000, trial.seed).distinct, 8, "adam")
        return 0.7 + ahead(trial.policy.bytes / whole.reclaimed_bytes)

    run(kraken, tmp_path, logs, monkeypatch, auc, "--shares 0.5 1.0")

    assert verdict in capsys.readouterr().out


def test_the_best_split_counts_at_each_size(
    tmp_path: Path, logs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(kraken, tmp_path, logs, monkeypatch, lambda t: 0.6 + room(t) / 1e12, "--shares 0.5")
    results = json.loads((tmp_path / "out" / "study.json").read_text())["results"]
    splits = [g for g in results["groups"] if g["contender"] in kraken.SPLITS]
    best = max(splits, key=lambda g: sum(g["auc"]))

    assert [duel["split"] for duel in results["duels"]] == [best["contender"]]


def test_small_tables_live_for_ever_and_others_by_their_gaps(
    tmp_path: Path, logs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trials = run(kraken, tmp_path, logs, monkeypatch, lambda t: 0.7, "--shares 0.5 --batch 100")
    policy = next(t.policy for t in trials if t.policy is not None)
    log = open_log(logs, 8000, 0)

    assert policy.times_to_live[-2:] == (None, None)  # device and hour
    assert policy.times_to_live[0] == -(-log.gaps[0] // 100)
    assert policy.interval == 1  # 1% of 80 steps


def test_only_the_score_is_different(
    tmp_path: Path, logs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trials = run(importance, tmp_path, logs, monkeypatch, lambda t: 0.7, "")
    kept = [t for t in trials if t.policy is None]
    policies = [t.policy for t in trials if t.policy is not None]

    assert len(kept) == 2
    assert len(policies) == 2 * 3 * len(importance.SCORES)
    assert {p.by for p in policies} == set(importance.SCORES)
    assert (
        len({(p.bytes, p.interval, p.decay, p.free) for p in policies[: len(importance.SCORES)]})
        == 1
    )
