"""Records of the host tier that the device reads and writes where they lie."""

from __future__ import annotations

import functools
import gc
from collections.abc import Iterator
from typing import Any

import gpu
import numpy as np
import pytest
from driver_calls import registered_bytes, registering_limited
from numpy.typing import NDArray

from fourfold.storage import (
    SGD,
    Adagrad,
    Adam,
    Normal,
    Pad,
    RowSpec,
    RowWiseAdagrad,
    Segment,
    SegmentedRequest,
    _native,
)
from fourfold.storage.tier import HostTier

CHUNK = 2 << 20
BATCH, IDS, STEPS = 300, 3000, 10
NEVER, ALWAYS = None, 0


def spec(table: int, dim: int, optimizer: Any, dtype: str) -> RowSpec:
    name, init = f"t{table}", Normal(1.0)
    return RowSpec(
        table=table, name=name, dim=dim, rows=None, optimizer=optimizer, init=init, dtype=dtype
    )


SPECS = [
    spec(0, 1, SGD(), "fp16"),
    spec(1, 3, Adagrad(), "bf16"),
    spec(2, 16, RowWiseAdagrad(), "fp32"),
    spec(3, 60, Adam(), "fp16"),
    spec(4, 64, Adam(), "fp32"),
]


@pytest.fixture(params=gpu.devices())
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(autouse=True)
def nothing_stays_pinned() -> Iterator[None]:
    yield
    gc.collect()
    assert registered_bytes() == 0


def make(name: str, host: HostTier) -> Pad:
    """A pad that holds about two batches."""
    device = gpu.open_device(name, _native)
    return Pad(host.specs, budget_bytes=1 << 20, host=host, device=device, threads=2)


def train(pad: Pad, name: str, seed: int = 1) -> None:
    """Batches of which each needs rows that have left."""
    rng = np.random.default_rng(seed)
    for step in range(1, 1 + STEPS):
        names = [rng.choice(IDS, BATCH, replace=False) for _ in pad.specs]
        request = SegmentedRequest.of([Segment(t, ids) for t, ids in enumerate(names)])
        rows = [
            rng.normal(size=(BATCH, spec.dim)).astype(np.float32).astype(np.float32)
            for spec in pad.specs
        ]
        there = [gpu.to_device(array, name) for array in rows]
        ticket = pad.plan(request, train=True)
        addresses = np.array([array.address for array in there], np.uint64)
        pad.update(ticket, addresses, "fp32", 0.1, step)
        gpu.driver(name).synchronize()
        pad.release(ticket)


def rows_of(pad: Pad) -> list[NDArray[Any]]:
    found = []
    for tile in range(len(pad.specs)):
        rows = [pad.read(tile, np.arange(IDS))[0], pad.read(tile, np.arange(IDS))[1]]
        found += rows
    return found


def trained(name: str, loads_from: int | None, stores_from: int | None) -> tuple[Any, Pad]:
    pad = make(name, HostTier(SPECS))
    _native.set_in_place(pad._native, loads_from, stores_from)
    train(pad, name)
    rows = rows_of(pad)
    return rows, pad


@functools.cache
def through_buffers(name: str) -> list[NDArray[Any]]:
    """What a device makes of the rows: it may add products with or without rounding before."""
    rows, pad = trained(name, NEVER, NEVER)
    assert pad.in_place.rows == 0
    assert pad.in_place.pinned_bytes > 0
    pad.close()
    return rows


def assert_same(rows: list[NDArray[Any]], name: str) -> None:
    assert all((a == b).all() for a, b in zip(rows, through_buffers(name), strict=True))


@pytest.mark.parametrize(
    ("loads_from", "stores_from"), [(ALWAYS, ALWAYS), (100, NEVER), (NEVER, 100), (64, 200)]
)
def test_rows_are_the_same_bits_in_place(name, loads_from, stores_from):
    rows, pad = trained(name, loads_from, stores_from)

    assert_same(rows, name)
    now = pad.in_place
    assert now.rows > BATCH
    assert now.refusal == ""
    assert (now.measured, now.loads_from, now.stores_from) == (True, loads_from, stores_from)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_no_row_is_read_before_it_is_there(seed):
    with gpu.shaken(seed, 300):
        rows, pad = trained("stand-in", ALWAYS, ALWAYS)
    del pad

    assert_same(rows, "stand-in")


