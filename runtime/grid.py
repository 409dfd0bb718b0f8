"""The ways to cut one table, and what each would cost a rank: what the planner chooses from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from fourfold.comm.cut import column_bounds
from fourfold.runtime.cost import Rates, tile_cost
from fourfold.runtime.load import TableLoad, Workload

NARROWEST = 16
"""Columns of a tile, at least, where the planner decides: 64 bytes of fp32."""


@dataclass(frozen=True, slots=True)
class Grid:
    """One way to cut a table into rows x columns tiles, and the cost of the widest tile."""

    rows: int
    columns: int
    seconds: float
    """A rank's load in a step for holding one tile."""
    num_bytes: int

    @property
    def cells(self) -> int:
        """Tiles."""
        return self.rows * self.columns

    @property
    def total(self) -> float:
        """Load of all ranks together."""
        return self.cells * self.seconds


def price_grid(table: TableLoad, rows: int, columns: int, workload: Workload, rates: Rates) -> Grid:
    """Price one cut. Raises PlacementError if the dim has no room for so many columns."""
    bounds = column_bounds(table.shape, columns)
    widest = max(stop - start for start, stop in pairwise(bounds))
    cost = tile_cost(table, rows, widest, workload, rates.num_dense)
    return Grid(rows, columns, rates.serve_seconds(cost), cost.held_bytes)


def table_grids(table: TableLoad, num_ranks: int, workload: Workload, rates: Rates) -> list[Grid]:
    """Price every cut worth a look, cheapest in total first, then coarsest."""
    grids = [
        price_grid(table, rows, columns, workload, rates)
        for columns in _halvings(table.dim // NARROWEST, num_ranks)
        for rows in sorted({*_halvings(num_ranks // columns, table.num_rows), num_ranks // columns})
        if rows <= table.num_rows
    ]
    return sorted(grids, key=lambda grid: (grid.total, grid.cells, grid.columns))


def _halvings(most: int, limit: int) -> Iterator[int]:
    """Yield 1, 2, 4, ... up to both `most` and `limit`; 1 always."""
    pieces = 1
    while pieces == 1 or pieces <= min(most, limit):
        yield pieces
        pieces *= 2


def choose(grids: Sequence[Grid], seconds: float, room: float) -> Grid:
    """Take the cheapest grid whose tiles cost at most `seconds` and fit into `room` bytes.

    If none is so fine: the one with the cheapest tiles that fit, or else with the smallest tiles.
    """
    fitting = [grid for grid in grids if grid.num_bytes <= room]
    if not fitting:
        return min(grids, key=lambda grid: grid.num_bytes)
    cheap = (grid for grid in fitting if grid.seconds <= seconds)
    return next(cheap, None) or min(fitting, key=lambda grid: grid.seconds)
