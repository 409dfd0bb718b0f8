"""The key index: exact under any work; memory and probes bounded whatever keys and history."""

import os
import shutil
import subprocess
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from index_model import ABSENT, AgainstDict, Keys, key_of_hash, random_keys, u64

from fourfold.storage._native import Index

LONGEST = 60  # buckets looked at for one key; chance gives about 20 at these sizes
ROOT = Path(__file__).parents[2]


def mean_probes(index: Index) -> float:
    return index.probes()[0] / max(1, len(index))


class OnHost(AgainstDict):
    make = Index


OnHost.TestCase.settings = settings(max_examples=60, stateful_step_count=20, deadline=None)
TestAgainstDict = OnHost.TestCase


def test_growth_keeps_slots_and_bounds_memory() -> None:
    keys = random_keys(1_200_000)  # passes from 4 KiB pages to huge ones
    index = Index()
    for first in range(0, len(keys), 50_000):
        batch = keys[first : first + 50_000]
        bytes_before = index.bytes
        slots, num_new = index.insert(batch)

        assert num_new == len(batch)
        assert np.array_equal(slots, np.arange(first, first + len(batch), dtype=np.uint32))
        assert index.bytes <= 27 * len(index)
        if first >= 300_000:
            assert index.bytes <= 1.3 * bytes_before

    assert index.consistent()
    assert np.array_equal(index.find(keys), np.arange(len(keys), dtype=np.uint32))
    assert np.all(index.find(random_keys(100_000, seed=1)) == ABSENT)
    assert mean_probes(index) < 1.15
    assert index.probes()[1] < LONGEST


def test_an_empty_index_is_one_small_page() -> None:
    assert Index().bytes == 4096


def test_expected_keys_come_without_growth() -> None:
    index = Index(expected=100_000)
    bytes_before = index.bytes

    index.insert(random_keys(100_000))

    assert index.bytes == bytes_before <= 27 * 100_000


def test_endless_churn_leaves_no_trace() -> None:
    """Every key is replaced 20 times; then the index equals one that was never churned."""
    keys = random_keys(20 * 60_000 + 60_000)
    index = Index()
    index.insert(keys[:60_000])
    bytes_before = index.bytes
    for first in range(0, 20 * 60_000, 5_000):
        assert index.erase(keys[first : first + 5_000]) == 5_000
        index.insert(keys[first + 60_000 : first + 65_000])

    fresh = Index()
    fresh.insert(keys[-60_000:])

    assert index.consistent()
    assert index.bytes == bytes_before
    assert index.probes() == pytest.approx(fresh.probes(), rel=0.3)
    assert index.probes()[0] == fresh.probes()[0]


def sequential(n: int) -> Keys:
    return np.arange(n, dtype=np.uint64)


PATTERNS = {
    "sequential": sequential,
    "even": lambda n: sequential(n) * u64(2),
    "stride of 4096": lambda n: sequential(n) << u64(12),
    "stride of 2**32": lambda n: sequential(n) << u64(32),
    "high bits only": lambda n: sequential(n) << u64(47),
    "26 tables": lambda n: (sequential(n) % u64(26) << u64(58)) + sequential(n) // u64(26),
    "multiples of the golden ratio": lambda n: sequential(n) * u64(0x9E3779B97F4A7C15),
    "complement": lambda n: ~sequential(n),
    "one bucket of 64": lambda n: (x := sequential(64 * n))[splitmix(x) >> u64(58) == u64(5)],
}


def splitmix(x: Keys) -> Keys:
    """Hash as dynamic tables do to choose the bucket of an id."""
    x = x + u64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> u64(30))) * u64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> u64(27))) * u64(0x94D049BB133111EB)
    return x ^ (x >> u64(31))


@pytest.mark.parametrize("pattern", PATTERNS)
def test_skewed_keys_spread_like_random_ones(pattern: str) -> None:
    keys = PATTERNS[pattern](100_000)
    index = Index()
    longest = 0
    for first in range(0, len(keys), 20_000):
        index.insert(keys[first : first + 20_000])
        longest = max(longest, index.probes()[1])
    assert mean_probes(index) < 1.15
    assert longest < LONGEST


