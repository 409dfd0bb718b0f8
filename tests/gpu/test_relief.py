"""When the device has no memory left, somebody may give some back before it is an error."""

from __future__ import annotations

import threading
import time
from typing import Any

import gpu
import numpy as np
import pytest

from fourfold.comm import _native as comm_core
from fourfold.comm.errors import DeviceError as CommDeviceError
from fourfold.storage import SGD, Normal, Pad, RowSpec, Segment, SegmentedRequest
from fourfold.storage import _native as storage_core
from fourfold.storage.errors import DeviceError as StorageDeviceError
from fourfold.storage.tier import HostTier

KIB = 1 << 10
CORES = [
    pytest.param(storage_core, StorageDeviceError, id="storage"),
    pytest.param(comm_core, CommDeviceError, id="comm"),
]


class Cache:
    """Keeps memory of the stand-in that nobody uses, as torch's allocator does."""

    def __init__(self, num_bytes: int) -> None:
        self.kept: Any = gpu.empty(num_bytes, np.uint8)
        self.emptied = 0

    def empty(self) -> None:
        self.emptied += 1
        self.kept = None


def take(device: Any, num_bytes: int) -> Any:
    """Take at least so many bytes of the device, but less than half as many more."""
    if isinstance(device, comm_core.Device):
        buffer = comm_core.DeviceBuffer(device)
        buffer.reserve(num_bytes, comm_core.Stream(device))
        return buffer
    return storage_core.DeviceIndex(device, num_bytes // 32)


@pytest.mark.parametrize(("core", "error"), CORES)
def test_memory_that_is_given_back_is_used(core: Any, error: type[Exception]) -> None:
    cache = Cache(512 * KIB)
    device = gpu.open_device("stand-in", core, relief=cache.empty)
    with gpu.limited(64 * KIB):
        held = take(device, 128 * KIB)
        assert cache.emptied == 1
        more = take(device, 128 * KIB)
    assert cache.emptied == 1, "there was room"
    del held, more


@pytest.mark.parametrize(("core", "error"), CORES)
def test_it_is_asked_once_by_each_that_finds_no_memory(core: Any, error: type[Exception]) -> None:
    cache = Cache(4 * KIB)
    device = gpu.open_device("stand-in", core, relief=cache.empty)
    for attempt in range(2):
        with (
            gpu.limited(64 * KIB),
            pytest.raises(
                error,
                match=r"^cuMemAlloc of \d+ bytes on GPU 0: CUDA_ERROR_OUT_OF_MEMORY \(2\), out of",
            ),
        ):
            take(device, 256 * KIB)
        assert cache.emptied == attempt + 1


@pytest.mark.parametrize(("core", "error"), CORES)
def test_without_anybody_to_ask_it_is_an_error(core: Any, error: type[Exception]) -> None:
    device = gpu.open_device("stand-in", core)
    with gpu.limited(64 * KIB), pytest.raises(error, match=r"^cuMemAlloc of \d+ bytes on GPU 0: "):
        take(device, 256 * KIB)


@pytest.mark.parametrize(("core", "error"), CORES)
def test_why_nothing_was_given_back_is_told(core: Any, error: type[Exception]) -> None:
    def refuse() -> None:
        raise RuntimeError("a graph is being captured")

    device = gpu.open_device("stand-in", core, relief=refuse)
    with (
        gpu.limited(64 * KIB),
        pytest.raises(error, match=r"\(nobody gave any back: a graph is being captured\): CUDA_E"),
    ):
        take(device, 256 * KIB)


def test_nobody_waits_with_pythons_lock_for_a_plan_that_asks() -> None:
    """If somebody did, this would hang."""
    asked, cache = threading.Event(), Cache(4 << 20)

    def empty() -> None:
        asked.set()
        time.sleep(0.05)  # lets others have Python's lock, who want the pad
        cache.empty()

    spec = RowSpec(table=0, name="t", dim=64, rows=4096, optimizer=SGD(), init=Normal(1.0))
    device = gpu.open_device("stand-in", storage_core, relief=empty)
    pad = Pad([spec], budget_bytes=4 << 20, device=device)
    request = SegmentedRequest.of([Segment(0, np.arange(4096, dtype=np.int64))])
    tickets = []
    with gpu.limited(16 * KIB):
        planner = threading.Thread(target=lambda: tickets.append(pad.plan(request, train=True)))
        planner.start()
        assert asked.wait(10)
        pad.plan_ahead(2)
        planner.join()
    assert cache.emptied == 1
    assert tickets[0].unique == 4096
    pad.release(tickets[0])
    pad.close()


def test_a_pad_that_is_dropped_while_its_fetcher_asks_ends() -> None:
    """If what joins the fetcher had Python's lock, this would hang."""
    asked, cache = threading.Event(), Cache(4 << 20)

    def empty() -> None:
        asked.set()
        time.sleep(0.2)
        cache.empty()

    spec = RowSpec(table=0, name="t", dim=64, rows=None, optimizer=SGD(), init=Normal(1.0))
    device = gpu.open_device("stand-in", storage_core, relief=empty)
    pad = Pad([spec], budget_bytes=1 << 20, device=device, host=HostTier([spec]))
    first = pad.plan(SegmentedRequest.of([Segment(0, np.arange(2000, dtype=np.int64))]), True)
    pad.wait(first)
    pad.release(first)
    second = SegmentedRequest.of([Segment(0, np.arange(2000, 4000, dtype=np.int64))])
    with gpu.limited(4 * KIB):
        pad.plan(second, True)
        assert asked.wait(10)
        del pad
    assert cache.emptied >= 1


def test_nothing_is_planned_after_the_device_has_failed_in_a_plan() -> None:
    """Rows that were given places have not been written."""
    spec = RowSpec(table=0, name="t", dim=64, rows=None, optimizer=SGD(), init=Normal(1.0))
    pad = Pad([spec], budget_bytes=4 << 20, device=gpu.open_device("stand-in", storage_core))
    request = SegmentedRequest.of([Segment(0, np.arange(4096, dtype=np.int64))])
    with gpu.limited(4 * KIB), pytest.raises(StorageDeviceError):
        pad.plan(request, True)
    with pytest.raises(StorageDeviceError):
        pad.plan(request, True)
    pad.close()
