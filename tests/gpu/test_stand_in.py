"""The stand-in runs kernels as a GPU does, and says what is wrong with those that are."""

from __future__ import annotations

from collections.abc import Iterator

import gpu
import numpy as np
import pytest
from driver_calls import Args


@pytest.fixture(params=gpu.devices())
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(params=[0, 1, 2, 3, 4])
def seed(request: pytest.FixtureRequest, name: str) -> Iterator[int]:
    if name != "stand-in" and request.param:
        pytest.skip("a GPU has an order of its own")
    with gpu.shaken(request.param):
        yield request.param


def launch(name, kernel, blocks, threads, given, out, mode=0):
    args = Args(given.address, out.address, given.shape[0], mode)
    gpu.driver(name).launch(kernel, blocks, threads, args)


@pytest.fixture
def values():
    return np.random.default_rng(1).integers(0, 64, 5000, dtype=np.uint32)


def test_sums_through_shuffles(name, seed, values):
    out = gpu.empty(5, np.uint32, name)
    launch(name, "test_sum", 5, 256, gpu.to_device(values, name), out)
    assert out.numpy().sum() == values.sum()


def test_keeps_odd_elements_in_order(name, seed, values):
    out = gpu.empty(5001, np.uint32, name)
    launch(name, "test_compact", 1, 256, gpu.to_device(values, name), out)
    odd = values[values % 2 == 1]
    found = out.numpy()
    assert found[0] == odd.size
    np.testing.assert_array_equal(found[1 : 1 + odd.size], odd)


def test_a_barrier_keeps_what_was_written_before_it(name, seed, values):
    out = gpu.empty(256, np.uint32, name)
    launch(name, "test_shift", 1, 256, gpu.to_device(values, name), out)
    np.testing.assert_array_equal(out.numpy()[1:], values[:255])


def test_copies_to_shared_memory_have_come_for_who_waits(name, seed, values):
    out = gpu.empty(5000, np.uint32, name)
    launch(name, "test_copies", 5, 256, gpu.to_device(values, name), out, mode=1)
    np.testing.assert_array_equal(out.numpy(), values)


def test_copies_to_shared_memory_have_not_come_for_who_does_not_wait(values):
    out = gpu.empty(5000, np.uint32)
    launch("stand-in", "test_copies", 5, 256, gpu.to_device(values), out)
    assert (out.numpy() == 0xCDCDCDCD).all()


def right_without_a_barrier(seed: int) -> bool:
    values = np.random.default_rng(seed).integers(0, 1000, 256, dtype=np.uint32)
    out = gpu.empty(256, np.uint32)
    with gpu.shaken(seed):
        launch("stand-in", "test_shift", 1, 256, gpu.to_device(values), out, mode=1)
        return np.array_equal(out.numpy()[1:], values[:255])


def test_seeds_show_a_missing_barrier():
    assert right_without_a_barrier(0)
    assert not any(right_without_a_barrier(seed) for seed in range(1, 9))


def test_a_race_between_warps_that_any_order_shows(values):
    out = gpu.empty(5001, np.uint32)
    launch("stand-in", "test_compact", 1, 256, gpu.to_device(values), out, mode=1)
    odd = values[values % 2 == 1]
    found = out.numpy()

    assert found[0] != odd.size or not np.array_equal(found[1 : 1 + odd.size], odd)


def test_counts_in_shared_memory(name, seed, values):
    out = gpu.to_device(np.zeros(64, np.uint32), name)
    launch(name, "test_histogram", 7, 128, gpu.to_device(values, name), out)
    np.testing.assert_array_equal(out.numpy(), np.bincount(values, minlength=64))


def test_inserts_into_a_hash_table(name, seed):
    keys = np.random.default_rng(2).integers(0, 3000, 5000, dtype=np.uint32)
    out = gpu.to_device(np.full(4096, 0xFFFFFFFF, np.uint32), name)
    launch(name, "test_insert", 9, 256, gpu.to_device(keys, name), out, mode=4096)
    found = out.numpy()
    np.testing.assert_array_equal(np.sort(found[found != 0xFFFFFFFF]), np.unique(keys))


def test_lanes_that_part_meet_among_themselves(name, seed):
    given = np.arange(32, dtype=np.uint32) ** 2
    out = gpu.empty(32, np.uint32, name)
    launch(name, "test_parted", 1, 32, gpu.to_device(given, name), out)
    np.testing.assert_array_equal(out.numpy(), [given[lane % 3 :: 3].sum() for lane in range(32)])


def test_threads_that_wait_for_a_lock_let_others_go_on(name, seed):
    out = gpu.to_device(np.zeros(2, np.uint32), name)
    launch(name, "test_lock", 1, 256, out, out)
    assert out.numpy().tolist() == [0, 256]


WRONG = [
    (0, 0, r"thread 0 at kernels.cu:\d+ waits forever in __syncthreads for thread 3, which has"),
    (1, 0, r"thread 0 at .* waits forever in a shuffle of the mask 0xffffffff for thread 8, which"),
    (2, 0, r"thread 1 at kernels.cu:\d+ is not in the mask 0x55555555 that it names"),
    (3, 100, r"test_wrong.*: byte 0 behind 400 bytes of device memory has been written"),
    (3, 128, r"thread 5 touched the address 0x.*, 112 bytes behind the end of 400 bytes of device"),
    (4, 128, r"thread 6 touched the address 0x"),
    (5, 64, r"thread 7 at kernels.cu:\d+ has the index 64 beyond the array"),
    (6, 0, r"thread 8 at kernels.cu:\d+ follows a pointer that is null or not aligned"),
    (7, 0, r"thread 9 at kernels.cu:\d+ has called __trap"),
    (8, 0, r"waits in __syncthreads, while thread \d+ waits in the one at"),
    (9, 0, r"thread 0 at .* in a shuffle .* for thread 16, which waits in a shuffle of"),
    (10, 0, r"shuffle of the mask 0x00000003 for thread 1, .* of the mask 0x00000007"),
]


@pytest.mark.parametrize(("mode", "count", "message"), WRONG)
def test_says_what_a_kernel_did_wrong(mode, count, message):
    given = gpu.empty(127, np.uint32)
    out = gpu.empty(100, np.uint32)
    driver = gpu.driver()
    driver.launch("test_wrong", 2, 64, Args(given.address, out.address, count, mode))
    with pytest.raises(gpu.DriverError, match=message):
        driver.synchronize()
    with pytest.raises(gpu.DriverError, match=message):  # as a driver: every later call fails
        gpu.empty(1, np.uint32)
    assert gpu.take_fault()
    driver.synchronize()
