"""The MPI backend: one communicator per channel, duplicated from the world.

An MPI library that gives THREAD_MULTIPLE lets ids travel on a background thread while rows travel
on the main one; otherwise `can_overlap` is False and the caller routes in line. The unit of every
count is a derived datatype of 64 bytes, so MPI's 32-bit counts reach 128 GiB per message.
"""

from __future__ import annotations

import time
from collections.abc import Collection
from typing import Any

import numpy as np
from mpi4py import MPI
from numpy.typing import NDArray

from fourfold.comm.backend import BLOCK, Blocks, Closing
from fourfold.comm.errors import CommError
from fourfold.comm.reduction import MpiReduction, Reducer

MAX_BLOCKS = 2**31 - 1
"""MPI counts and displacements are C ints in every library that is older than MPI 4."""

SPINS = 8
"""Tests of a routing collective before the thread starts to sleep."""

SHORTEST_SLEEP, LONGEST_SLEEP = 20e-6, 400e-6
"""Seconds between later tests: doubled each time, so a long wait costs no core."""


class MpiBackend(Closing):
    """All ranks of `world`; `dense_ranks` (default: all) are those that all-reduce.

    Collective over `world`. Close it, or use it as a context manager.
    """

    in_order = False

    def __init__(self, world: MPI.Comm, *, dense_ranks: Collection[int] | None = None) -> None:
        self.rank = world.rank
        self.size = world.size
        self.can_overlap = MPI.Query_thread() == MPI.THREAD_MULTIPLE
        self._route = world.Dup()
        self._step = world.Dup()
        for comm in (self._route, self._step):
            comm.Set_errhandler(MPI.ERRORS_RETURN)
        self._block = MPI.BYTE.Create_contiguous(BLOCK).Commit()
        self._reducer = _reducer_of(world, dense_ranks)

    def route(self, sent: Blocks, got: Blocks) -> None:
        """Exchange blocks on the route channel, sleeping while it waits. See Backend."""
        self._check_counts("Ialltoallv", sent, got)
        try:
            request = self._route.Ialltoallv(self._buffer(sent), self._buffer(got))
            spins, pause = 0, SHORTEST_SLEEP
            while not request.Test():
                spins += 1
                if spins > SPINS:
                    time.sleep(pause)
                    pause = min(2 * pause, LONGEST_SLEEP)
        except MPI.Exception as error:
            raise self._failure("Ialltoallv", sent, error) from error

    def step(self, sent: Blocks, got: Blocks) -> None:
        """Exchange blocks on the step channel. See Backend."""
        self._check_counts("Alltoallv", sent, got)
        try:
            self._step.Alltoallv(self._buffer(sent), self._buffer(got))
        except MPI.Exception as error:
            raise self._failure("Alltoallv", sent, error) from error

    def start_allreduce(self, array: NDArray[Any]) -> MpiReduction:
        """Start summing a float32 array over the dense ranks, in place. See Backend."""
        if array.dtype != np.float32 or not array.flags.c_contiguous:
            raise ValueError(
                f"all-reduce: expected a contiguous float32 array, got {array.dtype}"
                f" with strides {array.strides}"
            )
        if self._reducer is None:
            raise ValueError(f"all-reduce: rank {self.rank} is not one of the dense ranks")
        return self._reducer.start(array)

    def progress(self) -> None:
        """Drive the all-reduces that are under way."""
        if self._reducer is not None:
            self._reducer.progress()

    def close(self) -> None:
        """Free the channels. Collective over the world."""
        if self._reducer is not None:
            self._reducer.close()
        self._route.Free()
        self._step.Free()
        self._block.Free()

    def _buffer(self, blocks: Blocks) -> list[Any]:
        return [blocks.memory, (blocks.counts, blocks.starts), self._block]

    def _check_counts(self, op: str, *sides: Blocks) -> None:
        for blocks in sides:
            most = int(blocks.starts[-1]) + int(blocks.counts[-1])
            if most > MAX_BLOCKS:
                raise CommError(
                    f"rank {self.rank}: {op} of {most * BLOCK:,} bytes; MPI's counts end at"
                    f" {MAX_BLOCKS * BLOCK:,}. Use a smaller batch or more ranks",
                    op=op,
                    num_bytes=most * BLOCK,
                )

    def _failure(self, op: str, sent: Blocks, error: MPI.Exception) -> CommError:
        num_bytes = int(sent.counts.sum()) * BLOCK
        return CommError(
            f"rank {self.rank}: {op} with all ranks failed after {num_bytes:,} bytes were handed"
            f" to it: {error.Get_error_string()}",
            op=op,
            num_bytes=num_bytes,
        )


def _reducer_of(world: MPI.Comm, dense_ranks: Collection[int] | None) -> Reducer | None:
    """Make the reducer of the dense ranks; None on other ranks. Collective over `world`."""
    dense = dense_ranks is None or world.rank in dense_ranks
    comm = world.Split(0 if dense else MPI.UNDEFINED, world.rank)
    if comm == MPI.COMM_NULL:
        return None
    reducer = Reducer(comm)
    comm.Free()
    return reducer
