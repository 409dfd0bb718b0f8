"""When the ids of a table come, and come again, and what keeping fewer rows for them would do.

Words: a *sighting* is a sample that has the id, however often; a *visit* is a training batch that
has it. A lookup is *refused* if its id gets no row in that batch, and *cold* if it reads a newborn
row although it would have found a trained one if rows were given to all and kept for ever.

Letters: n lookups, S sightings and V visits of D ids, n >= S >= V >= D, by id and then in time.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fourfold.runtime.data.batch import Int64
from fourfold.runtime.data.sightings import Int32

PERCENTS = (50.0, 90.0, 99.0, 99.9)
"""Percentiles of gaps that are of interest; the last is the time to live."""


@dataclass(frozen=True, slots=True)
class Effect:
    """What a way to keep fewer rows does to a table."""

    rows: float
    """Rows there are at most at a time; expected, where chance decides."""
    refused: float
    """Lookups that get no row."""
    cold: float
    """Lookups that read a newborn row instead of a trained one."""


@dataclass(frozen=True, slots=True)
class Bin:
    """Ids with so many sightings."""

    least: int
    most: int
    ids: int
    lookups: int
    """Lookups of these ids."""


@dataclass(frozen=True, slots=True, eq=False)
class Lifetimes:
    """What became of the ids of one table."""

    lookups: int
    seen: Int64
    """Sightings of every id, (D,)."""
    looked_up: Int64
    """Lookups of every id, (D,)."""
    births: Int32
    """First sample of every id, (D,)."""
    gaps: Int32
    """Samples from a sighting to the id's next one, (S - D,)."""
    batch_gaps: Int32
    """The same in training batches; 0 in one batch, (S - D,)."""
    visit_batch: Int32
    """Training batch of every visit, (V,)."""
    visit_new: npt.NDArray[np.bool_]
    """Whether a visit is its id's first, (V,)."""
    visit_lookups: Int64
    """Lookups of every visit, (V,)."""
    before: Int64
    """Sightings of a visit's id in earlier ones, (V,)."""
    upto: Int64
    """The same with those of the visit, (V,)."""

    @staticmethod
    def of(ids: Int64, samples: Int32, batch_of: Int32) -> Lifetimes:
        """Sort lookups into lifetimes.

        ids, samples: (n,) id and sample of every lookup, samples ascending. batch_of: the training
        batch of every sample.
        """
        order = np.argsort(ids, kind="stable")
        ids, samples = ids[order], samples[order]
        del order
        new_id = _changes(ids)
        sighted = np.flatnonzero(new_id | _changes(samples))
        count = len(ids)
        del ids
        sample, new = samples[sighted], new_id[sighted]
        batch = batch_of[sample]
        visited = np.flatnonzero(new | _changes(batch))
        first = np.flatnonzero(new)
        visit_new = new[visited]
        visit_first = np.repeat(first, np.diff(np.flatnonzero(visit_new), append=len(visited)))
        again = ~new[1:]
        return Lifetimes(
            lookups=count,
            seen=np.diff(first, append=len(sighted)),
            looked_up=np.diff(sighted[first], append=count),
            births=sample[first],
            gaps=np.diff(sample)[again],
            batch_gaps=np.diff(batch)[again],
            visit_batch=batch[visited],
            visit_new=visit_new,
            visit_lookups=np.diff(sighted[visited], append=count),
            before=visited - visit_first,
            upto=np.append(visited[1:], len(sighted))[: len(visited)] - visit_first,
        )

    @property
    def ids(self) -> int:
        """Number of distinct ids."""
        return len(self.seen)

    @property
    def visits(self) -> int:
        """Distinct ids of every batch, all batches together."""
        return len(self.visit_batch)

    def histogram(self) -> list[Bin]:
        """Count ids by sightings: 1, 2, 3 to 4, 5 to 8, ...; up to the last that has any."""
        if not self.ids:
            return []
        power = np.frexp(self.seen - 0.5)[1]  # 1 -> 0, 2 -> 1, 3 and 4 -> 2
        ids = np.bincount(power)
        lookups = np.bincount(power, weights=self.looked_up)
        return [
            Bin(least=(1 << p) // 2 + 1, most=1 << p, ids=int(ids[p]), lookups=int(lookups[p]))
            for p in range(len(ids))
        ]

    def born_before(self, sample: int) -> int:
        """Count the ids of the samples before that one."""
        return int(np.count_nonzero(self.births < sample))

    def gap_percentiles(
        self, percents: tuple[float, ...] = PERCENTS
    ) -> tuple[list[int], list[int]]:
        """Give percentiles of the gaps, in samples and in batches; none without a gap.

        Each is a gap that there is, the least that so many percent do not exceed.
        """
        if not len(self.gaps):
            return [], []
        samples, batches = (
            np.percentile(gaps, percents, method="inverted_cdf").astype(int).tolist()
            for gaps in (self.gaps, self.batch_gaps)
        )
        return samples, batches

    def counted(self, count: int) -> Effect:
        """Give rows from the batch on with which an id has `count` sightings, exactly counted."""
        refused = self.upto < count
        cold = (self.before < count) & ~self.visit_new
        return Effect(
            rows=float(np.count_nonzero(self.seen >= count)),
            refused=float(self.visit_lookups[refused].sum()),
            cold=float(self.visit_lookups[cold].sum()),
        )

    def drawn(self, probability: float) -> Effect:
        """Give rows by lot, one per sighting of an id without a row: what to expect of it."""
        out = 1 - probability
        missed = self.visit_lookups * np.power(out, self.before)
        return Effect(
            rows=float((1 - np.power(out, self.seen)).sum()),
            refused=float((self.visit_lookups * np.power(out, self.upto)).sum()),
            cold=float(missed[~self.visit_new].sum()),
        )

    def expiring(self, time_to_live: int) -> Effect:
        """Give a row to every id, until more batches have passed since its last visit."""
        if not self.ids:
            return Effect(0.0, 0.0, 0.0)
        gaps = np.diff(self.visit_batch, prepend=np.int32(0))
        born = self.visit_new | (gaps > time_to_live)
        died = self.visit_batch[np.append(born[1:], True)] + np.int64(time_to_live) + 1
        end = int(self.visit_batch.max()) + 1
        change = np.bincount(self.visit_batch[born], minlength=end)[:end]
        change = change - np.bincount(np.minimum(died, end), minlength=end)[:end]
        return Effect(
            rows=float(np.cumsum(change).max()),
            refused=0.0,
            cold=float(self.visit_lookups[born & ~self.visit_new].sum()),
        )


def _changes(values: npt.NDArray[np.integer]) -> npt.NDArray[np.bool_]:
    """Say of each value whether it is the first or differs from the one before, (n,)."""
    changes = np.ones(len(values), np.bool_)
    np.not_equal(values[1:], values[:-1], out=changes[1:])
    return changes
