"""Rows are born while steps are under way: planning does not wait for the device, gathers do."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import gpu
import numpy as np
import pytest
from driver_calls import Handle, Held
from numpy.typing import NDArray

from fourfold.storage import Adagrad, Normal, Pad, RowSpec, Segment, SegmentedRequest, _native

DIM, ROWS = 12, 50
PATIENCE_SECONDS, ENOUGH_TO_BE_EARLY_SECONDS = 30, 0.2
LISTS_OF_BIRTHS = 4
"""Plans with births that the device may be behind by (row_mover.h)."""
SPEC = RowSpec(table=3, name="t", dim=DIM, rows=None, optimizer=Adagrad(), init=Normal(1.0), seed=5)

Plan = tuple[Any, SegmentedRequest]
InTime = Callable[[Callable[[], Any]], Any]


@pytest.fixture(params=gpu.devices())
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def pad(name: str) -> Pad:
    device = gpu.open_device(name, _native)
    return Pad([SPEC], budget_bytes=4 << 20, device=device)


@pytest.fixture
def in_time() -> Iterator[InTime]:
    """Call it on a thread of its own; an error if it waits for what is held."""
    with ThreadPoolExecutor(1) as thread:
        yield lambda call: thread.submit(call).result(PATIENCE_SECONDS)


def plan(pad: Pad, batch: int) -> Plan:
    ids = np.arange(ROWS) + ROWS * batch
    request = SegmentedRequest.of([Segment(0, ids)])
    return pad.plan(request, True), request


def gather(pad: Pad, planned: Plan, name: str, stream: int) -> gpu.DeviceArray:
    replies = gpu.empty((ROWS, DIM), np.float32, name)
    addresses = np.array([replies.address], np.uint64)
    pad._native.gather(planned[0], addresses, 0, stream)
    return replies


def expected(batch: int) -> NDArray[np.float32]:
    return Pad([SPEC]).weights(0, np.arange(ROWS) + ROWS * batch)


def test_planning_goes_on_while_a_step_is_held(pad, name, in_time):
    driver = gpu.driver(name)
    first = plan(pad, 0)
    with Held(driver) as step:
        replies = [gather(pad, first, name, step.handle)]
        later = [in_time(lambda b=batch: plan(pad, b)) for batch in range(1, 1 + LISTS_OF_BIRTHS)]
        replies += [gather(pad, planned, name, step.handle) for planned in later]
        step.let_go()
        step.synchronize()

    for batch, rows in enumerate(replies):
        assert (rows.numpy() == expected(batch)).all()


def test_a_gather_on_another_stream_sees_rows_that_wait_for_the_step(pad, name, in_time):
    driver = gpu.driver(name)
    first = plan(pad, 0)
    other = Handle(driver, "Stream", 1)
    with Held(driver) as step:
        kept = gather(pad, first, name, step.handle)
        second = in_time(lambda: plan(pad, 1))
        rows = gather(pad, second, name, other.value.value)
        time.sleep(ENOUGH_TO_BE_EARLY_SECONDS)
        step.let_go()
        driver.call("cuStreamSynchronize", other.value)
    other.destroy()

    assert (rows.numpy() == expected(1)).all()
    assert (kept.numpy() == expected(0)).all()


def test_an_update_without_a_gather_finds_its_rows(pad, name, in_time):
    driver = gpu.driver(name)
    twin = Pad([SPEC])
    first = plan(pad, 0)
    gradient = np.linspace(-1, 1, ROWS * DIM, dtype=np.float32).reshape(ROWS, DIM)
    there = gpu.to_device(gradient, name)
    other = Handle(driver, "Stream", 1)
    with Held(driver) as step:
        kept = gather(pad, first, name, step.handle)
        ticket, request = in_time(lambda: plan(pad, 1))
        addresses = np.array([there.address], np.uint64)
        pad._native.update(ticket, addresses, 0, 0.1, 1, other.value.value)
        time.sleep(ENOUGH_TO_BE_EARLY_SECONDS)
        step.let_go()
        driver.call("cuStreamSynchronize", other.value)
    other.destroy()
    ticket, request = plan(twin, 1)
    twin.update(ticket, request.addresses([gradient]), "fp32", 0.1, 1)

    ids = request.ids
    assert (kept.numpy() == expected(0)).all()
    np.testing.assert_array_equal(pad.weights(0, ids), twin.weights(0, ids))


def test_rows_that_are_read_by_id_are_born(pad, name, in_time):
    """Even those that nobody has gathered."""
    driver = gpu.driver(name)
    first = plan(pad, 0)
    with Held(driver) as step:
        kept = gather(pad, first, name, step.handle)
        second = in_time(lambda: plan(pad, 1))
        with ThreadPoolExecutor(1) as thread:
            reading = thread.submit(pad.weights, 0, np.arange(ROWS) + ROWS)
            step.let_go()
            rows = reading.result()

    pad.release(second[0])
    assert (rows == expected(1)).all()
    assert (kept.numpy() == expected(0)).all()


@pytest.mark.parametrize("seed", range(1, 4))
def test_a_place_that_serves_again_is_born_after_its_last_use(name, seed):
    """Rows of batch after batch take the places of those that were erased, without a wait."""
    driver = gpu.driver(name)
    device = gpu.open_device(name, _native)
    pad, stream = Pad([SPEC], budget_bytes=1 << 20, device=device), Handle(driver, "Stream", 1)
    with gpu.shaken(seed, 500):
        replies = []
        for batch in range(12):
            ticket, _ = planned = plan(pad, batch)
            replies.append(gather(pad, planned, name, stream.value.value))
            pad.release(ticket)
            assert pad.erase(0, np.arange(ROWS) + ROWS * batch) == ROWS
        driver.call("cuStreamSynchronize", stream.value)
    stream.destroy()

    for batch, rows in enumerate(replies):
        assert (rows.numpy() == expected(batch)).all()


def test_a_pad_may_go_while_its_rows_are_being_born(name):
    driver = gpu.driver(name)
    device = gpu.open_device(name, _native)
    for seed in range(1, 6):
        with gpu.shaken(seed, 5000):
            pad = Pad([SPEC], budget_bytes=1 << 20, device=device)
            replies = gather(pad, plan(pad, 0), name, 0)
            plan(pad, 1)
            del pad
            assert (replies.numpy() == expected(0)).all()
    driver.synchronize()
