"""A rank's GPU in use: where runtime, comm and storage meet on one."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import torch

from fourfold.runtime.device import RankDevice
from fourfold.runtime.driver import LIBRARY
from fourfold.runtime.graphs import capturing

if TYPE_CHECKING:
    from mpi4py import MPI

    from fourfold.comm._native import Device as CommDevice
    from fourfold.comm._native import Stream
    from fourfold.comm.backend import Backend
    from fourfold.comm.device import DeviceMemory
    from fourfold.storage._native import Device as StorageDevice


@dataclass(frozen=True, slots=True)
class Accelerator:
    """A GPU with its kernels, as both native cores know it, and the stream of the steps.

    All of a step is enqueued on one stream, torch's: dense model, exchange and rows need no events
    between them.
    """

    storage: StorageDevice
    """`_native.Device` of storage."""
    comm: CommDevice
    """`_native.Device` of comm."""
    stream: int
    """CUstream: what is torch's current one when this is made. Steps must run on it."""

    @classmethod
    def open(cls, device: RankDevice) -> Self | None:
        """Compile and load the kernels of a rank's GPU; None on a CPU.

        Raises ConfigError where a part is missing, DeviceError for what the driver refuses.
        """
        if device.kind == "cpu":
            return None
        from fourfold.comm import _native as comm
        from fourfold.runtime.kernels import load
        from fourfold.storage import _native as storage

        device.enter()
        kernels = load(device.ordinal)
        device.enter()  # CuPy restores what its own runtime took for the current device
        return cls(
            storage.Device(LIBRARY, device.ordinal, kernels, _relieve),
            comm.Device(LIBRARY, device.ordinal, kernels, _relieve),
            torch.cuda.current_stream(device.ordinal).cuda_stream,
        )

    def comm_stream(self) -> Stream:
        """The stream, as comm knows it."""
        from fourfold.comm._native import Stream

        return Stream(self.comm, self.stream)

    def memory(self) -> DeviceMemory:
        """Make what an exchange keeps rows and gradients in."""
        from fourfold.comm.device import DeviceMemory

        return DeviceMemory(self.comm, self.comm_stream())


def _relieve() -> None:
    """Give back the memory of GPUs that torch keeps for tensors to come."""
    with capturing:
        torch.cuda.empty_cache()


def open_backend(
    comm: MPI.Intracomm, dense_ranks: Collection[int], gpu: Accelerator | None, *, nccl: bool
) -> Backend:
    """Open channels for the memory of this rank's device. Collective.

    dense_ranks: those that all-reduce. nccl: whether all ranks speak NCCL. Otherwise messages of a
    GPU go through the host.
    """
    from fourfold.comm.mpi import MpiBackend  # starts MPI, which planning does without

    base = MpiBackend(comm, dense_ranks=dense_ranks)
    if gpu is None:
        return base
    stream = gpu.comm_stream()
    if nccl:
        from fourfold.comm.nccl import NcclBackend

        return NcclBackend(base, comm, gpu.comm, stream, dense_ranks=dense_ranks)
    from fourfold.comm.staged import StagedBackend

    return StagedBackend(base, gpu.comm, stream)
