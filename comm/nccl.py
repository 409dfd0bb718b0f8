"""The NCCL backend: rows and gradients go from GPU to GPU; ids stay on MPI.

All calls of NCCL go to one stream, in the order in which they were made, which is the same on all
ranks: kernels of two communicators that wait for each other's turn cannot block each other. Events
tie that stream to the step's, so that the host never waits: a step's messages start when what was
enqueued before is done, and what is enqueued later starts when they are.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Any, Literal, NoReturn

import numpy as np
from mpi4py import MPI

from fourfold.comm._native import Device, Event, Stream
from fourfold.comm.backend import BLOCK, Backend, Blocks, Closing, Reduction
from fourfold.comm.errors import CommError
from fourfold.comm.nccl_channels import agree_on_nccl, open_channel
from fourfold.comm.staged import float32_of
from fourfold.comm.watchdog import Watchdog

PATIENCE_SECONDS = 600.0
"""How long a call may wait for other ranks, which may read, evaluate or save meanwhile."""

ABORT_SECONDS = 10.0
"""How long channels may take to give up before the run ends without that."""

MOST_CALLS = 64
"""Calls that are looked at by the watchdog: the oldest, and the last one. The stream keeps their
order, so those between may be forgotten."""


@dataclass(frozen=True, slots=True)
class Transfer:
    """One message: bytes [first, first + num_bytes) of what is sent, or of what is got."""

    kind: Literal["send", "recv"]
    peer: int
    first: int
    num_bytes: int


def schedule(rank: int, sent: Blocks, got: Blocks) -> Iterator[Transfer]:
    """List a rank's messages of one all-to-all.

    Round d sends to rank + d and receives from rank - d, so that no rank is everybody's first.
    Empty messages are left out, at both ends, for both know their size.
    """
    size = len(sent.counts)
    for d in range(1, size):
        to, source = (rank + d) % size, (rank - d) % size
        if sent.counts[to]:
            yield _transfer("send", to, sent)
        if got.counts[source]:
            yield _transfer("recv", source, got)


def _transfer(kind: Literal["send", "recv"], peer: int, blocks: Blocks) -> Transfer:
    return Transfer(kind, peer, int(blocks.starts[peer]) * BLOCK, int(blocks.counts[peer]) * BLOCK)


class NcclBackend(Closing):
    """All ranks of `world`, each with a GPU of its own.

    base: carries the ids, over the same ranks; closed with this. stream: of the steps. dense_ranks
    (default: all): those that all-reduce. patience: seconds after which a call that has not ended
    aborts the run. Collective over `world`. Raises CommError on all ranks if one has no NCCL, or no
    GPU of its own. Close it, or use it as a context manager.
    """

    in_order = True  # one stream: a call waits on the GPU for those before it

    def __init__(
        self,
        base: Backend,
        world: MPI.Comm,
        device: Device,
        stream: Stream,
        *,
        dense_ranks: Collection[int] | None = None,
        patience: float = PATIENCE_SECONDS,
    ) -> None:
        self.rank, self.size, self.can_overlap = base.rank, base.size, base.can_overlap
        self._base = base
        nccl = agree_on_nccl(world, device.ordinal)
        everyone = range(world.size)
        dense = everyone if dense_ranks is None else sorted(dense_ranks)
        self._all = open_channel(nccl, world, everyone, device.ordinal)
        self._dense = open_channel(nccl, world, dense, device.ordinal) if dense else None
        self._calls = Calls(nccl, [c for c in (self._all, self._dense) if c], device, stream)
        self._watchdog = Watchdog(self._calls, self.rank, patience=patience)

    def route(self, sent: Blocks, got: Blocks) -> None:
        """Exchange blocks of the host's memory on the route channel. See Backend."""
        self._base.route(sent, got)

    def step(self, sent: Blocks, got: Blocks) -> None:
        """Enqueue the exchange of blocks of the device's memory. See Backend."""
        messages = list(schedule(self.rank, sent, got))
        if not messages:
            return
        channel, stream = self._all, self._calls.stream.handle
        what = f"exchange of {sum(m.num_bytes for m in messages):,} bytes"

        def enqueue(nccl: Any) -> None:
            for m in messages:
                memory = sent.memory if m.kind == "send" else got.memory
                call = channel.send if m.kind == "send" else channel.recv
                call(memory.address + m.first, m.num_bytes, nccl.NCCL_UINT8, m.peer, stream)

        try:
            self._calls.join(self._calls.enqueue(what, enqueue))
        except (RuntimeError, KeyError) as error:  # CuPy knows no name for new results
            self._fail(what, error)

    def start_allreduce(self, array: Any) -> Reduction:
        """Enqueue the sum of an array of the device over the dense ranks. See Backend."""
        if isinstance(array, np.ndarray):
            return self._base.start_allreduce(array)
        values = float32_of(array)
        if self._dense is None:
            raise ValueError(f"all-reduce: rank {self.rank} is not one of the dense ranks")
        count = 1
        for n in values.shape:
            count *= n
        channel, stream, at = self._dense, self._calls.stream.handle, values.address
        what = f"all-reduce of {4 * count:,} bytes"

        def enqueue(nccl: Any) -> None:
            channel.allReduce(at, at, count, nccl.NCCL_FLOAT32, nccl.NCCL_SUM, stream)

        try:
            return NcclReduction(self._calls, self._calls.enqueue(what, enqueue))
        except (RuntimeError, KeyError) as error:  # CuPy knows no name for new results
            self._fail(what, error)

    def progress(self) -> None:
        """Drive the all-reduces of the host's memory; the GPU drives its own."""
        self._base.progress()

    def close(self) -> None:
        """Wait for what is under way and free the channels. Collective over the world."""
        self._calls.stream.synchronize()
        self._watchdog.stop()
        for channel in (self._all, self._dense):
            if channel is not None:
                channel.destroy()
        self._base.close()

    def _fail(self, what: str, error: Exception) -> NoReturn:
        self._watchdog.raise_failure(error)
        raise CommError(f"rank {self.rank}: {what} failed: {error}", op=what) from error


