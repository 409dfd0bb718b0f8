"""Sums and sorting on devices."""

from __future__ import annotations

from typing import Any

import gpu
import numpy as np
import pytest
from numpy.typing import NDArray

from fourfold.storage import _native

Array = NDArray[Any]

on_devices = pytest.mark.parametrize("name", gpu.devices())


def device_of(name: str) -> _native.Device:
    return gpu.open_device(name, _native)


@on_devices
@pytest.mark.parametrize("n", [0, 1, 3, 4, 5, 4095, 4096, 4097, 50_001])
def test_sums_are_exclusive(name: str, n: int) -> None:
    values = np.random.default_rng(n).integers(0, 2**20, n, dtype=np.uint32)
    data, total = gpu.to_device(values, name), gpu.empty(1, np.uint32, name)

    _native.DeviceScan(device_of(name)).exclusive(data.address, n, total.address, 0)

    sums = np.cumsum(values, dtype=np.uint32)
    assert np.array_equal(data.numpy()[1:], sums[:-1])
    assert data.numpy()[:1].tolist() == [0][:n]
    assert total.numpy() == (sums[-1] if n else 0)


@on_devices
def test_sums_of_more_tiles_than_a_block_adds_at_once(name: str) -> None:
    n = 1024 * 4096 + 5000
    values = np.ones(n, np.uint32)
    data, total = gpu.to_device(values, name), gpu.empty(1, np.uint32, name)

    _native.DeviceScan(device_of(name)).exclusive(data.address, n, total.address, 0)

    assert np.array_equal(data.numpy(), np.arange(n, dtype=np.uint32))
    assert total.numpy() == n


def sort(name: str, keys: Array, values: Array | None, bits: int) -> tuple[Array, Array]:
    n = len(keys)
    there = gpu.to_device(keys, name)
    given = None if values is None else gpu.to_device(values, name)
    to, values_to = gpu.empty(n, np.uint32, name), gpu.empty(n, np.uint32, name)
    _native.DeviceSort(device_of(name)).sort(
        there.address, given.address if given else 0, n, bits, to.address, values_to.address, 0
    )
    assert np.array_equal(there.numpy(), keys)
    return to.numpy(), values_to.numpy()


@on_devices
@pytest.mark.parametrize("n", [0, 1, 31, 4096, 9_000])
@pytest.mark.parametrize("bits", [1, 8, 9, 32])
def test_sorting_is_stable(name: str, n: int, bits: int) -> None:
    rng = np.random.default_rng(n)
    keys = rng.integers(0, 2**bits, n, dtype=np.uint32)
    keys[: n // 2] = keys[0] if n else 0  # half of them equal
    rng.shuffle(keys)

    sorted_keys, order = sort(name, keys, None, bits)

    assert np.array_equal(order, np.argsort(keys, kind="stable"))
    assert np.array_equal(sorted_keys, keys[order])


@on_devices
def test_values_travel_with_their_keys(name: str) -> None:
    keys, values = (np.random.default_rng(0).integers(0, 2**16, (2, 9000))).astype(np.uint32)
    order = np.argsort(keys, kind="stable")
    for bits in (16, 32):
        sorted_keys, sorted_values = sort(name, keys, values, bits)
        assert np.array_equal(sorted_keys, keys[order])
        assert np.array_equal(sorted_values, values[order])


@pytest.mark.parametrize("seed", range(1, 6))
def test_the_order_of_threads_changes_nothing(seed: int) -> None:
    keys = np.random.default_rng(seed).integers(0, 700, 9_000, dtype=np.uint32)
    data, total = gpu.to_device(keys), gpu.empty(1, np.uint32)
    with gpu.shaken(seed):
        assert np.array_equal(sort("stand-in", keys, None, 10)[1], np.argsort(keys, kind="stable"))
        _native.DeviceScan(device_of("stand-in")).exclusive(
            data.address, len(keys), total.address, 0
        )
        assert np.array_equal(data.numpy()[1:], np.cumsum(keys, dtype=np.uint32)[:-1])
