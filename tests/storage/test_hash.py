"""Ids to row buckets and back."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fourfold.storage import _native


@given(st.integers(0, 3000), st.integers(1, 40), st.integers(0, 10**6))
def test_static_buckets_are_even_and_invertible(rows: int, buckets: int, table: int) -> None:
    ids = np.arange(rows, dtype=np.int64)
    bucket = _native.bucket_of(ids, table, buckets, False)
    sizes = np.bincount(bucket, minlength=buckets)

    assert sizes.max(initial=0) - sizes.min(initial=rows) <= 1
    for b in range(buckets):
        mine = ids[bucket == b]
        assert _native.bucket_rows(rows, table, b, buckets) == len(mine)
        assert (_native.id_of(mine // buckets, table, b, buckets) == mine).all()


@given(st.integers(0, 2**62), st.integers(1, 2**20))
def test_huge_ids_are_invertible(id: int, buckets: int) -> None:
    ids = np.array([id], np.int64)
    bucket = int(_native.bucket_of(ids, 5, buckets, False)[0])
    assert 0 <= bucket < buckets
    assert _native.id_of(ids // buckets, 5, bucket, buckets)[0] == id


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("stride", [1, 2, 8, 1024, 10**9 + 7])
def test_ids_with_a_stride_spread_over_all_buckets(dynamic: bool, stride: int) -> None:
    ids = np.arange(80000, dtype=np.int64) * stride
    sizes = np.bincount(_native.bucket_of(ids, 1, 8, dynamic), minlength=8)
    # 5 standard deviations of a binomial with 80000 draws
    assert abs(sizes - 10000).max() < 5 * np.sqrt(80000 / 8)


def test_tables_are_cut_differently() -> None:
    ids = np.arange(80000, dtype=np.int64)
    same = _native.bucket_of(ids, 1, 8, True) == _native.bucket_of(ids, 2, 8, True)
    assert 0.11 < same.mean() < 0.14
