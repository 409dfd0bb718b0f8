"""The key index on the host and on devices: one contract, whatever order the threads run in."""

from __future__ import annotations

from typing import Protocol

import gpu
import numpy as np
import pytest
from hypothesis import settings
from index_model import AgainstDict, Keys, meeting_keys, random_keys, u64
from numpy.typing import NDArray

from fourfold.storage import _native
from fourfold.storage.device_index import ABSENT, DeviceIndex
from fourfold.storage.errors import DeviceError

Slots = NDArray[np.uint32]

PLACES = ["host", *gpu.devices()]


class Index(Protocol):
    """What `_native.Index` offers; new keys get slots 0, 1, 2, ..."""

    def find(self, keys: Keys, threads: int = 1) -> Slots: ...
    def insert(self, keys: Keys, threads: int = 1) -> tuple[Slots, int]: ...
    def erase(self, keys: Keys) -> int: ...
    def items(self) -> tuple[Keys, Slots]: ...
    def clear(self) -> None: ...
    def probes(self) -> tuple[int, int]: ...
    def consistent(self) -> bool: ...
    def __len__(self) -> int: ...
    @property
    def bytes(self) -> int: ...


class OnDevice:
    """The same with the arrays on a device, which has threads of its own."""

    def __init__(self, name: str, expected: int = 0) -> None:
        self.name = name
        self.index = DeviceIndex(gpu.open_device(name, _native), expected)
        self.next = 0

    def find(self, keys: Keys, threads: int = 1) -> Slots:
        here, slots = gpu.to_device(keys, self.name), gpu.empty(len(keys), np.uint32, self.name)
        self.index.find(here.address, slots.address, len(keys))
        return slots.numpy()

    def insert(
        self, keys: Keys, threads: int = 1, *, free: Slots | None = None
    ) -> tuple[Slots, int]:
        here, slots = gpu.to_device(keys, self.name), gpu.empty(len(keys), np.uint32, self.name)
        if free is None:
            num_new = self.index.insert(here.address, slots.address, len(keys), first=self.next)
            self.next += num_new
        else:
            given = gpu.to_device(free, self.name)
            num_new = self.index.insert(
                here.address, slots.address, len(keys), free=given.address, num_free=len(free)
            )
        return slots.numpy(), num_new

    def erase(self, keys: Keys) -> int:
        here = gpu.to_device(keys, self.name)
        return self.index.erase(here.address, len(keys))

    def erase_and_tell(self, keys: Keys) -> Slots:
        here, slots = gpu.to_device(keys, self.name), gpu.empty(len(keys), np.uint32, self.name)
        self.index.erase(here.address, len(keys), slots=slots.address)
        return slots.numpy()

    def items(self) -> tuple[Keys, Slots]:
        keys = gpu.empty(len(self), np.uint64, self.name)
        slots = gpu.empty(len(self), np.uint32, self.name)
        self.index.items(keys.address, slots.address)
        return keys.numpy(), slots.numpy()

    def clear(self) -> None:
        self.index.clear()
        self.next = 0

    def probes(self) -> tuple[int, int]:
        return self.index.probes()

    def consistent(self) -> bool:
        return self.index.consistent()

    def __len__(self) -> int:
        return len(self.index)

    @property
    def bytes(self) -> int:
        return self.index.bytes


def make(place: str, expected: int = 0) -> Index:
    return _native.Index(expected) if place == "host" else OnDevice(place, expected)


