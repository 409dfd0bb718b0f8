"""A rank whose rows and exchange are on the stand-in, and whose dense model is on the CPU.

torch knows no stand-in. So what the exchange and the dense model hand each other is copied between
host and device here, and the host waits for it; everything else is what runs with a GPU.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import gpu
import numpy as np
import torch

from fourfold.comm import _native as comm_core
from fourfold.comm.device import DeviceArray, DeviceMemory, DeviceStep
from fourfold.runtime.accelerator import Accelerator
from fourfold.runtime.device import Devices, RankDevice
from fourfold.storage import _native as storage_core

TYPES = {np.dtype(np.float32): "fp32", np.dtype(np.uint16): "bf16", np.dtype(np.float16): "fp16"}


@dataclass(frozen=True, slots=True)
class HalfGpu(RankDevice):
    """The stand-in, of which torch does not know."""

    @property
    def torch(self) -> torch.device:
        return torch.device("cpu")

    def enter(self) -> None:
        """Nothing to do."""

    def free_bytes(self) -> int:
        return 64 << 20


class CopyingStep(DeviceStep):
    """A step between arrays of the host."""

    def pool(self, route: Any, got: Any, out: Any, sequences: Sequence[Any]) -> None:
        there = [Mirror(array) for array in (out, *sequences)]
        super().pool(route, got, there[0].view, [mirror.view for mirror in there[1:]])
        for mirror in there:
            mirror.fetch()

    def spread(self, route: Any, grad: Any, sequences: Sequence[Any], sent: Any) -> None:
        there = [Mirror(array, copy=True) for array in (grad, *sequences)]
        super().spread(route, there[0].view, [mirror.view for mirror in there[1:]], sent)
        gpu.driver().synchronize()


class Mirror:
    """An array of the device in place of one of the host."""

    def __init__(self, array: np.ndarray, *, copy: bool = False) -> None:
        self.array = array
        self.there = gpu.to_device(np.ascontiguousarray(array)) if copy else self._empty()
        self.view = DeviceArray(self.there.address, array.shape, None, TYPES[array.dtype])

    def _empty(self) -> gpu.DeviceArray:
        return gpu.empty(self.array.shape, self.array.dtype)

    def fetch(self) -> None:
        self.array[...] = self.there.numpy()


class CopyingMemory(DeviceMemory):
    def step(self, router: Any) -> CopyingStep:
        return CopyingStep(router, self.device, self.stream)


class HalfAccelerator(Accelerator):
    def memory(self) -> CopyingMemory:
        return CopyingMemory(self.comm, self.comm_stream())


@functools.cache
def accelerator() -> HalfAccelerator:
    storage, comm = (gpu.open_device("stand-in", core) for core in (storage_core, comm_core))
    return HalfAccelerator(storage, comm, comm_core.Stream(comm, 0).handle)


def half_gpus(ranks: Sequence[int], size: int) -> Devices:
    """Give these ranks the stand-in, the others the CPU."""
    devices = tuple(HalfGpu("cuda") if rank in ranks else RankDevice() for rank in range(size))
    return Devices(devices, "a test")


@contextmanager
def opened() -> Iterator[None]:
    """Within this, ranks that have the stand-in open it."""

    def open_it(device: RankDevice) -> Accelerator | None:
        return accelerator() if isinstance(device, HalfGpu) else None

    with patch.object(Accelerator, "open", staticmethod(open_it)):
        yield
