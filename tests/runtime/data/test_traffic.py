"""Who sees what in generated logs: tables, reuse and drift of ids, bags."""

import math
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest

from fourfold.runtime.data.generate import GenerateConfig, Log
from fourfold.runtime.data.kaggle import CLOSED_ROWS, ROWS
from fourfold.runtime.data.reuse import LOOKUPS, RATES, popularity
from fourfold.runtime.data.scatter import scattered32
from fourfold.runtime.data.traffic import BLOCK

SMALL = GenerateConfig(samples=20_000, eval_samples=5_000, seed=7)

# Published beside the traces of facebookresearch/dlrm_datasets: share of the distinct ids, and of
# all lookups, that go to ids looked up (0, 1], (1, 2], (2, 4], (4, 8], ..., 32768 and more times.
PUBLISHED_IDS = {
    "2021": (0.473, 0.152, 0.139, 0.112, 0.072, 0.032, 0.011, 0.005, 0.002, 0.001),
    "2022": (0.342, 0.144, 0.149, 0.138, 0.112, 0.068, 0.029, 0.010, 0.004, 0.002),
}
PUBLISHED_LOOKUPS = {
    "2021": (0.069, 0.044, 0.068, 0.101, 0.121, 0.104, 0.073, 0.058, 0.052, 0.050,
             0.049, 0.048, 0.048, 0.043, 0.031, 0.023, 0.019),
    "2022": (0.027, 0.023, 0.040, 0.068, 0.105, 0.120, 0.099, 0.070, 0.059, 0.054,
             0.040, 0.072, 0.064, 0.047, 0.021, 0.017, 0.076),
}  # fmt: skip


def ids_of(log: Log, field: int, start: int, stop: int) -> npt.NDArray[np.uint32]:
    return np.concatenate([seen.sparse[field].ids for seen, _, _ in log.read(start, stop)])


def test_scale_one_has_the_published_tables() -> None:
    assert replace(SMALL, scale=1.0).rows == ROWS
    assert sum(ROWS) == 33_762_577
    half = replace(SMALL, scale=0.5).rows
    for rows, published in zip(half, ROWS, strict=True):
        kept = published <= CLOSED_ROWS
        assert rows == (published if kept else max(CLOSED_ROWS, round(published / 2)))


@pytest.mark.parametrize("trace", ["2021", "2022"])
def test_reuse_follows_the_production_traces(trace: str) -> None:
    """Look up ids as often as the trace did, and count how often each one comes."""
    rows = 2_000_000
    mean_rate = sum(LOOKUPS[trace]) / sum(m / r for m, r in zip(LOOKUPS[trace], RATES, strict=True))
    u = np.random.default_rng(0).random(round(rows * mean_rate))
    _, position = popularity(rows, trace).place(u)
    counts = np.bincount(position.astype(np.int64), minlength=rows)
    counts = counts[counts > 0]
    upper = [1.0, *(2.0**k for k in range(1, 16)), math.inf]
    bins = np.searchsorted(upper, counts)
    ids = np.bincount(bins, minlength=17) / len(counts)
    lookups = np.bincount(bins, weights=counts, minlength=17) / counts.sum()
    np.testing.assert_allclose(ids[:10], PUBLISHED_IDS[trace], atol=0.003)
    np.testing.assert_allclose(lookups, PUBLISHED_LOOKUPS[trace], atol=0.006)


@pytest.mark.parametrize("rows", [1, 2, 3, 10, 24, 1000, 54_321])
def test_every_table_size_has_a_popularity(rows: int) -> None:
    law = popularity(rows)
    assert law.slots.sum() == rows
    assert law.share.sum() == pytest.approx(1)
    assert (np.diff(law.per_slot) < 0).all()
    _, position = law.place(np.linspace(0, 1, 1000, endpoint=False))
    assert position.min() == 0
    assert position.max() < rows
    assert law.place(np.array([np.nextafter(1, 0)]))[1][0] < rows


@pytest.mark.parametrize("cooccurrence", [0.0, 0.9])
def test_cooccurrence_leaves_popularity_as_it_is(cooccurrence: float) -> None:
    """Field 16 has ten values: compare their shares with the law's."""
    config = replace(SMALL, samples=200_000, cooccurrence=cooccurrence)
    law = popularity(ROWS[16])
    expected = np.repeat(law.per_slot, law.slots)
    ids = ids_of(Log(config), 16, 0, 200_000)
    shares = np.sort(np.unique(ids, return_counts=True)[1])[::-1] / len(ids)
    np.testing.assert_allclose(shares, expected, atol=0.005)


def test_fields_of_one_side_occur_together() -> None:
    def pairs(cooccurrence: float, one: int, other: int) -> int:
        log = Log(replace(SMALL, cooccurrence=cooccurrence))
        left, right = ids_of(log, one, 0, 20_000), ids_of(log, other, 0, 20_000)
        return len(np.unique(np.stack([left, right]), axis=1).T)

    assert pairs(0.9, 6, 12) < 0.6 * pairs(0.0, 6, 12)  # both of the user
    assert pairs(0.9, 6, 9) > 0.95 * pairs(0.0, 6, 9)  # one of each


def test_ids_appear_and_fade_over_time() -> None:
    def unseen_before(drift: float, field: int) -> float:
        config = replace(SMALL, samples=95_000, drift=drift, scale=0.0003)
        log = Log(config)
        early = ids_of(log, field, 0, 80_000)
        late = ids_of(log, field, 90_000, 100_000)
        return float((~np.isin(late, early)).mean())

    largest = int(np.argmax(ROWS))
    assert unseen_before(0.0, largest) < 0.02
    assert unseen_before(0.8, largest) > 0.05
    assert unseen_before(0.8, 1) < 0.005  # a closed list


def test_an_id_fades_in_while_the_one_before_it_fades_out() -> None:
    log = Log(replace(SMALL, samples=195_000, drift=1.0, cooccurrence=0.0))
    field = int(np.argmax(ROWS))
    index = np.concatenate([s.sparse[field].index for s, _, _ in log.read(0, 200_000)])
    _, slots, _ = log.traffic.slots(field)
    top = np.flatnonzero(index % slots == 1)
    generations = index[top] // slots
    change = [np.flatnonzero(generations == g) for g in np.unique(generations)]
    assert len(change) >= 2
    overlap = change[0].max() - change[1].min()
    assert 0.1 < overlap / len(top) < 0.3


def test_ids_are_scattered_and_distinct_within_a_field() -> None:
    spread = np.unique(np.random.default_rng(0).integers(0, 2**31, 2**20, dtype=np.uint32))
    for key, index in ((0, spread), (1, spread), (2**63, np.arange(2**20, dtype=np.uint32))):
        ids = scattered32(index, key)
        assert len(np.unique(ids)) == len(ids)
        assert 0 not in ids
        assert abs(float(ids.mean()) / 2**31 - 1) < 0.01
    ends = np.array([0, 2**31 - 1], np.uint32)
    assert 0 not in scattered32(ends, 5)


def test_multi_hot_bags_have_the_length_that_was_asked_for() -> None:
    hot = tuple(range(1, 27))
    log = Log(replace(SMALL, hot=hot))
    seen, _, _ = next(log.read(0, BLOCK))
    for bags, mean in zip(seen.sparse, hot, strict=True):
        filled = bags.lengths[bags.lengths > 0]
        assert filled.mean() == pytest.approx(mean, rel=0.02)
        assert filled.max() <= 2 * mean - 1
        assert bags.lengths.sum() == len(bags.ids) == len(bags.rate)
