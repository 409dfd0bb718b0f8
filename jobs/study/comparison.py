"""Contenders at several sizes of memory, each on the logs of all seeds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from statistics import mean, stdev
from typing import Any

from fourfold.jobs.study.trial import Outcome, Trial


@dataclass(frozen=True, slots=True)
class Case:
    """A trial and what it stands for."""

    contender: str
    share: float
    """Of the memory of all ids' rows."""
    bytes: int
    """What that is."""
    trial: Trial


@dataclass(frozen=True, slots=True)
class Group:
    """What one contender reached at one size, seed by seed."""

    contender: str
    share: float
    bytes: float
    """Given, on average."""
    most_bytes: float
    """Taken for rows and index at most, on average."""
    most_rows: float
    auc: list[float]
    log_loss: list[float]
    samples_per_s: float

    @property
    def mean(self) -> float:
        """Mean AUC."""
        return mean(self.auc)

    @property
    def spread(self) -> float:
        """Standard deviation of the AUC over the seeds, logs included; 0 for one seed."""
        return stdev(self.auc) if len(self.auc) > 1 else 0.0


Groups = dict[tuple[str, float], Group]


def group_cases(cases: Iterable[Case], outcomes: Mapping[Trial, Outcome]) -> Groups:
    """Bring the seeds of each contender and size together, in the order of the cases."""
    found: dict[tuple[str, float], list[Case]] = {}
    for case in cases:
        found.setdefault((case.contender, case.share), []).append(case)
    groups = {}
    for (contender, share), own in found.items():
        reached = [outcomes[case.trial] for case in own]
        groups[contender, share] = Group(
            contender,
            share,
            bytes=mean(case.bytes for case in own),
            most_bytes=mean(o.most_bytes for o in reached),
            most_rows=mean(o.most_rows for o in reached),
            auc=[o.auc for o in reached],
            log_loss=[o.log_loss for o in reached],
            samples_per_s=mean(o.samples_per_s for o in reached),
        )
    return groups


def gap(one: Group, other: Group) -> list[float]:
    """By how much `one` is above `other` on each log."""
    return [a - b for a, b in zip(one.auc, other.auc, strict=True)]


def listed(groups: Groups) -> list[dict[str, Any]]:
    """The groups for a JSON file."""
    return [asdict(group) for group in groups.values()]


def table(groups: Groups) -> list[str]:
    """The groups as lines of text."""
    lines = [
        f"{'memory':>7} {'contender':19} {'AUC':>8} {'spread':>8} {'log loss':>9} {'rows':>12}"
        f" {'MB given':>9} {'MB taken':>9} {'samples/s':>10}"
    ]
    lines += [
        f"{g.share:7.0%} {g.contender:19} {g.mean:8.4f} {g.spread:8.4f} {mean(g.log_loss):9.4f}"
        f" {g.most_rows:12,.0f} {g.bytes / 1e6:9.1f} {g.most_bytes / 1e6:9.1f}"
        f" {g.samples_per_s:10,.0f}"
        for g in groups.values()
    ]
    return lines
