"""Which ids get a row, and which rows are forgotten when memory is short.

After Kraken (Xie et al., SC'20, sec. III): admission is a filter before a table; reclamation takes
rows of all tables by age and score, for which each row keeps 4 bytes. `storage/README.md`,
Reclamation, has the rules.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from fourfold.storage import _native
from fourfold.storage.config import parse_bytes

Ranking = Literal["kraken", "frequency", "recency", "importance", "relative_importance"]
AdmissionKind = Literal["always", "probability", "count", "bloom"]
Priority = Literal["low", "high"]
Absent = Literal["newborn", "zeros"]

_RANKINGS = {
    "kraken": 0,
    "frequency": 0,
    "importance": 0,
    "recency": 1,
    "relative_importance": 2,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """Who gets a row. A batch's ids that have none are asked about once per batch and tile."""

    kind: AdmissionKind = "always"
    """"probability": each sighting admits with probability p, so that 1/p of them are needed on
    average. "count": the n-th sighting admits, as far as 4-bit counters that are shared and age
    can tell. "bloom": the second, with one-bit counters."""
    probability: float = 1.0
    count: int = 1

    def __post_init__(self) -> None:
        kinds = get_args(AdmissionKind)
        if self.kind not in kinds:
            raise ValueError(f"admission must be one of {', '.join(kinds)}, got {self.kind!r}")
        if not 0 < self.probability <= 1:
            raise ValueError(f"admit_probability must be in (0, 1], got {self.probability}")
        if self.kind == "count" and not 2 <= self.count <= 15:
            raise ValueError(f"admit_count must be in [2, 15], got {self.count}")

    @property
    def code(self) -> int:
        """Native code of the kind."""
        return get_args(AdmissionKind).index(self.kind)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReclaimConfig:
    """Which rows are forgotten, and when.

    A rank begins to take back rows when one of its budgets is reached: first rows that nobody has
    seen for longer than their table's `time_to_live`, then rows of tables with priority "low" in
    order of their score. Dynamic tables only.
    """

    # These change the results.
    by: Ranking | Literal["none"] = "none"
    """What the score of a row counts. "kraken": samples that name it, those with label 1
    `positive_weight` times; "frequency": samples; "importance": norms of its gradients;
    "relative_importance": the same in units of the 95th percentile of its table, as AdaEmbed has it
    (Lai et al., OSDI'23) for tables whose gradients cannot be compared; where they can, one table
    takes the room of others (`fourfold study importance`); "recency": the rows go that were not
    seen for longest. "none": rows stay for ever."""
    interval: int = 1000
    """Training batches after which scores decay once."""
    decay: float = 0.1
    """Share that a score loses per interval; 0 keeps counts for ever."""
    positive_weight: float = 1.0
    """What a sample with label 1 counts, in samples with label 0."""
    rows: int | None = None
    """Most rows of a rank, of tables that can lose rows. None: no limit."""
    bytes: int | str | None = None
    """Most bytes of those rows. None: no limit."""
    share: float = 0.95
    """Most of the memory that `[storage]` leaves to those rows. What is above it gives time to take
    rows back before it is needed."""
    free: float = 0.1
    """Share of a budget that is taken back at a time."""
    admission_bytes: int | str = 16 << 20
    """Memory of a rank for the counters of admission, if a table counts."""

    def __post_init__(self) -> None:
        if self.interval < 1:
            raise ValueError(f"reclaim.interval must be at least 1 batch, got {self.interval}")
        if not 0 <= self.decay < 1:
            raise ValueError(f"reclaim.decay must be in [0, 1), got {self.decay}")
        if not (math.isfinite(self.positive_weight) and self.positive_weight >= 0):
            raise ValueError(
                f"reclaim.positive_weight must be a number from 0 on, got {self.positive_weight}"
            )
        for name in ("share", "free"):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(f"reclaim.{name} must be in (0, 1], got {getattr(self, name)}")
        for name in ("rows", "bytes", "admission_bytes"):
            amount = self.amount(name)
            if amount is not None and amount < 1:
                raise ValueError(f"reclaim.{name} must be at least 1, got {getattr(self, name)!r}")
            if amount is not None and self.by == "none" and name != "admission_bytes":
                raise ValueError(
                    f'reclaim.{name} has no use while reclaim.by is "none"; name a score, such as'
                    ' "kraken"'
                )

    def amount(self, name: str) -> int | None:
        """Give `rows`, `bytes` or `admission_bytes` as a number."""
        value: int | str | None = getattr(self, name)
        if not isinstance(value, str):
            return value
        try:
            return parse_bytes(value)
        except ValueError as error:
            raise ValueError(f"reclaim.{name}: {error}") from None

    def policy(self, *, counters: bool) -> _native.Policy:
        """Give the same to the native core; `counters`: whether any table's admission counts."""
        return _native.Policy(
            ranking=_RANKINGS.get(self.by, -1),
            gradients=self.by.endswith("importance"),
            decay=self.decay,
            interval=self.interval,
            max_rows=self.rows or 0,
            max_bytes=self.amount("bytes") or 0,
            share=self.share,
            free=self.free,
            admission_bytes=(self.amount("admission_bytes") or 0) if counters else 0,
        )


@dataclass(frozen=True, slots=True)
class Population:
    """What became of a tile's ids since the start."""

    admitted: int = 0
    """Ids that got a row,"""
    refused: int = 0
    """and that were refused one; once per batch that names them."""
    expired: int = 0
    """Rows taken back that nobody had seen for their time to live,"""
    reclaimed: int = 0
    """and others."""
