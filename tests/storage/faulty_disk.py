"""A file tier whose reads and writes fail when a test says so."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Any

from fourfold.storage import _native
from fourfold.storage.tier import FileTier


class Faults:
    """Counts pieces, and fails some of them: `reads[n]` or `writes[n]` is the result of the n-th.

    A negative result is an errno; any other is a number of bytes, as if the device had moved so
    many. A piece that fails to be written is not written at all.
    """

    def __init__(self) -> None:
        self.reads: dict[int, int] = {}
        self.writes: dict[int, int] = {}
        self.num_reads = 0
        self.num_writes = 0

    def fail_next_read(self, result: int = -errno.EIO, after: int = 0) -> None:
        self.reads[self.num_reads + after] = result

    def fail_next_write(self, result: int = -errno.EIO, after: int = 0) -> None:
        self.writes[self.num_writes + after] = result


class FaultyTier(FileTier):
    def __init__(self, *args: Any, **options: Any) -> None:
        self.faults = Faults()
        super().__init__(*args, **options)

    def _open_disk(self, file: int, engine: str, depth: int) -> _native.Disk:
        real = super()._open_disk(file, engine, depth)
        faults = self.faults

        def read(pieces: _native.Pieces, arrived: Callable[[int], None]) -> None:
            first = faults.num_reads
            faults.num_reads += len(pieces)

            def spoil(i: int) -> None:
                if first + i in faults.reads:
                    pieces[i].result = faults.reads.pop(first + i)
                arrived(i)

            real.read(pieces, spoil)

        def write(pieces: _native.Pieces, fill: Callable[[int], None]) -> None:
            first = faults.num_writes
            faults.num_writes += len(pieces)
            failing = [i for i in range(len(pieces)) if first + i in faults.writes]
            # Pieces after the first that fails are not written either.
            keep = len(pieces) if not failing else failing[0]
            real.write(pieces.first(keep), fill)
            for i in failing:
                pieces[i].result = faults.writes.pop(first + i)

        return _native.PythonDisk(real, read, write)
