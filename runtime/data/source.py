"""Where rows come from: text files that are scanned, or files that know their rows.

A source is a place in a stream of rows. The reader tells it how far to go on and which of the rows
on the way are its own; only those are parsed. Rows are numbered over all files, in file order.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import numpy as np

from fourfold.runtime.data.batch import Batch, Int64
from fourfold.runtime.data.config import DataConfig
from fourfold.runtime.data.faults import Faults
from fourfold.runtime.data.files import FileList, Position
from fourfold.runtime.data.lines import Chunk, Lines
from fourfold.runtime.errors import DataError

_LOG = logging.getLogger(__name__)

# So many malformed rows and not a single good one: the files are not what the job says they are.
_HOPELESS = 1000


class Source(Protocol):
    """A place in a stream of rows. Dense values come as the files have them, not transformed."""

    @property
    def skipped(self) -> int:
        """Malformed rows dropped so far, among the rows asked for."""

    def take(self, span: int, rows: Int64) -> tuple[int, list[Batch]]:
        """Go on by `span` rows and parse those at `rows` (offsets in [0, span), ascending).

        Gives how many rows there were (fewer than `span` only at the end of the data) and the good
        ones among those asked for, in order. Raises DataError.
        """

    def position(self) -> Position:
        """Say where the next row is."""

    def close(self) -> None:
        """Close what is open."""


class RowFile(Protocol):
    """An open file that knows its rows."""

    rows: int

    def read(self, rows: Int64) -> tuple[Batch, Faults]:
        """Read some rows, by their numbers in the file, ascending. Raises DataError."""

    def close(self) -> None:
        """Close the file."""


class Sieve:
    """What becomes of malformed rows: an error, or dropped and counted."""

    def __init__(self, on_error: str) -> None:
        self._skip = on_error == "skip"
        self._good = 0
        self.skipped = 0

    def pass_good(self, batch: Batch, faults: Faults, where: Callable[[int], str]) -> Batch:
        """Give the batch without its malformed rows. Raises DataError if they are not skipped."""
        self._good += batch.size - faults.count
        if not faults:
            return batch
        if not self._skip:
            faults.fail(where)
        if not self.skipped:
            _LOG.warning("dropping malformed rows; the first is %s", faults.message(where))
        self.skipped += faults.count
        if not self._good and self.skipped >= _HOPELESS:
            raise DataError(
                f"all of the first {self.skipped} rows are malformed, the last of them "
                f"{faults.message(where)}; do the files have the format that the job says?"
            )
        return batch.keep(~faults.bad)


class TextSource:
    """Rows that are lines of text."""

    def __init__(
        self,
        paths: tuple[Path, ...],
        parse: Callable[[Chunk], tuple[Batch, Faults]],
        config: DataConfig,
        *,
        header: bool,
        position: Position | None,
    ) -> None:
        self._parse = parse
        self._sieve = Sieve(config.on_error)
        self._lines = Lines(
            FileList(paths),
            header=header,
            allow_empty=config.on_error == "skip",
            position=position,
        )

    @property
    def skipped(self) -> int:
        """Malformed rows dropped so far, among the rows asked for."""
        return self._sieve.skipped

    def take(self, span: int, rows: Int64) -> tuple[int, list[Batch]]:
        """Go on by `span` rows and parse those at `rows`; see `Source`."""
        gone, chunks = self._lines.take(span, rows)
        return gone, [
            self._sieve.pass_good(*self._parse(chunk), where=chunk.where) for chunk in chunks
        ]

    def position(self) -> Position:
        """Say where the next row is."""
        return self._lines.position()

    def close(self) -> None:
        """Close what is open."""
        self._lines.close()


class RowSource:
    """Rows of files that know how many they have and can start anywhere."""

    def __init__(
        self,
        paths: tuple[Path, ...],
        open_file: Callable[[Path], RowFile],
        config: DataConfig,
        *,
        position: Position | None,
    ) -> None:
        self._files = FileList(paths)
        self._open_file = open_file
        self._sieve = Sieve(config.on_error)
        self._index = self._files.resume(position) if position else 0
        self._row = int(position["row"]) if position else 0
        self._open: RowFile | None = None

    @property
    def skipped(self) -> int:
        """Malformed rows dropped so far, among the rows asked for."""
        return self._sieve.skipped

    def take(self, span: int, rows: Int64) -> tuple[int, list[Batch]]:
        """Go on by `span` rows and read those at `rows`; see `Source`."""
        gone, batches = 0, []
        while gone < span and (file := self._current()):
            count = min(file.rows - self._row, span - gone)
            if count <= 0:
                self._next_file(file)
                continue
            first, last = np.searchsorted(rows, (gone, gone + count))
            if first < last:
                batches.append(self._read(file, rows[first:last] - gone + self._row))
            self._row += count
            gone += count
        return gone, batches

    def position(self) -> Position:
        """Say where the next row is."""
        return {**self._files.position(self._index), "row": self._row}

    def close(self) -> None:
        """Close what is open."""
        if self._open:
            self._open.close()
            self._open = None

    def _read(self, file: RowFile, rows: Int64) -> Batch:
        path = self._files[self._index]
        batch, faults = file.read(rows)
        return self._sieve.pass_good(batch, faults, lambda row: f"{path}, row {rows[row]}")

    def _current(self) -> RowFile | None:
        if self._open is None and self._index < len(self._files):
            self._open = self._open_file(self._files[self._index])
        return self._open

    def _next_file(self, file: RowFile) -> None:
        if self._row > file.rows:
            raise DataError(
                f"{self._files[self._index]} has {file.rows} rows, but the saved position is row "
                f"{self._row}: resume with the files of the interrupted run"
            )
        self.close()
        self._index += 1
        self._row = 0
