"""`fourfold study optimizer`: AUC and bytes per row of Adam, row-wise Adagrad and SGD for the rows.

The experiment is that of Kraken (Xie et al., SC 2020): the dense model has Adam, the rows have one
of three optimizers of less and less state. Each gets the learning rate that does best on a log
that no figure comes from, so none loses for want of tuning: the best of four, and of more where it
is the lowest or the highest of those tried. All rows are kept.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean, stdev

from fourfold.jobs.study.memory import row_bytes
from fourfold.jobs.study.options import TUNING_SEED, add_study_arguments, check_study_arguments
from fourfold.jobs.study.plot import Line, plot_lines
from fourfold.jobs.study.record import Record, make_logs, run_trials
from fourfold.jobs.study.trial import Outcome, Trial
from fourfold.runtime.table import OptimizerName

HELP = "AUC and bytes per row of three optimizers of rows, the dense model with Adam"

GRID: Mapping[OptimizerName, tuple[float, ...]] = {
    "adam": (0.0005, 0.001, 0.002, 0.004),
    "rowwise_adagrad": (0.02, 0.05, 0.1, 0.2),
    "sgd": (10.0, 30.0, 100.0, 300.0),
}
"""Optimizers of the rows, and the learning rates that are tried first."""
_WIDENINGS = 3
LEAST_RATIO = {8: 2.4, 16: 2.7, 64: 2.9}
"""Adam's bytes per row over those of row-wise Adagrad that are expected, at the dims studied."""
NEAR = 0.001

Pair = tuple[int, OptimizerName]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the options."""
    add_study_arguments(parser, "optimizer", samples=1_000_000)
    parser.add_argument("--dims", type=int, nargs="+", default=list(LEAST_RATIO))


@dataclass(frozen=True, slots=True)
class Entry:
    """One optimizer at one dim."""

    dim: int
    optimizer: str
    lr: float
    row_bytes: int
    auc: list[float]

    @property
    def mean(self) -> float:
        """Mean AUC."""
        return mean(self.auc)


def run(args: argparse.Namespace) -> int:
    """Tune, run what is missing, print the table, write JSON and plot."""
    check_study_arguments(args)
    record = Record("optimizer", args.out)
    make_logs(args.logs, args.samples, [TUNING_SEED, *range(args.seeds)], args.jobs)
    pairs: list[Pair] = [(dim, name) for dim in args.dims for name in GRID]
    rates = tune(args, record, pairs)
    trials = {
        pair: [make_trial(args, *pair, rates[pair], seed) for seed in range(args.seeds)]
        for pair in pairs
    }
    outcomes = run_trials(record, [t for own in trials.values() for t in own], args.logs, args.jobs)
    entries = [
        Entry(dim, name, rates[dim, name], row_bytes(dim, name), aucs(trials[dim, name], outcomes))
        for dim, name in pairs
    ]
    record.write({"entries": [asdict(entry) for entry in entries]})
    print("\n".join([*describe(entries), *verdicts(entries)]))
    draw(args.out / "optimizer.png", entries)
    print(f"kept in {record.path} and {args.out / 'optimizer.png'}")
    return 0


def tune(args: argparse.Namespace, record: Record, pairs: list[Pair]) -> dict[Pair, float]:
    """Choose learning rates on a log of their own; grids grow while the best is at an end."""
    grids = {pair: list(GRID[pair[1]]) for pair in pairs}
    rates: dict[Pair, float] = {}
    for _ in range(1 + _WIDENINGS):
        trials = {
            pair: [make_trial(args, *pair, lr, TUNING_SEED) for lr in grids[pair]] for pair in pairs
        }
        tried = run_trials(
            record, [t for own in trials.values() for t in own], args.logs, args.jobs
        )
        for pair, own in trials.items():
            rates[pair] = max(own, key=lambda t: tried[t].auc).lr
            grids[pair] = widen(grids[pair], rates[pair])
    return rates


def widen(grid: list[float], best: float) -> list[float]:
    """Add a step to the grid on the side where the best one is its last."""
    if len(grid) > 1 and best == grid[0]:
        return [grid[0] * grid[0] / grid[1], *grid]
    if len(grid) > 1 and best == grid[-1]:
        return [*grid, grid[-1] * grid[-1] / grid[-2]]
    return grid


def make_trial(
    args: argparse.Namespace, dim: int, optimizer: OptimizerName, lr: float, seed: int
) -> Trial:
    """Describe one run."""
    return Trial(
        samples=args.samples, seed=seed, batch=args.batch, dim=dim, optimizer=optimizer, lr=lr
    )


def aucs(trials: list[Trial], outcomes: Mapping[Trial, Outcome]) -> list[float]:
    """AUC of each trial."""
    return [outcomes[trial].auc for trial in trials]


def describe(entries: list[Entry]) -> list[str]:
    """The entries as lines of text."""
    lines = [f"{'dim':>4} {'rows by':16} {'lr':>7} {'bytes/row':>10} {'AUC':>8} {'spread':>8}"]
    lines += [
        f"{e.dim:4} {e.optimizer:16} {e.lr:7g} {e.row_bytes:10} {e.mean:8.4f}"
        f" {stdev(e.auc) if len(e.auc) > 1 else 0.0:8.4f}"
        for e in entries
    ]
    return lines


def verdicts(entries: list[Entry]) -> list[str]:
    """Compare row-wise Adagrad with Adam at every dim."""
    lines = []
    for dim in dict.fromkeys(entry.dim for entry in entries):
        adam, rowwise = (
            next(e for e in entries if (e.dim, e.optimizer) == (dim, name))
            for name in ("adam", "rowwise_adagrad")
        )
        ratio = adam.row_bytes / rowwise.row_bytes
        above = rowwise.mean - adam.mean
        fine = above >= -NEAR and ratio >= LEAST_RATIO.get(dim, 1.0)
        lines.append(
            f"dim {dim}: row-wise Adagrad {above:+.4f} AUC against Adam, with {ratio:.2f} times"
            f" fewer bytes: {'yes' if fine else 'NO'}"
        )
    return lines


def draw(path: Path, entries: list[Entry]) -> None:
    """Plot AUC against bytes per row."""
    lines = {}
    for name in GRID:
        own = [entry for entry in entries if entry.optimizer == name]
        lines[f"Adam / {name}"] = Line([e.row_bytes for e in own], [e.auc for e in own])
    plot_lines(
        path,
        lines,
        title="AUC of the last half of the log, scored before it trains",
        x="bytes per row, metadata included",
        y="AUC (logs moved to one mean)",
        log_x=True,
    )