class NcclReduction:
    """One all-reduce under way. See Reduction in fourfold.comm.backend."""

    def __init__(self, calls: Calls, done: Event) -> None:
        self._calls, self._done = calls, done

    def test(self) -> bool:
        """Tell whether the sums are in the array."""
        return self._done.done()

    def wait(self) -> None:
        """Let what the step's stream does next wait for the sums."""
        self._calls.join(self._done)


@dataclass(slots=True)
class Call:
    """A group of calls of NCCL."""

    number: int
    what: str
    done: Event | None = None
    """Recorded behind it; None while the host is still in it."""


class Calls:
    """The calls of a rank, in order on one stream, and which of them are not done.

    nccl: the module, with groupStart and groupEnd. channels: those that errors are looked for in.
    """

    def __init__(self, nccl: Any, channels: list[Any], device: Device, stream: Stream) -> None:
        self.stream = Stream(device)
        self._nccl, self._channels, self._device, self._step = nccl, channels, device, stream
        self._ready = Event(device, host_waits=False)
        self._number = 0
        self._under_way: deque[Call] = deque()
        self._lock = threading.Lock()

    def enqueue(self, what: str, make: Callable[[Any], None]) -> Event:
        """Make calls of NCCL as one group, behind what the step's stream has to do by now.

        The first group between two ranks waits for the other one in here.
        """
        call = self._begin(what)
        self._ready.record(self._step)
        self.stream.wait(self._ready)
        self._nccl.groupStart()
        try:
            make(self._nccl)
        finally:
            self._nccl.groupEnd()
        done = Event(self._device, host_waits=False)
        done.record(self.stream)
        call.done = done
        return done

    def join(self, done: Event) -> None:
        """Let what the step's stream does next wait for a call."""
        self._step.wait(done)

    def under_way(self) -> tuple[int, str] | None:
        """See Watched."""
        for channel in self._channels:
            channel.check_async_error()
        with self._lock:
            calls = self._under_way
            while calls and calls[0].done is not None and calls[0].done.done():
                calls.popleft()
            return (calls[0].number, calls[0].what) if calls else None

    def abort(self) -> None:
        """See Watched.

        All at once: a channel that goes frees memory, which waits for all kernels of the GPU, those
        of the other channels among them. Not longer than ABORT_SECONDS: the run ends anyway.
        """
        threads = [
            threading.Thread(target=channel.abort, name="nccl-abort", daemon=True)
            for channel in self._channels
        ]
        for thread in threads:
            thread.start()
        deadline = time.monotonic() + ABORT_SECONDS
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _begin(self, what: str) -> Call:
        with self._lock:
            self._number += 1
            if len(self._under_way) == MOST_CALLS:
                self._under_way.pop()
            self._under_way.append(Call(self._number, what))
            return self._under_way[-1]
