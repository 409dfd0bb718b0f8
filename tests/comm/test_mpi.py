"""The MPI backend: channels, all-reduce, large counts, and errors that say what failed."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from mpi4py import MPI

from fourfold.comm.backend import BLOCK, Blocks
from fourfold.comm.errors import CommError
from fourfold.comm.mpi import MAX_BLOCKS, MpiBackend

pytestmark = pytest.mark.mpi


@pytest.fixture
def backend() -> Iterator[MpiBackend]:
    with MpiBackend(MPI.COMM_WORLD) as backend:
        yield backend


def blocks(counts: list[int], fill: int) -> Blocks:
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]]).astype(np.int64)
    memory = np.full(sum(counts) * BLOCK + 1, fill, np.uint8)
    return Blocks(memory, np.array(counts, np.int64), starts)


@pytest.mark.parametrize("channel", ["route", "step"])
def test_exchange_of_blocks(backend: MpiBackend, channel: str) -> None:
    """Rank a sends a + 2 b + 1 blocks of value 10 a to rank b, none to itself."""
    rank, size = backend.rank, backend.size
    sent = blocks([(rank + 2 * b + 1) * (b != rank) for b in range(size)], 10 * rank)
    got = blocks([(a + 2 * rank + 1) * (a != rank) for a in range(size)], 255)
    getattr(backend, channel)(sent, got)
    expected = [np.full(n * BLOCK, 10 * a, np.uint8) for a, n in enumerate(got.counts)]
    np.testing.assert_array_equal(got.memory, np.concatenate([*expected, [255]]))


def test_allreduce_of_several_buckets(backend: MpiBackend) -> None:
    """Started one after the other, driven a little, awaited in another order on every rank."""
    arrays = [
        np.random.default_rng(10 * backend.rank + i).standard_normal(n, np.float32)
        for i, n in enumerate((1, 1000, 70001))
    ]
    everyone = [MPI.COMM_WORLD.allgather(array) for array in arrays]
    reductions = [backend.start_allreduce(array) for array in arrays]
    backend.progress()
    for reduction in reductions if backend.rank % 2 else reversed(reductions):
        reduction.wait()
        assert reduction.test()
    for array, parts in zip(arrays, everyone, strict=True):
        np.testing.assert_allclose(array, np.sum(parts, axis=0), rtol=1e-5, atol=1e-5)
        bits = MPI.COMM_WORLD.allgather(array.tobytes())
        assert len(set(bits)) == 1, "all ranks must have the same bits"


def test_allreduce_is_repeatable(backend: MpiBackend) -> None:
    values = np.random.default_rng(backend.rank).standard_normal(5000, np.float32)
    results = []
    for _ in range(5):
        array = values.copy()
        backend.start_allreduce(array).wait()
        results.append(array.tobytes())
    assert len(set(results)) == 1


def test_only_dense_ranks_reduce() -> None:
    world = MPI.COMM_WORLD
    with MpiBackend(world, dense_ranks=(0,)) as backend:
        array = np.ones(3, np.float32)
        if world.rank == 0:
            backend.start_allreduce(array).wait()
            assert array.tolist() == [1, 1, 1]
        else:
            with pytest.raises(ValueError, match=f"rank {world.rank} is not one of the dense"):
                backend.start_allreduce(array)


@pytest.mark.parametrize("array", [np.ones(3), np.ones((4, 4), np.float32)[:, 1]])
def test_allreduce_wants_contiguous_fp32(backend: MpiBackend, array: np.ndarray) -> None:
    with pytest.raises(ValueError, match="expected a contiguous float32 array"):
        backend.start_allreduce(array)


def test_too_large_for_mpi(backend: MpiBackend) -> None:
    """Refused before anything is sent."""
    counts = np.full(backend.size, MAX_BLOCKS, np.int64)
    huge = Blocks(np.empty(0, np.uint8), counts, np.ones(backend.size, np.int64))
    with pytest.raises(CommError, match="MPI's counts end at") as caught:
        backend.step(huge, huge)
    assert caught.value.op == "Alltoallv"
    assert caught.value.num_bytes == 2**31 * BLOCK


@pytest.mark.parametrize(("channel", "op"), [("route", "Ialltoallv"), ("step", "Alltoallv")])
def test_mpi_error(backend: MpiBackend, channel: str, op: str) -> None:
    """What MPI refuses becomes a CommError with the call, the rank and the bytes."""
    bad = blocks([1] * backend.size, 0)
    bad.counts[:] = -1
    with pytest.raises(CommError, match=f"rank {backend.rank}: {op} with all ranks") as caught:
        getattr(backend, channel)(bad, bad)
    assert caught.value.op == op
    assert caught.value.num_bytes == -BLOCK * backend.size


def test_more_than_two_gib_of_addresses(backend: MpiBackend) -> None:
    """Displacements beyond 2**31 bytes: the last block of a buffer that is touched nowhere else."""
    if backend.size != 2:
        pytest.skip("one pair is enough")
    far = 2**31 // BLOCK + 5
    memory = np.empty((far + 1) * BLOCK, np.uint8)  # virtual: only its last page is used
    peer = 1 - backend.rank
    counts, starts = np.zeros(2, np.int64), np.zeros(2, np.int64)
    counts[peer], starts[peer] = 1, far
    memory[-BLOCK:] = backend.rank + 1
    got = np.zeros(BLOCK, np.uint8)
    backend.step(Blocks(memory, counts, starts), Blocks(got, counts, np.zeros(2, np.int64)))
    assert (got == peer + 1).all()
