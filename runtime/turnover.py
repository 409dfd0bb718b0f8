"""What tables need whose rows come and go: their budget at most, and a window of batches at least.

A rank takes back rows when they exceed a budget (`[reclaim]`, `[storage]`), but none that a batch
under way names and none of tables with priority "high". So a placement need not find room for all
rows that are expected, and a budget below that can never be kept.

Letters: R ranks of the world, T tables.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from fourfold.comm.cut import ranks_text
from fourfold.comm.errors import PlacementError
from fourfold.comm.placement import Placement
from fourfold.runtime.cut_config import CutConfig, PlacementConfig
from fourfold.runtime.errors import ConfigError
from fourfold.runtime.load import TableLoad
from fourfold.runtime.reclaim import can_be_reclaimed
from fourfold.runtime.table import Table
from fourfold.runtime.units import show_bytes
from fourfold.storage import ReclaimConfig

ATTEMPTS = (1.0, 0.5, 0.25, 0.0)
"""Shares of the rows that budgets allow for which room is sought in turn; the last is the window
alone."""
MOST_LINES = 4

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Turnover:
    """The rules of a job by which its rows come and go, and how many rows they concern."""

    config: ReclaimConfig
    tables: tuple[Table, ...]
    loads: tuple[TableLoad, ...]
    """As if no row went."""
    batches: int
    """Under way at once: those of the look-ahead and the one that trains."""
    samples: int
    """Of these batches, on all ranks."""
    memory: int | None
    """Bytes of rows that fit a rank, as `TableLoad` counts them; None: no limit."""

    @property
    def any(self) -> bool:
        """Whether rows go at all."""
        return any(self.goes)

    @property
    def goes(self) -> list[bool]:
        """(T,) whether rows of the table go when a budget is reached."""
        return [can_be_reclaimed(table, self.config) for table in self.tables]

    def window(self, table: int) -> float:
        """Estimate the distinct ids of the batches under way."""
        load = self.loads[table]
        return load.distinct(self.samples * load.lookups)

    def least(self, table: int) -> int:
        """Estimate the rows that the batches under way hold for certain.

        Admission may refuse some: whoever counts sightings may refuse any.
        """
        admission = self.tables[table].admission
        share = {"always": 1.0, "probability": admission.probability}.get(admission.kind, 0.0)
        return max(1, math.floor(share * self.window(table)))

    def attempts(self, num_ranks: int) -> Iterator[list[TableLoad]]:
        """Give loads whose rows the budgets of so many ranks hold, and smaller ones.

        First what the ranks can have together. It may not fit, because other tables take more room
        on some ranks than on others; then rows are taken back there earlier.
        """
        if not self.any:
            yield list(self.loads)
            return
        low, high = 0.0, 1.0
        if self._fits(self._kept(high), num_ranks):
            low = high
        while high - low > 1e-4:
            middle = (low + high) / 2
            fits = self._fits(self._kept(middle), num_ranks)
            low, high = (middle, high) if fits else (low, middle)
        for share in ATTEMPTS:
            yield self._kept(low * share)

    def _kept(self, share: float) -> list[TableLoad]:
        """Plan for so large a share of the rows that go."""
        return [
            replace(load, kept_rows=max(self.least(t), math.ceil(share * load.num_rows)))
            if goes
            else load
            for t, (load, goes) in enumerate(zip(self.loads, self.goes, strict=True))
        ]

    def _fits(self, loads: Sequence[TableLoad], num_ranks: int) -> bool:
        """Say whether the ranks' budgets together have room for such rows."""
        rows = taken = fixed = 0
        for load, goes in zip(loads, self.goes, strict=True):
            if goes:
                rows += load.held_rows
                taken += load.held_rows * load.row_bytes(load.dim)
            else:
                fixed += load.held_rows * load.row_bytes(load.dim)
        limits = [(rows, self.config.rows), (taken, self.config.amount("bytes"))]
        if self.memory is not None:
            left = self.config.share * (self.memory - fixed / num_ranks)
            limits.append((taken, max(0, math.floor(left))))
        return all(most is None or used <= most * num_ranks for used, most in limits)

    def check_memory(self, num_ranks: int) -> None:
        """Raise ConfigError if the rows that must stay cannot fit so many ranks."""
        if not self.any or self.memory is None:
            return
        need = sum(load.tile_bytes(num_ranks, load.dim) for load in self._kept(0.0))
        if need > self.memory:
            raise ConfigError(
                f"storage.host_bytes: the rows of {self.batches} batches under way, and those of"
                f" tables whose rows stay, take {show_bytes(need)} on each of {num_ranks} embedding"
                f" ranks: expected room for at least that, got {show_bytes(self.memory)} in all"
                " tiers; raise it, lower train.batch_size or train.lookahead, or add embedding"
                " ranks"
            )

    def spread(self, config: PlacementConfig) -> PlacementConfig:
        """Cut tables whose rows go over all ranks, so that all their budgets count.

        Leaves alone what the job places itself.
        """
        if config.path is not None:
            return config
        cuts = {
            table.name: CutConfig(rows=-1)
            for table, goes in zip(self.tables, self.goes, strict=True)
            if goes and config.cut_of(table.name) is None
        }
        return replace(config, tables=config.tables | cuts)

    def on_ranks(self, placement: Placement) -> RankTurnover:
        """Say what it comes to on every rank.

        Raises ConfigError for a budget of `[reclaim]` below the rows that must stay on some rank.
        """
        size = placement.world_size
        protected, window = np.zeros(size, np.int64), np.zeros(size)
        rows, taken = np.zeros(size), np.zeros(size)
        for tile in placement.tiles:
            load, table, ranks = self.loads[tile.table], self.tables[tile.table], list(tile.ranks)
            row_bytes = load.row_bytes(tile.dim) - load.index_bytes
            if self.goes[tile.table]:
                window[ranks] += self.window(tile.table) / tile.buckets
                must = self.least(tile.table) / tile.buckets
            elif table.rows is None:
                protected[ranks] += load.tile_rows(tile.buckets)
                # Rows that go for their age alone count against the budgets, the others do not.
                must = load.tile_rows(tile.buckets) if table.time_to_live is not None else 0
            else:
                continue
            rows[ranks] += must
            taken[ranks] += must * row_bytes
        self._check("rows", np.floor(rows), lambda n: f"{n:,.0f}")
        self._check("bytes", np.floor(taken), show_bytes)
        return RankTurnover(self._budget(), self.batches, protected, np.ceil(window).astype(int))

    def _check(self, name: str, least: NDArray[np.float64], show: Callable[[float], str]) -> None:
        most, rank = self.config.amount(name), int(np.argmax(least))
        if most is not None and least[rank] > most:
            raise ConfigError(
                f"reclaim.{name}: rank {rank} must hold the rows of {self.batches} batches under"
                ' way, and those of tables with priority "high" and a time_to_live: expected at'
                f" least {show(least[rank])}, got {show(most)}; raise it, lower train.batch_size or"
                " train.lookahead, or add embedding ranks"
            )

    def _budget(self) -> str:
        told = []
        if self.config.rows is not None:
            told.append(f"{self.config.rows:,} rows per rank")
        if self.config.bytes is not None:
            told.append(f"{show_bytes(self.config.amount('bytes') or 0)} per rank")
        if self.memory is not None:
            told.append(f"{self.config.share:.0%} of the memory that other rows leave")
        return ", ".join(told)


