"""`fourfold study kraken`: AUC against memory, rows that are reclaimed against the hashing trick.

The experiment is that of Kraken (Xie et al., SC 2020): one pass over a log in which ids come and
go, every sample scored before it trains, memory for a share of all ids' rows.

    fourfold   dynamic tables in one shared pool; when it is full, rows past their table's time to
               live go first, then those of the lowest score. A table's time to live is the 99.9th
               percentile of the gaps between lookups of an id; tables with at most 1% of all ids
               have none.
    hashing    hashes of ids modulo the rows of static tables, the memory split over the tables by
               hand in five ways (memory.py); of these the best at each size counts, chosen
               by the AUC it reached. Closed lists are not hashed: what fits does not collide.
    unlimited  dynamic tables that keep every row.

Both get the same bytes: Fourfold pays for its index, its metadata and blocks that are not full,
hashing for plain arrays. Dense model, optimizers, learning rates and first values are the same.
Times to live and the figures by which memory is split are counted over the whole log.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from statistics import mean

from fourfold.jobs.study.comparison import Case, Groups, gap, group_cases, listed, table
from fourfold.jobs.study.log import StudyLog, make_log
from fourfold.jobs.study.memory import SMALL, SPLITS, Budget, split_rows
from fourfold.jobs.study.options import (
    add_policy_arguments,
    add_study_arguments,
    check_study_arguments,
)
from fourfold.jobs.study.plot import Line, plot_lines
from fourfold.jobs.study.policy import Policy
from fourfold.jobs.study.record import Record, make_logs, run_trials
from fourfold.jobs.study.trial import SCORED, Trial

HELP = "AUC against memory: rows that are reclaimed against ids hashed into tables"

LEARNING_RATES = {"adam": 0.002, "rowwise_adagrad": 0.05}
"""Of the rows; near the best of both contenders on the log that learning rates are chosen on."""
CONTENDERS = ("fourfold", "hashing", "unlimited")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the options."""
    add_study_arguments(parser, "kraken", samples=3_000_000)
    add_policy_arguments(parser)
    parser.add_argument("--shares", type=float, nargs="+", default=[0.2, 0.4, 0.6, 1.0])
    parser.add_argument("--contenders", choices=CONTENDERS, nargs="+", default=list(CONTENDERS))
    parser.add_argument("--dim", type=int, default=16, help="columns of a row")
    parser.add_argument("--optimizer", choices=tuple(LEARNING_RATES), default="adam")
    parser.add_argument("--positive-weight", type=float, default=2.0, help="r of the score")
    parser.add_argument("--admission", choices=("always", "probability"), default="always")
    parser.add_argument("--admit-probability", type=float, default=1.0)


def run(args: argparse.Namespace) -> int:
    """Run what is missing, print the table, write JSON and plot."""
    check_study_arguments(args)
    record = Record("kraken", args.out)
    make_logs(args.logs, args.samples, range(args.seeds), args.jobs)
    cases = [case for seed in range(args.seeds) for case in seed_cases(args, seed)]
    outcomes = run_trials(record, [case.trial for case in cases], args.logs, args.jobs)
    groups = group_cases(cases, outcomes)
    duels = duel_sizes(groups)
    record.write({"groups": listed(groups), "duels": [asdict(duel) for duel in duels]})
    truth = make_log(args.logs, args.samples, 0).truth(SCORED)
    print("\n".join([*table(groups), *describe_duels(duels)]))
    print(f"the true probabilities, which no model can beat, reach {truth.auc:.4f} on log 0")
    draw(args.out / "kraken.png", groups, duels)
    print(f"kept in {record.path} and {args.out / 'kraken.png'}")
    return 0


