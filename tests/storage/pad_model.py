"""The rows of a pad as a dictionary, with SGD whose arithmetic is exact."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fourfold.storage import SGD, Pad, RowSpec, Segment, Uniform

LR = 0.25
IDS = 60
"""Ids that occur in each table."""

Records = NDArray[np.void]


def tile_specs() -> list[RowSpec]:
    """Static and dynamic tiles, rows of two sizes, two tiles of one table."""
    shared: dict[str, Any] = {"optimizer": SGD(), "init": Uniform(1.0), "seed": 3}
    return [
        RowSpec(table=0, name="a", dim=192, rows=IDS, **shared),
        RowSpec(table=1, name="b", dim=192, rows=None, **shared),
        RowSpec(table=2, name="c", dim=96, rows=None, **shared),
        RowSpec(table=2, name="c", dim=96, column=96, rows=None, **shared),
    ]


@dataclass
class Model:
    """Records by id, for each tile."""

    newborn: list[Records]
    rows: list[dict[int, Records]]

    @classmethod
    def of(cls, specs: Sequence[RowSpec]) -> Model:
        fresh = Pad(specs)
        ids = np.arange(IDS)
        return cls([fresh.read(t, ids)[0] for t in range(len(specs))], [{} for _ in specs])

    def row(self, tile: int, id: int) -> Records:
        """The record of a row, or the one it would be born with."""
        return self.rows[tile].get(id, self.newborn[tile][id])

    def weights(self, segment: Segment) -> NDArray[np.float32]:
        rows = [self.row(segment.tile, id)["weights"] for id in segment.ids.tolist()]
        width = self.newborn[segment.tile]["weights"].shape[1]
        return np.array(rows, np.float32).reshape(-1, width)

    def create(self, segments: Sequence[Segment]) -> int:
        """Rows of a training batch exist as soon as it is planned; gives how many are new."""
        before = self.count
        for segment in segments:
            for id in segment.ids.tolist():
                self.rows[segment.tile].setdefault(id, self.newborn[segment.tile][id].copy())
        return self.count - before

    def update(self, segments: Sequence[Segment], gradients: list[NDArray[np.float32]]) -> None:
        """Whole numbers add up exactly, and a quarter of one rounds once: bit for bit."""
        total: dict[tuple[int, int], NDArray[np.float32]] = {}
        for segment, gradient in zip(segments, gradients, strict=True):
            for id, row in zip(segment.ids.tolist(), gradient, strict=True):
                key = (segment.tile, id)
                total[key] = total[key] + row if key in total else row
        for (tile, id), row in total.items():
            changed = self.rows[tile][id].copy()
            changed["weights"] -= np.float32(LR) * row
            self.rows[tile][id] = changed

    @property
    def count(self) -> int:
        return sum(len(rows) for rows in self.rows)


def random_records(spec: RowSpec, n: int, rng: np.random.Generator) -> Records:
    records = np.zeros(n, spec.record)
    records["weights"] = rng.integers(-99, 99, (n, spec.dim))
    records["time"] = rng.integers(0, 2**16, n)
    records["score"] = rng.integers(0, 2**16, n)
    return records


def random_segments(tiles: int, size: int, rng: np.random.Generator) -> list[Segment]:
    """One or two requesters ask each tile for up to `size` rows together."""
    found = []
    for tile in range(tiles):
        parts = int(rng.integers(1, 3))
        for _ in range(parts):
            n = int(rng.integers(0, size // parts + 1))
            found.append(Segment(tile, rng.permutation(IDS)[:n].astype(np.int64)))
    return found
