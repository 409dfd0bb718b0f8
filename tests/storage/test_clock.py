"""The clock: ticks, their batches and the decay intervals between them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fourfold.storage._native import Clock


@given(st.integers(1, 7), st.lists(st.integers(0, 9), max_size=60), st.data())
def test_ticks_know_their_batch_and_the_intervals_between(
    interval: int, steps: list[int], data: st.DataObject
) -> None:
    clock = Clock(interval)
    began = [0]
    for batches in steps:
        for _ in range(batches):
            clock.advance_batch()
        clock.tick()
        began.append(began[-1] + batches)

    assert clock.ticks == clock.now == len(steps)
    assert clock.batch == began[-1]
    assert [clock.batch_of(tick) for tick in range(len(began))] == began
    first, last = (data.draw(st.integers(0, len(steps))) for _ in range(2))
    assert clock.age(first) == len(steps) - first
    expected = began[last] // interval - began[first] // interval
    assert clock.intervals(first, last) == max(0, expected)


def test_names_return_after_65536_ticks() -> None:
    clock = Clock(10)
    for _ in range(70_000):
        clock.advance_batch()
        clock.tick()

    assert clock.ticks == 70_000
    assert clock.now == 70_000 - 65_536
    assert clock.batch_of(clock.now) == 70_000
    assert clock.batch_of(clock.now + 1) == 70_000 - 65_535  # the oldest that is known
    assert clock.age(clock.now + 1) == 65_535
    assert clock.age(60_000) == 10_000
    assert clock.intervals(60_000, clock.now) == 1_000
    assert clock.intervals(clock.now, 60_000) == 0


def test_batches_pass_within_a_tick() -> None:
    clock = Clock(1)
    clock.advance_batch()
    assert (clock.batch, clock.ticks, clock.batch_of(0)) == (1, 0, 0)
    clock.tick()
    clock.tick()
    assert clock.batch_of(1) == clock.batch_of(2) == 1
    assert clock.intervals(0, 2) == 1


@pytest.mark.parametrize("interval", [0, 2**63])
def test_an_interval_is_at_least_one_batch(interval: int) -> None:
    with pytest.raises(ValueError, match="interval must be at least 1 batch"):
        Clock(interval)