def seed_cases(args: argparse.Namespace, seed: int) -> Iterator[Case]:
    """Give all trials on one log."""
    log = make_log(args.logs, args.samples, seed)
    lr = LEARNING_RATES[args.optimizer]

    def trial(hashed: tuple[int, ...] | None = None, policy: Policy | None = None) -> Trial:
        return Trial(
            samples=args.samples,
            seed=seed,
            batch=args.batch,
            dim=args.dim,
            optimizer=args.optimizer,
            lr=lr,
            hashed=hashed,
            policy=policy,
        )

    whole = Budget.of(1.0, log.distinct, args.dim, args.optimizer)
    if "unlimited" in args.contenders:
        yield Case("unlimited", 1.0, whole.bytes, trial())
    for share in args.shares:
        budget = Budget.of(share, log.distinct, args.dim, args.optimizer)
        if "fourfold" in args.contenders:
            policy = kraken_policy(args, log, budget)
            yield Case("fourfold", share, budget.bytes, trial(policy=policy))
        if "hashing" in args.contenders:
            for split in SPLITS:
                rows = split_rows(split, log.tables, budget.hashed_rows)
                yield Case(split, share, budget.bytes, trial(hashed=rows))


def kraken_policy(args: argparse.Namespace, log: StudyLog, budget: Budget) -> Policy:
    """Set the policy for a log: what is learnt from it are the times to live."""
    steps = -(-args.samples // args.batch)
    small = SMALL * log.distinct
    return Policy(
        by="kraken",
        bytes=budget.reclaimed_bytes,
        interval=max(1, round(args.interval * steps)),
        decay=args.decay,
        positive_weight=args.positive_weight,
        free=args.free,
        times_to_live=tuple(
            None if table.distinct <= small else max(1, -(-gap // args.batch))
            for table, gap in zip(log.tables, log.gaps, strict=True)
        ),
        admission=args.admission,
        admit_probability=args.admit_probability,
    )


@dataclass(frozen=True, slots=True)
class Duel:
    """Fourfold against the best split at one size."""

    share: float
    split: str
    """The split that reached the best mean AUC."""
    gap: list[float]
    """By how much Fourfold is above it on each log."""


def duel_sizes(groups: Groups) -> list[Duel]:
    """Compare at every size at which both were run, the largest first."""
    duels = []
    for share in sorted({share for _, share in groups}, reverse=True):
        splits = [groups[name, share] for name in SPLITS if (name, share) in groups]
        ours = groups.get(("fourfold", share))
        if ours is not None and splits:
            best = max(splits, key=lambda group: group.mean)
            duels.append(Duel(share, best.contender, gap(ours, best)))
    return duels


def describe_duels(duels: list[Duel]) -> list[str]:
    """Say who is ahead, and whether the gap grows as memory shrinks."""
    if not duels:
        return []
    lines = [
        f"{duel.share:7.0%} fourfold {mean(duel.gap):+.4f} (least {min(duel.gap):+.4f}) against"
        f" hashing by {duel.split}"
        for duel in duels
    ]
    gaps = [mean(duel.gap) for duel in duels]
    above = all(least > 0 for duel in duels for least in duel.gap)
    grows = all(a < b for a, b in pairwise(gaps))
    return [
        *lines,
        f"above at every size on every log: {'yes' if above else 'NO'};"
        f" gap grows as memory shrinks: {'yes' if grows else 'NO'}",
    ]


def draw(path: Path, groups: Groups, duels: list[Duel]) -> None:
    """Plot AUC against memory."""
    lines = {}
    for name in ("fourfold", *SPLITS):
        own = [group for group in groups.values() if group.contender == name]
        if own:
            shown = name if name == "fourfold" else f"hashing, {name}"
            faint = name != "fourfold" and name not in {duel.split for duel in duels}
            lines[shown] = Line([g.share for g in own], [g.auc for g in own], faint=faint)
    if unlimited := groups.get(("unlimited", 1.0)):
        ends = [min(share for _, share in groups), 1.0]
        lines["every row kept"] = Line(ends, [unlimited.auc] * 2, dashed=True)
    plot_lines(
        path,
        lines,
        title="AUC of the last half of the log, scored before it trains",
        x="memory as a share of all ids' rows",
        y="AUC (logs moved to one mean)",
    )
