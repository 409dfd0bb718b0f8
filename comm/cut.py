"""One idea for every way to place a table: a grid of tiles laid over a list of ranks.

A `Cut` says into how many hash buckets (`rows`), column ranges (`columns`) and copies (`replicas`)
a table is cut, and which ranks take the cells. Cells are dealt in one fixed order, rows fastest,
then columns, then replicas, so consecutive ranks get consecutive buckets:

    table-wise               Cut(ranks=(5,))
    row-wise                 Cut(rows=8, ranks=range(8))
    column-wise              Cut(columns=4, ranks=range(4))
    grid                     Cut(rows=4, columns=2, ranks=range(8))
    data-parallel            Cut(replicas=8, ranks=range(8))
    rows inside one node     Cut(rows=4, ranks=<the 4 ranks of the node>)
    columns across nodes     Cut(rows=4, columns=2, ranks=<the ranks of node 0, then of node 1>)
    a grid per group (2-D)   Cut(rows=4, replicas=2, ranks=<group 0, then group 1>)
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from fourfold.comm.errors import PlacementError
from fourfold.comm.tile import COLUMN_STEP, Shape, Tile

MAX_CUTS = 65536
"""Pieces along one axis at most; more is a table's number of rows written by mistake."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Cut:
    """How one table is cut, and the ranks that hold the cells of its grid."""

    rows: int = 1
    """Hash buckets."""
    columns: int = 1
    """Column ranges, each a multiple of 4 elements wide (but the last, where the dim is not)."""
    replicas: int = 1
    """Copies of every tile, on different ranks."""
    ranks: tuple[int, ...]
    """Ranks of the cells [replica, column, row], row fastest. A shorter list, whose length divides
    the number of cells, is dealt again and again."""

    @property
    def cells(self) -> int:
        """Tiles, counting each replica."""
        return self.rows * self.columns * self.replicas

    def tiles(self, table: int, shape: Shape) -> tuple[Tile, ...]:
        """Lay the grid: the tiles of the table of ordinal `table`, in canonical order."""
        self._check(shape)
        bounds = column_bounds(shape, self.columns)
        layer = self.rows * self.columns
        return tuple(
            Tile(
                table=table,
                bucket=bucket,
                buckets=self.rows,
                start=bounds[column],
                stop=bounds[column + 1],
                ranks=tuple(
                    self.ranks[(copy * layer + column * self.rows + bucket) % len(self.ranks)]
                    for copy in range(self.replicas)
                ),
            )
            for bucket in range(self.rows)
            for column in range(self.columns)
        )

    def _check(self, shape: Shape) -> None:
        where = f"table {shape.name!r}"
        for axis in ("rows", "columns", "replicas"):
            if not 1 <= getattr(self, axis) <= MAX_CUTS:
                raise PlacementError(
                    f"{where}: {axis} must be 1 to {MAX_CUTS} pieces, got {getattr(self, axis)}"
                )
        if not self.ranks or self.cells % len(self.ranks):
            raise PlacementError(
                f"{where}: rows {self.rows} x columns {self.columns} x replicas {self.replicas}"
                f" make {self.cells} cells, which cannot be dealt evenly to {len(self.ranks)} ranks"
                f" ({ranks_text(self.ranks) or 'none'}): list one rank per cell, or a number of"
                " ranks that divides the cells"
            )

    @staticmethod
    def of(tiles: Sequence[Tile], shape: Shape) -> Cut | None:
        """Find the grid that lays exactly these tiles of one table; None if they are irregular.

        Holders are a set, so ranks come back ascending along the data axis.
        """
        if not tiles:
            return None
        rows, replicas = tiles[0].buckets, len(tiles[0].ranks)
        columns = len(tiles) // rows
        grid = sorted(tiles, key=lambda tile: (tile.start, tile.bucket))
        if len({len(tile.ranks) for tile in grid}) > 1 or rows * columns != len(tiles):
            return None
        ranks = tuple(tile.ranks[copy] for copy in range(replicas) for tile in grid)
        cut = Cut(rows=rows, columns=columns, replicas=replicas, ranks=_period(ranks))
        try:
            laid = cut.tiles(tiles[0].table, shape)
        except PlacementError:
            return None
        return cut if sorted(laid, key=_order) == sorted(tiles, key=_order) else None

    def __str__(self) -> str:
        named = (("row", self.rows), ("column", self.columns), ("data", self.replicas))
        return " x ".join(f"{axis} {count}" for axis, count in named if count > 1) or "whole"


def column_bounds(shape: Shape, columns: int) -> tuple[int, ...]:
    """Cut [0, dim) into ranges that differ by at most one step of 4 elements; (columns + 1,)."""
    steps = max(1, shape.dim // COLUMN_STEP)
    if columns > steps:
        raise PlacementError(
            f"table {shape.name!r}: dim {shape.dim} cannot be cut into {columns} column ranges:"
            f" each must be at least {COLUMN_STEP} elements wide, so at most {steps} fit"
        )
    inner = (COLUMN_STEP * (steps * column // columns) for column in range(columns))
    return (*inner, shape.dim)


def ranks_text(ranks: Sequence[int]) -> str:
    """Write a list of ranks with its ascending runs shortened: (0, 1, 2, 3, 9) -> "0-3,9"."""
    runs: list[list[int]] = []
    for rank in ranks:
        if runs and rank == runs[-1][1] + 1:
            runs[-1][1] = rank
        else:
            runs.append([rank, rank])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)


def parse_ranks(text: str) -> tuple[int, ...]:
    """Read what `ranks_text` writes. Raises PlacementError for anything else."""
    ranks: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,6})\s*(?:-\s*(\d{1,6})\s*)?", part, re.ASCII)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if first > last:
            raise PlacementError(
                f'ranks {text!r}: expected ranks and ranges such as "0-3,9", got {part!r}'
            )
        ranks.extend(range(first, last + 1))
    return tuple(ranks)


def _order(tile: Tile) -> tuple[int, int, int]:
    return tile.order


def _period(ranks: tuple[int, ...]) -> tuple[int, ...]:
    """Give the shortest list whose repetition is `ranks`."""
    for length in range(1, len(ranks)):
        if len(ranks) % length == 0 and ranks[:length] * (len(ranks) // length) == ranks:
            return ranks[:length]
    return ranks
