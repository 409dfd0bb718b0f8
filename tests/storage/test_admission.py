"""Who gets a row: the chance of a sighting, and counts that forget but are never too low."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from fourfold.storage._native import Admission, AdmissionSpec

ALWAYS, PROBABILITY, COUNT, BLOOM = 0, 1, 2, 3
COUNT_CALLS, BLOOM_CALLS = 16, 20
"""Calls after which a line of 64 bytes ages."""


def chance(p: float) -> AdmissionSpec:
    return AdmissionSpec(PROBABILITY, probability=p)


def counting(n: int) -> AdmissionSpec:
    return AdmissionSpec(COUNT, count=n)


def random_keys(n: int, seed: int = 0) -> NDArray[np.uint64]:
    return np.random.default_rng(seed).integers(0, 2**64, n, dtype=np.uint64)


def offer(
    admission: Admission, keys: NDArray[np.uint64], *, tile: int = 0, times: int = 1, batch: int = 0
) -> NDArray[np.bool_]:
    return admission.admit_all(tile, keys, np.full(len(keys), times, np.uint32), batch)


def test_always_admits_and_needs_no_memory() -> None:
    admission = Admission([AdmissionSpec(ALWAYS)], 0, 1)
    assert offer(admission, random_keys(1000)).all()
    assert admission.bytes == 0


@pytest.mark.parametrize("times", [1, 3])
@pytest.mark.parametrize("p", [0.5, 0.2, 0.05, 0.01])
@pytest.mark.parametrize("keys", [np.arange(5000, dtype=np.uint64), random_keys(5000)])
def test_ids_enter_after_1_over_p_sightings(p: float, times: int, keys: NDArray[np.uint64]) -> None:
    """Batches until entry are geometric, with the chance of `times` sightings."""
    admission = Admission([chance(p)], 0, 7)
    of_batch = 1 - (1 - p) ** times
    waited, num_keys = 0, len(keys)
    counts: list[int] = []
    batch = 0
    while len(keys) > 0:
        assert batch < 5000
        admitted = offer(admission, keys, times=times, batch=batch)
        waited += len(keys)
        counts.append(int(admitted.sum()))
        keys = keys[~admitted]
        batch += 1

    mean, deviation = 1 / of_batch, (1 - of_batch) ** 0.5 / of_batch
    assert abs(waited / num_keys - mean) < 4 * deviation / num_keys**0.5
    left = num_keys
    for admitted_now in counts[:5]:  # and each batch takes its share
        assert abs(admitted_now - left * of_batch) < 4.5 * (left * of_batch) ** 0.5
        left -= admitted_now


def test_chance_is_the_same_for_all_tiles_of_a_table_and_another_with_another_seed() -> None:
    keys = random_keys(10_000)
    one = Admission([chance(0.3)], 0, 5)
    other = Admission([counting(2), AdmissionSpec(ALWAYS), chance(0.3)], 4096, 5)

    first = offer(one, keys, batch=9)

    assert np.array_equal(first, offer(other, keys, tile=2, batch=9))
    assert np.array_equal(first, offer(one, keys, batch=9))
    for differs in (
        offer(one, keys, batch=10),
        offer(Admission([chance(0.3)], 0, 6), keys, batch=9),
    ):
        assert abs(int((first & differs).sum()) - 900) < 150


def test_certainty_admits_always() -> None:
    admission = Admission([chance(1.0)], 0, 0)
    assert all(offer(admission, random_keys(20_000), batch=batch).all() for batch in range(5))


offers = st.lists(st.tuples(st.integers(0, 25), st.sampled_from([1, 1, 1, 2, 3, 20])), max_size=120)


@given(offers, st.integers(1, 4), st.integers(2, 15), st.integers(0, 2**64 - 1))
def test_an_estimate_is_never_below_what_was_seen(
    calls: list[tuple[int, int]], lines: int, count: int, seed: int
) -> None:
    """The truth is halved with every line that ages: for one line that is what it remembers."""
    admission = Admission([counting(count)], 64 * lines, seed)
    truth: dict[int, int] = {}
    for i, (key, times) in enumerate(calls, 1):
        admitted = admission.admit(0, key, times, 0)
        truth[key] = min(15, truth.get(key, 0) + times)
        assert admitted or truth[key] < count
        if i % COUNT_CALLS == 0:
            truth = {key: seen // 2 for key, seen in truth.items()}
        for known, seen in truth.items():
            assert admission.estimate(0, known) >= seen


@pytest.mark.parametrize("count", [2, 3, 15])
@pytest.mark.parametrize("times", [1, 2])
def test_a_key_enters_at_its_sighting(count: int, times: int) -> None:
    """But for one in a hundred, whose line ages or is crowded."""
    admission = Admission([counting(count)], 2**23, 3)
    keys = random_keys(500)
    for seen in range(times, count + times, times):
        admitted = offer(admission, keys, times=times)
        right = admitted == (seen >= count)
        assert right.mean() > 0.99


def test_counts_stop_at_15() -> None:
    admission = Admission([counting(15)], 64, 0)
    assert admission.admit(0, 1, 2**32 - 1, 0)
    assert admission.estimate(0, 1) == 15
    assert admission.admit(0, 1, 2, 0)
    assert admission.estimate(0, 1) == 15


def test_every_line_ages_once_in_its_turn() -> None:
    lines = 64
    admission = Admission([counting(15)], 64 * lines, 0)
    keys = random_keys(60)
    offer(admission, keys, times=12)
    for _ in range(COUNT_CALLS * lines - 60):
        admission.admit(0, 12345, 1, 0)

    estimates = np.array([admission.estimate(0, key) for key in keys.tolist()])

    assert np.median(estimates) == 6
    assert (estimates == 6).mean() > 0.7
    assert estimates.min() == 6


def test_strangers_are_mistaken_as_rarely_as_designed() -> None:
    """Every id comes once, as many as age all lines three times."""
    lines = 2048
    for spec, calls, bound in (
        (counting(2), COUNT_CALLS, 0.01),
        (counting(3), COUNT_CALLS, 0.003),
        (AdmissionSpec(BLOOM), BLOOM_CALLS, 0.01),
    ):
        admission = Admission([spec], 64 * lines, 11)
        mistaken = offer(admission, random_keys(3 * calls * lines))
        assert mistaken[calls * lines :].mean() < bound


def test_a_second_sighting_is_known_for_a_generation() -> None:
    lines = 128
    admission = Admission([AdmissionSpec(BLOOM)], 64 * lines, 2)
    window = BLOOM_CALLS * lines
    keys = random_keys(8 * window)
    for i, key in enumerate(keys.tolist()):
        admission.admit(0, key, 1, 0)
        if i >= window:
            assert admission.estimate(0, int(keys[i - window + 1])) == 1
    assert offer(admission, keys[-window // 2 :]).all()


def test_old_sightings_are_forgotten() -> None:
    for spec, calls in ((counting(2), COUNT_CALLS), (AdmissionSpec(BLOOM), BLOOM_CALLS)):
        admission = Admission([spec], 64 * 512, 2)
        keys = random_keys(300)
        offer(admission, keys)
        assert np.mean([admission.estimate(0, key) for key in keys.tolist()]) > 0.95
        offer(admission, random_keys(2 * calls * 512, seed=1))
        assert offer(admission, keys).mean() < 0.04


def test_several_sightings_in_one_batch_count() -> None:
    admission = Admission([AdmissionSpec(BLOOM), counting(3)], 2**16, 0)
    assert not admission.admit(0, 1, 1, 0)
    assert admission.admit(0, 2, 2, 0)
    assert not admission.admit(1, 1, 2, 0)
    assert admission.admit(1, 2, 3, 0)


def test_tiles_remember_apart() -> None:
    """Two column tiles of a table on one rank must not count an id twice."""
    specs = [counting(2), counting(2), AdmissionSpec(BLOOM), AdmissionSpec(BLOOM)]
    admission = Admission(specs, 2**20, 0)
    keys = random_keys(1000)
    for tile in range(4):
        assert offer(admission, keys, tile=tile).mean() < 0.01
    for tile in range(4):
        assert offer(admission, keys, tile=tile).mean() > 0.95


def test_the_same_calls_get_the_same_answers() -> None:
    def answers(seed: int) -> list[bool]:
        admission = Admission([counting(2), AdmissionSpec(BLOOM)], 4096, seed)
        keys = random_keys(400) % np.uint64(300)
        return [*offer(admission, keys).tolist(), *offer(admission, keys, tile=1).tolist()]

    assert answers(1) == answers(1) != answers(2)


def test_memory_stays_in_bounds() -> None:
    assert Admission([counting(2), AdmissionSpec(BLOOM)], 2**20, 0).bytes == 2**20
    assert Admission([counting(2)], 4096 + 63, 0).bytes == 4096
    assert Admission([chance(0.5)], 2**20, 0).bytes == 0


def test_wrong_arguments_are_refused() -> None:
    for p in (0.0, -0.1, 1.01, float("nan")):
        with pytest.raises(ValueError, match=r"tile 1: probability must be in \(0, 1\]"):
            Admission([AdmissionSpec(ALWAYS), chance(p)], 0, 0)
    for n in (0, 1, 16):
        with pytest.raises(ValueError, match="tile 0: count must be from 2 to 15"):
            Admission([counting(n)], 64, 0)
    for specs, bytes_ in (([counting(2)], 63), ([AdmissionSpec(BLOOM), counting(2)], 127)):
        with pytest.raises(ValueError, match="no memory to remember ids"):
            Admission(specs, bytes_, 0)
    with pytest.raises(ValueError, match="kind is 0 to 3"):
        AdmissionSpec(4)
    with pytest.raises(IndexError, match="no such tile"):
        Admission([AdmissionSpec(ALWAYS)], 0, 0).admit(1, 0, 1, 0)
