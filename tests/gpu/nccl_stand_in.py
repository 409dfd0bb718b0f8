"""What `fourfold.comm.nccl` asks of CuPy, over MPI and for the stand-in, whose memory MPI can read.

Names, arguments and errors are those of cupy.cuda.nccl (CuPy 14). A group moves its messages when
it ends: it waits for its stream first, as NCCL's kernels do, and for its peers.
"""

from __future__ import annotations

import ctypes
from types import ModuleType
from typing import Any

import gpu
import numpy as np
from mpi4py import MPI

from fourfold.comm import _native


class NcclError(RuntimeError):
    pass


class Nccl(ModuleType):
    """cupy.cuda.nccl. One group at a time."""

    available = True
    NCCL_UINT8, NCCL_FLOAT32, NCCL_SUM = 1, 7, 0
    NcclError = NcclError

    def __init__(self, version: int = 22707) -> None:
        super().__init__("cupy.cuda.nccl")
        self.version = version
        self.group: list[Any] | None = None
        self.channels: list[Communicator] = []
        self.device = gpu.open_device("stand-in", _native)

    def get_version(self) -> int:
        return self.version

    def get_unique_id(self) -> bytes:
        return bytes([MPI.COMM_WORLD.rank]) * 128

    def NcclCommunicator(self, ndev: int, commId: bytes, rank: int) -> Communicator:  # noqa: N802
        assert len(commId) == 128
        comm = MPI.COMM_WORLD if ndev == MPI.COMM_WORLD.size else None
        if comm is None:
            group = MPI.COMM_WORLD.group.Incl(range(commId[0], commId[0] + ndev))
            comm = MPI.COMM_WORLD.Create_group(group)
        assert comm.rank == rank
        self.channels.append(Communicator(self, comm.Dup()))
        return self.channels[-1]

    def groupStart(self) -> None:  # noqa: N802
        assert self.group is None
        self.group = []

    def groupEnd(self) -> None:  # noqa: N802
        calls, self.group = self.group, None
        requests = []
        for call, stream in calls:
            _native.Stream(self.device, stream).synchronize()
            requests.append(call())
        MPI.Request.Waitall([request for request in requests if request is not None])

    def add(self, call: Any, stream: int) -> None:
        assert self.group is not None
        self.group.append((call, stream))


class Communicator:
    def __init__(self, nccl: Nccl, comm: MPI.Comm) -> None:
        self.nccl, self.comm, self.state = nccl, comm, "open"
        self.error: Exception | None = None

    def send(self, sendbuf: int, count: int, datatype: int, peer: int, stream: int) -> None:
        self._check(datatype, Nccl.NCCL_UINT8)
        assert count > 0
        self.nccl.add(lambda: self.comm.Isend(at(sendbuf, count), peer), stream)

    def recv(self, recvbuf: int, count: int, datatype: int, peer: int, stream: int) -> None:
        self._check(datatype, Nccl.NCCL_UINT8)
        assert count > 0
        self.nccl.add(lambda: self.comm.Irecv(at(recvbuf, count), peer), stream)

    def allReduce(  # noqa: N802
        self, sendbuf: int, recvbuf: int, count: int, datatype: int, op: int, stream: int
    ) -> None:
        self._check(datatype, Nccl.NCCL_FLOAT32)
        assert sendbuf == recvbuf
        assert op == Nccl.NCCL_SUM
        values = at(recvbuf, 4 * count).view(np.float32)
        self.nccl.add(lambda: self.comm.Iallreduce(MPI.IN_PLACE, values), stream)

    def check_async_error(self) -> None:
        if self.error is not None:
            raise self.error

    def abort(self) -> None:
        self.state = "aborted"

    def destroy(self) -> None:
        assert self.state == "open"
        self.state = "destroyed"
        self.comm.Free()

    def _check(self, datatype: int, expected: int) -> None:
        assert datatype == expected
        if self.state != "open":
            raise NcclError("NCCL_ERROR_INVALID_ARGUMENT: invalid argument")


def at(address: int, num_bytes: int) -> np.ndarray:
    return np.frombuffer((ctypes.c_char * num_bytes).from_address(address), np.uint8)


def modules(nccl: Nccl, bus: str | None = None) -> dict[str, ModuleType]:
    """What to put into sys.modules. bus: of this rank's GPU; by default one of its own."""
    cupy, cuda = ModuleType("cupy"), ModuleType("cupy.cuda")

    class Device:
        def __init__(self, ordinal: int) -> None:
            self.pci_bus_id = bus or f"0000:{MPI.COMM_WORLD.rank:02X}:00.0"

        def __enter__(self) -> None: ...

        def __exit__(self, *error: object) -> None: ...

    cupy.cuda, cuda.nccl, cuda.Device = cuda, nccl, Device  # type: ignore[attr-defined]
    return {"cupy": cupy, "cupy.cuda": cuda, "cupy.cuda.nccl": nccl}
