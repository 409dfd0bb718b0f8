"""What a world needs to speak NCCL, settled over MPI: the library, GPUs of its own, channels.

NCCL comes through CuPy. Nothing here is imported or asked for before a backend is made.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Collection, Sequence
from typing import Any

from mpi4py import MPI

from fourfold.comm.errors import CommError

SHARED_GPU_VERSION = 23000
"""NCCL 2.30 lets ranks share a GPU, if NCCL_MULTI_RANK_GPU_ENABLE=1."""

OTHERWISE = "; or exchange through the host's memory (StagedBackend)"


def find_nccl() -> Any:
    """Import NCCL. Raises CommError that says what to install."""
    try:
        import cupy.cuda.nccl as nccl
    except ImportError as error:
        raise CommError(
            f"NCCL is reached through CuPy, which cannot be imported ({error}): pip install"
            f" cupy-cuda13x (or cupy-cuda12x, as the driver has it){OTHERWISE}",
            op="NCCL",
        ) from error
    if not nccl.available:
        raise CommError(
            "CuPy finds no NCCL: pip install nvidia-nccl-cu13 (or nvidia-nccl-cu12, as CuPy was"
            f" built){OTHERWISE}",
            op="NCCL",
        )
    return nccl


def name_gpu(ordinal: int) -> str:
    """Name a GPU of this host, the same for all processes on it."""
    import cupy

    return f"{socket.gethostname()} {cupy.cuda.Device(ordinal).pci_bus_id}"


def check_gpus(
    gpus: Sequence[str], version: int, environ: dict[str, str] | os._Environ[str]
) -> None:
    """Raise CommError if two ranks have one GPU and NCCL does not take that. gpus: by rank."""
    ranks: dict[str, list[int]] = {}
    for rank, gpu in enumerate(gpus):
        ranks.setdefault(gpu, []).append(rank)
    shared = {gpu: among for gpu, among in ranks.items() if len(among) > 1}
    allowed = environ.get("NCCL_MULTI_RANK_GPU_ENABLE") == "1"
    if not shared or (version >= SHARED_GPU_VERSION and allowed):
        return
    gpu, among = next(iter(shared.items()))
    raise CommError(
        f"ranks {', '.join(map(str, among))} share one GPU ({gpu}). NCCL"
        f" {show_version(version)} wants a GPU for each rank: start fewer ranks per host, or use"
        f" NCCL 2.30 or newer with NCCL_MULTI_RANK_GPU_ENABLE=1{OTHERWISE}",
        op="NCCL",
    )


def show_version(version: int) -> str:
    """Write NCCL's number of a version as people do."""
    return f"{version // 10000}.{version % 10000 // 100}.{version % 100}"


def agree_on_nccl(world: MPI.Comm, ordinal: int) -> Any:
    """Find NCCL on all ranks, and a GPU for each; raise on all what one lacks. Collective."""
    problem, version, gpu, nccl = "", 0, "", None
    try:
        nccl = find_nccl()
        version, gpu = nccl.get_version(), name_gpu(ordinal)
    except Exception as error:  # whatever it is, the other ranks must hear of it
        problem = (
            f"{type(error).__name__}: {error}" if not isinstance(error, CommError) else str(error)
        )
    told: list[tuple[str, int, str]] = world.allgather((problem, version, gpu))
    for rank, (theirs, _, _) in enumerate(told):
        if theirs:
            raise CommError(f"rank {rank}: {theirs}", op="NCCL", peer=rank)
    check_gpus([gpu for _, _, gpu in told], min(version for _, version, _ in told), os.environ)
    return nccl


def open_channel(nccl: Any, world: MPI.Comm, members: Collection[int], ordinal: int) -> Any:
    """Make a communicator of `members`; None on other ranks. Collective over `world`.

    members: ascending.
    """
    import cupy

    members = tuple(members)
    name = world.bcast(nccl.get_unique_id() if world.rank == members[0] else None, members[0])
    if world.rank not in members:
        return None
    with cupy.cuda.Device(ordinal):
        return nccl.NcclCommunicator(len(members), name, members.index(world.rank))
