"""A placement: every tile of every table and the ranks that hold it. Plain data.

It is printed, saved, edited by hand and loaded again (`fourfold.comm.placement_file`), made by the
planner or written in a job. The exchange and the storage know nothing else of how tables are cut.

Roles. A rank that holds tiles is an embedding rank: it stores rows, serves them and updates them.
One thing may also lie on a rank that is only dense: a tile that *every* dense rank holds. That is
data-parallel: each dense rank reads its own replica, and gradients go to all of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from pathlib import Path

from fourfold.comm.cut import Cut, ranks_text
from fourfold.comm.errors import PlacementError
from fourfold.comm.placement_file import read_tiles, write_tiles
from fourfold.comm.tile import COLUMN_STEP, Shape, Tile


@dataclass(frozen=True, slots=True)
class Placement:
    """Where the tiles of all tables lie in a world of `world_size` ranks."""

    shapes: tuple[Shape, ...]
    """The tables, by ordinal."""
    tiles: tuple[Tile, ...]
    """All tiles in canonical order: table, bucket, first column."""
    world_size: int

    def __post_init__(self) -> None:
        tiles = tuple(sorted(self.tiles, key=lambda tile: tile.order))
        object.__setattr__(self, "tiles", tiles)

    @staticmethod
    def of(shapes: Sequence[Shape], cuts: Sequence[Cut], world_size: int) -> Placement:
        """Lay one cut per table. Raises PlacementError for a cut that its table cannot have."""
        tiles = [
            tile
            for table, (shape, cut) in enumerate(zip(shapes, cuts, strict=True))
            for tile in cut.tiles(table, shape)
        ]
        return Placement(tuple(shapes), tuple(tiles), world_size)

    def held_by(self, rank: int) -> tuple[Tile, ...]:
        """Return the tiles that `rank` holds, in canonical order."""
        return tuple(tile for tile in self.tiles if rank in tile.ranks)

    def of_table(self, table: int) -> tuple[Tile, ...]:
        """Return the tiles of the table of that ordinal, in canonical order."""
        return tuple(tile for tile in self.tiles if tile.table == table)

    def holders(self) -> tuple[int, ...]:
        """Return the ranks that hold at least one tile, ascending."""
        return tuple(sorted({rank for tile in self.tiles for rank in tile.ranks}))

    def validate(self, embedding_ranks: Collection[int], dense_ranks: Collection[int]) -> None:
        """Check that every (bucket, column) of every table lies on allowed ranks exactly once.

        embedding_ranks: may hold any tile. dense_ranks: hold only tiles that all of them hold.
        Raises PlacementError that names the table, the rank, what was expected and what was found.
        """
        duplicate = _duplicate(shape.name for shape in self.shapes)
        if duplicate is not None:
            raise PlacementError(
                f"table {duplicate!r} is listed twice: give each table its own name"
            )
        embedding, dense = frozenset(embedding_ranks), frozenset(dense_ranks)
        by_table = {table: list(tiles) for table, tiles in groupby(self.tiles, lambda t: t.table)}
        for table in by_table:
            if not 0 <= table < len(self.shapes):
                raise PlacementError(
                    f"a tile belongs to table {table}; expected a table from 0 to"
                    f" {len(self.shapes) - 1}"
                )
        for table, shape in enumerate(self.shapes):
            tiles = by_table.get(table, [])
            if not tiles:
                raise PlacementError(f"table {shape.name!r} has no tile: place it on some rank")
            for tile in tiles:
                self._check_ranks(tile, embedding, dense)
            _check_cover(shape, tiles)

    def _check_ranks(self, tile: Tile, embedding: frozenset[int], dense: frozenset[int]) -> None:
        where = f"table {self.shapes[tile.table].name!r}, {_tile_text(tile)}"
        if not tile.ranks:
            raise PlacementError(f"{where}: held by no rank; list at least one")
        if (twice := _duplicate(tile.ranks)) is not None:
            raise PlacementError(
                f"{where}: rank {twice} is listed twice; replicas need different ranks"
            )
        for rank in tile.ranks:
            if not 0 <= rank < self.world_size:
                raise PlacementError(
                    f"{where}: rank {rank} does not exist; the world has ranks 0 to"
                    f" {self.world_size - 1}: move the tile, or start at least {rank + 1} ranks"
                )
        if dense and dense.issubset(tile.ranks):
            return
        for rank in tile.ranks:
            if rank not in embedding:
                expected = ranks_text(sorted(embedding)) or "none"
                raise PlacementError(
                    f"{where}: rank {rank} is no embedding rank; expected some of {expected}, or"
                    f" replicas on every dense rank ({ranks_text(sorted(dense)) or 'none'}):"
                    " move the tile, or give the rank the embedding role"
                )

    def describe(self, bytes_per_rank: Sequence[int] | None = None) -> str:
        """Print as a table, one line per table of the job.

        bytes_per_rank: (tables,) the most bytes of that table on one rank, if known.
        """
        lines = [("table", "rows", "dim", "cut", "ranks", "bytes/rank")]
        for table, tiles in groupby(self.tiles, lambda tile: tile.table):
            own, shape = tuple(tiles), self.shapes[table]
            cut = Cut.of(own, shape)
            holders = sorted({rank for tile in own for rank in tile.ranks})
            lines.append(
                (
                    shape.name,
                    "dynamic" if shape.rows is None else f"{shape.rows:,}",
                    str(shape.dim),
                    str(cut) if cut else f"{len(own)} tiles",
                    ranks_text(cut.ranks if cut else holders),
                    f"{bytes_per_rank[table]:,}" if bytes_per_rank else "",
                )
            )
        return aligned([line if bytes_per_rank else line[:-1] for line in lines], right=(1, 2, 5))

    def __str__(self) -> str:
        return self.describe()

    def to_toml(self) -> str:
        """Write as TOML that a person can edit and `from_toml` reads back equal."""
        return write_tiles(self.shapes, self.tiles, self.world_size)

    @staticmethod
    def from_toml(text: str, shapes: Sequence[Shape], world_size: int) -> Placement:
        """Read the placement of these tables in a world of that size.

        Raises PlacementError naming the key, the nearest valid one, and a table that is unknown or
        missing. Does not `validate`.
        """
        return Placement(tuple(shapes), read_tiles(text, shapes, world_size), world_size)

    def save(self, path: Path) -> None:
        """Write `to_toml` to a file."""
        path.write_text(self.to_toml(), encoding="utf-8")


def _check_cover(shape: Shape, tiles: list[Tile]) -> None:
    """Check that one table's tiles, in canonical order, cover it without gap or overlap."""
    where = f"table {shape.name!r}"
    buckets = tiles[0].buckets
    for tile in tiles:
        if tile.buckets != buckets or not 0 <= tile.bucket < buckets:
            raise PlacementError(
                f"{where}, {_tile_text(tile)}: expected bucket 0 to {buckets - 1} of {buckets}, as"
                " in the table's first tile: all tiles of a table are cut into the same buckets"
            )
        if not 0 <= tile.start < tile.stop <= shape.dim:
            raise PlacementError(
                f"{where}, {_tile_text(tile)}: expected columns inside [0, {shape.dim}), and at"
                " least one"
            )
        for edge in (tile.start, tile.stop):
            if edge % COLUMN_STEP and edge != shape.dim:
                raise PlacementError(
                    f"{where}, {_tile_text(tile)}: columns are cut at multiples of {COLUMN_STEP},"
                    f" got {edge}"
                )
    own = {bucket: list(group) for bucket, group in groupby(tiles, lambda tile: tile.bucket)}
    for bucket in range(buckets):
        edges = [
            0,
            *(e for tile in own.get(bucket, ()) for e in (tile.start, tile.stop)),
            shape.dim,
        ]
        for left, right in list(pairwise(edges))[::2]:
            if left != right:
                first, last = min(left, right), max(left, right)
                raise PlacementError(
                    f"{where}, bucket {bucket} of {buckets}: columns [{first}, {last}) are"
                    f" {'missing' if left < right else 'placed twice'}; every column of every"
                    " bucket needs exactly one tile (replicas are further ranks of that tile)"
                )


def _tile_text(tile: Tile) -> str:
    return f"tile bucket {tile.bucket} of {tile.buckets}, columns [{tile.start}, {tile.stop})"


def _duplicate(items: Iterable[object]) -> object:
    """Return an item that occurs more than once, or None."""
    return next((item for item, count in Counter(items).items() if count > 1), None)


def aligned(lines: Sequence[Sequence[str]], right: Collection[int] = ()) -> str:
    """Lay out lines of cells in columns two spaces apart; columns in `right` flush right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if i in right else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )
