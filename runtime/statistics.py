"""Statistics of a job's ids: what `fourfold stats` measures, keeps as JSON, and planning goes by.

Shares are of a table's lookups, or of its ids. Of a table whose ids were thinned out (`share` below
1), counts of ids and of their rows are scaled up; lookups and bags are always of all of them.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NoReturn

from fourfold.comm.route import LookupStats
from fourfold.runtime.errors import ConfigError
from fourfold.runtime.load import growth_of
from fourfold.runtime.table import Table
from fourfold.runtime.toml import Where, build, nearest

FORMAT, VERSION = "fourfold.stats", 1

Kind = Literal["always", "count", "probability", "time_to_live"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Reuse:
    """The ids that were seen `least` to `most` times."""

    least: int
    most: int
    ids: float
    """Share of the ids."""
    lookups: float
    """Share of the lookups."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Setting:
    """A way to keep fewer rows, and what it does to the table in this sample."""

    kind: Kind
    value: float
    """Sightings, probability of each, or training batches; 0 for "always"."""
    rows: int
    """Rows there are at most at a time."""
    row_bytes: int
    """Of these rows: weights, optimizer state, metadata and index."""
    refused: float
    """Share of the lookups that get no row."""
    cold: float
    """Share of the lookups that read a newborn row instead of a trained one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TableStatistics:
    """One table: the features that share it, together."""

    name: str
    features: tuple[str, ...]
    dynamic: bool
    share: float
    """Share of the ids that was kept, by hash."""
    lookups: int
    bags: int
    """Bags that are not empty."""
    distinct: int
    """Distinct ids."""
    once: float
    """Share of the ids that one sample has."""
    unique: float
    """Distinct ids of a training batch, on average."""
    growth: float
    """Distinct ids of the sample's first n samples grow as n ** growth over its second half."""
    reuse: tuple[Reuse, ...]
    gaps: int
    """Gaps between consecutive samples with the same id, of the ids that were kept."""
    gap_samples: tuple[int, ...]
    """Percentiles 50, 90, 99 and 99.9 of the gaps; empty without gaps."""
    gap_batches: tuple[int, ...]
    """The same in training batches."""
    settings: tuple[Setting, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Statistics:
    """The first samples of a job's training data."""

    format: str = FORMAT
    version: int = VERSION
    samples: int
    batch_size: int
    """Samples of a training batch."""
    batches: int
    complete: bool
    """Whether these are all of the data."""
    tables: tuple[TableStatistics, ...]

    def expected_rows(self, table: TableStatistics, samples: int | None) -> int:
        """Estimate the distinct ids of a table after training on so many samples; None: unknown.

        Beyond the sample they are assumed to grow on as they did in its second half.
        """
        more = max(1.0, samples / self.samples) if samples and not self.complete else 1.0
        return max(1, math.ceil(table.distinct * math.pow(more, table.growth)))

    def lookup_stats(self, table: TableStatistics, batch_size: int) -> LookupStats:
        """Say what a batch of so many samples asks of a table, distinct ids by Heaps' law."""
        mean = table.lookups / self.batches
        lookups = table.lookups / self.samples * batch_size
        unique = lookups ** growth_of(table.unique, mean) if lookups else 0.0
        return LookupStats(lookups, unique, table.bags / self.samples * batch_size)

    def save(self, path: Path) -> None:
        """Write the JSON. Raises ConfigError if it cannot be."""
        try:
            path.write_text(json.dumps(dataclasses.asdict(self), indent=1) + "\n", encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"{path}: cannot be written: {error.strerror}") from error


def load_statistics(path: str | Path) -> Statistics:
    """Read what `Statistics.save` wrote. Raises ConfigError, which names file and key."""
    path = Path(path)
    try:
        tree = json.loads(path.read_text(encoding="utf-8"), parse_constant=_no_number)
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be read: {error.strerror}; `fourfold stats JOB --out {path}` writes it"
        ) from error
    except (ValueError, RecursionError) as error:  # not UTF-8, not JSON, or nested beyond reason
        raise ConfigError(f"{path}: not valid JSON: {error}") from error
    if not isinstance(tree, dict) or tree.get("format") != FORMAT:
        raise ConfigError(f"{path}: not a file of `fourfold stats`: it has no format {FORMAT!r}")
    if tree.get("version") != VERSION:
        raise ConfigError(
            f"{path}: version {tree.get('version')!r}, this Fourfold reads {VERSION}:"
            " run `fourfold stats` again"
        )
    statistics = build(Statistics, tree, Where(str(path), Statistics))
    _check(statistics, Where(str(path), Statistics))
    return statistics


def match_tables(
    statistics: Statistics, tables: Sequence[Table], path: str | Path
) -> tuple[TableStatistics, ...]:
    """Give the statistics of the job's tables, in their order.

    Raises ConfigError if they are of other tables, or of other features.
    """
    by_name = {table.name: table for table in statistics.tables}
    again = "run `fourfold stats` on this job"
    for table in tables:
        known = by_name.get(table.name)
        if known is None:
            near = nearest(table.name, by_name)
            raise ConfigError(
                f"{path}: has no table {table.name!r}, which the job has"
                f"{f'; nearest: {near}' if near else ''}: {again}"
            )
        if known.features != table.features:
            raise ConfigError(
                f"{path}: table {table.name!r} is of features {', '.join(known.features)} there and"
                f" of {', '.join(table.features)} in the job: {again}"
            )
    own = {table.name for table in tables}
    for name in by_name:
        if name not in own:
            raise ConfigError(f"{path}: has a table {name!r}, which the job has not: {again}")
    return tuple(by_name[table.name] for table in tables)


def _check(statistics: Statistics, where: Where) -> None:
    """Raise ConfigError for numbers that cannot be."""
    for key in ("samples", "batch_size", "batches"):
        if getattr(statistics, key) < 1:
            raise where.at(key).error(f"expected at least 1, got {getattr(statistics, key)}")
    names = [table.name for table in statistics.tables]
    for i, table in enumerate(statistics.tables):
        at = where.at("tables").at(str(i), table.name)
        if names.count(table.name) > 1:
            raise at.error("is there twice")
        limits = {"lookups": math.inf, "bags": table.lookups, "distinct": math.inf}
        limits |= {"unique": table.lookups / statistics.batches, "growth": 1.0}
        for key, most in limits.items():
            value = getattr(table, key)
            if not 0 <= value <= most:
                raise at.at(key).error(f"expected 0 to {most:g}, got {value:g}")


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number")
