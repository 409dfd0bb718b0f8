"""How a trial's rows come and go: the policy of a study, said in the words of a job file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fourfold.storage import ReclaimConfig
from fourfold.storage.reclaim import AdmissionKind, Ranking


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What is reclaimed, and who is admitted."""

    by: Ranking
    """Score of a row: "kraken", "frequency", "recency" or "importance"."""
    rows: int | None = None
    """Budget of all tables together in rows,"""
    bytes: int | None = None
    """or in bytes, without their index."""
    interval: int
    """Training batches after which scores decay once."""
    decay: float = 0.1
    positive_weight: float = 1.0
    free: float = 0.05
    """Share of the budget that is taken back at a time."""
    times_to_live: tuple[int | None, ...] = ()
    """Training batches since last seen, per table, None for ever; empty: all for ever."""
    admission: AdmissionKind = "always"
    admit_probability: float = 1.0


def reclaim_options(
    policy: Policy | None, tables: int
) -> tuple[tuple[dict[str, Any], ...], dict[str, Any]]:
    """Give the settings of each table, and those of the embedding bags."""
    if policy is None:
        return ({},) * tables, {}
    own: dict[str, Any] = {"admission": policy.admission}
    if policy.admission == "probability":
        own["admit_probability"] = policy.admit_probability
    lives = policy.times_to_live or (None,) * tables
    reclaim = ReclaimConfig(
        by=policy.by,
        interval=policy.interval,
        decay=policy.decay,
        positive_weight=policy.positive_weight,
        rows=policy.rows,
        bytes=policy.bytes,
        free=policy.free,
    )
    return tuple(own | {"time_to_live": life} for life in lives), {"reclaim": reclaim}
