"""Distinct ids, buckets and groups on devices: bit for bit what the host has."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import gpu
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fourfold.comm._native import BLOCK, Router
from fourfold.storage import _native
from fourfold.storage.device_ids import DeviceIds
from fourfold.storage.errors import DeviceError

Array = NDArray[Any]

NONE = 2**32 - 1

on_devices = pytest.mark.parametrize("name", gpu.devices())


def device_of(name: str) -> _native.Device:
    return gpu.open_device(name, _native)


def zipf(n: int, most: int, seed: int) -> NDArray[np.int64]:
    return np.random.default_rng(seed).zipf(1.2, n) % most


# Distinct ids


def distinct_of(
    name: str, ids: NDArray[np.uint64], first: NDArray[np.uint64] | None = None
) -> tuple[list[int], list[int], list[int], list[int]]:
    n, segments = len(ids), 0 if first is None else len(first) - 1
    there = gpu.to_device(ids, name)
    distinct, inverse = gpu.empty(n, np.uint64, name), gpu.empty(n, np.uint32, name)
    count, segment_first = gpu.empty(n, np.uint32, name), gpu.empty(segments + 1, np.uint32, name)
    starts = None if first is None else gpu.to_device(first, name)
    total = DeviceIds(device_of(name)).distinct(
        there.address,
        n,
        distinct=distinct.address,
        inverse=inverse.address,
        count=count.address,
        first=starts.address if starts else 0,
        segments=segments,
        segment_first=segment_first.address if starts else 0,
    )
    begins = segment_first.numpy().tolist() if starts else []
    return (
        distinct.numpy()[:total].tolist(),
        inverse.numpy().tolist(),
        count.numpy()[:total].tolist(),
        begins,
    )


def distinct_model(
    ids: list[int], first: list[int]
) -> tuple[list[int], list[int], list[int], list[int]]:
    numbers: dict[tuple[int, int], int] = {}
    inverse, counts, begins = [], [], []
    for s, (begin, end) in enumerate(pairwise(first)):
        begins.append(len(numbers))
        for id_ in ids[begin:end]:
            number = numbers.setdefault((s, id_), len(numbers))
            inverse.append(number)
            counts += [0] * (len(numbers) - len(counts))
            counts[number] += 1
    return [id_ for _, id_ in numbers], inverse, counts, [*begins, len(numbers)]


any_ids = st.lists(
    st.one_of(st.integers(0, 5), st.integers(0, 2**64 - 1), st.sampled_from([2**64 - 1, 2**63])),
    max_size=80,
)


@on_devices
@given(ids=any_ids, cuts=st.lists(st.integers(0, 80), max_size=4))
@settings(max_examples=40, deadline=None)
def test_distinct_ids_come_in_order_of_first_occurrence(
    name: str, ids: list[int], cuts: list[int]
) -> None:
    n = len(ids)
    first = sorted([0, n, *(min(cut, n) for cut in cuts)])
    array = np.array(ids, np.uint64)

    assert distinct_of(name, array, np.array(first, np.uint64)) == distinct_model(ids, first)
    assert distinct_of(name, array) == (*distinct_model(ids, [0, n])[:3], [])


@on_devices
def test_segments_do_not_meet(name: str) -> None:
    """All have the same ids, so that entries of the table meet that differ in the segment alone."""
    ids, first = [7, 8, 7] * 300, list(range(0, 901, 3))
    got = distinct_of(name, np.array(ids, np.uint64), np.array(first, np.uint64))
    assert got == distinct_model(ids, first)


@on_devices
def test_distinct_ids_of_a_skewed_batch(name: str) -> None:
    ids = zipf(40_000, 10**9, 0).astype(np.uint64)
    assert distinct_of(name, ids)[:3] == distinct_model(ids.tolist(), [0, len(ids)])[:3]


@pytest.mark.parametrize("seed", range(1, 6))
def test_the_order_of_threads_changes_no_distinct_id(seed: int) -> None:
    ids = zipf(3_000, 500, seed).astype(np.uint64)
    with gpu.shaken(seed):
        assert distinct_of("stand-in", ids)[:3] == distinct_model(ids.tolist(), [0, len(ids)])[:3]


# Buckets


def deal(
    name: str, ids: NDArray[np.int64], table: int, buckets: int, limit: int, **kind: bool
) -> tuple[Array, Array, Array, Array]:
    n = len(ids)
    there = gpu.to_device(ids, name)
    bucket, place = gpu.empty(n, np.uint32, name), gpu.empty(n, np.uint32, name)
    position, first = gpu.empty(n, np.uint64, name), gpu.empty(buckets + 1, np.uint32, name)
    DeviceIds(device_of(name)).deal(
        there.address,
        n,
        table=table,
        buckets=buckets,
        limit=limit,
        bucket=bucket.address,
        place=place.address,
        position=position.address,
        bucket_first=first.address,
        **{"dynamic": False, "hashed": False} | kind,
    )
    return bucket.numpy(), place.numpy(), position.numpy(), first.numpy()


@on_devices
@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
@pytest.mark.parametrize("buckets", [1, 2, 7, 300, 70_000])
@pytest.mark.parametrize("n", [0, 1, 5_000])
def test_ids_are_dealt_as_hash_h_says(name: str, dynamic: bool, buckets: int, n: int) -> None:
    ids = zipf(n, 2**62, 3)

    bucket, place, position, first = deal(name, ids, 5, buckets, 2**62, dynamic=dynamic)

    expected = _native.bucket_of(ids, 5, buckets, dynamic)
    order = np.argsort(expected, kind="stable")
    assert np.array_equal(bucket, expected)
    assert np.array_equal(place[order], np.arange(n))
    assert np.array_equal(position, (ids if dynamic else ids // buckets)[order])
    assert np.array_equal(np.diff(first), np.bincount(expected, minlength=buckets))
    assert first[0] == 0


@on_devices
def test_a_bucket_is_required(name: str) -> None:
    with pytest.raises(ValueError, match="at least one bucket, got 0"):
        deal(name, zipf(3, 9, 0), 0, 0, 9)


def routed(
    ids: NDArray[np.int64], buckets: int, limit: int, *, dynamic: bool, hashed: bool, pooled: bool
) -> tuple[list[int], list[int]]:
    """What a rank that holds all buckets of a table is sent by itself: ids, where buckets begin."""
    tables = [("t", 4, limit, dynamic, hashed, pooled, False)]
    tiles = [(0, b, 0, 4, [0]) for b in range(buckets)]
    router = Router(0, 1, 1, 0, tables, [("f", 0, 0)], tiles)
    route = router.route(ids, np.arange(len(ids) + 1), None, len(ids))

    def send(sent: Any, got: Any) -> None:
        (memory, counts, starts, _), (to, _, to_starts, _) = sent, got
        n, i, j = (BLOCK * int(x) for x in (counts[0], starts[0], to_starts[0]))
        to[j : j + n] = memory[i : i + n]

    send((route.header_sent, *router.headers_sent), (route.header_got, *router.headers_got))
    router.accept(route)
    send((route.message_sent, *route.messages_sent), (route.message_got, *route.messages_got))
    router.unpack(route)
    return route.ids.tolist(), route.first.tolist()


@on_devices
@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
@pytest.mark.parametrize("hashed", [False, True], ids=["ids", "hashed"])
@pytest.mark.parametrize("buckets", [2, 5])
def test_ids_travel_as_the_router_sends_them(
    name: str, dynamic: bool, hashed: bool, buckets: int
) -> None:
    """Distinct ones as rows, all of them for sums."""
    limit = 2**40 if dynamic else 10_000
    ids = zipf(2_000, limit, 1)
    kind = {"dynamic": dynamic, "hashed": hashed}

    _, _, position, first = deal(name, ids, 0, buckets, limit, **kind)
    assert (position.tolist(), first.tolist()) == routed(ids, buckets, limit, **kind, pooled=True)

    of_table = gpu.to_device(ids.astype(np.uint64), name)
    if hashed:
        address = of_table.address
        DeviceIds(device_of(name)).hash(address, address, len(ids), limit=limit)
    distinct = np.array(distinct_of(name, of_table.numpy())[0]).astype(np.int64)
    _, _, position, first = deal(name, distinct, 0, buckets, limit, dynamic=dynamic)
    assert (position.tolist(), first.tolist()) == routed(ids, buckets, limit, **kind, pooled=False)


# Groups


@on_devices
@given(
    slots=st.lists(st.one_of(st.integers(0, 9), st.integers(0, 999), st.just(NONE)), max_size=90)
)
@settings(max_examples=40, deadline=None)
def test_positions_are_grouped_by_slot(name: str, slots: list[int]) -> None:
    check_groups(name, np.array(slots, np.uint32), 1000)


@on_devices
@pytest.mark.parametrize("limit", [1, 255, 256, 2**20, NONE])
def test_large_batches_are_grouped_by_slot(name: str, limit: int) -> None:
    slots = zipf(20_000, limit, 4).astype(np.uint32)
    slots[::17] = limit - 1
    slots[::13] = NONE
    check_groups(name, slots, limit)


def check_groups(name: str, slots: NDArray[np.uint32], limit: int) -> None:
    n = len(slots)
    there, entry = gpu.to_device(slots, name), gpu.empty(n, np.uint32, name)
    group_slot, group_first = gpu.empty(n, np.uint32, name), gpu.empty(n + 1, np.uint32, name)

    groups, entries = DeviceIds(device_of(name)).group(
        there.address,
        n,
        limit=limit,
        entry=entry.address,
        group_slot=group_slot.address,
        group_first=group_first.address,
    )

    order = np.argsort(slots, kind="stable")
    named = slots[slots != NONE]
    expected, first = np.unique(np.sort(named), return_index=True)
    assert np.array_equal(entry.numpy(), order)
    assert (groups, entries) == (len(expected), len(named))
    assert np.array_equal(group_slot.numpy()[:groups], expected)
    assert group_first.numpy()[: groups + 1].tolist() == [*first.tolist(), entries]


def test_no_memory_for_a_batch_is_named() -> None:
    device, ids = device_of("stand-in"), gpu.empty(10**6, np.uint64)
    with (
        gpu.limited(1 << 20),
        pytest.raises(DeviceError, match=r"cuMemAlloc of \d+ bytes on GPU 0: CUDA_ERROR_OUT_OF"),
    ):
        DeviceIds(device).distinct(ids.address, 10**6, distinct=ids.address, inverse=ids.address)
