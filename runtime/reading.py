"""Values of a tensor on their way to the host."""

from __future__ import annotations

import torch
from torch import Tensor


class Reading:
    """A tensor's values, copied to the host without waiting for them.

    From a GPU they go to pinned memory, in the order of the current stream; the tensor may then be
    changed by what is enqueued after. On a CPU nothing is copied: they are the tensor's own memory.
    """

    def __init__(self, tensor: Tensor) -> None:
        self._values = tensor.detach()
        self._end: torch.cuda.Event | None = None
        if tensor.is_cuda:
            source, shape = self._values, tensor.shape
            self._values = torch.empty(shape, dtype=tensor.dtype, pin_memory=True)
            self._values.copy_(source, non_blocking=True)
            self._end = torch.cuda.Event(blocking=True)  # who waits leaves its core to others
            self._end.record()

    @property
    def late(self) -> bool:
        """Whether the values come from a GPU, so that there may be something to wait for."""
        return self._end is not None

    @property
    def arrived(self) -> bool:
        """Whether the values are there."""
        return self._end is None or bool(self._end.query())

    def wait(self) -> Tensor:
        """Return the values, as a tensor on the CPU, when they are there."""
        if self._end is not None:
            self._end.synchronize()
        return self._values
