"""Messages of a device's memory that go through the host's."""

from __future__ import annotations

import gpu
import numpy as np
import pytest
from device_side import World
from step_blocks import counts_of, sides_of

from fourfold.comm.backend import Blocks
from fourfold.comm.device import DeviceBytes
from fourfold.comm.staged import StagedBackend

pytestmark = pytest.mark.mpi


def on_device(blocks: Blocks, array: gpu.DeviceArray) -> Blocks:
    return Blocks(DeviceBytes(array.address, array.nbytes), blocks.counts, blocks.starts)


@pytest.mark.parametrize("seed", range(4))
def test_messages_that_grow(world: World, seed: int) -> None:
    """There must be more room on the host while what came before is still on its way in."""
    name, rank, size = world.side.name, world.mpi.rank, world.mpi.size
    counts = counts_of(size, seed) + 1 - np.eye(size, dtype=np.int64)
    steps = [sides_of(scale * counts, rank) for scale in (1, 50, 3, 2500)]
    for sent, _ in steps:
        sent.memory[:] = np.random.default_rng(rank).integers(0, 256, sent.memory.size)
    there = [[gpu.to_device(blocks.memory, name) for blocks in step] for step in steps]
    staged = StagedBackend(world.mpi, world.side.device, world.side.stream)  # has no room yet
    with gpu.shaken(seed, delay_us=5000):
        for step, arrays in zip(steps, there, strict=True):
            staged.step(*map(on_device, step, arrays))
    for (sent, got), (_, found) in zip(steps, there, strict=True):
        world.mpi.step(sent, got)
        np.testing.assert_array_equal(found.numpy(), got.memory)
