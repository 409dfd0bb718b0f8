"""The device of both native cores."""

from __future__ import annotations

import gpu
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
