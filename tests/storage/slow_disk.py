"""A file tier whose reads and writes take as long as a test says, so that orders matter."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from fourfold.storage import _native
from fourfold.storage.tier import FileTier


class Pace:
    """Seconds that every read and write takes; may change at any time."""

    def __init__(self) -> None:
        self.read_s = 0.0
        self.write_s = 0.0
        self.reads_begun = 0
        self.reads_done = 0


class SlowTier(FileTier):
    def __init__(self, *args: Any, **options: Any) -> None:
        self.pace = Pace()
        super().__init__(*args, **options)

    def _open_disk(self, file: int, engine: str, depth: int) -> _native.Disk:
        real = super()._open_disk(file, engine, depth)
        pace = self.pace

        def read(pieces: _native.Pieces, arrived: Callable[[int], None]) -> None:
            pace.reads_begun += 1
            time.sleep(pace.read_s)
            real.read(pieces, arrived)
            pace.reads_done += 1

        def write(pieces: _native.Pieces, fill: Callable[[int], None]) -> None:
            time.sleep(pace.write_s)
            real.write(pieces, fill)

        return _native.PythonDisk(real, read, write)
