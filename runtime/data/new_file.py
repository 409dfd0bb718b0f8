"""A file that appears under its name only when it is complete."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

_SPARE_BYTES = 16 << 20


class NewFile:
    """Write to `partial`, then `commit` or `discard`: a crash leaves nothing under the name."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.partial = path.with_name(f".{path.name}.{os.getpid()}.partial")

    def require_space(self, num_bytes: int) -> None:
        """Raise OSError if the disk has no room for so many more bytes and some to spare.

        For libraries that do not survive a write that fails: HDF5 can no longer close its file, and
        takes the process down.
        """
        free = shutil.disk_usage(self.partial.parent).free
        if free < num_bytes + _SPARE_BYTES:
            needed = f"{num_bytes + _SPARE_BYTES:,} bytes are needed and {free:,} are free"
            raise OSError(errno.ENOSPC, f"{os.strerror(errno.ENOSPC)}: {needed}")

    def commit(self) -> None:
        """Give the closed file its name; then bytes and name are on the disk."""
        _sync(self.partial)
        self.partial.replace(self.path)
        _sync(self.path.parent)

    def discard(self) -> None:
        """Remove what was written and not committed."""
        self.partial.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
