"""Arrays, backends and exchanges of a rank whose memory is a GPU's, or whose neighbour's is."""

from __future__ import annotations

from typing import Any

import gpu
import numpy as np
from mpi4py import MPI
from oracle import HOST, ID_BITS, HostSide

from fourfold.comm import _native
from fourfold.comm.backend import Backend
from fourfold.comm.device import DeviceArray, DeviceMemory
from fourfold.comm.exchange import Exchange
from fourfold.comm.mpi import MpiBackend
from fourfold.comm.placement import Placement
from fourfold.comm.route import Feature
from fourfold.comm.staged import StagedBackend


class DeviceSide(HostSide):
    """Arrays in the memory of a device."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.device = gpu.open_device(name, _native)
        self.stream = _native.Stream(self.device)
        self.memory = DeviceMemory(self.device, self.stream)

    def place(self, array: np.ndarray) -> Any:
        return Placed(gpu.to_device(array, self.name))

    def columns(self, placed: Any, stop: int) -> Any:
        return placed.columns(stop)

    def fetch(self, placed: Any) -> np.ndarray:
        return placed.array.numpy()

    def write(self, address: int, rows: np.ndarray, wire: str) -> None:
        self.stream.copy_in(address, np.ascontiguousarray(rows))
        self.stream.synchronize()

    def read(self, address: int, count: int, width: int, wire: str) -> np.ndarray:
        dtype = {"fp32": np.float32, "bf16": np.uint16, "fp16": np.float16}[wire]
        rows = np.empty((count, width), dtype)
        self.stream.copy_out(rows, address)
        self.stream.synchronize()
        return rows


class Placed:
    """An array of the device, as others show theirs."""

    def __init__(self, array: gpu.DeviceArray, stop: int | None = None) -> None:
        self.array, self.stop = array, stop

    def columns(self, stop: int) -> Placed:
        return Placed(self.array, stop)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        rows, columns = self.array.shape
        size = self.array.dtype.itemsize
        return {
            "data": (self.array.address, False),
            "shape": (rows, columns if self.stop is None else self.stop),
            "strides": (columns * size, size),
            "typestr": self.array.dtype.str,
            "version": 3,
        }


class World:
    """Backends over the same ranks, for either kind of memory."""

    def __init__(self, side: DeviceSide) -> None:
        self.mpi = MpiBackend(MPI.COMM_WORLD)
        self.staged = StagedBackend(self.mpi, side.device, side.stream)
        self.side = side

    def pick(self, where: str) -> tuple[Backend, HostSide, Any]:
        """Backend, arrays and memory of this rank: "host", "device", every other one if "mixed"."""
        if where == "host" or (where == "mixed" and self.mpi.rank % 2 == 0):
            return self.mpi, HOST, None
        return self.staged, self.side, self.side.memory


def replies_of(features: list[Feature], reply: str) -> tuple[str, ...]:
    sequence = {f.table for f in features if f.pooling == "none"}
    return tuple("rows" if t in sequence else reply for t in range(3))


def exchange_of(
    backend: Backend, placement: Placement, features: list[Feature], reply: str, **options: Any
) -> Exchange:
    replies: Any = replies_of(features, reply)
    return Exchange(
        backend, placement, features, replies=replies, id_bits=(ID_BITS,) * 3, **options
    )


def columns_from(side: HostSide, placed: Any, start: int) -> Any:
    """The columns of a matrix from `start` on."""
    if not isinstance(side, DeviceSide):
        return placed[:, start:]
    rows, columns = placed.array.shape
    size = placed.array.dtype.itemsize
    return DeviceArray(
        placed.array.address + start * size, (rows, columns - start), (columns * size, size)
    )
