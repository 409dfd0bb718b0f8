"""What the planner is asked to solve: tables, ranks, work, speeds and a budget of bytes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fourfold.comm.cut import Cut, ranks_text
from fourfold.comm.errors import PlacementError
from fourfold.comm.placement import Placement
from fourfold.runtime.cost import Prediction, Rates, predict
from fourfold.runtime.hardware import Hardware
from fourfold.runtime.load import TableLoad, Workload
from fourfold.runtime.roles import Roles
from fourfold.runtime.units import show_bytes
from fourfold.runtime.world import World

MOST_RANKS = 1 << 24
"""Where the search for a number of ranks that would do gives up."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Tables to place on the embedding ranks of a world."""

    tables: tuple[TableLoad, ...]
    world: World
    roles: Roles
    workload: Workload
    hardware: Hardware
    budget: float
    """Bytes that a rank may hold; infinite if there is no limit."""

    @property
    def rates(self) -> Rates:
        """What an average embedding rank pays for bytes."""
        return Rates.of(self.world, self.roles, self.hardware)

    def place(self, cuts: Sequence[Cut | None]) -> Placement:
        """Lay the cuts there are, one per table or None."""
        tiles = [
            tile
            for ordinal, (table, cut) in enumerate(zip(self.tables, cuts, strict=True))
            if cut is not None
            for tile in cut.tiles(ordinal, table.shape)
        ]
        shapes = tuple(table.shape for table in self.tables)
        return Placement(shapes, tuple(tiles), self.world.size)

    def predict(self, placement: Placement) -> Prediction:
        """Say what a placement costs."""
        return predict(placement, self.tables, self.world, self.roles, self.workload, self.hardware)

    def check_budget(self, prediction: Prediction, where: str) -> None:
        """Raise PlacementError, starting with `where`, if some rank would hold too much."""
        rank = int(np.argmax(prediction.held))
        if prediction.held[rank] > self.budget:
            over = np.flatnonzero(prediction.held > self.budget).tolist()
            raise PlacementError(
                f"{where}rank {rank} would hold {show_bytes(prediction.held[rank])}, its budget is"
                f" {show_bytes(self.budget)} (over it: ranks {ranks_text(over)}): spread the tables"
                " over more ranks, or raise storage.host_bytes (storage.pad_bytes on GPUs)"
                " or what else limits it"
            )

    def no_room(
        self, base: Prediction, tables: Sequence[int], smallest: Sequence[int]
    ) -> PlacementError:
        """Say what the tables of these ordinals need, and how many ranks would have it.

        base: what is placed already. smallest: bytes of each one's smallest tile, as it may be cut.
        """
        ranks = list(self.roles.embedding)
        loads = [self.tables[ordinal] for ordinal in tables]
        placed = int(base.held[ranks].max())
        beside = f" beside {show_bytes(placed)} that the job places itself" if placed else ""
        need = _needed(loads, len(ranks))
        limit = f"the budget of [storage] is {show_bytes(self.budget)}"
        if need + placed <= self.budget:  # so it is the job that keeps them from being cut
            size, name = max(zip(smallest, (load.name for load in loads), strict=True))
            return PlacementError(
                f"the tables do not fit as the job cuts them: the largest tile, of table {name!r},"
                f" has {show_bytes(size)}{beside}, {limit}: let the planner cut it, or cut it finer"
            )
        enough = _ranks_enough(loads, self.budget - placed, len(ranks))
        advice = f"{enough} embedding ranks would do" if enough else "no number of ranks would do"
        return PlacementError(
            f"the tables do not fit: each of the {len(ranks)} embedding ranks would hold at least"
            f" {show_bytes(need)}{beside}, {limit}. {advice}; or raise storage.host_bytes"
            " (storage.pad_bytes on GPUs) or what else limits them, or use 16-bit rows"
        )


def make_problem(
    tables: Sequence[TableLoad],
    world: World,
    roles: Roles,
    workload: Workload,
    hardware: Hardware | None,
    budget_bytes: int | None,
) -> Problem:
    """Fill in defaults."""
    budget = math.inf if budget_bytes is None else float(budget_bytes)
    return Problem(tuple(tables), world, roles, workload, hardware or Hardware(), budget)


def _needed(tables: Sequence[TableLoad], num_ranks: int) -> int:
    """Count the bytes of a rank if every table is cut into a bucket per rank."""
    return sum(table.tile_bytes(num_ranks, table.dim) for table in tables)


def _ranks_enough(tables: Sequence[TableLoad], room: float, num_ranks: int) -> int | None:
    """Find the least number of ranks, more than `num_ranks`, among which the tables find room."""
    enough = num_ranks + 1
    while _needed(tables, enough) > room:
        if enough > MOST_RANKS:
            return None
        enough *= 2
    too_few = num_ranks
    while enough - too_few > 1:
        middle = (too_few + enough) // 2
        too_few, enough = (too_few, middle) if _needed(tables, middle) <= room else (middle, enough)
    return enough
