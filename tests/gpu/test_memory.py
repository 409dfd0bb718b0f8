"""The stand-in's memory, and calls that a driver refuses."""

from __future__ import annotations

import contextlib
import ctypes
import threading
import time

import gpu
import numpy as np
import pytest
from driver_calls import BYTES, Args, Pinned, copy_in, copy_out, held


@pytest.fixture(params=gpu.devices())
def driver(request: pytest.FixtureRequest) -> gpu.Driver:
    return gpu.driver(request.param)


@pytest.fixture
def stand_in() -> gpu.Driver:
    return gpu.driver("stand-in")


def test_memory_is_limited_and_aligned(stand_in):
    before = gpu.held_bytes()
    with gpu.limited(3 << 20):
        large = gpu.empty(2 << 20, np.uint8)
        assert large.address % (2 << 20) == 0
        small = gpu.empty(100, np.uint8)
        assert small.address % 512 == 0
        assert gpu.held_bytes() == before + large.nbytes + small.nbytes
        with pytest.raises(gpu.DriverError, match="cuMemAlloc_v2: error 2, out of memory"):
            gpu.empty(1 << 20, np.uint8)
        del large
        gpu.empty(1 << 20, np.uint8)
    del small
    assert gpu.held_bytes() == before


def test_fresh_memory_is_rubbish(stand_in):
    assert (gpu.empty(1000, np.uint8).numpy() == 0xCD).all()
    assert (Pinned(stand_in).array == 0xCD).all()


def test_copies_beyond_memory_of_the_device_are_refused(stand_in):
    device, host = gpu.empty(64, np.uint8), np.empty(65, np.uint8)
    with pytest.raises(gpu.DriverError, match="cuMemcpyHtoDAsync_v2: error 1"):
        copy_in(stand_in, device, host)
    with pytest.raises(gpu.DriverError, match="cuMemcpyDtoHAsync_v2: error 1"):
        copy_out(stand_in, host, device)


def test_a_thread_without_a_context_is_told(stand_in):
    results = []

    def run() -> None:
        library = ctypes.CDLL(stand_in.path)
        results.append(library.cuCtxSynchronize())

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()

    assert results == [201]


def test_an_address_of_the_host_is_no_argument(stand_in):
    host, device = np.ones(100, np.uint32), gpu.empty(100, np.uint32)
    args = Args(host.ctypes.data, device.address, 100, 0)
    with pytest.raises(
        gpu.DriverError, match=r"test_sum: bytes 0 to 8 .* address of the host's mem"
    ):
        stand_in.launch("test_sum", 1, 256, args)
    assert "host's memory" in gpu.take_fault()


def test_memory_that_was_freed_is_named(stand_in):
    freed, device = gpu.empty(100, np.uint32), gpu.empty(100, np.uint32)
    args = Args(freed.address, device.address, 100, 0)
    del freed
    stand_in.launch("test_sum", 1, 256, args)
    with pytest.raises(
        gpu.DriverError, match=r"touched the address .*, inside 400 bytes that were fre"
    ):
        stand_in.synchronize()
    assert gpu.take_fault()


@pytest.mark.parametrize("kind", ["device", "pinned"])
def test_memory_that_goes_while_a_copy_waits_is_found(stand_in, kind):
    """The copy finds it gone. Who frees memory of the device waits, as with most drivers."""
    pinned = kind == "pinned"
    copied = Pinned(stand_in) if pinned else gpu.empty(BYTES, np.uint8)
    other = gpu.empty(BYTES, np.uint8) if pinned else np.empty(BYTES, np.uint8)
    before = gpu.held_bytes(pinned=pinned)

    def free() -> None:
        with contextlib.suppress(gpu.DriverError):
            if pinned:
                stand_in.call("cuMemFreeHost", copied.address)
            else:
                stand_in.call("cuMemFree_v2", ctypes.c_ulonglong(copied.address))

    with held():
        if pinned:
            copy_in(stand_in, other, copied.array)
        else:
            copy_in(stand_in, copied, other)
        thread = threading.Thread(target=free)
        thread.start()
        while gpu.held_bytes(pinned=pinned) == before:
            time.sleep(0.001)
        assert thread.is_alive() or pinned
    thread.join()
    copied.address = None  # it has gone

    assert f"a copy of {BYTES} bytes came to memory that was freed" in gpu.take_fault()


def test_pinned_memory_is_seen_by_kernels(stand_in):
    pinned, device = Pinned(stand_in), gpu.empty(1, np.uint32)
    pinned.array[:] = 0
    pinned.array[0] = 5
    args = Args(pinned.address.value, device.address, BYTES // 4, 0)
    stand_in.launch("test_sum", 1, 256, args)

    assert device.numpy().tolist() == [5]


@pytest.mark.parametrize(("blocks", "threads"), [(0, 32), (1, 0), (1, 512), (1 << 31, 32)])
def test_a_launch_that_a_gpu_would_refuse_is_refused(driver, blocks, threads):
    args = Args(0, 0, 0, 0)
    # More threads than the kernel was compiled for: a wrong value, or too many registers.
    with pytest.raises(gpu.DriverError, match=r"cuLaunchKernel: error (1|701), "):
        driver.launch("test_sum", blocks, threads, args)


def test_what_is_no_kernel_is_refused(stand_in):
    with pytest.raises(gpu.DriverError, match="error 400"):
        gpu.Driver(stand_in.path, {"none": 64}).launch("none", 1, 32, Args(0, 0, 0, 0))
