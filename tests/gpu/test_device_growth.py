"""Memory that grows or goes while the device is still busy with it: a driver need not wait."""

from __future__ import annotations

from collections.abc import Iterator

import gpu
import numpy as np
import pytest
from driver_calls import Handle

from fourfold.storage import Adagrad, Constant, Pad, RowSpec, Segment, SegmentedRequest, _native
from fourfold.storage.device_ids import DeviceIds

DIM, SLOW_US = 4, 20_000
SPEC = RowSpec(
    table=0, name="t", dim=DIM, rows=None, optimizer=Adagrad(), init=Constant(1.0), seed=5
)


@pytest.fixture(params=gpu.devices())
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def stream(name: str) -> Iterator[int]:
    made = Handle(gpu.driver(name), "Stream", 1)
    yield made.value.value
    made.destroy()


def train(pad: Pad, size: int, name: str | None, stream: int) -> tuple[gpu.DeviceArray, ...]:
    """Train a batch, of which half the lookups name one row; give what must live until then."""
    ids = np.where(np.arange(size) % 2, 0, np.arange(size))
    request = SegmentedRequest.of([Segment(0, ids)])
    rows = np.full((size, DIM), 0.125, np.float32)
    ticket = pad.plan(request, True)
    if name is None:
        out = np.empty_like(rows)
        pad.gather(ticket, request.addresses([out]), "fp32")
        pad.update(ticket, request.addresses([rows]), "fp32", 0.5, 1)
        kept: tuple = (out,)
    else:
        kept = out, gradient = gpu.empty(rows.shape, np.float32, name), gpu.to_device(rows, name)
        pad._native.gather(ticket, np.array([out.address], np.uint64), 0, stream)
        pad._native.update(ticket, np.array([gradient.address], np.uint64), 0, 0.5, 1, stream)
    pad.release(ticket)
    return kept


def test_plans_grow_while_the_last_one_is_used(name: str, stream: int) -> None:
    """A released ticket serves again before the device has come to its kernels."""
    pad = Pad([SPEC], budget_bytes=4 << 20, device=gpu.open_device(name, _native))
    twin = Pad([SPEC])
    sizes = [20 * 4**i for i in range(5)]
    gpu.driver(name).synchronize()
    with gpu.shaken(1, SLOW_US):
        kept = [train(pad, size, name, stream) for size in sizes]
    gpu.driver(name).synchronize()

    for size, (got, _) in zip(sizes, kept, strict=True):
        (expected,) = train(twin, size, None, 0)
        np.testing.assert_allclose(got.numpy(), expected, rtol=1e-6)


def test_what_works_on_ids_may_grow_and_go_while_it_works(name: str, stream: int) -> None:
    device, sizes = gpu.open_device(name, _native), [300, 3_000, 30_000]
    slots = [gpu.to_device(np.zeros(n, np.uint32), name) for n in sizes]
    there = [[gpu.empty(n + 1, np.uint32, name) for _ in range(3)] for n in sizes]
    with gpu.shaken(1, SLOW_US // 4):
        ids = DeviceIds(device)
        for n, named, (entry, slot, first) in zip(sizes, slots, there, strict=True):
            out = entry.address, slot.address, first.address
            ids._groups.group(named.address, n, 1, *out, stream)
        del ids
    gpu.driver(name).synchronize()

    for n, (entry, _, _) in zip(sizes, there, strict=True):
        assert (entry.numpy()[:n] == np.arange(n)).all()
