"""The errors of the communication layer."""

from __future__ import annotations


class PlacementError(ValueError):
    """A placement that cannot hold the tables of a job on its ranks; the user can mend it."""


class CommError(RuntimeError):
    """A collective that failed, or that another rank gave up."""

    def __init__(
        self, message: str, *, op: str = "", peer: int | None = None, num_bytes: int = 0
    ) -> None:
        super().__init__(message)
        self.op = op
        """The call, as in "Alltoallv"."""
        self.peer = peer
        """The rank at the other end; None = all of them."""
        self.num_bytes = num_bytes
        """Bytes that this rank was to send."""


class DeviceError(RuntimeError):
    """A GPU that is not there, has no memory left, or has failed."""
