"""Who dies when memory is short, case by case."""

import numpy as np
import pytest
from reclaim_model import LIFETIME

from fourfold.storage._native import Clock, Decay, Reclaimer, RowClass

RANKINGS = ["score", "recency", "importance"]
RETURN = 65536 - LIFETIME
ONE = 64
"""The score of a row seen once."""


def reclaimer(
    *classes: RowClass, ranking: str = "score", beta: float = 0.0, interval: int = 1
) -> tuple[Reclaimer, Clock]:
    clock = Clock(interval)
    return Reclaimer(RANKINGS.index(ranking), Decay(beta), clock, list(classes)), clock


def pass_batches(rows: Reclaimer, clock: Clock, batches: int) -> None:
    """Each begins a tick."""
    for _ in range(batches):
        clock.advance_batch()
        rows.tick()


def due_within(rows: Reclaimer, ticks: int) -> bool:
    """Whether a sweep is due by then; ends there if so."""
    for _ in range(ticks):
        if rows.sweep_due():
            return True
        rows.tick()
    return False


def test_the_expired_go_first_and_all_of_them() -> None:
    rows, clock = reclaimer(RowClass(time_to_live=3), RowClass())
    for score in (ONE, 5000):
        rows.add(0, 0, score, 100)
    rows.add(1, 0, ONE, 100)
    pass_batches(rows, clock, 4)
    assert not rows.expired(0, 0)  # the tick ended at batch 1
    pass_batches(rows, clock, 1)
    assert rows.expired(0, 0)
    assert not rows.dead(0, 0, ONE)  # not before memory is short

    assert rows.condemn(50) == 200

    assert rows.dead(0, 0, 5000)
    assert not rows.dead(1, 0, ONE)


def test_the_lowest_score_goes_first_then_the_longest_unseen() -> None:
    rows, clock = reclaimer(RowClass())
    for score in (ONE, 4 * ONE):
        rows.add(0, 0, score, 100)
    pass_batches(rows, clock, 1)
    rows.add(0, 1, ONE, 100)

    assert rows.condemn(100) == 100
    assert [rows.dead(0, 0, ONE), rows.dead(0, 1, ONE), rows.dead(0, 0, 4 * ONE)] == [1, 0, 0]
    assert rows.condemn(1) == 100
    assert [rows.dead(0, 1, ONE), rows.dead(0, 0, 4 * ONE)] == [True, False]


def test_a_high_score_long_ago_is_worth_less_than_a_low_one_now() -> None:
    rows, clock = reclaimer(RowClass(), beta=0.5)
    rows.add(0, 0, 8 * ONE, 100)
    pass_batches(rows, clock, 3)
    rows.add(0, 3, 2 * ONE, 100)

    rows.condemn(100)

    assert rows.dead(0, 0, 8 * ONE)
    assert not rows.dead(0, 3, 2 * ONE)


def test_recency_asks_for_no_score() -> None:
    rows, clock = reclaimer(RowClass(), ranking="recency")
    rows.add(0, 0, 60_000, 100)
    pass_batches(rows, clock, 1)
    rows.add(0, 1, 0, 100)

    rows.condemn(100)

    assert rows.dead(0, 0, 60_000)
    assert not rows.dead(0, 1, 0)


@pytest.mark.parametrize("ranking", ["score", "importance"])
def test_importance_compares_tables_of_unlike_gradients(ranking: str) -> None:
    """Table 1 has the same rows with 1024 times the credit."""
    rows, _ = reclaimer(RowClass(), RowClass(), ranking=ranking)
    shift = 10 << 11  # in the exponent
    for score in range(4096, 4096 + 20 * 1024, 512):
        rows.add(0, 0, score, 100)
        rows.add(1, 0, score + shift, 100)

    rows.condemn(4000)

    kept = [rows.rows_of(0), rows.rows_of(1)]
    assert kept == ([20, 20] if ranking == "importance" else [0, 40])


def test_a_few_huge_gradients_do_not_set_the_measure_of_a_table() -> None:
    """The 95th percentile of table 0 is 4, and so it is beside 5 rows of any score."""
    rows, _ = reclaimer(RowClass(), RowClass(), ranking="importance")
    for i in range(100):
        rows.add(0, 0, 4 * ONE if i < 95 else 60_000, 100)
        rows.add(1, 0, 4 * ONE if i < 50 else 8 * ONE, 100)

    rows.condemn(5000)

    assert (rows.rows_of(0), rows.rows_of(1)) == (100, 50)


def test_protected_rows_never_die() -> None:
    rows, clock = reclaimer(RowClass(by_score=False), RowClass(time_to_live=2, by_score=False))
    for c in (0, 1):
        rows.add(c, 0, 0, 100)
    assert rows.condemn(2**64 - 1) == 0

    pass_batches(rows, clock, 4)

    assert rows.condemn(2**64 - 1) == 100
    assert rows.dead(1, 0, 0)
    assert not rows.dead(0, 0, 0)
    assert (rows.bytes, rows.rows_of(0), rows.rows_of(1)) == (100, 1, 0)