@dataclass(frozen=True, slots=True, eq=False)
class RankTurnover:
    """What the rows that come and go may take and what must stay, rank by rank."""

    budget: str
    batches: int
    """Under way at once."""
    protected: NDArray[np.int64]
    """(R,) rows of dynamic tables whose rows stay, once all are there."""
    window: NDArray[np.int64]
    """(R,) rows of the other dynamic tables that batches under way name."""

    def describe(self, ranks: Sequence[int]) -> list[str]:
        """Say it in a line for each group of ranks that are alike; in one if they are many."""
        groups: dict[tuple[int, int], list[int]] = {}
        for rank in ranks:
            groups.setdefault((int(self.protected[rank]), int(self.window[rank])), []).append(rank)
        begin = f"rows that come and go: budget {self.budget}; "
        end = f" ({self.batches} batches)"
        if len(groups) > MOST_LINES:
            protected, window = (
                f"{min(values):,} to {max(values):,}" for values in zip(*groups, strict=True)
            )
            return [f"{begin}protected {protected}; window {window}{end}"]
        return [
            f"{begin}protected {protected:,}; window {window:,}{end}"
            + (f", on ranks {ranks_text(alike)}" if len(groups) > 1 else "")
            for (protected, window), alike in groups.items()
        ]


def first_that_fits(
    attempts: Iterator[list[TableLoad]], place: Callable[[list[TableLoad]], T]
) -> tuple[list[TableLoad], T]:
    """Place the first loads that fit. Raises the PlacementError of the last if none do."""
    failure: PlacementError | None = None
    for loads in attempts:
        try:
            return loads, place(loads)
        except PlacementError as error:
            failure = error
    assert failure is not None
    raise failure