@pytest.mark.parametrize("hash_from", [0, 2**63, 2**64 - 3000], ids=["first", "middle", "last"])
def test_keys_crafted_for_one_bucket_are_slow_but_exact(hash_from: int) -> None:
    keys = key_of_hash(u64(hash_from) + sequential(3000))
    index = Index()

    slots, _ = index.insert(keys)

    assert index.probes()[1] >= 3000 // 5  # they do meet, and past the last bucket if it is theirs
    assert index.consistent()
    assert np.array_equal(index.find(keys), slots)
    index.insert(random_keys(30_000))
    assert index.erase(keys[:1500]) == 1500
    assert index.consistent()
    assert np.array_equal(index.find(keys[1500:]), slots[1500:])


def test_keys_in_the_order_of_another_index_do_not_pile_up() -> None:
    """Reading a checkpoint does this: half-way, every key must still be near its home."""
    source = Index()
    source.insert(random_keys(200_000))
    keys, slots = source.items()
    index = Index()
    for first in range(0, len(keys), 10_000):
        index.insert(keys[first : first + 10_000])
        assert index.probes()[1] < LONGEST
    assert np.array_equal(np.sort(slots), np.arange(len(keys), dtype=np.uint32))


def test_keys_erased_in_scan_order_leave_even_room() -> None:
    index = Index()
    index.insert(random_keys(200_000))
    keys, _ = index.items()

    index.erase(keys[:150_000])
    index.insert(random_keys(150_000, seed=1))

    assert mean_probes(index) < 1.3
    assert index.probes()[1] < LONGEST


@pytest.mark.parametrize("threads", [2, 3])
def test_threads_change_nothing(threads: int) -> None:
    rng = np.random.default_rng(0)
    one, several = Index(), Index()
    for _ in range(4):
        batch = rng.integers(0, 60_000, 50_000, dtype=np.uint64)  # many duplicates and hits
        expected, num_expected = one.insert(batch)
        slots, num_new = several.insert(batch, threads=threads)

        assert num_new == num_expected
        assert np.array_equal(slots, expected)
        assert np.array_equal(several.find(batch, threads), one.find(batch))


def test_finds_may_run_at_the_same_time() -> None:
    keys = random_keys(200_000)
    index = Index()
    index.insert(keys[:150_000])
    expected = index.find(keys)
    wrong: list[int] = []

    def search() -> None:
        out = np.empty(len(keys), dtype=np.uint32)
        for _ in range(5):
            index.find(keys, 2, out=out)
            wrong.append(int(np.count_nonzero(out != expected)))

    searchers = [threading.Thread(target=search) for _ in range(2)]
    for searcher in searchers:
        searcher.start()
    for searcher in searchers:
        searcher.join()
    assert wrong == [0] * 10


def test_wrong_arguments_are_refused() -> None:
    index = Index()
    with pytest.raises(TypeError, match="incompatible function arguments"):
        index.insert(np.arange(3))  # int64: a negative id must not become a key silently
    with pytest.raises(TypeError, match="incompatible function arguments"):
        index.find(np.zeros((2, 2), dtype=np.uint64))
    with pytest.raises(ValueError, match="as many elements"):
        index.find(u64([1, 2]), 1, out=np.zeros(1, dtype=np.uint32))
    with pytest.raises(ValueError, match="expected must be below"):
        Index(expected=2**32)
    assert index.insert(u64([]))[1] == 0
    assert len(index) == 0


def test_stress_under_sanitizers(tmp_path: Path) -> None:
    """The same index compiled without vector instructions, with address and undefined checks."""
    compiler = os.environ.get("CXX") or shutil.which("c++")
    if compiler is None:
        pytest.skip("no C++ compiler")
    native, program = ROOT / "storage" / "native", tmp_path / "stress"
    flags = ["-std=gnu++20", "-O1", "-g", "-pthread", f"-I{native}"]
    sanitize = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    sources = [str(Path(__file__).with_name("index_stress.cpp")), str(native / "index.cpp")]
    subprocess.run([compiler, *flags, *sanitize, *sources, "-o", str(program)], check=True)

    subprocess.run([str(program), "30"], check=True)