def test_what_the_tier_takes_is_pinned_chunk_by_chunk():
    host = HostTier(SPECS)
    pad = make("stand-in", host)
    assert registered_bytes() == pad.in_place.pinned_bytes == 0
    train(pad, "stand-in")

    pinned = registered_bytes()
    assert pinned > 0
    assert pinned % CHUNK == 0
    assert pad.in_place.pinned_bytes == pinned <= host.bytes


def test_rows_that_the_tier_had_before_are_followed(name):
    """And when the pad has gone, the tier is as it was."""
    host = HostTier(SPECS)
    first = make(name, host)
    train(first, name)
    first.close()
    del first
    gc.collect()
    assert name != "stand-in" or registered_bytes() == 0
    ids = np.arange(IDS)
    kept = [host.read(tile, ids) for tile in range(len(SPECS))]

    again = make(name, host)
    pinned = again.in_place.pinned_bytes
    assert pinned > 0
    _native.set_in_place(again._native, ALWAYS, ALWAYS)
    for tile, (records, found) in enumerate(kept):
        some = ids[found][:100]
        ticket = again.plan(SegmentedRequest.of([Segment(tile, some)]), train=True)
        again.wait(ticket)
        again.release(ticket)
        assert (again.read(tile, some)[0] == records[found][:100]).all()
    assert again.in_place.rows > 0


@pytest.mark.parametrize("chunks", [0, 1])
def test_where_the_system_refuses_rows_go_through_buffers(chunks):
    with registering_limited(chunks * CHUNK):
        rows, pad = trained("stand-in", ALWAYS, ALWAYS)

    assert_same(rows, "stand-in")
    assert pad.in_place.pinned_bytes == chunks * CHUNK
    assert "cuMemHostRegister of 2097152 bytes" in pad.in_place.refusal
    assert "ulimit -l" in pad.in_place.refusal
    assert (pad.in_place.rows > 0) == (chunks > 0)


def test_sizes_are_measured_when_many_rows_move():
    host = HostTier([spec(0, 16, SGD(), "fp32")])
    pad = Pad(
        host.specs, budget_bytes=384 << 10, host=host, device=gpu.open_device("stand-in", _native)
    )
    for first in (0, 5000, 0):
        request = SegmentedRequest.of([Segment(0, np.arange(first, first + 5000))])
        pad.release(pad.plan(request, train=True))
    pad.read(0, np.arange(10))

    assert pad.in_place.measured


def test_what_is_measured_is_a_size(name):
    device = gpu.open_device(name, _native)
    sizes = {None, *(64 << i for i in range(7))}

    assert set(_native.measure_crossover(device, 2, 64)) <= sizes


def test_a_pad_without_a_host_tier_follows_nothing():
    pad = Pad(SPECS, budget_bytes=1 << 20, device=gpu.open_device("stand-in", _native))

    assert pad.in_place.pinned_bytes == 0
    assert not pad.in_place.measured


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_row_that_has_left_is_there_when_it_is_read(seed):
    host, alone = HostTier(SPECS), Pad(SPECS)
    pad = make("stand-in", host)
    _native.set_in_place(pad._native, ALWAYS, ALWAYS)
    with gpu.shaken(seed, 3000):
        for batch in range(10):  # of new rows alone: what leaves is all that moves
            segments = [Segment(t, np.arange(BATCH) + batch * BATCH) for t in range(len(SPECS))]
            ticket = pad.plan(SegmentedRequest.of(segments), train=True)
            pad.wait(ticket)
            pad.release(ticket)
            for tile in range(len(SPECS)):
                ids = np.arange(0, (batch + 1) * BATCH, 7)
                assert (pad.weights(tile, ids) == alone.weights(tile, ids)).all()
    assert pad.in_place.rows > 0
