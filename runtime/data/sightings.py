"""A sample of the ids of a job, in order and in bounded memory: which id was in which sample.

What is thinned out if memory is short is ids and never positions: an id whose hash lies above a
bound is left out with all of its lookups. So those that stay keep every one of theirs, and the gaps
between them are what they are in the data. Of every k-th sample, gaps would be k times too long and
most of the ids seen a few times would look as if they were seen once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from fourfold.runtime.data.batch import Batch, Int64
from fourfold.runtime.data.hashing import mix
from fourfold.runtime.data.reader import Reader

Int32 = npt.NDArray[np.int32]

PIECE = 1 << 14
"""Samples that are read at a time, at least."""
HELD_BYTES = 12
"""Of every lookup that is kept: its id and its sample."""
WORK_BYTES = 128
"""Of every lookup of a table while its lifetimes are worked out, one table at a time."""
# So that which ids are kept has nothing to do with where ids hashed for other ends go.
_SALT = np.uint64(0x9AD3C5F1_7B0E6A2D)


@dataclass(slots=True)
class Trail:
    """The lookups of one table, in order of samples."""

    share: float = 1.0
    """Share of the ids that is kept, by hash."""
    lookups: int = 0
    """Lookups, kept or not."""
    bags: int = 0
    """Bags that are not empty, kept or not."""
    kept: int = 0
    """Lookups that are kept."""
    _ids: list[Int64] = field(default_factory=list)
    _samples: list[Int32] = field(default_factory=list)

    def add(self, ids: Int64, samples: Int32) -> None:
        """Take the lookups of some more samples, (n,) each, samples ascending."""
        chosen = self._chosen(ids)
        if chosen is not None:
            ids, samples = ids[chosen], samples[chosen]
        self._ids.append(ids.copy())  # not a view that keeps the batch
        self._samples.append(samples)
        self.kept += len(ids)

    def thin(self) -> None:
        """Let go of half of the ids that are kept."""
        self.share /= 2
        ids, samples = self._ids, self._samples
        self._ids, self._samples, self.kept = [], [], 0
        for some_ids, some_samples in zip(ids, samples, strict=True):
            self.add(some_ids, some_samples)

    def take(self) -> tuple[Int64, Int32]:
        """Hand over what is kept: id and sample of every lookup, (n,) each."""
        ids = np.concatenate([*self._ids, np.empty(0, np.int64)])
        self._ids = []
        samples = np.concatenate([*self._samples, np.empty(0, np.int32)])
        self._samples = []
        return ids, samples

    def _chosen(self, ids: Int64) -> npt.NDArray[np.bool_] | None:
        if self.share >= 1:
            return None
        hashes = mix(ids.view(np.uint64) ^ _SALT)
        return hashes < np.uint64(int(self.share * 2.0**64))


@dataclass(slots=True)
class Sample:
    """The first N samples of the training data."""

    batch_of: Int32
    """Training batch of every sample, (N,), ascending from 0."""
    batches: int
    """Training batches."""
    complete: bool
    """Whether these are all of the data."""
    trails: tuple[Trail, ...]
    """One per table."""

    @property
    def samples(self) -> int:
        """Number of samples."""
        return len(self.batch_of)


def read_sample(
    reader: Reader,
    owner: Sequence[int],
    num_tables: int,
    *,
    batch_size: int,
    batches: int,
    memory_bytes: int,
    share: float = 1.0,
    report: Callable[[int], None] = lambda samples: None,
) -> Sample:
    """Read the first `batches` training batches of `batch_size` samples.

    reader: its batches are `piece_of(batch_size)` samples. owner: the table of every feature.
    memory_bytes: of lookups held, and of working on the largest table; tables are thinned, the
    largest first, until that suffices. share: of the ids, to begin with. report: is told how many
    samples are read. A malformed row that is skipped keeps its place, give or take a piece. Raises
    DataError for what is wrong with the data.
    """
    trails = tuple(Trail(share=share) for _ in range(num_tables))
    parts: list[Int32] = []
    per_piece = piece_of(batch_size) // batch_size
    first, size, complete = 0, 0, True
    while first < batches and (piece := reader.next_batch()) is not None:
        of = first + np.arange(piece.size, dtype=np.int32) // np.int32(batch_size)
        if len(of) and of[-1] >= batches:
            complete = False
            piece = piece.keep(of < batches)
            of = of[of < batches]
        if piece.size:
            _add(trails, owner, piece, size)
            _fit(trails, memory_bytes)
        parts.append(of)
        first += per_piece
        size += piece.size
        report(size)
    batch_of = np.concatenate([*parts, np.empty(0, np.int32)])
    complete = complete and reader.next_batch() is None
    count = int(batch_of[-1]) + 1 if size else 0
    return Sample(batch_of, count, complete, trails)


def piece_of(batch_size: int) -> int:
    """Give the samples to read at a time: whole training batches."""
    return batch_size * max(1, -(-PIECE // batch_size))


def _add(trails: Sequence[Trail], owner: Sequence[int], batch: Batch, first: int) -> None:
    """Give every table the lookups of a batch whose first sample is number `first`."""
    lengths = batch.lengths()
    numbers = np.arange(first, first + batch.size, dtype=np.int32)
    edges = batch.offsets[:: batch.size]
    for table, trail in enumerate(trails):
        own = [f for f, of in enumerate(owner) if of == table]
        ids = [batch.ids[edges[f] : edges[f + 1]] for f in own]
        samples = [np.repeat(numbers, lengths[f]) for f in own]
        trail.lookups += sum(map(len, ids))
        trail.bags += sum(int(np.count_nonzero(lengths[f])) for f in own)
        if len(own) == 1:
            trail.add(ids[0], samples[0])
            continue
        joined = np.concatenate(samples)
        order = np.argsort(joined, kind="stable")
        trail.add(np.concatenate(ids)[order], joined[order])


def _fit(trails: Sequence[Trail], memory_bytes: int) -> None:
    """Thin the largest tables until what is held, and work on the largest, fits."""
    while True:
        largest = max(trails, key=lambda trail: trail.kept)
        held = sum(trail.kept for trail in trails)
        if HELD_BYTES * held + WORK_BYTES * largest.kept <= memory_bytes:
            return
        largest.thin()
