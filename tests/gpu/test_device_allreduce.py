"""All-reduces between ranks of which some have their memory on a GPU."""

from __future__ import annotations

import gpu
import numpy as np
import pytest
from device_side import World
from mpi4py import MPI
from oracle import HOST

from fourfold.comm.device import DeviceArray

pytestmark = pytest.mark.mpi


@pytest.mark.parametrize("where", ["device", "mixed"])
def test_allreduce(world: World, where: str) -> None:
    """Several at once, awaited in another order, between ranks with either memory."""
    backend, side, _ = world.pick(where)
    values = [
        np.random.default_rng(10 * backend.rank + i).standard_normal(n, np.float32)
        for i, n in enumerate((1, 1000, 70001))
    ]
    everyone = [MPI.COMM_WORLD.allgather(array) for array in values]
    with gpu.shaken(2, delay_us=300):
        placed = [
            array.copy() if side is HOST else gpu.to_device(array, world.side.name)
            for array in values
        ]
        given = [
            a if isinstance(a, np.ndarray) else DeviceArray(a.address, a.shape) for a in placed
        ]
        for turn in range(2):
            sums = [backend.start_allreduce(array) for array in given]
            backend.progress()
            for reduction in reversed(sums) if backend.rank % 2 else sums:
                reduction.wait()
                assert reduction.test()
            for array, parts in zip(placed, everyone, strict=True):
                found = array if isinstance(array, np.ndarray) else array.numpy()
                total = np.sum(parts, axis=0, dtype=np.float32) * backend.size**turn
                np.testing.assert_allclose(found, total, rtol=1e-5, atol=1e-4)
                bits = MPI.COMM_WORLD.allgather(found.tobytes())
                assert len(set(bits)) == 1, "all ranks must have the same bits"


def test_allreduce_in_the_order_of_the_stream(world: World) -> None:
    """It reads what was enqueued before, and what is enqueued after `wait` sees the sums."""
    side = world.side
    array = gpu.to_device(np.zeros(1000, np.float32), side.name)
    found, given = np.zeros(1000, np.float32), np.full(1000, 3, np.float32)
    with gpu.shaken(4, delay_us=20000):
        side.stream.copy_in(array.address, given)
        reduction = world.staged.start_allreduce(DeviceArray(array.address, (1000,)))
        reduction.wait()
        side.stream.copy_out(found, array.address)
        side.stream.synchronize()
    assert (found == 3 * world.mpi.size).all()


def test_allreduce_of_the_hosts_memory(world: World) -> None:
    """Between others of the device's: sums start in the same order on all ranks."""
    array = gpu.to_device(np.ones(7, np.float32), world.side.name)
    host = np.full(3, 2, np.float32)
    given = DeviceArray(array.address, (7,))
    sums = [world.staged.start_allreduce(a) for a in (given, host)]
    for reduction in sums:
        reduction.wait()
    assert (array.numpy() == world.mpi.size).all()
    assert (host == 2 * world.mpi.size).all()


def test_allreduce_until_it_is_done(world: World) -> None:
    """Driven by `test` alone, it ends."""
    array = gpu.to_device(np.ones(5, np.float32), world.side.name)
    reduction = world.staged.start_allreduce(DeviceArray(array.address, (5,)))
    while not reduction.test():
        pass
    reduction.wait()
    assert (array.numpy() == world.mpi.size).all()
