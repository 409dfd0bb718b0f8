"""Batches in which new ids never end: the load of a soak."""

from __future__ import annotations

import time

import numpy as np

from fourfold.runtime.data.batch import Batch, Int64

FIELDS = tuple(f"field{i}" for i in range(8))
DENSE_FIELDS = 4


class Newcomers:
    """Half of all lookups show an id for the first time, the others one of those before it.

    An id comes back the rarer the older it is: the logarithm of its age, counted in ids of its
    field, is uniform. Ids of different ranks differ. Ends after `seconds`.
    """

    def __init__(self, batch: int, rank: int, ranks: int, seconds: float) -> None:
        self._batch = batch
        self._rank = rank
        self._ranks = ranks
        self._rng = np.random.Generator(np.random.SFC64([7, rank]))
        self._born = 1
        self._end = time.monotonic() + seconds

    def next_batch(self) -> Batch | None:
        """Give the next one, None when time is up."""
        if time.monotonic() >= self._end:
            return None
        shape = len(FIELDS), self._batch
        ids = self._ids(*shape)
        return Batch(
            dense=self._rng.standard_normal((self._batch, DENSE_FIELDS), np.float32),
            label=(self._rng.random(self._batch, np.float32) < 0.25).astype(np.float32),
            ids=ids.reshape(-1),
            offsets=np.arange(ids.size + 1),
        )

    def _ids(self, fields: int, batch: int) -> Int64:
        fresh = batch // 2
        old = self._rng.random((fields, batch - fresh))
        age = (self._born**old).astype(np.int64)
        new = np.arange(self._born, self._born + fresh)
        ids = np.concatenate([np.broadcast_to(new, (fields, fresh)), self._born - age], axis=1)
        self._born += fresh
        return np.ascontiguousarray(ids * self._ranks + self._rank)
