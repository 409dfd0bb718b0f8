"""Tables seen from the exchange, and the tiles they are cut into.

A table is a rectangle of rows x columns. The row axis is cut by hashing ids into buckets, the
column axis into ranges of the dim, and the data axis by giving one tile to several ranks. Every
placement, whatever its name elsewhere, is a list of such tiles.
"""

from __future__ import annotations

from dataclasses import dataclass

COLUMN_STEP = 4
"""Columns are cut at multiples of this many elements, so that rows of a tile suit SIMD loads."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What must be known of a table to cut it."""

    name: str
    dim: int
    """Columns: elements of one embedding vector."""
    rows: int | None
    """Ids lie in [0, rows); None for a dynamic table, which takes any id >= 0."""


@dataclass(frozen=True, slots=True)
class Tile:
    """The piece of a table that one rank holds, or several ranks as replicas."""

    table: int
    """Ordinal of the table in the job."""
    bucket: int
    buckets: int
    """Row axis: hash bucket `bucket` of `buckets`."""
    start: int
    stop: int
    """Column axis: columns [start, stop) of the dim."""
    ranks: tuple[int, ...]
    """Data axis: the ranks that hold it, ascending. Every replica gets every gradient."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "ranks", tuple(sorted(self.ranks)))

    @property
    def dim(self) -> int:
        """Columns of the tile."""
        return self.stop - self.start

    @property
    def order(self) -> tuple[int, int, int]:
        """Where the tile stands in the canonical order of a placement."""
        return self.table, self.bucket, self.start

    def provider(self, requester: int) -> int:
        """Tell which replica answers `requester`: itself if it can, else one of them in turn."""
        if requester in self.ranks:
            return requester
        return self.ranks[requester % len(self.ranks)]
