"""What the parts of `fourfold bench device` need of a GPU: memory, a clock, and its limits.

A session is a GPU (bench_cuda.py), or whatever stands in for one in tests. All that is measured is
enqueued on its stream, and timed there.
"""

from __future__ import annotations

import statistics
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fourfold.storage import _native

Call = Callable[[int], object]
"""Enqueues the work of one turn; different turns work on different data."""

WARM_UP = 2  # rounds before those that count


class Memory(Protocol):
    """Memory of the device, kept while this is."""

    @property
    def address(self) -> int:
        """Of its first byte."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What the machine can do at best, per second."""

    copy: float
    """Bytes that a copy in the GPU's memory reads and writes, together."""
    to_device: float
    """Bytes from pinned host memory to the GPU,"""
    to_host: float
    """and back."""
    fp32: float
    """Floating point operations of a matrix product,"""
    bf16: float
    """and of one of bf16 numbers."""
    random_reads: float
    """Pieces of 64 bytes read at random and written in order: what a bucket of an index is."""

    def figures(self) -> dict[str, float]:
        """The same for people."""
        return {
            "copy_gbps": self.copy / 1e9,
            "to_device_gbps": self.to_device / 1e9,
            "to_host_gbps": self.to_host / 1e9,
            "fp32_tflops": self.fp32 / 1e12,
            "bf16_tflops": self.bf16 / 1e12,
            "random_reads_per_us": self.random_reads / 1e6,
        }


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds per call."""

    median: float
    best: float
    host: float
    """Of the host, to enqueue it (median). Where it is not below `median`, the host is the limit
    and not the GPU."""


class Session(ABC):
    """A device with its kernels, and the stream that everything runs on."""

    name: str
    device: _native.Device
    stream: int
    """CUstream."""
    threads: int
    """Of the host, for plans."""
    limits: Limits

    @abstractmethod
    def empty(self, num_bytes: int) -> Memory:
        """Take memory of the device."""

    @abstractmethod
    def upload(self, array: NDArray[Any]) -> Memory:
        """Copy an array to the device."""

    @abstractmethod
    def free_bytes(self) -> int:
        """Memory of the device that nobody has taken."""

    @abstractmethod
    def wait(self) -> None:
        """Return when the device has done all that was enqueued."""

    @abstractmethod
    def lap(self, work: Callable[[], object]) -> float:
        """Seconds that the device takes for what `work` enqueues, caches cold."""

    def time(self, call: Call, turns: int, rounds: int) -> Timing:
        """Time `turns` calls in a row, `rounds` times after a warm-up.

        In a row, because what the last call leaves in a cache, unwritten, is not timed: together
        they must move far more than a cache holds.
        """
        host: list[float] = []

        def all_turns() -> None:
            begin = time.perf_counter()
            for turn in range(turns):
                call(turn)
            host.append((time.perf_counter() - begin) / turns)

        laps = [self.lap(all_turns) / turns for _ in range(WARM_UP + rounds)][WARM_UP:]
        return Timing(statistics.median(laps), min(laps), statistics.median(host[WARM_UP:]))


def random_rows(rows: int, width: int, wire: str) -> NDArray[Any]:
    """Draw small normal numbers (rows, width), of type "fp32" or "fp16"."""
    values = np.random.default_rng(9).standard_normal((rows, width), np.float32)
    values *= np.float32(1e-3)
    return values if wire == "fp32" else values.astype(np.float16)
