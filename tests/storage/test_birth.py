"""Rows are born from their key: placement, order of arrival and kind of table do not matter."""

import numpy as np
import pytest
from scipy import special, stats

from fourfold.storage import (
    Adam,
    Constant,
    Init,
    Normal,
    Pad,
    RowSpec,
    RowWiseAdagrad,
    Segment,
    SegmentedRequest,
    Uniform,
    _native,
)

ROWS, DIM = 500, 96


def spec(**changes: object) -> RowSpec:
    fields: dict[str, object] = {
        "table": 3,
        "name": "t",
        "dim": DIM,
        "rows": ROWS,
        "optimizer": RowWiseAdagrad(),
        "init": Normal(0.1),
        "seed": 11,
    }
    return RowSpec(**(fields | changes))  # type: ignore[arg-type]


def born(spec: RowSpec, ids: np.ndarray) -> np.ndarray:
    """Weights after rows were created by planning, not by reading."""
    pad = Pad([spec], threads=2)
    at = ids if spec.dynamic else ids // spec.buckets
    pad.release(pad.plan(SegmentedRequest.of([Segment(0, at)]), train=True))
    assert pad.rows == len(ids)
    return pad.weights(0, ids)


@pytest.mark.parametrize("init", [Uniform(0.3), Normal(0.1), Constant(0.25)])
@pytest.mark.parametrize("dtype", ["fp32", "bf16", "fp16"])
def test_placement_does_not_matter(init: Init, dtype: str) -> None:
    ids = np.arange(ROWS)
    whole = born(spec(init=init, dtype=dtype), ids)
    for cut in [(0, 1), (1, 33), (33, 96), (64, 96)]:
        part = spec(init=init, dtype=dtype, dim=cut[1] - cut[0], column=cut[0])
        assert (born(part, ids) == whole[:, cut[0] : cut[1]]).all()
    for rows in (ROWS, None):
        bucket = _native.bucket_of(ids, 3, 3, rows is None)
        for b in range(3):
            part = spec(init=init, dtype=dtype, rows=rows, bucket=b, buckets=3)
            mine = ids[bucket == b]
            assert (born(part, mine) == whole[mine]).all()


def test_order_of_arrival_does_not_matter() -> None:
    ids = np.arange(ROWS)
    shuffled = np.random.default_rng(0).permutation(ROWS)
    for rows in (ROWS, None):
        assert (born(spec(rows=rows), shuffled)[np.argsort(shuffled)] == born(spec(), ids)).all()


def test_rows_tables_and_seeds_differ() -> None:
    ids = np.arange(ROWS)
    whole = born(spec(), ids)
    assert len(np.unique(whole[:, 0])) > ROWS - 3
    for other in (spec(table=4), spec(seed=12)):
        assert abs(np.corrcoef(whole.ravel(), born(other, ids).ravel())[0, 1]) < 0.02


@pytest.mark.parametrize(
    ("init", "cdf"),
    [(Uniform(0.3), stats.uniform(-0.3, 0.6).cdf), (Normal(0.1), stats.norm(0, 0.1).cdf)],
)
def test_distribution(init: Init, cdf: object) -> None:
    values = born(spec(init=init, rows=5000), np.arange(5000))
    assert stats.kstest(values.ravel()[:200000], cdf).pvalue > 1e-3
    # Neighbours in a row and in a column are independent.
    assert abs(np.corrcoef(values[:, :-1].ravel(), values[:, 1:].ravel())[0, 1]) < 0.01
    assert abs(np.corrcoef(values[:-1].ravel(), values[1:].ravel())[0, 1]) < 0.01


def test_normal_is_the_inverse_of_the_distribution_function() -> None:
    x = np.linspace(-1, 1, 200001)[1:-1].astype(np.float32)
    x = x[np.abs(x) < 1]
    expected = np.sqrt(2) * special.erfinv(x.astype(np.float64))
    np.testing.assert_allclose(_native.normal_of(x), expected, rtol=3e-5, atol=1e-7)


def test_state_begins_at_zero_or_as_asked() -> None:
    pad = Pad(
        [spec(optimizer=Adam()), spec(table=4, optimizer=RowWiseAdagrad(initial_accumulator=2.5))]
    )
    ids = np.arange(10)
    pad.release(pad.plan(SegmentedRequest.of([Segment(0, ids), Segment(1, ids)]), train=True))
    adam, adagrad = (pad.read(t, np.arange(20))[0] for t in (0, 1))
    assert adam["state"].shape == (20, 2, DIM)
    assert not adam["state"].any()
    assert (adagrad["row_state"] == 2.5).all()
    assert not adagrad["time"].any()
