"""What an exchange needs of a communication library.

Two channels that do not see each other: `route` carries ids ahead of the step, possibly on a
background thread, and waits politely; `step` carries rows and gradients on the main thread, and
waits busily. Both are one collective: every rank sends blocks to every other rank. All sizes are in
blocks of 64 bytes, and both ends know them before the call.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

BLOCK = 64
"""Bytes of a block. Segments start on block boundaries, so rows are aligned to cache lines."""


@dataclass(frozen=True, slots=True)
class Blocks:
    """One side of an all-to-all: what goes to, or comes from, each rank."""

    memory: Any
    """(bytes,) at least 64 * (starts + counts)[-1]: uint8 of NumPy's, or DeviceBytes."""
    counts: NDArray[np.int64]
    """(size,) blocks per rank; 0 for the rank itself, whose part never travels."""
    starts: NDArray[np.int64]
    """(size,) first block per rank, ascending."""


class Reduction(Protocol):
    """An all-reduce under way. Its array must not be touched before `wait` returns."""

    def test(self) -> bool:
        """Drive it a little; True once the sums are in the array."""

    def wait(self) -> None:
        """Return when the sums are in the array. Raises CommError."""


class Backend(Protocol):
    """A world of ranks that exchange blocks: over MPI, NCCL, or MPI on behalf of a GPU."""

    @property
    def rank(self) -> int:
        """This rank in the world."""

    @property
    def size(self) -> int:
        """Ranks in the world."""

    @property
    def can_overlap(self) -> bool:
        """Whether `route` may run on one thread while another one runs `step`."""

    @property
    def in_order(self) -> bool:
        """Whether every rank must make its calls of `step` and `start_allreduce` in one order."""

    def route(self, sent: Blocks, got: Blocks) -> None:
        """Exchange blocks on the route channel, sleeping while it waits.

        Collective over the world, one call at a time. Raises CommError.
        """

    def step(self, sent: Blocks, got: Blocks) -> None:
        """Exchange blocks on the step channel. Collective over the world. Raises CommError.

        With memory of a GPU it is enqueued: behind what the step's stream has to do by now, and
        before what it is given later.
        """

    def start_allreduce(self, array: Any) -> Reduction:
        """Start summing a contiguous float32 array over the dense ranks, in place.

        A NumPy array, or one of a GPU (DeviceArray): then the sum is part of the step's stream once
        `wait` has returned, and what is enqueued there before this call has written the array.

        Collective over the dense ranks, in the same order everywhere. The order of the sum depends
        on nothing but the ranks, and all of them get the same bits. Raises CommError.
        """

    def progress(self) -> None:
        """Drive the all-reduces that are under way; cheap, never blocks."""

    def close(self) -> None:
        """Free the channels. Collective over the world."""


class Closing(ABC):
    """A backend that a `with` closes, unless an error ends it."""

    @abstractmethod
    def close(self) -> None:
        """Free the channels. Collective over the world."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:  # after an error the other ranks may be anywhere: no collective calls
            self.close()
