"""The NCCL backend: when bytes travel, whom it refuses, and how it ends when a rank is stuck.

NCCL itself runs where there are GPUs. Elsewhere its calls go to nccl_stand_in.py.
"""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path
from typing import Any

import gpu
import nccl_stand_in
import numpy as np
import pytest
from mpi4py import MPI
from ranks import run_ranks
from step_blocks import counts_of, sides_of

from fourfold.comm import _native
from fourfold.comm.backend import Blocks
from fourfold.comm.device import DeviceArray, DeviceBytes
from fourfold.comm.errors import CommError
from fourfold.comm.mpi import MpiBackend
from fourfold.comm.nccl import NcclBackend
from fourfold.comm.nccl_channels import check_gpus

WORLD = MPI.COMM_WORLD


@pytest.mark.parametrize(
    ("gpus", "version", "environ", "fine"),
    [
        (["a 1", "a 2", "b 1"], 22707, {}, True),
        (["a 1", "a 2", "a 1"], 22707, {"NCCL_MULTI_RANK_GPU_ENABLE": "1"}, False),
        (["a 1", "a 2", "a 1"], 23000, {}, False),
        (["a 1", "a 2", "a 1"], 23000, {"NCCL_MULTI_RANK_GPU_ENABLE": "1"}, True),
    ],
)
def test_shared_gpus(gpus: list[str], version: int, environ: dict[str, str], fine: bool) -> None:
    if fine:
        check_gpus(gpus, version, environ)
        return
    with pytest.raises(
        CommError, match=r"ranks 0, 2 share one GPU \(a 1\).*NCCL 2\.\d+\.\d+ wants"
    ):
        check_gpus(gpus, version, environ)


