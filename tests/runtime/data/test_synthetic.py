"""Benchmark ids: published sizes under a cap, and the Zipf law."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fourfold.runtime.data.kaggle import ROWS
from fourfold.runtime.data.synthetic import criteo_sizes, zipf_ids


@given(total=st.integers(26, 40_000_000))
def test_sizes_fill_the_total_and_cut_only_the_largest(total: int) -> None:
    sizes = criteo_sizes(total)
    cap = max(sizes)
    assert sizes == [min(rows, cap) for rows in ROWS]
    assert sum(sizes) <= total
    if total < sum(ROWS):
        assert sum(min(rows, cap + 1) for rows in ROWS) > total


def test_every_table_needs_a_row() -> None:
    with pytest.raises(ValueError, match="at least 26, one a table, got 25"):
        criteo_sizes(25)


@given(
    rows=st.integers(1, 10_000),
    alpha=st.sampled_from([0.0, 0.5, 0.95, 1.0, 1.05, 2.0]),
    seed=st.integers(0, 2**32),
)
def test_ids_lie_within_the_table(rows: int, alpha: float, seed: int) -> None:
    ids = zipf_ids(np.random.default_rng(seed), 1000, rows, alpha)
    assert ids.dtype == np.int64
    assert ids.min() >= 0
    assert ids.max() < rows


@pytest.mark.parametrize("alpha", [0.0, 0.8, 1.0, 1.05])
def test_popularity_follows_the_law(alpha: float) -> None:
    rows, n = 100, 400_000
    ids = zipf_ids(np.random.default_rng(1), n, rows, alpha)
    counts = np.sort(np.bincount(ids, minlength=rows))[::-1] / n
    edges = np.arange(1, rows + 2, dtype=float)
    mass = np.log(edges) if alpha == 1 else edges ** (1 - alpha) / (1 - alpha)
    expected = np.diff(mass) / (mass[-1] - mass[0])
    np.testing.assert_allclose(counts, expected, atol=4 * np.sqrt(expected.max() / n))


@pytest.mark.parametrize("rows", [7, 97, 1024, 54_321])
def test_popular_ids_are_scattered_and_every_id_has_its_rank(rows: int) -> None:
    ids = zipf_ids(np.random.default_rng(2), 400 * rows, rows, 0.5)
    assert len(np.unique(ids)) == rows
    hottest = np.argsort(np.bincount(ids, minlength=rows))[::-1][: rows // 4]
    if rows > 1000:
        assert (np.abs(np.diff(hottest)) > 1).mean() > 0.9
