"""A file that appears under its name only when it is complete."""

from __future__ import annotations

import os
from pathlib import Path


class NewFile:
    """Write to `partial`, then `commit` or `discard`: a crash leaves nothing under the name."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.partial = path.with_name(f".{path.name}.{os.getpid()}.partial")

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