@pytest.mark.parametrize("place", PLACES)
class TestIndex:
    def test_any_sequence_of_calls_does_what_a_dict_does(self, place: str) -> None:
        machine = type("Machine", (AgainstDict,), {"make": staticmethod(lambda: make(place))})
        case = machine.TestCase
        case.settings = settings(max_examples=25, stateful_step_count=12, deadline=None)
        case("runTest").runTest()

    def test_growth_keeps_slots(self, place: str) -> None:
        keys = random_keys(20_000)
        index = make(place)
        for first in range(0, len(keys), 2_500):
            batch = keys[first : first + 2_500]

            slots, num_new = index.insert(batch)

            assert num_new == len(batch)
            assert np.array_equal(slots, np.arange(first, first + 2_500, dtype=np.uint32))
            assert index.bytes <= max(4096, 27 * len(index))
        assert index.consistent()
        assert np.array_equal(index.find(keys), np.arange(len(keys), dtype=np.uint32))
        assert np.all(index.find(random_keys(5_000, seed=1)) == ABSENT)
        assert index.probes()[0] / len(index) < 1.16
        assert index.probes()[1] < 60

    def test_expected_keys_come_without_growth(self, place: str) -> None:
        index = make(place, 10_000)
        bytes_before = index.bytes

        index.insert(random_keys(10_000))

        assert index.bytes == bytes_before <= 27 * 10_000 + 4096

    def test_a_batch_may_name_a_key_often(self, place: str) -> None:
        """Slots follow the first occurrence, among present and absent keys."""
        rng = np.random.default_rng(0)
        index, model = make(place), dict[int, int]()
        for _ in range(4):
            batch = rng.zipf(1.3, 3_000).astype(np.uint64)  # one key is a fourth of them
            slots, _ = index.insert(batch)
            expected = [model.setdefault(key, len(model)) for key in batch.tolist()]
            assert slots.tolist() == expected

    @pytest.mark.parametrize(
        "hash_from", [0, 2**63, 2**64 - 2**42], ids=["first", "middle", "last"]
    )
    def test_keys_crafted_to_meet_are_slow_but_exact(self, place: str, hash_from: int) -> None:
        keys = meeting_keys(600, hash_from)
        index = make(place)

        slots, _ = index.insert(keys)

        assert index.probes()[1] >= 600 // 5
        assert index.consistent()
        assert np.array_equal(index.find(keys), slots)
        index.insert(random_keys(2_000))
        assert index.erase(keys[:300]) == 300
        assert index.consistent()
        assert np.array_equal(index.find(keys[300:]), slots[300:])
        assert np.all(index.find(keys[:300]) == ABSENT)

    def test_churn_does_not_lengthen_probes(self, place: str) -> None:
        """Every key is replaced ten times."""
        keys = random_keys(11 * 2_000)
        index = make(place, 2_600)
        bytes_before = index.bytes
        index.insert(keys[:2_000])
        for first in range(0, 10 * 2_000, 500):
            assert index.erase(keys[first : first + 500]) == 500
            index.insert(keys[first + 2_000 : first + 2_500])

        assert index.consistent()
        assert index.bytes == bytes_before
        assert index.probes()[0] / len(index) < 1.16

    def test_empty_batches(self, place: str) -> None:
        index = make(place)
        assert index.insert(u64([]))[1] == 0
        assert index.erase(u64([])) == 0
        assert index.find(u64([])).tolist() == []
        assert [array.tolist() for array in index.items()] == [[], []]

    def test_too_many_keys_are_refused(self, place: str) -> None:
        with pytest.raises(ValueError, match=r"2\^32 - 1"):
            make(place, 2**32 - 1)


