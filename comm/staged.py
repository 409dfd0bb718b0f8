"""Messages of a GPU through the host: copied out, exchanged over MPI, copied in.

For ranks whose rows and gradients are in the memory of a GPU where NCCL cannot be had, or where
other ranks have theirs in the host's: each rank chooses for itself. A step waits for its stream
once, since MPI must see what the kernels have written. All-reduces are copied on a stream of their
own, beside the backward pass.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fourfold.comm._native import Device, Event, PinnedBuffer, Stream
from fourfold.comm.backend import BLOCK, Backend, Blocks, Closing, Reduction
from fourfold.comm.device import DeviceArray, as_device_array


class StagedBackend(Closing):
    """A backend for memory of a GPU, on top of one for the host's, which it closes.

    stream: of the steps. Local: the other ranks need not be staged.
    """

    in_order = False  # all-reduces run beside the exchange, on communicators of their own

    def __init__(self, base: Backend, device: Device, stream: Stream) -> None:
        self.rank, self.size, self.can_overlap = base.rank, base.size, base.can_overlap
        self._base, self._stream = base, stream
        self._sent, self._got = PinnedBuffer(device), PinnedBuffer(device)
        self._reductions = StagedReductions(base, device, stream)

    def route(self, sent: Blocks, got: Blocks) -> None:
        """Exchange blocks of the host's memory on the route channel. See Backend."""
        self._base.route(sent, got)

    def step(self, sent: Blocks, got: Blocks) -> None:
        """Exchange blocks of the device's memory. Waits for what the stream has to do before."""
        out = self._sent.reserve(sent.memory.size)
        for first, last in runs(sent):
            self._stream.copy_out(out[first:last], sent.memory.address + first)
        self._stream.synchronize()  # and with it the last step's copies from `back`, which may go
        back = self._got.reserve(got.memory.size)
        self._base.step(Blocks(out, sent.counts, sent.starts), Blocks(back, got.counts, got.starts))
        for first, last in runs(got):
            self._stream.copy_in(got.memory.address + first, back[first:last])

    def start_allreduce(self, array: Any) -> Reduction:
        """Start summing an array of either memory over the dense ranks. See Backend."""
        if isinstance(array, np.ndarray):
            self._reductions.flush()
            return self._base.start_allreduce(array)
        return self._reductions.start(float32_of(array))

    def progress(self) -> None:
        """Drive the all-reduces that are under way."""
        self._reductions.progress()

    def close(self) -> None:
        """Wait for what is under way and free the channels. Collective over the world."""
        self._stream.synchronize()
        self._reductions.close()
        self._base.close()


def runs(blocks: Blocks) -> Iterator[tuple[int, int]]:
    """Yield the bytes [first, last) that travel, neighbours together."""
    first = last = 0
    for start, count in zip(blocks.starts.tolist(), blocks.counts.tolist(), strict=True):
        if count == 0:
            continue
        if start * BLOCK != last:
            if last > first:
                yield first, last
            first = start * BLOCK
        last = (start + count) * BLOCK
    if last > first:
        yield first, last


def float32_of(array: Any) -> DeviceArray:
    """Check what is to be reduced. Raises ValueError unless it is contiguous float32."""
    given = as_device_array(array)
    packed = DeviceArray(given.address, given.shape, None, given.dtype)
    if given.dtype != "fp32" or given.spec != packed.spec:
        raise ValueError(
            f"all-reduce: expected a contiguous float32 array, got {given.dtype}"
            f" with strides {given.strides}"
        )
    return packed


class StagedReductions:
    """The all-reduces of one rank, in the order in which they were started.

    Each is copied out, summed by the backend for the host's memory, and copied in. Sums start in
    the order of the calls, as on all ranks.
    """

    def __init__(self, base: Backend, device: Device, stream: Stream) -> None:
        self._base, self._device, self._stream = base, device, stream
        self._copies = Stream(device)
        self._leaving: deque[StagedReduction] = deque()
        self._summing: deque[StagedReduction] = deque()
        self._room: list[Room] = []

    def start(self, array: DeviceArray) -> StagedReduction:
        """Start to sum a contiguous array."""
        reduction = StagedReduction(self, array, self._take(int(np.prod(array.shape)) * 4))
        room = reduction.room
        room.event.record(self._stream)  # the array is written
        self._copies.wait(room.event)
        self._copies.copy_out(room.array, array.address)
        room.event.record(self._copies)
        self._leaving.append(reduction)
        return reduction

    def progress(self) -> None:
        """Drive all that is under way; never blocks."""
        while self._leaving and self._leaving[0].room.event.done():
            self._sum()
        self._base.progress()
        while self._summing and self._summing[0].test_sum():
            self._return(self._summing.popleft())

    def wait(self, reduction: StagedReduction) -> None:
        """Return when what the stream does next sees the sums; older ones go first."""
        while reduction in self._leaving:
            self._leaving[0].room.event.synchronize()
            self._sum()
        while reduction in self._summing:
            self._summing[0].wait_sum()
            self._return(self._summing.popleft())
        self._stream.wait(reduction.room.event)

    def flush(self) -> None:
        """Start the sums of all that has been started; waits for copies."""
        while self._leaving:
            self._leaving[0].room.event.synchronize()
            self._sum()

    def close(self) -> None:
        """Wait for what is under way."""
        while self._leaving or self._summing:
            self.wait((self._leaving or self._summing)[-1])
        self._copies.synchronize()

    def _sum(self) -> None:
        reduction = self._leaving.popleft()
        reduction.start_sum(self._base)
        self._summing.append(reduction)

    def _return(self, reduction: StagedReduction) -> None:
        self._copies.copy_in(reduction.address, reduction.room.array)
        reduction.room.event.record(self._copies)
        reduction.returned = True
        self._room.append(reduction.room)

    def _take(self, num_bytes: int) -> Room:
        for i, room in enumerate(self._room):
            if room.array.nbytes == num_bytes and room.event.done():
                return self._room.pop(i)
        return Room(self._device, num_bytes)


class Room:
    """Pinned memory of one all-reduce, and the event of the last copy."""

    def __init__(self, device: Device, num_bytes: int) -> None:
        memory: NDArray[np.uint8] = PinnedBuffer(device).reserve(num_bytes)
        self.array = memory[:num_bytes].view(np.float32)
        self.event = Event(device)


class StagedReduction:
    """One all-reduce under way. See Reduction in fourfold.comm.backend."""

    def __init__(self, owner: StagedReductions, array: DeviceArray, room: Room) -> None:
        self._owner = owner
        self._sum: Reduction | None = None
        self.address, self.room = array.address, room
        self.returned = False

    def start_sum(self, base: Backend) -> None:
        """Start to sum what has been copied out."""
        self._sum = base.start_allreduce(self.room.array)

    def test_sum(self) -> bool:
        """Tell whether the sums are in the host's memory."""
        return self._sum is not None and self._sum.test()

    def wait_sum(self) -> None:
        """Return when they are."""
        if self._sum is not None:
            self._sum.wait()

    def test(self) -> bool:
        """Drive it a little; True once `wait` would not block."""
        self._owner.progress()
        return self.returned

    def wait(self) -> None:
        """Return when what the stream does next sees the sums."""
        self._owner.wait(self)
