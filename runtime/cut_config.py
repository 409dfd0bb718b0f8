"""How a job says that a table is to be cut, without knowing yet on how many ranks it will run."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from fourfold.comm.cut import Cut, parse_ranks
from fourfold.comm.errors import PlacementError
from fourfold.runtime.errors import ConfigError
from fourfold.runtime.roles import Roles
from fourfold.runtime.world import World

AXES = ("rows", "columns", "replicas")


@dataclass(frozen=True, kw_only=True, slots=True)
class CutConfig:
    """A grid of tiles: rows (hash buckets) x columns (ranges of the dim) x replicas, over ranks.

    { rows = -1 } is row-wise over all embedding ranks, { columns = 2, rows = -1 } a grid over all,
    { replicas = -1 } data-parallel on every dense rank, { rows = -1, node = 0 } rows inside a node,
    { ranks = "3" } the whole table on rank 3, and {} the whole table wherever the planner puts it.
    """

    # These change the placement, and so the speed; of the results only the order of sums.
    rows: int = 1
    """Hash buckets; -1: as many as the ranks leave."""
    columns: int = 1
    """Column ranges, at least 4 elements wide each; -1: as many as the ranks leave."""
    replicas: int = 1
    """Copies of every tile; -1: as many as the ranks leave."""
    ranks: str | tuple[int, ...] | None = None
    """Ranks of the tiles, like "0-3,9", rows first, then columns, then replicas."""
    node: int | None = None
    """Take the embedding ranks of this node instead."""

    def __post_init__(self) -> None:
        for axis in AXES:
            value = getattr(self, axis)
            if value < 1 and value != -1:
                raise ConfigError(f"{axis} must be at least 1, or -1 for what is left; got {value}")
        left = [axis for axis in AXES if getattr(self, axis) == -1]
        if len(left) > 1:
            raise ConfigError(
                f"{' and '.join(left)} are both -1: only one axis can take what is left"
            )
        if self.ranks is not None and self.node is not None:
            raise ConfigError("give ranks or a node, not both")
        if isinstance(self.ranks, str):
            try:
                parse_ranks(self.ranks)
            except PlacementError as error:
                raise ConfigError(str(error)) from error

    def resolve(self, table: str, world: World, roles: Roles) -> Cut | None:
        """Give the grid in this world; None if its ranks are for the planner to choose.

        Raises PlacementError where the ranks do not divide into the grid.
        """
        counts = {axis: getattr(self, axis) for axis in AXES}
        ranks = self._ranks(table, world, roles)
        known = math.prod(count for count in counts.values() if count != -1)
        if -1 in counts.values():
            axis = next(axis for axis, count in counts.items() if count == -1)
            counts[axis], rest = divmod(len(ranks), known)
            if rest or not counts[axis]:
                raise PlacementError(
                    f"table {table!r}: {len(ranks)} ranks cannot be divided by the {known} tiles of"
                    f" its other axes to find {axis} = -1; change the cut or the ranks"
                )
        elif self.ranks is None and self.node is None and known % len(ranks):
            if self.replicas > 1:
                raise PlacementError(
                    f"table {table!r}: {known} tiles and replicas do not fill the {len(ranks)}"
                    " embedding ranks evenly; say which ranks hold them (ranks = ...)"
                )
            return None
        return Cut(**counts, ranks=ranks)

    def _ranks(self, table: str, world: World, roles: Roles) -> tuple[int, ...]:
        if self.node is not None:
            if not 0 <= self.node < world.num_nodes:
                raise PlacementError(
                    f"table {table!r}: node {self.node} does not exist; the world has"
                    f" {world.num_nodes} (0 to {world.num_nodes - 1})"
                )
            ranks = tuple(r for r in roles.embedding if world.nodes[r] == self.node)
            if not ranks:
                raise PlacementError(f"table {table!r}: node {self.node} has no embedding rank")
            return ranks
        if self.ranks is not None:
            ranks = parse_ranks(self.ranks) if isinstance(self.ranks, str) else self.ranks
            for rank in ranks:
                if not 0 <= rank < world.size:
                    raise PlacementError(
                        f"table {table!r}: rank {rank} does not exist; the world has ranks 0 to"
                        f" {world.size - 1}"
                    )
            return ranks
        only_copies = self.replicas == -1 and self.rows == self.columns == 1
        return roles.dense if only_copies else roles.embedding


@dataclass(frozen=True, kw_only=True, slots=True)
class PlacementConfig:
    """The `[placement]` section. Left empty, the planner places every table."""

    # These change the placement, and so the speed; of the results only the order of sums.
    path: str | None = None
    """A saved placement (`fourfold plan --save`) to use as it is."""
    default: CutConfig | None = None
    """How tables are cut that have no entry of their own; "none": the planner decides."""
    tables: dict[str, CutConfig] = field(default_factory=dict)
    """How single tables are cut, by name."""
    stats: str | None = None
    """What `fourfold stats` measured of the job: rows that dynamic tables will have, and lookups.
    Without it, lookups are measured on the first batches and `expected_rows` is believed."""

    def __post_init__(self) -> None:
        if self.path is not None and (self.tables or self.default is not None):
            raise ConfigError("path names a whole placement: leave out default and tables, or path")

    def cut_of(self, table: str) -> CutConfig | None:
        """Give what the job says of a table; None if nothing."""
        return self.tables.get(table, self.default)