def test_who_comes_after_the_verdict_lives() -> None:
    rows, clock = reclaimer(RowClass())
    rows.add(0, 0, ONE, 100)
    rows.condemn(100)

    rows.remove(0, 0, ONE, 100)  # of a dead row: it was discounted
    rows.add(0, 0, ONE, 100)  # dead at once
    assert rows.bytes == 0
    rows.add(0, clock.now, ONE, 100)

    assert not rows.dead(0, clock.now, ONE)
    assert rows.bytes == 100
    assert rows.consistent()


def test_rows_unseen_for_a_lifetime_die_and_their_name_returns_clean() -> None:
    rows, clock = reclaimer(RowClass(), RowClass(time_to_live=2**60, by_score=False))
    rows.add(0, 0, 9000, 100)
    rows.add(1, 0, 9000, 50)
    assert all(rows.tick() == 0 for _ in range(LIFETIME - 1))
    assert rows.bytes == 150
    assert rows.tick() == 150
    assert rows.dead(0, 0, 9000)
    assert rows.dead(1, 0, 65535)

    for _ in range(RETURN):
        assert rows.dead(0, 0, 9000)
        if rows.sweep_due():
            rows.sweep_began()
            rows.sweep_ended()
        rows.tick()

    assert clock.now == 0
    rows.add(0, 0, 0, 100)
    assert not rows.dead(0, 0, 0)
    assert rows.bytes == 100
    assert rows.consistent()


def test_a_sweep_that_never_comes_is_an_error_before_the_dead_rise() -> None:
    rows, clock = reclaimer(RowClass())
    rows.add(0, 0, ONE, 100)
    for _ in range(LIFETIME + 4096):
        rows.tick()
    assert not rows.sweep_due()
    rows.tick()
    assert rows.sweep_due()
    while clock.now < 65535:
        rows.tick()
    with pytest.raises(RuntimeError, match="dead rows were not swept before their name returns"):
        rows.tick()
    assert rows.dead(0, 0, ONE)


def test_a_sweep_is_due_some_time_after_the_first_verdict() -> None:
    rows, _ = reclaimer(RowClass())
    assert not due_within(rows, 10_000)
    rows.add(0, 10_000, ONE, 100)
    rows.condemn(1)
    assert not due_within(rows, 4096)
    assert rows.sweep_due()


def test_two_sweeps_from_the_beginning_see_all_that_is_dead() -> None:
    rows, _ = reclaimer(RowClass())
    with pytest.raises(RuntimeError, match="no sweep has begun"):
        rows.sweep_ended()
    rows.add(0, 0, ONE, 100)
    rows.sweep_began()
    rows.condemn(1)  # it may have passed this row by
    rows.sweep_ended()
    rows.sweep_began()
    rows.sweep_ended()
    assert due_within(rows, 5000)
    rows.sweep_began()
    rows.sweep_ended()
    assert not due_within(rows, 70_000)


def test_no_dead_row_comes_to_life_while_sweeps_are_in_time() -> None:
    """Each dead row is passed by once, and names return twice."""
    rng = np.random.default_rng(0)
    rows, clock = reclaimer(RowClass())
    there: dict[int, tuple[int, int]] = {}  # time and score by the tick of birth
    spared: set[int] = set()
    sweeping: list[int] = []

    def end_sweep() -> None:
        for name in sweeping:
            time, score = there[name]
            if name in spared:
                rows.remove(0, time, score, 100)
                del there[name]
            spared.add(name)
        rows.sweep_ended()

    live: set[int] = set()
    began, died = False, 0
    for tick in range(150_000):
        chance = rng.random()
        if tick % 700 == 0:
            there[tick] = (clock.now, int(rng.integers(0, 3000)))
            rows.add(0, *there[tick], 100)
            live.add(tick)
        if began and (chance < 0.0002 or rows.sweep_due()):
            end_sweep()
            began = False
        while not began and (chance > 0.9998 or rows.sweep_due()):
            sweeping = [n for n, row in there.items() if rows.dead(0, *row)]
            rows.sweep_began()
            began = True
            if rows.sweep_due():
                end_sweep()
                began = False
        gone = rows.condemn(100) if 0.5 < chance < 0.5003 else rows.tick()
        if gone > 0 or tick % 4000 == 0:
            dead = {name for name, row in there.items() if rows.dead(0, *row)}
            assert dead >= there.keys() - live
            assert len(live & dead) == gone / 100
            live -= dead
            died += gone // 100
            assert rows.bytes == 100 * len(live)
    assert died > 30
    assert rows.consistent()


def test_memory_follows_the_ticks_that_have_rows() -> None:
    rows, _ = reclaimer(RowClass(), RowClass(by_score=False))
    empty = rows.memory()
    assert empty == 65536 * 9
    for tick in range(2000):
        rows.add(0, tick, ONE, 100)
        rows.add(1, tick, ONE, 100)
        if tick >= 10:
            rows.remove(0, tick - 10, ONE, 100)
        rows.tick()
    assert rows.memory() - empty == 10 * 1032
    rows.condemn(10**6)
    assert rows.memory() == empty


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="ranking is 0 to 2"):
        Reclaimer(3, Decay(0), Clock(1), [])
    with pytest.raises(IndexError, match="no such class"):
        reclaimer(RowClass())[0].add(1, 0, 0, 4)
