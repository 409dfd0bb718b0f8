"""The index part of `fourfold bench store`: batched finds, and growth, against linear probing.

The reference is what the machine allows: linear probing over 16-byte cells at load 0.6 with batched
prefetch (storage/native/bench_index.cpp), built once for exactly these keys. The index
has grown from empty. Both take turns on the same keys, 90% of them present, in one process; every
answer of one is compared with the other's.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fourfold.storage._native import Index, LinearProbing

Keys = NDArray[np.uint64]

FIND_BATCH = 1_000_000
INSERT_BATCH = 50_000  # new keys in one call: more than a training step brings
QUERIES = 8  # different batches
HIT_RATE = 0.9
ZIPF = 1.05
BYTES_PER_KEY = 2 * 27  # of both maps, for the memory check


@dataclass(frozen=True, slots=True)
class Growth:
    """Growing from empty, INSERT_BATCH new keys at a time; milliseconds per batch."""

    num_keys: int
    keys_per_s: float
    median_ms: float
    p99_ms: float
    longest_ms: float
    most_bytes_per_key: float  # at any time from a tenth of the keys on
    mean_probes: float  # buckets looked at to find a present key
    most_probes: int


@dataclass(frozen=True, slots=True)
class Find:
    """Finding FIND_BATCH keys; keys per second, from the median and from the best round."""

    num_keys: int
    keys: str  # "uniform" or "zipf"
    threads: int
    index_keys_per_s: float
    index_best: float
    probing_keys_per_s: float
    probing_best: float
    index_bytes_per_key: float
    probing_bytes_per_key: float
    wrong: int

    @property
    def ratio(self) -> float:
        """Median of the index over median of the reference; above 1 the index is faster."""
        return self.index_keys_per_s / self.probing_keys_per_s


def key_of(number: Keys) -> Keys:
    """Turn 0, 1, 2, ... into keys without a pattern; never 0, which the reference cannot hold."""
    x = number + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return (x ^ (x >> np.uint64(31))) | np.uint64(1)


def draw_queries(num_keys: int, skewed: bool, rng: np.random.Generator) -> list[Keys]:
    """Draw QUERIES batches (FIND_BATCH,): uniform, or Zipf with the popular keys spread out."""
    queries = []
    for _ in range(QUERIES):
        if skewed:
            power = 1 - ZIPF
            draw = 1 + rng.random(FIND_BATCH) * (float(num_keys) ** power - 1)
            rank = np.minimum(draw ** (1 / power) - 1, num_keys - 1).astype(np.uint64)
            number = (rank * np.uint64(2654435761) + np.uint64(12345)) % np.uint64(num_keys)
        else:
            number = rng.integers(0, num_keys, FIND_BATCH, dtype=np.uint64)
        number[rng.random(FIND_BATCH) > HIT_RATE] += np.uint64(num_keys)
        queries.append(key_of(number))
    return queries


def grow(num_keys: int) -> tuple[Index, Growth]:
    """Fill an empty index."""
    index = Index()
    seconds, bytes_per_key = [], 0.0
    for first in range(0, num_keys, INSERT_BATCH):
        last = min(first + INSERT_BATCH, num_keys)
        keys = key_of(np.arange(first, last, dtype=np.uint64))
        start = time.perf_counter()
        index.insert(keys)
        seconds.append(time.perf_counter() - start)
        if last >= num_keys // 10:
            bytes_per_key = max(bytes_per_key, index.bytes / last)
    probes, most_probes = index.probes()
    median, p99 = np.quantile(seconds, [0.5, 0.99])
    return index, Growth(
        num_keys=num_keys,
        keys_per_s=num_keys / sum(seconds),
        median_ms=float(median) * 1e3,
        p99_ms=float(p99) * 1e3,
        longest_ms=max(seconds) * 1e3,
        most_bytes_per_key=bytes_per_key,
        mean_probes=probes / num_keys,
        most_probes=most_probes,
    )


def fill_probing(num_keys: int) -> LinearProbing:
    """Build the reference over the same keys and slots."""
    probing = LinearProbing(num_keys)
    for first in range(0, num_keys, FIND_BATCH):
        last = min(first + FIND_BATCH, num_keys)
        probing.insert(key_of(np.arange(first, last, dtype=np.uint64)), first)
    return probing


def compare(
    index: Index, probing: LinearProbing, queries: list[Keys], threads: int, rounds: int
) -> tuple[list[float], list[float], int]:
    """Let both find the same batches in turns: seconds of each, and how many answers differ."""
    ours = np.empty(FIND_BATCH, dtype=np.uint32)
    reference = np.empty(FIND_BATCH, dtype=np.uint32)
    seconds: tuple[list[float], list[float]] = ([], [])
    wrong = 0

    def timed(call: Callable[[], object]) -> float:
        start = time.perf_counter()
        call()
        return time.perf_counter() - start

    for turn in range(rounds + 2):
        keys = queries[turn % len(queries)]
        in_index = timed(lambda: index.find(keys, threads, out=ours))  # noqa: B023
        in_probing = timed(lambda: probing.find(keys, threads, reference))  # noqa: B023
        wrong += int(np.count_nonzero(ours != reference))
        if turn >= 2:  # the first two warm up
            seconds[0].append(in_index)
            seconds[1].append(in_probing)
    return *seconds, wrong


def measure(
    num_keys: int, threads: Sequence[int] = (1, 2), rounds: int = 15, seed: int = 5
) -> tuple[Growth, list[Find]]:
    """Measure one size: growth, and finds with uniform and Zipf keys. Takes 54 bytes per key."""
    index, growth = grow(num_keys)
    probing = fill_probing(num_keys)
    rng = np.random.default_rng(seed)
    finds = []
    for name in ("uniform", "zipf"):
        queries = draw_queries(num_keys, name == "zipf", rng)
        for count in threads:
            ours, reference, wrong = compare(index, probing, queries, count, rounds)
            finds.append(
                Find(
                    num_keys=num_keys,
                    keys=name,
                    threads=count,
                    index_keys_per_s=FIND_BATCH / float(np.median(ours)),
                    index_best=FIND_BATCH / min(ours),
                    probing_keys_per_s=FIND_BATCH / float(np.median(reference)),
                    probing_best=FIND_BATCH / min(reference),
                    index_bytes_per_key=index.bytes / num_keys,
                    probing_bytes_per_key=probing.bytes / num_keys,
                    wrong=wrong,
                )
            )
    return growth, finds


def print_growth(growth: Growth) -> None:
    """Print one size as two lines."""
    print(
        f"{growth.num_keys:,} keys grown from empty, {INSERT_BATCH:,} a batch: "
        f"{growth.keys_per_s / 1e6:.1f} M keys/s, {growth.median_ms:.2f} ms a batch (99% below "
        f"{growth.p99_ms:.2f}, longest {growth.longest_ms:.2f})\n"
        f"at most {growth.most_bytes_per_key:.1f} bytes per key; {growth.mean_probes:.3f} buckets "
        f"per present key, most {growth.most_probes}"
    )


def print_finds(finds: list[Find]) -> None:
    """Print one line per way to find, below a head."""
    print(
        f"{'keys':>12} {'drawn':>8} {'threads':>8} {'index M/s':>10} {'(best)':>8} "
        f"{'probing M/s':>12} {'(best)':>8} {'ratio':>6} {'index B':>8} {'probing B':>10} "
        f"{'wrong':>6}"
    )
    for find in finds:
        print(
            f"{find.num_keys:12,} {find.keys:>8} {find.threads:8} "
            f"{find.index_keys_per_s / 1e6:10.1f} {find.index_best / 1e6:8.1f} "
            f"{find.probing_keys_per_s / 1e6:12.1f} {find.probing_best / 1e6:8.1f} "
            f"{find.ratio:6.2f} {find.index_bytes_per_key:8.1f} {find.probing_bytes_per_key:10.1f} "
            f"{find.wrong:6}"
        )


def free_memory() -> int:
    """Bytes that the system says it can give out, page cache included."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def run(
    *,
    num_keys: Sequence[int] = (10_000_000,),
    threads: Sequence[int] = (1, 2),
    rounds: int = 15,
    as_json: bool = False,
) -> int:
    """Measure and print every size that fits in memory; 1 if an answer was wrong, else 0."""
    wrong = 0
    for size in num_keys:
        needed, free = size * BYTES_PER_KEY * 1.1, free_memory()
        if free < needed:
            print(
                f"{size:,} keys: not measured, because {needed / 2**30:.1f} GiB are needed and "
                f"{free / 2**30:.1f} GiB are free",
                file=sys.stderr,
            )
            continue
        growth, finds = measure(size, threads, rounds)
        wrong += sum(find.wrong for find in finds)
        if as_json:
            records = [asdict(find) | {"ratio": find.ratio} for find in finds]
            print(json.dumps({"index": {"growth": asdict(growth), "find": records}}))
        else:
            print_growth(growth)
            print_finds(finds)
    return 1 if wrong else 0
