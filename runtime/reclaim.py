"""What a job says of rows that come and go, as the placement, the exchange and the step need it.

A sample's *credit* is what it counts for in the score of the rows that it names.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from fourfold.comm.placement import Placement
from fourfold.runtime.cut_config import PlacementConfig
from fourfold.runtime.data.batch import Batch
from fourfold.runtime.errors import ConfigError
from fourfold.runtime.table import Table
from fourfold.storage import ReclaimConfig, StorageConfig

Credit = Callable[[Batch], NDArray[np.float32]]
"""Gives the credits of a batch's samples: (B,), at least 0."""


def credit_of(config: ReclaimConfig) -> Credit | None:
    """Say what samples count for; None where scores do not count samples."""
    if config.by == "frequency":
        return lambda batch: np.ones(batch.size, np.float32)
    if config.by == "kraken":
        positive, negative = np.float32(config.positive_weight), np.float32(1)
        return lambda batch: np.where(batch.label > 0.5, positive, negative)
    return None


def takes_credits(table: Table, config: ReclaimConfig) -> bool:
    """Say whether who holds the table must know the credits of its ids."""
    return can_be_reclaimed(table, config) and credit_of(config) is not None


def loses_rows(table: Table, config: ReclaimConfig) -> str:
    """Give the setting by which ids of the table may be without a row in training, or ""."""
    if table.rows is not None:
        return ""
    if table.admission.kind != "always":
        return f'admission = "{table.admission.kind}"'
    if table.time_to_live is not None:
        return f"time_to_live = {table.time_to_live}"
    if can_be_reclaimed(table, config):
        return f'reclaim.by = "{config.by}"'
    return ""


def can_be_reclaimed(table: Table, config: ReclaimConfig) -> bool:
    """Say whether rows of the table go for their score when a budget is reached."""
    return config.by != "none" and table.rows is None and table.priority == "low"


def is_scored(table: Table, config: ReclaimConfig) -> bool:
    """Say whether a row of the table may go, for its score or for its age alone."""
    ages = config.by != "none" and table.rows is None and table.time_to_live is not None
    return ages or can_be_reclaimed(table, config)


def check_budget(config: ReclaimConfig, storage: StorageConfig) -> None:
    """Raise ConfigError if rows are to go and nothing limits them."""
    limits = (config.rows, config.bytes, storage.budget_bytes)
    if config.by != "none" and all(limit is None for limit in limits):
        raise ConfigError(
            f'reclaim.by = "{config.by}" has no use without a budget: set reclaim.rows,'
            " reclaim.bytes or storage.host_bytes, or leave out reclaim.by"
        )


def check_reclaim(tables: Sequence[Table], config: ReclaimConfig) -> None:
    """Raise ConfigError for a table whose rows are to go while none do."""
    for table in tables:
        if table.time_to_live is not None and config.by == "none":
            raise ConfigError(
                f"table {table.name!r}: time_to_live = {table.time_to_live} has no use while"
                ' reclaim.by is "none"; say how rows are ranked, such as reclaim.by = "recency", or'
                " leave out time_to_live"
            )


def check_replicas(
    tables: Sequence[Table],
    placement: Placement,
    config: ReclaimConfig,
    source: PlacementConfig | None = None,
) -> None:
    """Raise ConfigError for a table that loses rows and lies on several ranks at once.

    Every rank would forget other rows than the next. source: where the placement comes from, for
    the message.
    """
    for ordinal, table in enumerate(tables):
        setting = loses_rows(table, config)
        copies = max((len(t.ranks) for t in placement.tiles if t.table == ordinal), default=1)
        if setting and copies > 1:
            raise ConfigError(
                f"table {table.name!r}: its rows may come and go ({setting}), so that its"
                f" {copies} replicas would differ; {_remedy(table.name, source)}"
            )


def _remedy(table: str, source: PlacementConfig | None) -> str:
    if source is None:
        return "place it with replicas = 1"
    if source.path is not None:
        return f"give it one rank per tile in {source.path} (placement.path)"
    if table in source.tables:
        return f"set placement.tables.{table}.replicas = 1"
    return f"give it a place of its own beside placement.default: placement.tables.{table} = {{}}"
