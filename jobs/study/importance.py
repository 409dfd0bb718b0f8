"""`fourfold study importance`: which rows to keep, by AUC at one budget.

The experiment is that of AdaEmbed (Lai et al., OSDI 2023): dynamic tables with room for a share of
all ids' rows, reclaimed by

    importance           frequency times the norm of the gradient, averaged over time
    relative_importance  the same in units of the 95th percentile of its table, as AdaEmbed has it
    frequency            how often an id is seen
    recency              when it was seen last: blind to what a row is worth, as a random choice

One pass, every sample scored before it trains; everything but the score is the same.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from statistics import mean

from fourfold.jobs.study.comparison import Case, Groups, gap, group_cases, listed, table
from fourfold.jobs.study.kraken import LEARNING_RATES
from fourfold.jobs.study.log import make_log
from fourfold.jobs.study.memory import Budget
from fourfold.jobs.study.options import (
    add_policy_arguments,
    add_study_arguments,
    check_study_arguments,
)
from fourfold.jobs.study.plot import Line, plot_lines
from fourfold.jobs.study.policy import Policy
from fourfold.jobs.study.record import Record, make_logs, run_trials
from fourfold.jobs.study.trial import Trial
from fourfold.storage.reclaim import Ranking

HELP = "which rows to keep: importance against frequency against recency"

SCORES: tuple[Ranking, ...] = ("importance", "frequency", "recency", "relative_importance")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the options."""
    add_study_arguments(parser, "importance", samples=2_000_000)
    add_policy_arguments(parser)
    parser.add_argument("--shares", type=float, nargs="+", default=[0.1, 0.25, 0.5])
    parser.add_argument("--dim", type=int, default=16, help="columns of a row")
    parser.add_argument(
        "--optimizer", choices=tuple(LEARNING_RATES), default="rowwise_adagrad", help="of the rows"
    )


def run(args: argparse.Namespace) -> int:
    """Run what is missing, print the table, write JSON and plot."""
    check_study_arguments(args)
    record = Record("importance", args.out)
    make_logs(args.logs, args.samples, range(args.seeds), args.jobs)
    cases = [case for seed in range(args.seeds) for case in seed_cases(args, seed)]
    outcomes = run_trials(record, [case.trial for case in cases], args.logs, args.jobs)
    groups = group_cases(cases, outcomes)
    record.write({"groups": listed(groups)})
    print("\n".join([*table(groups), *describe_gaps(groups)]))
    draw(args.out / "importance.png", groups)
    print(f"kept in {record.path} and {args.out / 'importance.png'}")
    return 0


def seed_cases(args: argparse.Namespace, seed: int) -> Iterator[Case]:
    """Give all trials on one log."""
    log = make_log(args.logs, args.samples, seed)
    steps = -(-args.samples // args.batch)

    def case(contender: str, share: float, policy: Policy | None) -> Case:
        trial = Trial(
            samples=args.samples,
            seed=seed,
            batch=args.batch,
            dim=args.dim,
            optimizer=args.optimizer,
            lr=LEARNING_RATES[args.optimizer],
            policy=policy,
        )
        return Case(contender, share, budget(share).bytes, trial)

    def budget(share: float) -> Budget:
        return Budget.of(share, log.distinct, args.dim, args.optimizer)

    yield case("unlimited", 1.0, None)
    for share in args.shares:
        for by in SCORES:
            policy = Policy(
                by=by,
                bytes=budget(share).reclaimed_bytes,
                interval=max(1, round(args.interval * steps)),
                decay=args.decay,
                free=args.free,
            )
            yield case(by, share, policy)


def describe_gaps(groups: Groups) -> list[str]:
    """Say by how much importance is ahead of the others."""
    lines = []
    for share in sorted({share for name, share in groups if name == "importance"}):
        ours = groups["importance", share]
        others = (
            f"{mean(gap(ours, groups[name, share])):+.4f} against {name}" for name in SCORES[1:]
        )
        lines.append(f"{share:7.0%} importance {', '.join(others)}")
    return lines


def draw(path: Path, groups: Groups) -> None:
    """Plot AUC against memory."""
    lines: dict[str, Line] = {}
    for name in SCORES:
        own = [group for group in groups.values() if group.contender == name]
        lines[name] = Line([g.share for g in own], [g.auc for g in own])
    kept = groups["unlimited", 1.0]
    spread = [min(lines[SCORES[0]].x), max(lines[SCORES[0]].x)]
    lines["every row kept"] = Line(spread, [kept.auc] * 2, dashed=True)
    plot_lines(
        path,
        lines,
        title="AUC of the last half of the log, scored before it trains",
        x="memory as a share of all ids' rows",
        y="AUC (logs moved to one mean)",
    )
