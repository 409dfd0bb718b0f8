"""The work that a table makes: what the planner must know of it, and how to measure that.

Letters: n ids. Distinct ids among n grow as n ** growth (Heaps' law), which is what Zipf-like ids
do over the range between one rank's batch and the global one, until all rows are seen.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from fourfold.comm.tile import Shape
from fourfold.runtime.errors import ConfigError

META_BYTES = 4
"""Time and score of every row."""
INDEX_BYTES = 27
"""Index of a dynamic table, per key, at most."""
CACHE_LINE = 64
"""Memory moves in these; a narrower row costs as much."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TableLoad:
    """One table as the planner sees it."""

    name: str
    dim: int
    rows: int | None = None
    """Ids lie in [0, rows); None for a dynamic table."""
    expected_rows: int = 0
    """Rows that a dynamic table will have; a static table has `rows`."""
    features: int = 1
    """Features that look up this table: bags per sample."""
    lookups: float = 1.0
    """Ids per sample over all its features: the pooling factor."""
    growth: float = 1.0
    """Distinct ids among n are about n ** growth; 1 if no id repeats, 0 if all are the same."""
    weight_bytes: int = 4
    """Bytes of one weight at rest: 2 or 4."""
    state_bytes: int = 0
    """Optimizer state of one weight: 0, 4 (Adagrad) or 8 (Adam)."""
    row_state_bytes: int = 0
    """Optimizer state of one row of a tile, whatever its width: 4 for row-wise ones."""
    reply: Literal["auto", "rows", "pooled"] = "auto"
    """What travels back: unique rows, sums of bags, or whichever is fewer bytes."""
    kept_rows: int | None = None
    """Rows to find room for where others are taken back; None: all."""
    copies: bool = True
    """Whether the planner may replicate it: not if its rows come and go."""
    index_bytes: int = INDEX_BYTES
    """Index of a dynamic table, per key, where that counts against the memory of rows: not on a
    GPU."""
    scored: bool = False
    """Whether rows can go: time and score of one below the pad are kept in host memory."""

    def __post_init__(self) -> None:
        at_least = {"dim": 1, "features": 1, "weight_bytes": 1, "state_bytes": 0}
        at_least |= {"row_state_bytes": 0, "lookups": 0, "growth": 0}
        for name, least in at_least.items():
            value = getattr(self, name)
            if not (value >= least and math.isfinite(value)):
                raise ConfigError(f"table {self.name!r}: {name} must be >= {least}, got {value}")
        if self.growth > 1:
            raise ConfigError(f"table {self.name!r}: growth must be at most 1, got {self.growth}")
        if self.num_rows < 1:
            raise ConfigError(
                f"table {self.name!r}: give rows, or expected_rows for a dynamic table, to plan for"
            )

    @property
    def shape(self) -> Shape:
        """What the placement must know of it."""
        return Shape(name=self.name, dim=self.dim, rows=self.rows)

    @property
    def num_rows(self) -> int:
        """Rows that it will have had."""
        return self.rows if self.rows is not None else self.expected_rows

    @property
    def held_rows(self) -> int:
        """Rows to find room for."""
        return self.num_rows if self.kept_rows is None else min(self.kept_rows, self.num_rows)

    def distinct(self, num_ids: float) -> float:
        """Estimate how many different ones there are among so many ids."""
        if num_ids <= 1:
            return num_ids
        return float(min(num_ids**self.growth, self.num_rows))

    def row_bytes(self, dim: int) -> int:
        """Bytes of one row of a tile `dim` columns wide: weights, state, metadata, index."""
        index = self.index_bytes if self.rows is None else 0
        weights = padded(dim * self.weight_bytes)
        state = padded(dim * self.state_bytes)
        return weights + state + self.row_state_bytes + META_BYTES + index

    def tile_bytes(self, buckets: int, dim: int) -> int:
        """Bytes of one tile; of a static table the largest of the buckets."""
        return self.tile_rows(buckets) * self.row_bytes(dim)

    def tile_rows(self, buckets: int) -> int:
        """Rows of one tile of `buckets`; of a static table the largest of them."""
        return -(-self.held_rows // buckets)


def padded(num_bytes: int) -> int:
    """Give the distance between vectors of so many bytes, as the pad lays them out."""
    if num_bytes <= 16:
        return 0 if num_bytes == 0 else 1 << (num_bytes - 1).bit_length()
    lines = -(-num_bytes // CACHE_LINE) * CACHE_LINE
    return lines if lines - num_bytes <= num_bytes // 8 else -(-num_bytes // 16) * 16


def growth_of(num_distinct: float, num_ids: float) -> float:
    """Give the `growth` of a table in which so many ids had so many distinct ones among them."""
    if num_ids <= 1 or num_distinct <= 1:
        return 0.0 if num_ids > 1 else 1.0
    return min(1.0, math.log(num_distinct) / math.log(num_ids))


def zipf_distinct(num_ids: float, num_rows: int, skew: float = 1.05) -> float:
    """Expect so many distinct ids among `num_ids` drawn from Zipf(skew) over `num_rows` rows.

    sum over rows of 1 - exp(-num_ids * p), rows taken together in bins of a few percent of their
    popularity rank.
    """
    edges = np.unique(np.geomspace(1, num_rows + 1, 400).astype(np.int64))
    counts = np.diff(edges).astype(np.float64)
    middles = np.sqrt(edges[:-1] * (edges[1:] - 1.0))
    popularity = middles**-skew
    popularity /= (counts * popularity).sum()
    return float((counts * -np.expm1(-num_ids * popularity)).sum()) if len(counts) else num_ids


@dataclass(frozen=True, kw_only=True, slots=True)
class Workload:
    """What one step asks of all ranks together."""

    batch_size: int
    """Samples of one step over all dense ranks."""
    wire_bytes: int = 4
    """Bytes of one element of a row or gradient on its way: 2 or 4."""
    dense_parameters: int = 0
    """Parameters of the dense model; 0 leaves it out of the prediction."""

    def __post_init__(self) -> None:
        for name, least in (("batch_size", 1), ("wire_bytes", 1), ("dense_parameters", 0)):
            if getattr(self, name) < least:
                raise ConfigError(f"{name} must be at least {least}, got {getattr(self, name)}")
