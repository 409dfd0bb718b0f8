"""Admission and scores on devices: bit for bit what the host answers."""

from __future__ import annotations

import gpu
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fourfold.storage import _native
from fourfold.storage.device_admission import DeviceAdmission, credit_scores
from fourfold.storage.reclaim import Admission

on_devices = pytest.mark.parametrize("name", gpu.devices())


def device_of(name: str) -> _native.Device:
    return gpu.open_device(name, _native)


KINDS = {
    "always": Admission(),
    "probability": Admission(kind="probability", probability=0.3),
    "count": Admission(kind="count", count=2),
    "count 5": Admission(kind="count", count=5),
    "bloom": Admission(kind="bloom"),
    "bloom 2": Admission(kind="bloom"),
}


class Both:
    """Admission on host and device, which must never differ."""

    def __init__(self, name: str, num_bytes: int, seed: int) -> None:
        policies = list(KINDS.values())
        specs = [
            _native.AdmissionSpec(a.code, probability=a.probability, count=a.count)
            for a in policies
        ]
        self.name = name
        self.host = _native.Admission(specs, num_bytes, seed)
        self.device = DeviceAdmission(device_of(name), policies, num_bytes, seed)

    def admit(
        self, tile: int, keys: NDArray[np.uint64], times: NDArray[np.uint32], batch: int
    ) -> NDArray[np.bool_]:
        n = len(keys)
        there, sightings = gpu.to_device(keys, self.name), gpu.to_device(times, self.name)
        admitted = gpu.empty(n, np.bool_, self.name)
        self.device.admit(
            tile, there.address, sightings.address, n, batch=batch, admitted=admitted.address
        )
        answers = admitted.numpy()
        assert np.array_equal(answers, self.host.admit_all(tile, keys, times, batch))
        return answers

    def compare_memory(self, keys: NDArray[np.uint64]) -> None:
        there = gpu.to_device(keys, self.name)
        estimates = gpu.empty(len(keys), np.uint32, self.name)
        for tile in range(len(KINDS)):
            self.device.estimate(tile, there.address, estimates.address, len(keys))
            expected = [self.host.estimate(tile, key) for key in keys.tolist()]
            assert estimates.numpy().tolist() == expected


calls = st.lists(
    st.tuples(
        st.integers(0, len(KINDS) - 1),
        st.lists(
            st.tuples(st.integers(0, 40), st.sampled_from([1, 1, 1, 2, 3, 20, 2**32 - 1])),
            max_size=120,
        ),
    ),
    max_size=8,
)


@on_devices
@given(calls=calls, lines=st.integers(2, 9), seed=st.integers(0, 2**64 - 1))
@settings(max_examples=60, deadline=None)
def test_admission_is_that_of_the_host_call_by_call(
    name: str, calls: list[tuple[int, list[tuple[int, int]]]], lines: int, seed: int
) -> None:
    """Few lines: all of them are shared, and age several times in a batch."""
    both = Both(name, 64 * lines, seed)
    for batch, (tile, named) in enumerate(calls):
        keys = np.array([key for key, _ in named], np.uint64)
        both.admit(tile, keys, np.array([times for _, times in named], np.uint32), batch)
    both.compare_memory(np.arange(41, dtype=np.uint64))


@on_devices
@pytest.mark.parametrize("num_bytes", [2**8, 2**12, 2**16, 2**20])
def test_admission_of_large_batches_is_that_of_the_host(name: str, num_bytes: int) -> None:
    both, rng = Both(name, num_bytes, 7), np.random.default_rng(0)
    for batch in range(4):
        for tile, kind in enumerate(KINDS):
            keys = np.unique(rng.zipf(1.1, 3_000)).astype(np.uint64)
            rng.shuffle(keys)
            admitted = both.admit(
                tile, keys, rng.geometric(0.7, len(keys)).astype(np.uint32), batch
            )
            assert admitted.any()
            assert admitted.all() == (kind == "always") or num_bytes < 2**12
    both.compare_memory(np.arange(300, dtype=np.uint64))


@pytest.mark.parametrize("seed", range(1, 4))
def test_the_order_of_threads_changes_no_answer(seed: int) -> None:
    both, rng = Both("stand-in", 2**10, seed), np.random.default_rng(seed)
    with gpu.shaken(seed):
        for batch in range(4):
            for tile in range(len(KINDS)):
                keys = rng.integers(0, 400, 500, dtype=np.uint64)
                both.admit(tile, keys, np.ones(len(keys), np.uint32), batch)


@on_devices
def test_admission_refuses_what_the_host_refuses(name: str) -> None:
    device = device_of(name)
    with pytest.raises(ValueError, match="no memory to remember ids: 63 bytes"):
        DeviceAdmission(device, [KINDS["count"]], 63, 0)
    admission = DeviceAdmission(device, [KINDS["always"]], 0, 0)
    assert admission.bytes == 0
    with pytest.raises(IndexError):
        admission.admit(1, 0, 0, 1, batch=0, admitted=0)


@on_devices
@pytest.mark.parametrize("beta", [0.0, 0.1, 0.9, 1.0])
def test_scores_are_those_of_the_host(name: str, beta: float) -> None:
    rng = np.random.default_rng(0)
    n = 70_000
    scores = np.arange(n).astype(np.uint16)
    intervals = rng.choice([0, 1, 2, 3, 40, 2**17 - 1, 2**17, 2**32 - 1], n).astype(np.uint32)
    credits = rng.choice([0, 1, 0.3, 1 / 128, 1e9, 1e30, -1, np.inf, np.nan], n).astype(np.float32)
    decay = _native.Decay(beta)
    there = [gpu.to_device(a, name) for a in (scores, intervals, credits)]
    to = gpu.empty(n, np.uint16, name)

    credit_scores(
        device_of(name),
        decay,
        scores=there[0].address,
        intervals=there[1].address,
        credits=there[2].address,
        credited=to.address,
        n=n,
    )

    assert np.array_equal(to.numpy(), _native.credited(scores, intervals, credits, decay))
