"""The stand-in's streams and events keep to what CUDA promises, and to no more."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Iterator

import gpu
import numpy as np
import pytest
from driver_calls import BYTES, Handle, Pinned, bytes_on, copy, copy_in, copy_out, fill

SLOW_US = 20_000
"""Longest sleep before a piece of work, where a test is about what is not done yet."""


@pytest.fixture(params=gpu.devices())
def driver(request: pytest.FixtureRequest) -> gpu.Driver:
    return gpu.driver(request.param)


@pytest.fixture
def stand_in() -> gpu.Driver:
    return gpu.driver("stand-in")


@pytest.fixture
def make() -> Iterator[Callable[[gpu.Driver, str], ctypes.c_void_p]]:
    made: list[Handle] = []

    def make(driver: gpu.Driver, kind: str) -> ctypes.c_void_p:
        made.append(Handle(driver, kind, 1 if kind == "Stream" else 2))
        return made[-1].value

    yield make
    for handle in made:
        handle.destroy()


def test_work_of_a_stream_is_done_in_order(driver, make):
    stream = make(driver, "Stream")
    a, b = bytes_on(driver), bytes_on(driver)
    out = np.empty(BYTES, np.uint8)
    with gpu.shaken(1, 1000):
        fill(driver, a, 1, stream)
        copy(driver, b, a, stream)
        fill(driver, a, 2, stream)
        copy_out(driver, out, b, stream)  # into memory that is not pinned: done when it returns

    assert (out == 1).all()
    driver.call("cuStreamSynchronize", stream)
    assert (a.numpy() == 2).all()


def test_memory_that_is_not_pinned_is_copied_at_once(driver, make):
    stream = make(driver, "Stream")
    device, source = bytes_on(driver), np.full(BYTES, 1, np.uint8)
    with gpu.shaken(1, SLOW_US):
        copy_in(driver, device, source, stream)
        source[:] = 2
        driver.call("cuStreamSynchronize", stream)

    assert (device.numpy() == 1).all()


def sometimes(trial: Callable[[], bool]) -> bool:
    """True if one of many tries, each with delays of its own, does what is allowed but not sure."""
    with gpu.shaken(1, SLOW_US):
        return any(trial() for _ in range(20))


def test_a_copy_that_has_returned_may_be_on_its_way(stand_in, make):
    stream, device = make(stand_in, "Stream"), bytes_on(stand_in)
    ones, out = np.full(BYTES, 1, np.uint8), np.empty(BYTES, np.uint8)
    to, source = ctypes.c_ulonglong(device.address), ctypes.c_void_p(ones.ctypes.data)

    def trial() -> bool:
        fill(stand_in, device, 0)
        stand_in.synchronize()
        stand_in.call("cuMemcpyHtoD_v2", to, source, ctypes.c_size_t(BYTES))
        copy_out(stand_in, out, device, stream)
        return bool((out == 0).all())

    assert sometimes(trial)


def test_arrays_of_tests_are_there_for_all_streams(driver, make):
    stream, out = make(driver, "Stream"), np.empty(BYTES, np.uint8)
    name = "stand-in" if driver is gpu.driver("stand-in") else "cuda"
    kept = []  # freeing would wait for the device
    with gpu.shaken(1, SLOW_US):
        for value in range(20):
            kept.append(gpu.to_device(np.full(BYTES, value, np.uint8), name))
            copy_out(driver, out, kept[-1], stream)
            assert (out == value).all()


def test_pinned_memory_is_read_later(stand_in, make):
    stream, pinned, device = make(stand_in, "Stream"), Pinned(stand_in), bytes_on(stand_in)

    def trial() -> bool:
        pinned.array[:] = 1
        copy_in(stand_in, device, pinned.array, stream)
        pinned.array[:] = 2
        stand_in.call("cuStreamSynchronize", stream)
        return bool((device.numpy() == 2).all())

    assert sometimes(trial)


def test_memory_that_was_pinned_by_hand_is_read_later_until_it_is_not_any_more(stand_in, make):
    stream, device = make(stand_in, "Stream"), bytes_on(stand_in)
    source = np.empty(2 * BYTES, np.uint8)[:BYTES]
    address = ctypes.c_void_p(source.ctypes.data)

    def trial() -> bool:
        source[:] = 1
        copy_in(stand_in, device, source, stream)
        source[:] = 2
        stand_in.call("cuStreamSynchronize", stream)
        return bool((device.numpy() == 2).all())

    stand_in.call("cuMemHostRegister_v2", address, ctypes.c_size_t(BYTES), 3)
    with pytest.raises(gpu.DriverError, match="error 712"):
        stand_in.call("cuMemHostRegister_v2", address, ctypes.c_size_t(BYTES), 3)
    assert sometimes(trial)
    stand_in.call("cuMemHostUnregister", address)
    assert not sometimes(trial)
    with pytest.raises(gpu.DriverError, match="error 713"):
        stand_in.call("cuMemHostUnregister", address)


def test_pinned_memory_is_written_later(stand_in, make):
    stream, pinned, device = make(stand_in, "Stream"), Pinned(stand_in), bytes_on(stand_in)
    fill(stand_in, device, 7)
    stand_in.synchronize()

    def trial() -> bool:
        pinned.array[:] = 1
        copy_out(stand_in, pinned.array, device, stream)
        early = bool((pinned.array == 1).all())
        stand_in.call("cuStreamSynchronize", stream)
        assert (pinned.array == 7).all()
        return early

    assert sometimes(trial)


def test_streams_do_not_wait_for_each_other(stand_in, make):
    first, second = make(stand_in, "Stream"), make(stand_in, "Stream")
    a, b = bytes_on(stand_in), bytes_on(stand_in)

    def trial() -> bool:
        fill(stand_in, a, 0)
        stand_in.synchronize()
        fill(stand_in, a, 1, first)
        copy(stand_in, b, a, second)
        stand_in.call("cuStreamSynchronize", second)
        return bool((b.numpy() == 0).all())

    assert sometimes(trial)


@pytest.mark.parametrize("delay", [0, SLOW_US])
def test_a_stream_waits_for_an_event_as_it_was_last_recorded(driver, make, delay):
    first, second = make(driver, "Stream"), make(driver, "Stream")
    event = make(driver, "Event")
    a, b = bytes_on(driver), bytes_on(driver)
    for round_ in range(10):
        with gpu.shaken(1, delay):
            fill(driver, a, round_, first)
            driver.call("cuEventRecord", event, first)
            driver.call("cuStreamWaitEvent", second, event, 0)
            driver.call("cuEventRecord", event, second)  # changes nothing for who waits already
            copy(driver, b, a, second)
            driver.call("cuStreamSynchronize", second)

        assert (b.numpy() == round_).all()


def test_an_event_tells_when_it_has_come(stand_in, make):
    stream, event = make(stand_in, "Stream"), make(stand_in, "Event")
    device = bytes_on(stand_in)
    stand_in.call("cuEventQuery", event)  # never recorded: done
    stand_in.call("cuStreamWaitEvent", stream, event, 0)

    def trial() -> bool:
        fill(stand_in, device, 1, stream)
        stand_in.call("cuEventRecord", event, stream)
        try:
            stand_in.call("cuEventQuery", event)
        except gpu.DriverError as error:
            assert "error 600" in str(error)  # noqa: PT017
            return True
        finally:
            stand_in.call("cuEventSynchronize", event)
            stand_in.call("cuEventQuery", event)
        return False

    assert sometimes(trial)


def test_freeing_waits_for_the_device(driver, make):
    stream = make(driver, "Stream")
    kept = bytes_on(driver)
    with gpu.shaken(1, SLOW_US):
        for value in range(5):
            freed = bytes_on(driver)
            fill(driver, freed, value, stream)
            copy(driver, kept, freed, stream)
            del freed
            assert (kept.numpy() == value).all()


def test_a_stream_that_is_destroyed_does_what_it_was_given(driver, make):
    device = bytes_on(driver)
    with gpu.shaken(1, SLOW_US):
        handle = Handle(driver, "Stream", 1)
        fill(driver, device, 1, handle.value)
        fill(driver, device, 2, handle.value)
        begin = time.monotonic()
        handle.destroy()
        assert time.monotonic() - begin < 1
        assert (device.numpy() == 2).all()


@pytest.mark.parametrize("kind", ["Stream", "Event"])
def test_flags_that_cuda_does_not_know_are_refused(driver, kind):
    with pytest.raises(gpu.DriverError, match=f"cu{kind}Create: error 1, invalid argument"):
        Handle(driver, kind, 8)