@pytest.fixture
def raised(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Exceptions that leave threads."""
    found: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", lambda args: found.append(args.exc_value))
    return found


@pytest.fixture
def nccl(monkeypatch: pytest.MonkeyPatch) -> nccl_stand_in.Nccl:
    nccl = nccl_stand_in.Nccl()
    for name, module in nccl_stand_in.modules(nccl).items():
        monkeypatch.setitem(sys.modules, name, module)
    return nccl


@pytest.fixture
def device() -> Any:
    return gpu.open_device("stand-in", _native)


def backend_of(device: Any, **options: Any) -> NcclBackend:
    return NcclBackend(MpiBackend(WORLD), WORLD, device, _native.Stream(device), **options)


def on_device(blocks: Blocks, array: gpu.DeviceArray) -> Blocks:
    return Blocks(DeviceBytes(array.address, array.nbytes), blocks.counts, blocks.starts)


@pytest.mark.mpi
@pytest.mark.parametrize("seed", range(3))
def test_step(nccl: nccl_stand_in.Nccl, device: Any, seed: int) -> None:
    """The same bytes as over MPI, and only after what was enqueued before."""
    sent, got = sides_of(counts_of(WORLD.size, seed), WORLD.rank, gap=1)
    sent.memory[:] = np.random.default_rng(WORLD.rank).integers(0, 256, sent.memory.size)
    stream = _native.Stream(device)
    there = gpu.empty(sent.memory.size, np.uint8), gpu.empty(got.memory.size, np.uint8)
    with (
        NcclBackend(MpiBackend(WORLD), WORLD, device, stream) as backend,
        gpu.shaken(seed, delay_us=2000),
    ):
        if got.memory.size:
            there[1].write(got.memory)
        if sent.memory.size:
            stream.copy_in(there[0].address, sent.memory)
        backend.step(on_device(sent, there[0]), on_device(got, there[1]))
        found = there[1].numpy()
    with MpiBackend(WORLD) as mpi:
        mpi.step(sent, got)
    np.testing.assert_array_equal(found, got.memory)
    assert [channel.state for channel in nccl.channels] == ["destroyed"] * 2


@pytest.mark.mpi
def test_allreduce_over_the_dense_ranks(nccl: nccl_stand_in.Nccl, device: Any) -> None:
    dense = range(max(1, WORLD.size - 1))
    with backend_of(device, dense_ranks=dense) as backend:
        array = gpu.to_device(np.full(1000, WORLD.rank + 1, np.float32))
        given = DeviceArray(array.address, (10, 100))
        if WORLD.rank not in dense:
            with pytest.raises(ValueError, match=f"rank {WORLD.rank} is not one of the dense"):
                backend.start_allreduce(given)
            return
        reduction = backend.start_allreduce(given)
        reduction.wait()
        assert (array.numpy() == sum(rank + 1 for rank in dense)).all()
        assert reduction.test()
        with pytest.raises(ValueError, match="expected a contiguous float32 array"):
            backend.start_allreduce(DeviceArray(array.address, (10, 50), (400, 4)))


@pytest.mark.mpi
def test_two_ranks_on_one_gpu(device: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    if WORLD.size == 1:
        pytest.skip("one rank shares with nobody")
    modules = nccl_stand_in.modules(nccl_stand_in.Nccl(), bus="0000:01:00.0")
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    with pytest.raises(CommError, match=r"ranks 0, 1.* share one GPU \(.* 0000:01:00.0\)"):
        backend_of(device)


@pytest.mark.mpi
def test_nccl_missing_on_one_rank(
    nccl: nccl_stand_in.Nccl, device: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All ranks say which one lacks what."""
    missing = WORLD.size - 1
    if WORLD.rank == missing:
        monkeypatch.setattr(nccl, "available", False)
    with pytest.raises(CommError, match=rf"rank {missing}: CuPy finds no NCCL: pip install"):
        backend_of(device)
    if WORLD.rank == missing:
        monkeypatch.setitem(sys.modules, "cupy.cuda.nccl", None)
        monkeypatch.setitem(sys.modules, "cupy.cuda", None)
        monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(CommError, match=rf"rank {missing}: NCCL is reached through CuPy, which"):
        backend_of(device)


@pytest.mark.mpi
def test_a_rank_that_never_comes(nccl: nccl_stand_in.Nccl, device: Any, raised: list[Any]) -> None:
    """The channels are aborted while the host waits in NCCL; then every call says why."""
    stream = _native.Stream(device)
    backend = NcclBackend(MpiBackend(WORLD), WORLD, device, stream, patience=0.2)
    aborted = threading.Event()
    for channel in nccl.channels:
        channel.abort = aborted.set  # type: ignore[method-assign]

    def wait_for_a_dead_rank() -> None:
        nccl.group = None
        assert aborted.wait(30)
        raise nccl_stand_in.NcclError("NCCL_ERROR_INTERNAL_ERROR: internal error")

    nccl.groupEnd = wait_for_a_dead_rank  # type: ignore[method-assign]
    array = gpu.to_device(np.zeros(16, np.float32))
    started = time.monotonic()
    with pytest.raises(CommError, match=r"all-reduce of 64 bytes has not ended within 0\.2 s"):
        backend.start_allreduce(DeviceArray(array.address, (16,)))
    assert time.monotonic() - started < 20
    assert [type(error) for error in raised] == [CommError]


def test_a_stuck_rank_ends_the_run() -> None:
    gpu.build()
    here = Path(__file__).parent
    program = (
        f"import sys, runpy; sys.path.insert(0, {str(here)!r});"
        f" runpy.run_path({str(here / 'stuck_rank.py')!r}, run_name='__main__')"
    )
    ended = run_ranks(2, "-c", program)

    assert ended.last_line.startswith("[rank 0/2 ")
    assert (
        "CommError: rank 0: all-reduce of 64 bytes has not ended within 0.5 sec" in ended.last_line
    )
    assert ended.code != 0
    assert ended.seconds < 40


@pytest.mark.mpi
def test_an_error_without_the_watchdog(nccl: nccl_stand_in.Nccl, device: Any) -> None:
    with backend_of(device) as backend:
        state, nccl.channels[-1].state = nccl.channels[-1].state, "broken"
        array = gpu.to_device(np.zeros(16, np.float32))
        with pytest.raises(
            CommError, match=rf"rank {WORLD.rank}: all-reduce of 64 bytes failed: NC"
        ):
            backend.start_allreduce(DeviceArray(array.address, (16,)))
        nccl.channels[-1].state = state


@pytest.fixture
def real() -> Any:
    """A GPU of this rank's own."""
    if "cuda" not in gpu.devices():
        pytest.skip("no GPU, or no CuPy")
    from cupy.cuda import nccl

    if not nccl.available:
        pytest.skip("CuPy finds no NCCL")
    import torch

    if torch.cuda.device_count() < WORLD.size:
        pytest.skip("fewer GPUs than ranks")
    return gpu.open_device("cuda", _native, WORLD.rank)


@pytest.mark.mpi
def test_real_step_and_allreduce(real: Any) -> None:
    """NCCL itself: what the tests above say of the stand-in."""
    import torch

    torch.cuda.set_device(WORLD.rank)
    sent, got = sides_of(
        counts_of(WORLD.size, 1) + 1 - np.eye(WORLD.size, dtype=np.int64), WORLD.rank
    )
    sent.memory[:] = np.random.default_rng(WORLD.rank).integers(0, 256, sent.memory.size)
    there = (
        torch.from_numpy(sent.memory).cuda(),
        torch.zeros(got.memory.size + 1, dtype=torch.uint8).cuda(),
    )
    values = torch.full((1000,), float(WORLD.rank + 1)).cuda()
    torch.cuda.synchronize()
    stream = _native.Stream(real, torch.cuda.current_stream().cuda_stream)
    with NcclBackend(MpiBackend(WORLD), WORLD, real, stream) as backend:
        memories = [DeviceBytes(t.data_ptr(), t.numel()) for t in there]
        backend.step(
            Blocks(memories[0], sent.counts, sent.starts),
            Blocks(memories[1], got.counts, got.starts),
        )
        backend.start_allreduce(DeviceArray(values.data_ptr(), (1000,))).wait()
        torch.cuda.synchronize()
    with MpiBackend(WORLD) as mpi:
        mpi.step(sent, got)
    np.testing.assert_array_equal(there[1].cpu().numpy()[:-1], got.memory)
    assert (values.cpu() == sum(range(1, WORLD.size + 1))).all()
