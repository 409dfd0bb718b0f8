"""Rank 0 waits in NCCL for rank 1, which never comes; only the watchdog can end them."""

import sys
import threading

import gpu
import nccl_stand_in
from mpi4py import MPI

from fourfold.comm import _native
from fourfold.comm.device import DeviceArray
from fourfold.comm.mpi import MpiBackend
from fourfold.comm.nccl import NcclBackend
from fourfold.launch.failure import run_guarded


def job() -> int:
    nccl = nccl_stand_in.Nccl()
    sys.modules.update(nccl_stand_in.modules(nccl))
    device = gpu.open_device("stand-in", _native)
    patience = 0.5 if MPI.COMM_WORLD.rank == 0 else 600.0
    backend = NcclBackend(
        MpiBackend(MPI.COMM_WORLD),
        MPI.COMM_WORLD,
        device,
        _native.Stream(device),
        patience=patience,
    )
    if MPI.COMM_WORLD.rank == 1:
        threading.Event().wait()
    nccl.groupEnd = threading.Event().wait  # type: ignore[assignment]
    backend.start_allreduce(DeviceArray(gpu.empty(16, "f4").address, (16,)))
    return 0


sys.exit(run_guarded(job))
