"""Lifetimes against a model that keeps a dictionary and goes lookup by lookup."""

from __future__ import annotations

import math
from collections import defaultdict
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fourfold.runtime.data.lifetimes import PERCENTS, Lifetimes

Lookups = list[list[int]]
"""Ids of every sample; an id may be in a sample twice."""

FOREVER = 10**9


def lifetimes(samples: Lookups, batch_size: int) -> Lifetimes:
    ids = np.array([i for some in samples for i in some], np.int64)
    of = np.repeat(np.arange(len(samples), dtype=np.int32), [len(some) for some in samples])
    return Lifetimes.of(ids, of, np.arange(len(samples), dtype=np.int32) // np.int32(batch_size))


def batches_of(samples: Lookups, size: int) -> list[Lookups]:
    return [samples[at : at + size] for at in range(0, len(samples), size)]


def sightings(batch: Lookups) -> dict[int, int]:
    """Samples of a batch that have each id."""
    count: dict[int, int] = defaultdict(int)
    for some in batch:
        for i in set(some):
            count[i] += 1
    return count


def lookups_of(batch: Lookups) -> dict[int, int]:
    count: dict[int, int] = defaultdict(int)
    for some in batch:
        for i in some:
            count[i] += 1
    return count


@st.composite
def logs(draw: st.DrawFn) -> tuple[Lookups, int]:
    ids = st.lists(st.integers(0, draw(st.integers(0, 12))), max_size=4)
    return draw(st.lists(ids, min_size=1, max_size=40)), draw(st.integers(1, 9))


@given(logs())
def test_ids_and_gaps(log: tuple[Lookups, int]) -> None:
    samples, size = log
    lives = lifetimes(samples, size)
    when: dict[int, list[int]] = defaultdict(list)
    total: dict[int, int] = defaultdict(int)
    for at, some in enumerate(samples):
        for i in some:
            total[i] += 1
            if when[i][-1:] != [at]:
                when[i].append(at)
    order = sorted(when)

    assert lives.lookups == sum(total.values())
    assert lives.seen.tolist() == [len(when[i]) for i in order]
    assert lives.looked_up.tolist() == [total[i] for i in order]
    assert lives.births.tolist() == [when[i][0] for i in order]
    pairs = [pair for i in order for pair in zip(when[i], when[i][1:], strict=False)]
    assert lives.gaps.tolist() == [b - a for a, b in pairs]
    assert lives.batch_gaps.tolist() == [b // size - a // size for a, b in pairs]
    assert lives.visits == sum(len(sightings(batch)) for batch in batches_of(samples, size))
    for cut in (0, len(samples) // 2, len(samples)):
        assert lives.born_before(cut) == sum(when[i][0] < cut for i in order)


@given(logs())
def test_histogram(log: tuple[Lookups, int]) -> None:
    """Bins 1, 2, 3-4, 5-8, ... without a hole, and every id in one."""
    samples, size = log
    seen, total = sightings(samples), lookups_of(samples)
    bins = lifetimes(samples, size).histogram()

    assert [(b.least, b.most) for b in bins] == [(2**k // 2 + 1, 2**k) for k in range(len(bins))]
    for b in bins:
        inside = [i for i, n in seen.items() if b.least <= n <= b.most]
        assert (b.ids, b.lookups) == (len(inside), sum(total[i] for i in inside))
    assert sum(b.ids for b in bins) == len(seen)
    assert not bins or bins[-1].ids


@given(logs())
def test_percentiles_are_gaps_that_there_are(log: tuple[Lookups, int]) -> None:
    samples, size = log
    lives = lifetimes(samples, size)
    for gaps, found in zip((lives.gaps, lives.batch_gaps), lives.gap_percentiles(), strict=True):
        ordered = sorted(gaps.tolist())
        ranks = [math.ceil(Fraction(str(p)) / 100 * len(ordered)) for p in PERCENTS]
        assert found == [ordered[rank - 1] for rank in ranks if ordered]


@given(logs(), st.integers(2, 5))
def test_counted(log: tuple[Lookups, int], count: int) -> None:
    """An id gets a row in the batch that brings it to the count."""
    samples, size = log
    seen: dict[int, int] = defaultdict(int)
    rows: set[int] = set()
    refused = cold = 0
    for batch in batches_of(samples, size):
        looked_up = lookups_of(batch)
        for i, n in sightings(batch).items():
            cold += looked_up[i] if seen[i] and i not in rows else 0
            seen[i] += n
            if seen[i] >= count:
                rows.add(i)
            refused += looked_up[i] if i not in rows else 0
    effect = lifetimes(samples, size).counted(count)

    assert (effect.rows, effect.refused, effect.cold) == (len(rows), refused, cold)


@given(logs(), st.integers(1, 9))
def test_expiring(log: tuple[Lookups, int], live: int) -> None:
    """A row is gone when more than so many batches have passed since its last one."""
    samples, size = log
    last: dict[int, int] = {}
    peak = cold = 0
    for now, batch in enumerate(batches_of(samples, size)):
        for i, n in lookups_of(batch).items():
            cold += n if i in last and now - last[i] > live else 0
            last[i] = now
        peak = max(peak, sum(now - then <= live for then in last.values()))
    effect = lifetimes(samples, size).expiring(live)

    assert (effect.rows, effect.refused, effect.cold) == (peak, 0, cold)


@settings(max_examples=15)
@given(logs(), st.sampled_from([0.5, 0.2, 0.1]), st.integers(0, 2**32))
def test_drawn_is_what_simulations_give_on_average(
    log: tuple[Lookups, int], probability: float, seed: int
) -> None:
    samples, size = log
    rng = np.random.default_rng(seed)
    runs = np.array([simulated(samples, size, probability, rng) for _ in range(400)], float)
    effect = lifetimes(samples, size).drawn(probability)

    # A normal mean strays 5 deviations once in two million; the means of few, rare events more.
    slack = 5.5 * runs.std(axis=0) / math.sqrt(len(runs)) + 0.15
    strayed = np.abs(runs.mean(axis=0) - [effect.rows, effect.refused, effect.cold])
    assert (strayed <= slack).all()


def simulated(
    samples: Lookups, size: int, probability: float, rng: np.random.Generator
) -> tuple[int, int, int]:
    """Draw a lot for every sighting of an id without a row."""
    rows: set[int] = set()
    known: set[int] = set()
    refused = cold = 0
    for batch in batches_of(samples, size):
        looked_up = lookups_of(batch)
        for i, n in sightings(batch).items():
            had = i in rows
            if not had and (rng.random(n) < probability).any():
                rows.add(i)
            cold += looked_up[i] if i in known and not had else 0
            refused += looked_up[i] if i not in rows else 0
            known.add(i)
    return len(rows), refused, cold


def test_drawn_by_hand() -> None:
    """Batches of two samples; id 1 is seen twice in the first batch and once in the second."""
    effect = lifetimes([[1], [1, 1], [1, 2], []], 2).drawn(0.5)

    assert effect.rows == 1 - 1 / 8 + 1 / 2
    assert effect.refused == 3 / 4 + 1 / 8 + 1 / 2
    assert effect.cold == 1 / 4


def test_extremes_of_chance_and_count() -> None:
    rng = np.random.default_rng(3)
    lives = lifetimes([rng.integers(0, 50, 3).tolist() for _ in range(300)], 10)

    for all_in in (lives.drawn(1.0), lives.counted(1), lives.expiring(FOREVER)):
        assert (all_in.rows, all_in.refused, all_in.cold) == (lives.ids, 0, 0)
    assert lives.counted(FOREVER).refused == lives.lookups
    assert lives.expiring(0).rows == np.bincount(lives.visit_batch).max()


@pytest.mark.parametrize("period", [1, 7, 100])
def test_an_id_every_so_many_samples(period: int) -> None:
    """Its gaps are the period, in batches as many as fit; one more at the edge of a batch."""
    lives = lifetimes([[5] if i % period == 0 else [] for i in range(5000)], 50)
    in_samples, in_batches = lives.gap_percentiles()

    assert in_samples == [period] * 4
    assert in_batches[0] == period // 50
    assert in_batches[-1] == -(-period // 50)


def test_no_lookups() -> None:
    lives = lifetimes([[], []], 1)

    assert (lives.ids, lives.visits, lives.lookups) == (0, 0, 0)
    assert lives.histogram() == []
    assert lives.gap_percentiles() == ([], [])
    for effect in (lives.counted(2), lives.drawn(0.5), lives.expiring(3)):
        assert (effect.rows, effect.refused, effect.cold) == (0, 0, 0)
