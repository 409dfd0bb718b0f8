"""Where the rows and gradients of a step lie, and who adds them up.

An exchange knows memory by what a `Step` does with it. The host's is here; a GPU's is in
`fourfold.comm.device`. Ranks of one world may differ in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fourfold.comm._native import Buffer, Route, Router


class Growing(Protocol):
    """Memory for messages: grows, never shrinks."""

    def reserve(self, bytes: int) -> Any:
        """Return at least so many bytes, as `Blocks.memory` takes them; contents may be lost."""


class Step(Protocol):
    """The requester's half of the steps of one exchange. Arrays are those of its memory."""

    def buffer(self) -> Growing:
        """Make a buffer for the messages of a step."""

    def address(self, memory: Any) -> int:
        """Tell where what a buffer gave begins."""

    def upload(self, route: Route) -> None:
        """Make a routed batch known to the memory, ahead of the step, on the routing thread."""

    def pool(self, route: Route, got: Any, out: Any, sequences: Sequence[Any]) -> None:
        """Add up reply rows to outputs, or enqueue it: see Router.pool."""

    def spread(self, route: Route, grad: Any, sequences: Sequence[Any], sent: Any) -> None:
        """Add up gradients of outputs to those of reply rows, or enqueue it: see Router.spread."""


class Memory(Protocol):
    """A kind of memory."""

    def step(self, router: Router) -> Step:
        """Make what an exchange steps with."""


class HostStep:
    """Steps in the host's memory, by the router's threads. Arrays are NumPy's."""

    def __init__(self, router: Router) -> None:
        self._router = router
        self.pool = router.pool
        self.spread = router.spread

    def buffer(self) -> Buffer:
        """Make a buffer for the messages of a step."""
        return Buffer()

    def address(self, memory: NDArray[np.uint8]) -> int:
        """Tell where what a buffer gave begins."""
        return memory.ctypes.data

    def upload(self, route: Route) -> None:
        """Nothing: the router's arrays are in this memory."""


class HostMemory:
    """The host's memory."""

    def step(self, router: Router) -> HostStep:
        """Make what an exchange steps with."""
        return HostStep(router)
