"""Bytes of a text file, plain or gzip."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Protocol

import pyarrow as pa

from fourfold.runtime.errors import DataError

_GZIP = b"\x1f\x8b"
_STEP = 1 << 20


class _Stream(Protocol):
    def read(self, size: int, /) -> bytes | None: ...


class TextFile:
    """Read a text file forward, from a byte of its (uncompressed) text.

    What the file begins with tells gzip from plain text, not its name. A plain file seeks; gzip
    decompresses from the start. Reading releases the interpreter lock.
    """

    def __init__(self, path: Path, offset: int = 0) -> None:
        self.path = path
        try:
            self._file = path.open("rb", buffering=0)
        except OSError as error:
            raise DataError(f"{path}: cannot be read: {error.strerror}") from error
        try:
            self._text, self._offset = self._open(offset)
            self._skip_to(offset)
        except BaseException:
            self._file.close()
            raise

    def read(self, size: int) -> bytes:
        """Read the next bytes, at most `size`; none at the end."""
        try:
            data = self._text.read(size) or b""
        except OSError as error:  # of gzip: truncated, or a checksum that does not match
            raise DataError(
                f"{self.path}: damaged after byte {self._offset} of its text: {error}"
            ) from error
        self._offset += len(data)
        return data

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _open(self, offset: int) -> tuple[_Stream, int]:
        """Give the stream of text, and the byte at which it begins."""
        compressed = self._file.read(2) == _GZIP
        size = self._file.seek(0, os.SEEK_END)
        if compressed:
            self._file.seek(0)
            return pa.CompressedInputStream(self._file, "gzip"), 0
        if self.path.suffix == ".gz" and size:
            raise DataError(f"{self.path}: the name ends in .gz, but these are no gzip data")
        return self._file, self._file.seek(min(offset, size))

    def _skip_to(self, offset: int) -> None:
        while self._offset < offset:
            if not self.read(min(_STEP, offset - self._offset)):
                raise DataError(
                    f"{self.path}: ends at byte {self._offset}, but the saved position is at byte "
                    f"{offset}: resume with the files of the interrupted run"
                )
