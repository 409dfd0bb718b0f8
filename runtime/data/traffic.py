"""Who sees what, and when: the features of generated impressions, before anyone clicks.

Every impression has two hidden coordinates, one of its user and one of its item, uniform in
[0, 1). A field belongs to one of the two. With probability `cooccurrence` it reads its coordinate
through a shuffling of the unit interval of its own, otherwise a fresh number, and either way that
number picks its value by popularity. So each field keeps its popularity exactly, while fields of
one side occur together as a user's city and device do.

Time runs from 0 to 1 over the log. A slot of the popularity law (reuse.py) is a role and not an id:
over the log, `drift` of the roles in each open field pass to a new id, which fades in while the old
one fades out. An id is its (slot, generation), scattered over 32 bits.

Impressions come in blocks of `BLOCK`, each from a random stream of its own, keyed by (seed, block).
So what impression i shows depends on i and on the settings and on nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fourfold.runtime.data.kaggle import CLOSED_ROWS, DENSE_FIELDS, SPARSE_FIELDS
from fourfold.runtime.data.reuse import Popularity, popularity
from fourfold.runtime.data.scatter import bits64, mix64, scattered32

BLOCK = 16_384

# Pieces of the unit interval that a field's shuffling permutes.
_PIECES = 64
# A handover from one id to the next takes this share of the time between two handovers.
_FADE = 0.2
_GOLDEN = 0.6180339887498949

# Missing values and the spread of the integer fields: made up, in the manner of the real log, where
# some fields are always there and others are empty in half of the lines.
_SPARSE_MISSING = (
    0.0, 0.0, 0.03, 0.03, 0.0, 0.12, 0.0, 0.0, 0.0, 0.0, 0.0, 0.03, 0.0,
    0.0, 0.0, 0.03, 0.0, 0.0, 0.25, 0.25, 0.03, 0.4, 0.0, 0.03, 0.25, 0.25,
)  # fmt: skip
_DENSE_MISSING = (0.4, 0.0, 0.2, 0.2, 0.02, 0.2, 0.04, 0.0, 0.04, 0.4, 0.04, 0.5, 0.2)
_DENSE_MEDIAN = (1, 3, 6, 4, 2500, 30, 3, 7, 40, 0.5, 1, 0.3, 4)
_DENSE_SPREAD = (0.8, 0.9, 0.8, 0.6, 0.9, 0.8, 0.8, 0.6, 0.7, 0.4, 0.5, 0.5, 0.7)
_DENSE_LOWEST = (0, -3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
_DENSE_HIGHEST = 9_999_999


@dataclass(frozen=True, slots=True)
class Bags:
    """One categorical field of n impressions, as bags of ids; L ids in all.

    ids: uint32 (L,)       what the log shows
    index: uint32 (L,)     the id's number within its field, before scattering
    rate: float32 (L,)     share of its field's lookups that go to the id
    lengths: int64 (n,)    ids per impression
    """

    ids: npt.NDArray[np.uint32]
    index: npt.NDArray[np.uint32]
    rate: npt.NDArray[np.float32]
    lengths: npt.NDArray[np.int64]

    def rows(self, start: int, stop: int) -> Bags:
        """Give impressions [start, stop)."""
        first, last = int(self.lengths[:start].sum()), int(self.lengths[:stop].sum())
        some = slice(first, last)
        return Bags(self.ids[some], self.index[some], self.rate[some], self.lengths[start:stop])


@dataclass(frozen=True, slots=True)
class Impressions:
    """n impressions in time order, without labels.

    dense: int32 (n, 13); present: bool (n, 13), False where the log has no value (dense is 0 there)
    sparse: one `Bags` per categorical field
    """

    dense: npt.NDArray[np.int32]
    present: npt.NDArray[np.bool_]
    sparse: tuple[Bags, ...]

    @property
    def size(self) -> int:
        """Number of impressions."""
        return len(self.dense)

    def rows(self, start: int, stop: int) -> Impressions:
        """Give impressions [start, stop)."""
        sparse = tuple(bags.rows(start, stop) for bags in self.sparse)
        return Impressions(self.dense[start:stop], self.present[start:stop], sparse)


def of_user(field: int) -> bool:
    """Say whether a categorical field describes the user; the others describe the item."""
    return field % 2 == 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """The features of a log of `total` impressions, readable in blocks in any order.

    rows: ids that each categorical field shows over the whole log
    hot:  ids per bag: 1 is one-hot, h > 1 draws 1 to 2h - 1 of them, h on average
    """

    seed: int
    total: int
    rows: tuple[int, ...]
    hot: tuple[int, ...]
    trace: str
    drift: float
    cooccurrence: float

    @property
    def blocks(self) -> int:
        """Number of blocks; the last one may reach past the end of the log."""
        return -(-self.total // BLOCK)

    def stream(self, purpose: str, block: int) -> np.random.Generator:
        """Open the random stream of one block for one purpose."""
        words = [self.seed, int.from_bytes(purpose.encode(), "little"), block]
        return np.random.Generator(np.random.SFC64(words))

    def block(self, number: int) -> Impressions:
        """Draw impressions [number * BLOCK, (number + 1) * BLOCK)."""
        rng = self.stream("traffic", number)
        time = np.arange(number * BLOCK, (number + 1) * BLOCK) / self.total
        coordinates = rng.random((2, BLOCK))
        sparse = tuple(
            self._bags(field, rng, time, coordinates[0 if of_user(field) else 1])
            for field in range(SPARSE_FIELDS)
        )
        dense = np.zeros((BLOCK, DENSE_FIELDS), np.int32)
        present = np.ones((BLOCK, DENSE_FIELDS), np.bool_)
        for field in range(DENSE_FIELDS):
            column, there = self._integers(field, rng, coordinates[field % 2])
            dense[:, field], present[:, field] = column, there
        return Impressions(dense, present, sparse)

    def slots(self, field: int) -> tuple[Popularity, int, float]:
        """Give a field's popularity, its number of slots, and handovers per slot over the log."""
        rows = self.rows[field]
        drift = self.drift if rows > CLOSED_ROWS else 0.0
        slots = max(1, round(rows / (1 + drift)))
        return popularity(slots, self.trace), slots, drift

    def _bags(
        self,
        field: int,
        rng: np.random.Generator,
        time: npt.NDArray[np.float64],
        coordinate: npt.NDArray[np.float64],
    ) -> Bags:
        hot, missing = self.hot[field], _SPARSE_MISSING[field]
        n = len(time)
        lengths = np.ones(n, np.int64) if hot == 1 else rng.integers(1, 2 * hot, n)
        if missing:
            lengths[rng.random(n) < missing] = 0
        owner = np.repeat(np.arange(n), lengths)
        u = coordinate[owner]
        if hot > 1:  # the k-th id of a bag stands k golden steps from the first: a list that recurs
            within = np.arange(len(owner)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
            u = (u + within * _GOLDEN) % 1.0
        u = self._shuffled(u, field)
        fresh = rng.random(len(owner))
        u = np.where(fresh < self.cooccurrence, u, rng.random(len(owner)))
        law, slots, drift = self.slots(field)
        tier, position = law.place(u)
        slot = position.astype(np.int64)
        generation = np.zeros(len(slot), np.int64)
        if drift:  # each slot hands over at times of its own, each draw a little early or late
            phase = slot * _GOLDEN % 1.0 + (position - slot - 0.5) * _FADE
            generation = np.floor(time[owner] * drift + phase).astype(np.int64) + 1
        index = (slot + generation * slots).astype(np.uint32)
        ids = scattered32(index, mix64(self.seed) ^ field)
        return Bags(ids, index, law.per_slot.astype(np.float32)[tier], lengths)

    def _integers(
        self, field: int, rng: np.random.Generator, coordinate: npt.NDArray[np.float64]
    ) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.bool_]]:
        """Draw counts with a log-logistic tail: median * (u / (1 - u))^spread."""
        n = len(coordinate)
        u = self._shuffled(coordinate, SPARSE_FIELDS + field)
        u = np.where(rng.random(n) < self.cooccurrence, u, rng.random(n))
        lowest = _DENSE_LOWEST[field]
        value = _DENSE_MEDIAN[field] * (u / (1 - u)) ** _DENSE_SPREAD[field]
        counts = np.minimum(value, _DENSE_HIGHEST).astype(np.int32) + lowest
        there = rng.random(n) >= _DENSE_MISSING[field]
        return np.where(there, counts, 0).astype(np.int32), there

    def _shuffled(self, u: npt.NDArray[np.float64], field: int) -> npt.NDArray[np.float64]:
        """Permute `_PIECES` equal pieces of the unit interval: uniform stays uniform."""
        counter = np.arange(_PIECES, dtype=np.uint64)
        order = np.argsort(bits64(counter, mix64(self.seed) + field))
        scaled = u * _PIECES
        piece = scaled.astype(np.int64)
        return (order[piece] + (scaled - piece)) / _PIECES