@pytest.mark.parametrize("name", gpu.devices())
class TestDeviceIndex:
    def test_slots_are_those_of_the_host(self, name: str) -> None:
        rng = np.random.default_rng(1)
        host, device = _native.Index(), OnDevice(name)
        for _ in range(6):
            batch = rng.integers(0, 5_000, 2_000, dtype=np.uint64)
            assert np.array_equal(device.insert(batch)[0], host.insert(batch)[0])
            gone = rng.integers(0, 5_000, 500, dtype=np.uint64)
            assert device.erase(gone) == host.erase(gone)
            assert np.array_equal(device.find(batch), host.find(batch))

    def test_new_keys_take_free_slots_in_order(self, name: str) -> None:
        index = OnDevice(name)
        index.insert(u64([7, 8]))

        slots, num_new = index.insert(
            u64([9, 7, 5, 9, 0]), free=np.array([40, 11, 93, 5], np.uint32)
        )

        assert num_new == 3
        assert slots.tolist() == [40, 0, 11, 40, 93]

    def test_too_few_slots_change_nothing(self, name: str) -> None:
        index = OnDevice(name)
        index.insert(u64([7, 8]))

        with pytest.raises(OverflowError, match="3 new keys, but only 2 slots are left"):
            index.insert(u64([1, 2, 7, 3]), free=np.array([4, 5], np.uint32))
        index.next = 2**32 - 3
        with pytest.raises(OverflowError, match="3 new keys, but only 2 slots are left"):
            index.insert(u64([1, 2, 7, 3]))

        assert len(index) == 2
        assert index.find(u64([1, 2, 3, 7, 8])).tolist() == [ABSENT, ABSENT, ABSENT, 0, 1]
        assert index.insert(u64([1, 2]))[0].tolist() == [2**32 - 3, 2**32 - 2]  # the last slots

    def test_erasing_tells_slots_to_the_first_who_names_a_key(self, name: str) -> None:
        index = OnDevice(name)
        index.insert(u64([7, 8, 9]))
        assert index.erase_and_tell(u64([9, 1, 7, 9, 1])).tolist() == [2, ABSENT, 0, ABSENT, ABSENT]
        assert len(index) == 1

    def test_items_come_by_slot(self, name: str) -> None:
        index, keys = OnDevice(name), random_keys(3_000)
        order = np.random.default_rng(2).permutation(3_000).astype(np.uint32)
        index.insert(keys, free=order)
        got, slots = index.items()
        assert np.array_equal(slots, np.arange(3_000))
        assert np.array_equal(got, keys[np.argsort(order)])

    def test_growth_is_told_before(self, name: str) -> None:
        index = OnDevice(name)
        for batch in np.split(random_keys(6_000), 12):
            bytes_before, told = index.bytes, index.index.growth(len(batch))
            index.insert(batch)
            assert index.bytes == (told or bytes_before)

    def test_wrong_sizes_are_refused(self, name: str) -> None:
        index = OnDevice(name)
        with pytest.raises(ValueError, match=r"a batch of 1073741824 ids; fewer than 2\^30"):
            index.index.erase(0, 2**30)
        with pytest.raises(ValueError, match=r"4294967295 keys; .* fewer than 2\^32 - 1"):
            index.index.growth(2**32 - 1)


def test_no_memory_to_grow_is_named_and_changes_nothing() -> None:
    index, keys = OnDevice("stand-in"), random_keys(5_000)
    index.insert(keys[:200])
    index.find(keys)  # whatever memory a batch needs is there
    here, slots = gpu.to_device(keys), gpu.empty(len(keys), np.uint32)
    index.index.erase(here.address, len(keys))
    index.insert(keys[:200])

    with (
        gpu.limited(64 << 10),
        pytest.raises(
            DeviceError,
            match=r"no memory to grow from 200 to 5000 keys beside the \d+ bytes in use: "
            r"cuMemAlloc of \d+ bytes on GPU 0: CUDA_ERROR_OUT_OF_MEMORY .*; expect the keys",
        ),
    ):
        index.index.insert(here.address, slots.address, len(keys), first=400)

    assert len(index) == 200
    assert index.consistent()
    assert index.find(keys[:201]).tolist() == [*range(200, 400), ABSENT]
    assert index.index.insert(here.address, slots.address, len(keys), first=400) == 4_800


def test_no_memory_for_an_index_is_named() -> None:
    device = gpu.open_device("stand-in", _native)
    with (
        gpu.limited(1 << 20),
        pytest.raises(DeviceError, match=r"cuMemAlloc of \d+ bytes on GPU 0: CUDA_ERROR_OUT_OF"),
    ):
        DeviceIndex(device, 10**6)


@pytest.mark.parametrize("seed", range(1, 6))
def test_the_order_of_threads_changes_no_result(seed: int) -> None:
    rng = np.random.default_rng(seed)
    host, device = _native.Index(), OnDevice("stand-in")
    with gpu.shaken(seed):
        for _ in range(3):
            batch = np.concatenate([rng.integers(0, 900, 700, dtype=np.uint64), meeting_keys(60)])
            rng.shuffle(batch)
            assert np.array_equal(device.insert(batch)[0], host.insert(batch)[0])
            gone = batch[rng.integers(0, len(batch), 300)]
            assert device.erase(gone) == host.erase(gone)
            assert device.consistent()
            assert np.array_equal(device.find(batch), host.find(batch))
