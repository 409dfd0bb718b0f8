"""Rows of a run by table: how many there are, and how many came and went since the last report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Self

from fourfold.comm.placement import Placement
from fourfold.runtime.reclaim import loses_rows
from fourfold.runtime.table import Table
from fourfold.runtime.units import show_bytes
from fourfold.storage import Pad, ReclaimConfig


@dataclass(frozen=True, slots=True)
class TablePopulation:
    """The rows of one table, or of several."""

    rows: int = 0
    """Rows that there are; some may count as gone already. A row cut into columns is one row, and
    so is one with replicas."""
    bytes: int = 0
    """What they take in memory, in all columns and replicas."""
    admitted: int = 0
    """Since the last report: rows that came,"""
    refused: int = 0
    """ids that a batch named and that got none,"""
    expired: int = 0
    """rows taken back that nobody had seen for their time to live,"""
    reclaimed: int = 0
    """and others."""

    def __add__(self, other: Self) -> Self:
        """Add up two tables, or two stretches of time."""
        return type(self)(*(getattr(self, f) + getattr(other, f) for f in FIGURES))

    def since(self, start: Self) -> Self:
        """Take rows as of now, and what came and went in this stretch and that before it."""
        came = {f: getattr(self, f) + getattr(start, f) for f in FIGURES[2:]}
        return type(self)(self.rows, self.bytes, **came)

    def describe(self) -> str:
        """Say it as short as the line of progress needs it."""
        gone = self.expired + self.reclaimed
        return f"{self.rows:,} (+{self.admitted:,} -{gone:,}, {self.refused:,} refused)"

    def summarize(self) -> str:
        """Say in one line what is left of all that came."""
        return (
            f"rows: {self.rows:,} at the end ({show_bytes(self.bytes)}); {self.admitted:,}"
            f" admitted, {self.refused:,} refused, {self.expired:,} expired, {self.reclaimed:,}"
            " reclaimed"
        )


FIGURES = tuple(f.name for f in fields(TablePopulation))


class Census:
    """Counts the rows of a run, table by table: `take` on every rank, `report` of what they merge.

    placement: where the tiles lie whose rows `pad` holds on `rank`.
    """

    def __init__(self, pad: Pad, placement: Placement, rank: int) -> None:
        self.whole = TablePopulation()
        """All tables together, what came and went since the start."""
        self._pad = pad
        self._names = [shape.name for shape in placement.shapes]
        tiles = placement.held_by(rank)
        self._tables = [tile.table for tile in tiles]
        # Other columns and replicas are of the same rows.
        self._counted = [tile.start == 0 and tile.ranks[0] == rank for tile in tiles]
        self._reported: list[list[int]] = [[0] * 4 for _ in tiles]
        self.take()

    def take(self) -> dict[str, float]:
        """Count rows as of now, and what came and went since the last call.

        Gives the sums that `merge` needs, names for all tables on every rank. Local.
        """
        tables = range(len(self._names))
        sums = dict.fromkeys((_name(t, figure) for t in tables for figure in FIGURES), 0.0)
        for i, table in enumerate(self._tables):
            sums[_name(table, "bytes")] += self._pad.tile_bytes(i)
            if self._counted[i]:
                rows = self._pad.tile_rows(i)
                sums[_name(table, "rows")] += rows
                for figure, count in zip(FIGURES[2:], self._changes(i, rows), strict=True):
                    sums[_name(table, figure)] += count
        return sums

    def report(self, merged: Mapping[str, float]) -> dict[str, TablePopulation]:
        """Give the population of every table from what all ranks' `take` merged to."""
        tables = {
            name: TablePopulation(*(int(merged[_name(table, figure)]) for figure in FIGURES))
            for table, name in enumerate(self._names)
        }
        self.whole = sum(tables.values(), TablePopulation()).since(self.whole)
        return tables

    def _changes(self, tile: int, rows: int) -> list[int]:
        counts = self._pad.population(tile)
        # The pad counts as admitted only whom it asked about; without admission every id comes in.
        came = rows + counts.expired + counts.reclaimed
        totals = [came, counts.refused, counts.expired, counts.reclaimed]
        before = self._reported[tile]
        # Planning goes on between two looks at the pad: a row may be gone before it was counted.
        self._reported[tile] = [max(pair) for pair in zip(totals, before, strict=True)]
        return [now - then for now, then in zip(self._reported[tile], before, strict=True)]


def take_census(
    tables: Sequence[Table], reclaim: ReclaimConfig, placement: Placement, pad: Pad, rank: int
) -> Census | None:
    """Begin to count, if rows of some table may come and go."""
    changing = any(loses_rows(table, reclaim) for table in tables)
    return Census(pad, placement, rank) if changing else None


def _name(table: int, figure: str) -> str:
    """Name a figure beside those of the run; a table may be called like one of them."""
    return f"population.{table}.{figure}"
