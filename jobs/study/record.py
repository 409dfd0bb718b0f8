"""The record of a study: trials that are done, in a JSON file, so that none is run twice.

    {"study": "kraken", "trials": [{"log": ..., "trial": {...}, "outcome": {...}}], "results": ...}

A trial is known by all of its settings and by the generator of its log. The file is replaced whole
after every trial; a study that was interrupted goes on where it was.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fourfold.jobs.study.log import generator_digest, make_log
from fourfold.jobs.study.trial import Outcome, Trial, run_trial
from fourfold.runtime.errors import DataError


class Record:
    """The trials that a study has behind it, in `folder`/study.json."""

    def __init__(self, study: str, folder: Path) -> None:
        self.path = folder / "study.json"
        self._study = study
        self._done: dict[str, dict[str, Any]] = {}
        if self.path.exists():
            try:
                content = json.loads(self.path.read_text())
                self._done = {_key(entry): entry for entry in content["trials"]}
            except (ValueError, KeyError, TypeError) as error:
                raise DataError(f"{self.path}: no record of a study ({error!r})") from error

    def find(self, trial: Trial) -> Outcome | None:
        """Give the outcome of a trial; None if it was not run."""
        entry = self._done.get(_key(_entry(trial)))
        return None if entry is None else Outcome(**entry["outcome"])

    def add(self, trial: Trial, outcome: Outcome) -> None:
        """Take an outcome down."""
        entry = _entry(trial)
        self._done[_key(entry)] = entry | {"outcome": asdict(outcome)}
        self.write({})

    def write(self, results: dict[str, Any]) -> None:
        """Replace the file."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        content = {"study": self._study, "results": results, "trials": list(self._done.values())}
        partial = self.path.with_name(f".{self.path.name}.{os.getpid()}.partial")
        partial.write_text(json.dumps(content, indent=1) + "\n")
        partial.replace(self.path)


def run_trials(
    record: Record, trials: Iterable[Trial], logs: Path, jobs: int
) -> dict[Trial, Outcome]:
    """Give the outcomes of all trials, running those that are missing, `jobs` side by side."""
    outcomes: dict[Trial, Outcome] = {}
    missing = []
    for trial in dict.fromkeys(trials):
        outcome = record.find(trial)
        if outcome is None:
            missing.append(trial)
        else:
            outcomes[trial] = outcome
    for number, (trial, outcome) in enumerate(_run(missing, logs, jobs), start=1):
        record.add(trial, outcome)
        outcomes[trial] = outcome
        print(
            f"trial {number} of {len(missing)}: AUC {outcome.auc:.4f}, {outcome.seconds:.0f} s,"
            f" {outcome.samples_per_s:,.0f} samples/s",
            file=sys.stderr,
            flush=True,
        )
    return outcomes


def make_logs(logs: Path, samples: int, seeds: Iterable[int], jobs: int) -> None:
    """Generate the logs that are missing, `jobs` side by side."""
    wanted = [(logs, samples, seed) for seed in dict.fromkeys(seeds)]
    if jobs == 1:
        for arguments in wanted:
            make_log(*arguments)
        return
    with _processes(jobs) as pool:
        for future in [pool.submit(make_log, *arguments) for arguments in wanted]:
            future.result()


def _run(trials: list[Trial], logs: Path, jobs: int) -> Iterator[tuple[Trial, Outcome]]:
    """Yield outcomes as they come."""
    if jobs == 1 or len(trials) < 2:
        for trial in trials:
            yield trial, run_trial(trial, logs)
        return
    with _processes(jobs) as pool:
        running = {pool.submit(run_trial, trial, logs): trial for trial in trials}
        try:
            for future in as_completed(running):
                yield running[future], future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _processes(jobs: int) -> ProcessPoolExecutor:
    # A fresh process each: MPI does not live through a fork.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    return ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn"))


def _entry(trial: Trial) -> dict[str, Any]:
    # As it will be read back, so that tuples and lists are the same.
    described: dict[str, Any] = json.loads(json.dumps(asdict(trial)))
    return {"log": generator_digest(), "trial": described}


def _key(entry: dict[str, Any]) -> str:
    return json.dumps([entry["log"], entry["trial"]], sort_keys=True)
