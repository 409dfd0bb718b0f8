"""The stand-in as a device that benchmarks run on, with a clock of the host and limits made up."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import gpu
import numpy as np
from numpy.typing import NDArray

from fourfold.jobs.bench_session import Limits, Session
from fourfold.storage import _native

LIMITS = Limits(copy=2e9, to_device=3e9, to_host=5e9, fp32=7e9, bf16=11e9, random_reads=13e6)


class StandIn(Session):
    """The stand-in, and a clock of the host."""

    def __init__(self, free: int = 1 << 40) -> None:
        self.name, self.stream, self.threads, self.limits = "stand-in", 0, 2, LIMITS
        self.device = gpu.open_device("stand-in", _native)
        self._free = free

    def empty(self, num_bytes: int) -> gpu.DeviceArray:
        return gpu.empty(num_bytes, np.uint8)

    def upload(self, array: NDArray[Any]) -> gpu.DeviceArray:
        return gpu.to_device(array)

    def free_bytes(self) -> int:
        return self._free

    def wait(self) -> None:
        gpu.driver().synchronize()

    def lap(self, work: Callable[[], object]) -> float:
        self.wait()
        begin = time.perf_counter()
        work()
        self.wait()
        return time.perf_counter() - begin
