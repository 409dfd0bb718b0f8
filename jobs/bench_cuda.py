"""The GPU as `fourfold bench device` uses it, through torch: memory, events, and limits."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fourfold.jobs.bench_session import Limits, Session
from fourfold.runtime.accelerator import Accelerator
from fourfold.runtime.device import RankDevice
from fourfold.runtime.errors import ConfigError
from fourfold.runtime.gpu import LEAST_CAPABILITY, find_facts, lacks

GIBI = 1 << 30
CACHE_BYTES = 512 << 20  # several times the L2 of any GPU
READ = 16  # floats of a random read


def check_gpu() -> None:
    """Raise ConfigError that names what is missing here, and how to get it."""
    facts = find_facts()
    missing = [str(lack) for lack in lacks(facts)]
    if not missing and facts.driver.gpus[0].capability < LEAST_CAPABILITY:
        gpu = facts.driver.gpus[0]
        have, need = (".".join(map(str, v)) for v in (gpu.capability, LEAST_CAPABILITY))
        missing = [f"compute capability {need} or more: {gpu.name} has {have}, A100 and newer do"]
    if missing:
        lines = "\n".join(f"  {lack}" for lack in missing)
        raise ConfigError(
            f"fourfold bench device measures a GPU, and cannot use one here (`fourfold env` shows"
            f" what was found)\n{lines}"
        )


@dataclass(frozen=True, slots=True)
class TorchMemory:
    """Memory that torch has taken."""

    tensor: torch.Tensor

    @property
    def address(self) -> int:
        """Of its first byte."""
        return self.tensor.data_ptr()


class CudaSession(Session):
    """The first GPU that is visible, and torch's stream of this thread.

    small: limits by smaller copies and products. Raises ConfigError as `check_gpu` does.
    """

    def __init__(self, threads: int, rounds: int, *, small: bool = False) -> None:
        check_gpu()
        gpu = Accelerator.open(RankDevice("cuda", 0))
        assert gpu is not None
        self.name = torch.cuda.get_device_name(0)
        self.device, self.stream, self.threads = gpu.storage, gpu.stream, threads
        self._torch_stream = torch.cuda.current_stream(0)
        self._scratch = torch.ones(CACHE_BYTES // 4, device="cuda")
        size, width = (GIBI // 16, 1024) if small else (2 * GIBI, 8192)
        self.limits = self._measure(size, width, rounds)

    def empty(self, num_bytes: int) -> TorchMemory:
        """Take memory of the GPU."""
        return TorchMemory(torch.empty(num_bytes, dtype=torch.uint8, device="cuda"))

    def upload(self, array: NDArray[Any]) -> TorchMemory:
        """Copy an array to the GPU."""
        plain = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        return TorchMemory(torch.from_numpy(plain).to("cuda"))

    def free_bytes(self) -> int:
        """Memory of the GPU that nobody has taken."""
        gc.collect()
        torch.cuda.empty_cache()
        return torch.cuda.mem_get_info(0)[0]

    def wait(self) -> None:
        """Return when the GPU has done all that was enqueued."""
        torch.cuda.synchronize(0)

    def lap(self, work: Callable[[], object]) -> float:
        """Seconds that the GPU takes for what `work` enqueues, caches cold."""
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        # Fills the caches with lines that need not be written back, and keeps the GPU busy until
        # the host has enqueued something.
        self._scratch.sum()
        begin.record(self._torch_stream)
        work()
        end.record(self._torch_stream)
        end.synchronize()
        return float(begin.elapsed_time(end)) / 1e3

    def _measure(self, size: int, width: int, rounds: int) -> Limits:
        source, target = (torch.ones(size, dtype=torch.uint8, device="cuda") for _ in range(2))
        pinned = torch.ones(size // 2, dtype=torch.uint8, pin_memory=True)
        half = target[: size // 2]

        def per_second(work: float, call: Callable[[int], object], turns: int = 1) -> float:
            return work / self.time(call, turns, rounds).median

        copy = per_second(2 * size, lambda _: target.copy_(source))
        to_device = per_second(size // 2, lambda _: half.copy_(pinned, non_blocking=True))
        to_host = per_second(size // 2, lambda _: pinned.copy_(half, non_blocking=True))
        products = [self._products(width, dtype) for dtype in (torch.float32, torch.bfloat16)]
        fp32, bf16 = (per_second(2 * width**3, product, 4) for product in products)
        buckets = source.view(torch.float32).view(-1, READ)
        ids = torch.randint(len(buckets), (size // 256,), device="cuda")
        picked = torch.empty(len(ids), READ, device="cuda")
        reads = per_second(len(ids), lambda _: torch.index_select(buckets, 0, ids, out=picked))
        return Limits(copy, to_device, to_host, fp32, bf16, reads)

    def _products(self, width: int, dtype: torch.dtype) -> Callable[[int], object]:
        a, b = (torch.randn(width, width, device="cuda").to(dtype) for _ in range(2))
        product = torch.empty_like(a)
        return lambda _: torch.mm(a, b, out=product)
