"""Admission and reclamation in the pad: who gets a row and who keeps it; all else is as before."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from reclaim_pad import DIM, Trainer, fresh, ids_of, make, spec

from fourfold.storage import (
    Admission,
    BudgetError,
    RowWiseAdagrad,
    Segment,
    SegmentedRequest,
)


def test_rows_stay_below_a_budget_of_rows() -> None:
    pad = make([spec()], by="frequency", rows=1000, free=0.2)
    run = Trainer(pad)
    for step in range(200):
        run.batch(np.arange(step * 50, step * 50 + 50))
        assert len(ids_of(pad)) <= 1000 + 50 + 20  # some that are gone seem to be in the window
    counts = pad.population(0)
    assert counts.reclaimed > 8000
    assert counts.expired == 0
    assert counts.reclaimed + pad.rows == 200 * 50


@pytest.mark.parametrize(
    "by", ["kraken", "frequency", "recency", "importance", "relative_importance"]
)
def test_endless_new_ids_fit_any_budget(by: str) -> None:
    budget = 1 << 20
    pad = make([spec()], budget, by=by, interval=10)
    run = Trainer(pad)
    for step in range(600):
        run.batch(np.arange(step * 200, step * 200 + 200))
        assert pad.bytes <= budget
    assert pad.population(0).reclaimed > 60_000
    assert pad.rows * 47 > 0.5 * budget  # most of the memory is in use


def test_rows_that_are_named_often_stay() -> None:
    pad = make([spec()], by="frequency", rows=500, decay=0.0)
    run = Trainer(pad)
    often = np.arange(10**6, 10**6 + 100)
    for step in range(100):
        run.batch(np.concatenate([often, np.arange(step * 50, step * 50 + 50)]))
    assert {int(i) for i in often} <= ids_of(pad)
    left = pad.weights(0, often)
    assert np.allclose(left, fresh(pad.specs[0], often) - 0.5 * 100, atol=1e-3)


def test_credits_decide_who_stays() -> None:
    pad = make([spec()], by="kraken", rows=400, decay=0.0)
    run = Trainer(pad)
    run.batch(np.arange(0, 200), credits=1.0)
    run.batch(np.arange(200, 300), credits=3.0)
    run.batch(np.arange(300, 500), credits=1.0)
    for step in range(5):
        run.batch(np.arange(1000 + step * 30, 1030 + step * 30), credits=1.0)
    assert set(range(200, 300)) <= ids_of(pad)
    assert not set(range(200)) <= ids_of(pad)


def test_gradients_decide_who_stays() -> None:
    pad = make([spec()], by="importance", rows=400, decay=0.0)
    run = Trainer(pad)
    run.batch(np.arange(0, 200), gradient=0.01)
    run.batch(np.arange(200, 300), gradient=1.0)
    run.batch(np.arange(300, 500), gradient=0.01)
    for step in range(5):
        run.batch(np.arange(1000 + step * 30, 1030 + step * 30), gradient=0.01)
    assert set(range(200, 300)) <= ids_of(pad)
    assert not set(range(200)) <= ids_of(pad)


def test_the_longest_unseen_go_first_by_recency() -> None:
    pad = make([spec()], by="recency", rows=300, interval=1)
    run = Trainer(pad)
    for step in range(10):
        run.batch(np.arange(step * 30, step * 30 + 30))
    run.batch(np.arange(0, 30))  # seen again
    run.batch(np.arange(900, 930))
    run.batch(np.arange(900, 930))
    kept = ids_of(pad)
    assert set(range(30)) <= kept
    assert not set(range(30, 60)) & kept


def test_expired_rows_go_before_others_and_high_priority_only_then() -> None:
    short = spec(0, time_to_live=5)
    pad = make([short, spec(1), spec(2, priority="high")], by="frequency", rows=300, interval=1)
    run = Trainer(pad)
    run.batch({0: np.arange(100), 1: np.arange(100), 2: np.arange(5000)})
    for step in range(8):
        run.batch({1: np.arange(100), 2: np.arange(step, step + 1)})
    assert pad.population(0).expired == 0  # there is no shortage yet
    run.batch({1: np.arange(100, 205)})
    run.batch({1: np.arange(3)})
    run.batch({1: np.arange(3)})
    assert ids_of(pad, 0) == set()
    assert ids_of(pad, 1) == set(range(205))
    assert len(ids_of(pad, 2)) == 5000
    for step in range(20):
        run.batch({1: np.arange(1000 + 50 * step, 1050 + 50 * step)})
    assert pad.population(0).expired == 100
    assert pad.population(1).reclaimed > 500
    assert pad.population(2).reclaimed == pad.population(2).expired == 0
    assert len(ids_of(pad, 2)) == 5000


def test_high_priority_with_a_time_to_live_expires() -> None:
    pad = make(
        [spec(0, priority="high", time_to_live=3), spec(1)], by="frequency", rows=200, interval=1
    )
    run = Trainer(pad)
    run.batch({0: np.arange(100), 1: np.arange(50)})
    for step in range(30):
        run.batch({1: np.arange(100 + 10 * step, 110 + 10 * step)})
    assert ids_of(pad, 0) == set()
    assert pad.population(0).reclaimed == 0


def test_an_id_that_was_reclaimed_is_new_when_it_comes_back() -> None:
    pad = make([spec(optimizer=RowWiseAdagrad())], by="recency", rows=100, interval=1)
    run = Trainer(pad)
    first = np.arange(50)
    run.batch(first)
    for step in range(20):
        run.batch(np.arange(1000 + step * 50, 1050 + step * 50))
    assert not ids_of(pad) & set(range(50))
    assert np.array_equal(pad.weights(0, first), fresh(pad.specs[0], first))
    before = pad.plan(SegmentedRequest.of([Segment(0, first)]), True)
    assert before.new == 50
    pad.release(before)
    records, found = pad.read(0, first)
    assert found.all()
    assert (records["row_state"] == 0).all()


@pytest.mark.parametrize("ahead", [0, 1, 3])
def test_the_same_rows_stay_however_far_ahead_is_planned(ahead: int) -> None:
    def outcome(ahead: int) -> tuple[set[int], NDArray[np.float32]]:
        rng = np.random.default_rng(1)
        pad = make([spec()], by="importance", rows=600, interval=5, window=4)
        run = Trainer(pad, ahead)
        for _ in range(150):
            ids = np.unique(rng.zipf(1.2, 120) % 5000)
            run.batch(ids.astype(np.int64), gradient=float(rng.random()))
        run.finish()
        kept = ids_of(pad)
        return kept, pad.weights(0, np.array(sorted(kept)))

    kept, weights = outcome(ahead)
    expected, expected_weights = outcome(2)
    assert kept == expected
    assert np.array_equal(weights, expected_weights)


def test_rows_of_planned_batches_stay() -> None:
    """A budget far below what is planned: no row in the window is lost."""
    pad = make([spec()], by="recency", rows=10, interval=1, window=4)
    run = Trainer(pad, ahead=3)
    named: dict[int, int] = {}
    for step in range(40):
        ids = np.arange(step * 20, step * 20 + 40)  # each id in two batches running
        run.batch(ids)
        for i in ids:
            named[int(i)] = named.get(int(i), 0) + 1
        ready = step - run.ahead
        if ready >= 1:  # ids of the batch that trained last, seen twice, are still in the window
            twice = np.arange(ready * 20, ready * 20 + 20)
            got = pad.weights(0, twice)
            assert np.allclose(got, fresh(pad.specs[0], twice) - 0.5 * 2, atol=1e-5)


def test_readers_see_their_rows_until_they_are_released() -> None:
    pad = make([spec()], 1 << 20, by="recency", interval=1)
    run = Trainer(pad)
    ids = np.arange(100)
    run.batch(ids)
    weights = pad.weights(0, ids)
    request = SegmentedRequest.of([Segment(0, ids)])
    reader = pad.plan(request, False)
    for step in range(100):
        run.batch(np.arange(1000 + step * 300, 1300 + step * 300), gradient=9.0)
    assert not ids_of(pad) & set(range(100))
    out = np.empty((100, DIM), np.float32)
    pad.gather(reader, request.addresses([out]), "fp32")
    assert np.array_equal(out, weights)
    pad.release(reader)


def test_any_table_can_have_memory_that_was_taken_back() -> None:
    """Tables with rows of other sizes: all memory goes to one, then to the other."""
    pad = make([spec(0), spec(1, dim=64)], 4 << 20, by="recency", interval=1)
    run = Trainer(pad)
    most = []
    for turn in range(4):
        tile = turn % 2
        for step in range(300):
            run.batch({tile: np.arange(step * 200, step * 200 + 200) + 10**6 * turn})
        most.append(pad.tile_rows(tile) * pad.specs[tile].row_bytes)
    assert most[2] > 0.8 * most[0]
    assert most[3] > 0.8 * most[1]


def test_a_batch_that_is_larger_than_the_budget_is_an_error() -> None:
    pad = make([spec()], 1 << 16, by="recency")
    with pytest.raises(BudgetError):
        Trainer(pad).batch(np.arange(100_000))


@pytest.mark.parametrize("absent", ["zeros", "newborn"])
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_refused_ids_read_as_absent_and_train_nothing(absent: str, dtype: str) -> None:
    never = Admission(kind="probability", probability=1e-12)
    filtered = spec(0, admission=never, absent=absent, dtype=dtype)
    pad = make([filtered, spec(1)])
    ids = np.arange(30)
    request = SegmentedRequest.of([Segment(0, ids), Segment(1, ids)])
    ticket = pad.plan(request, True)
    assert ticket.missing == 30
    assert ticket.unique == 30
    out = [np.full((30, DIM), 7, np.float32) for _ in range(2)]
    pad.gather(ticket, request.addresses(out), "fp32")
    expected = np.zeros((30, DIM)) if absent == "zeros" else fresh(filtered, ids)
    assert np.array_equal(out[0], expected)
    assert np.array_equal(out[1], fresh(pad.specs[1], ids))
    ones = np.ones((30, DIM), np.float32)
    pad.update(ticket, request.addresses([ones, ones]), "fp32", 0.5, 1)
    pad.release(ticket)
    assert pad.tile_rows(0) == 0
    assert pad.population(0).refused == 30
    assert np.allclose(pad.weights(1, ids), fresh(pad.specs[1], ids) - 0.5)


def test_ids_are_admitted_when_they_were_seen_often_enough() -> None:
    pad = make([spec(admission=Admission(kind="count", count=3), absent="zeros")])
    run = Trainer(pad)
    ids = np.arange(20)
    run.batch(ids)
    run.batch(ids[:10])
    assert pad.rows == 0
    run.batch(ids)
    assert ids_of(pad) == set(range(10))
    counts = pad.population(0)
    assert (counts.admitted, counts.refused) == (10, 20 + 10 + 10)
    # Bags that mix refused ids with rows: only the rows train.
    request = SegmentedRequest.of(
        [Segment(0, np.array([3, 15, 4, 15]), np.array([2, 2], np.int32))]
    )
    ticket = pad.plan(request, True)
    sums = np.empty((2, DIM), np.float32)
    before = pad.weights(0, np.array([3, 4]))
    pad.gather(ticket, request.addresses([sums]), "fp32")
    assert ticket.missing == 0  # 15 was seen three times by now
    pad.release(ticket)
    assert np.allclose(sums, before + fresh(pad.specs[0], np.array([15])))


def test_an_id_that_was_reclaimed_may_come_back_twice_in_a_batch() -> None:
    """All rows of a block are gone, and its memory with the first of them that is named."""
    pad = make([spec(dim=64)], by="recency", rows=50, interval=1)
    run = Trainer(pad)
    for turn in range(20):
        ids = np.arange(turn * 60, turn * 60 + 60)
        run.batch(ids)
        old = np.arange(max(0, turn - 3) * 60, max(0, turn - 3) * 60 + 60)
        both = [Segment(0, old), Segment(0, old)]
        request = SegmentedRequest.of(both)
        ticket = pad.plan(request, True)
        ones = np.ones((60, 64), np.float32)
        pad.update(ticket, request.addresses([ones, ones]), "fp32", 0.5, turn + 1)
        pad.release(ticket)
        if turn > 3:
            assert ticket.new == 0 or np.allclose(
                pad.weights(0, old), fresh(pad.specs[0], old) - 0.5 * 2
            )
