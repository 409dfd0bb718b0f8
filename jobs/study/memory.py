"""What memory a study gives to its tables: bytes of a row, and splits of a budget over tables.

A dynamic table pays for its index, about 27 bytes a row (make bench); a table that ids are hashed
into needs neither an index nor the 4 bytes of metadata that reclamation reads. So for one budget
the hashing trick gets more rows, and the shorter the rows the more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fourfold.runtime.errors import ConfigError
from fourfold.storage import RowSpec, Uniform, optimizer_names

INDEX_BYTES = 27
METADATA_BYTES = 4
SLACK = 0.01
"""Of a budget: room for rows that are gone and whose memory is not back yet,"""
BLOCK = 2 << 20
"""and for a block of memory that is not full, where that is little of it."""

Weights = npt.NDArray[np.float64]


def row_bytes(dim: int, optimizer: str) -> int:
    """Bytes of a row: weights, optimizer state and metadata."""
    spec = RowSpec(
        table=0, name="", dim=dim, rows=None, optimizer=optimizer_names[optimizer](), init=Uniform()
    )
    return spec.record.itemsize


def hashed_row_bytes(row: int) -> int:
    """Bytes that a row of `row` bytes takes in a table that keeps every row."""
    return row - METADATA_BYTES


@dataclass(frozen=True, slots=True)
class Budget:
    """Memory for rows, as a share of what all ids of a log would take in dynamic tables."""

    bytes: int
    row: int
    """Bytes of a row with its metadata."""

    @classmethod
    def of(cls, share: float, distinct: int, dim: int, optimizer: str) -> Budget:
        """Take a share of the memory of `distinct` rows and their index."""
        row = row_bytes(dim, optimizer)
        return cls(int(share * distinct * (row + INDEX_BYTES)), row)

    @property
    def reclaimed_bytes(self) -> int:
        """Bytes of rows that dynamic tables may fill, their index paid for."""
        filled = (1 - SLACK) * self.bytes - min(BLOCK, self.bytes // 8)
        return int(filled * self.row / (self.row + INDEX_BYTES))

    @property
    def hashed_rows(self) -> int:
        """Rows of tables that ids are hashed into."""
        return self.bytes // hashed_row_bytes(self.row)


@dataclass(frozen=True, slots=True)
class TableUse:
    """What a log asks of one table, counted over all of it."""

    distinct: int
    lookups: int
    recurring: int
    """Ids seen at least twice."""
    closed: int = 0
    """Values of a closed list; 0 for a table that gets new ids."""

    @property
    def most_rows(self) -> int:
        """More rows than this would be of no use: collisions are few by then."""
        return self.closed or _AMPLE * self.distinct


Split = Callable[[list[TableUse]], Weights]

_AMPLE = 4
SMALL = 0.01
"""A table with at most this share of all ids is protected whole."""


def _of(attribute: str, power: float = 1.0) -> Split:
    return lambda tables: np.array([float(getattr(t, attribute)) for t in tables]) ** power


def _protected(tables: list[TableUse]) -> Weights:
    """All that a small table can use, and shares by distinct ids for the others."""
    distinct = _of("distinct")(tables)
    return np.where(distinct <= SMALL * distinct.sum(), np.inf, distinct)


SPLITS: Mapping[str, Split] = {
    "distinct": _of("distinct"),
    "sqrt": _of("distinct", 0.5),
    "recurring": _of("recurring"),
    "lookups": _of("lookups"),
    "protected": _protected,
}
"""Ways to share rows out over tables. "lookups" gives equal shares where bags have one id."""


def split_rows(split: str, tables: list[TableUse], rows: int) -> tuple[int, ...]:
    """Share `rows` out: to each table by weight, at least 1 and at most what is of use.

    What a full table leaves goes to the others. Never more than `rows` in all.
    """
    weight = SPLITS[split](tables)
    most = np.array([t.most_rows for t in tables], np.int64)
    got = np.where(np.isinf(weight), most, 0)
    open_ = np.isfinite(weight)
    left = rows - int(got.sum()) - int(open_.sum())
    if left < 0:
        raise ConfigError(f"{rows} rows are too few for tables split by {split!r}: more samples?")
    got[open_] = 1
    while open_.any() and left > 0:
        of_open = np.where(open_, weight, 0.0)
        if not of_open.any():  # nothing tells them apart
            of_open = open_.astype(np.float64)
        share = np.floor(left * of_open / of_open.sum()).astype(np.int64)
        more = np.minimum(share, most - got)
        if not more.any():
            break
        got += more
        left -= int(more.sum())
        open_ &= got < most
    return tuple(int(n) for n in got)
