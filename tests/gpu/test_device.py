"""The device of both native cores."""

from __future__ import annotations

import threading

import gpu
import numpy as np
import pytest

from fourfold.comm import _native as comm_core
from fourfold.comm.errors import DeviceError as CommDeviceError
from fourfold.storage import _native as storage_core
from fourfold.storage.errors import DeviceError as StorageDeviceError

CORES = [
    pytest.param(storage_core, StorageDeviceError, id="storage"),
    pytest.param(comm_core, CommDeviceError, id="comm"),
]


@pytest.mark.parametrize("name", gpu.devices())
def test_both_cores_open_the_same_device(name):
    of_storage = gpu.open_device(name, storage_core)
    of_comm = gpu.open_device(name, comm_core)

    assert type(of_storage) is not type(of_comm)
    assert (of_storage.ordinal, of_comm.ordinal) == (0, 0)
    assert of_storage.processors == of_comm.processors > 0


@pytest.mark.parametrize(("core", "error"), CORES)
def test_a_missing_driver_is_an_error_that_says_what_to_do(core, error):
    with pytest.raises(error, match=r"no CUDA driver: .*libnone\.so.*; install NVIDIA's driver"):
        core.Device("libnone.so", 0, {})


@pytest.mark.parametrize(("core", "error"), CORES)
def test_a_library_that_is_no_driver_is_named(core, error):
    with pytest.raises(error, match=r"libc\.so\.6 has no cuInit: install a newer NVIDIA driver"):
        core.Device("libc.so.6", 0, {})


@pytest.mark.parametrize(("core", "error"), CORES)
def test_a_gpu_that_is_not_there_is_named(core, error):
    with pytest.raises(error, match=r"cuDeviceGet of GPU 99: CUDA_ERROR_INVALID_DEVICE \(101\)"):
        gpu.open_device("stand-in", core, ordinal=99)


@pytest.mark.parametrize(("core", "error"), CORES)
def test_an_ordinal_is_a_number(core, error):
    with pytest.raises(TypeError):
        core.Device(gpu.driver().path, "0", {})


BLOCKING_SYNC, NO_TIMING = 1, 2  # CUevent_flags
GONE = 0xFFFFFFFF


@pytest.mark.parametrize(
    ("host_waits", "flags"), [(True, BLOCKING_SYNC | NO_TIMING), (False, NO_TIMING)]
)
def test_a_thread_that_waits_for_an_event_sleeps(host_waits, flags):
    device = gpu.open_device("stand-in", comm_core)
    assert gpu.event_flags(comm_core.Event(device, host_waits).handle) == flags


def test_an_event_may_go_on_any_thread():
    """Drivers want a context on the thread, which another has not."""
    events = [comm_core.Event(gpu.open_device("stand-in", comm_core))]
    handle = events[0].handle
    thread = threading.Thread(target=events.clear)
    thread.start()
    thread.join()
    assert gpu.event_flags(handle) == GONE


def test_the_host_does_not_wait_for_an_event_that_is_for_the_device():
    event = comm_core.Event(gpu.open_device("stand-in", comm_core), host_waits=False)
    with pytest.raises(RuntimeError, match="the host waits for an event of the device"):
        event.synchronize()


@pytest.mark.parametrize("name", gpu.devices())
def test_a_stream_is_waited_for(name):
    device = gpu.open_device(name, comm_core)
    stream, there = comm_core.Stream(device), gpu.empty(1 << 16, np.uint8, name)
    here = comm_core.PinnedBuffer(device).reserve(1 << 16)[: 1 << 16]
    here[:] = 1
    with gpu.shaken(1, 20_000):
        stream.copy_in(there.address, here)
        here_again = comm_core.PinnedBuffer(device).reserve(1 << 16)[: 1 << 16]
        stream.copy_out(here_again, there.address)
        stream.synchronize()
    assert (here_again == 1).all()
