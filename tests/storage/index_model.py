"""What any index does, and keys that are hard on it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from numpy.typing import NDArray

Keys = NDArray[np.uint64]

ABSENT = 2**32 - 1


def u64(values: object) -> Keys:
    return np.asarray(values, dtype=np.uint64)


def random_keys(num_keys: int, seed: int = 0) -> Keys:
    return np.random.default_rng(seed).integers(0, 2**64, num_keys, dtype=np.uint64)


def key_of_hash(x: Keys) -> Keys:
    """Invert the hash of the index: whoever knows it can choose keys that meet."""

    def back(x: Keys) -> Keys:
        return x ^ (x >> u64(27)) ^ (x >> u64(54))

    x = back(x) * u64(pow(0x1C69B3F74AC4AE35, -1, 2**64))
    x = (x ^ (x >> u64(33))) * u64(pow(0x3C79AC492BA7B653, -1, 2**64))
    return back(x)


def meeting_keys(num_keys: int, hash_from: int = 2**63) -> Keys:
    """Keys with one home, and on a device one stride: their hashes differ in the middle."""
    return key_of_hash(u64(hash_from) + (np.arange(num_keys, dtype=np.uint64) << u64(32)))


MEETING = meeting_keys(64).tolist()


class AgainstDict(RuleBasedStateMachine):
    """Any sequence of calls, compared with a dict after each. Subclasses say of which index."""

    make: Callable[[], Any]

    keys = st.lists(
        st.one_of(
            st.integers(0, 300),
            st.integers(0, 300).map(lambda x: x << 55),
            st.integers(0, 2**64 - 1),
            st.sampled_from([0, 2**64 - 1, 2**63]),
            st.sampled_from(MEETING),
        ),
        max_size=60,
    )

    def __init__(self) -> None:
        super().__init__()
        self.index = type(self).make()
        self.model: dict[int, int] = {}
        self.next = 0

    def enter(self, keys: Keys, threads: int = 1) -> None:
        slots, num_new = self.index.insert(keys, threads)
        before = len(self.model)
        for key, slot in zip(keys.tolist(), slots.tolist(), strict=True):
            if key not in self.model:
                self.model[key] = self.next
                self.next += 1
            assert slot == self.model[key]
        assert num_new == len(self.model) - before

    @rule(keys=keys, threads=st.integers(1, 3))
    def insert(self, keys: list[int], threads: int) -> None:
        self.enter(u64(keys), threads)

    @rule(first=st.integers(0, 2**64 - 1), stride=st.integers(1, 2**64 - 1), n=st.integers(1, 2000))
    def insert_progression(self, first: int, stride: int, n: int) -> None:
        self.enter(np.arange(n, dtype=np.uint64) * u64(stride) + u64(first))

    @rule(keys=keys)
    def erase(self, keys: list[int]) -> None:
        present = {key for key in keys if key in self.model}
        assert self.index.erase(u64(keys)) == len(present)
        for key in present:
            del self.model[key]

    @precondition(lambda self: self.model)
    @rule(data=st.data(), share=st.sampled_from([2, 3, 10]))
    def erase_present(self, data: st.DataObject, share: int) -> None:
        offset = data.draw(st.integers(0, share - 1))
        keys = list(self.model)[offset::share]
        assert self.index.erase(u64(keys)) == len(keys)
        for key in keys:
            del self.model[key]

    @rule(keys=keys, threads=st.integers(1, 3))
    def find(self, keys: list[int], threads: int) -> None:
        expected = [self.model.get(key, ABSENT) for key in keys]
        assert self.index.find(u64(keys), threads).tolist() == expected

    @rule()
    def clear(self) -> None:
        self.index.clear()
        self.model.clear()
        self.next = 0

    @invariant()
    def same_items(self) -> None:
        assert len(self.index) == len(self.model)
        assert self.index.consistent()
        keys, slots = self.index.items()
        assert dict(zip(keys.tolist(), slots.tolist(), strict=True)) == self.model
        assert self.index.find(u64(list(self.model))).tolist() == list(self.model.values())
