"""Lines of text files, one after another: own lines are handed out, other lines only counted.

Every rank reads all bytes of a text file but parses only its own lines. So what is done per byte
must be little: find the line ends with two vectorised passes over a block that fits the cache.

Line ends are LF or CRLF, a UTF-8 byte order mark is dropped, and the last line may lack its end. A
line is at most `MAX_LINE` bytes, so that memory is bounded for any input.
"""

from __future__ import annotations

import logging
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fourfold.runtime.data.batch import Int64
from fourfold.runtime.data.files import FileList, Position
from fourfold.runtime.data.text import TextFile
from fourfold.runtime.errors import DataError

BLOCK = 1 << 20
MAX_LINE = 1 << 24

_BOM = b"\xef\xbb\xbf"
_LOG = logging.getLogger(__name__)


@dataclass(slots=True)
class Chunk:
    """Some lines of one file."""

    path: Path
    header: bytes  # the file's header line without its end; empty if files have none
    text: bytes | memoryview  # the lines, each ending in LF
    numbers: Int64  # (n,) their numbers in the file, from 1

    def where(self, row: int) -> str:
        """Say where line `row` of the chunk is."""
        return f"{self.path}, line {self.numbers[row]}"


class Lines:
    """A place among the lines of several files.

    header: whether the first line of each file is a header and no line of data. allow_empty: warn
    about a file of no bytes instead of raising DataError.
    """

    def __init__(
        self,
        files: FileList,
        *,
        header: bool,
        allow_empty: bool = False,
        position: Position | None = None,
    ) -> None:
        self._files = files
        self._header = header
        self._allow_empty = allow_empty
        self._index = files.resume(position) if position else 0
        self._open: LineFile | None = None
        if position and int(position["offset"]) and self._index < len(files):
            path = files[self._index]
            names = read_header(path) if header else b""
            self._open = LineFile(path, names, int(position["offset"]), int(position["line"]))

    def take(self, span: int, rows: Int64) -> tuple[int, list[Chunk]]:
        """Go on by `span` lines and hand out those at `rows` (offsets in [0, span), ascending).

        Gives how many lines there were (fewer than `span` only at the end of the data) and the
        lines handed out, in order.
        """
        gone, chunks = 0, []
        while gone < span and (file := self._current()):
            lines = min(file.available(), span - gone)
            if not lines:
                self.close()
                self._index += 1
                continue
            first, last = np.searchsorted(rows, (gone, gone + lines))
            if first < last:
                chunks.append(file.chunk(rows[first:last] - gone))
            file.advance(lines)
            gone += lines
        return gone, chunks

    def position(self) -> Position:
        """Say where the next line begins."""
        offset, line = (self._open.offset, self._open.line) if self._open else (0, 1)
        return {**self._files.position(self._index), "offset": offset, "line": line}

    def close(self) -> None:
        """Close the open file."""
        if self._open:
            self._open.close()
            self._open = None

    def _current(self) -> LineFile | None:
        if self._open is None and self._index < len(self._files):
            self._open = LineFile(self._files[self._index])
            if not self._open.available():
                self._complain_empty()
            if self._header and self._open.available():
                self._open.take_header()
        return self._open

    def _complain_empty(self) -> None:
        message = f"{self._files[self._index]}: the file is empty"
        if not self._allow_empty:
            raise DataError(f"{message}; remove it from the data, or fetch it again")
        _LOG.warning("%s", message)


class LineFile:
    """The lines of one file, block by block."""

    def __init__(self, path: Path, header: bytes = b"", offset: int = 0, line: int = 1) -> None:
        self._file = TextFile(path, offset)
        self.header = header
        self.line = line  # number of the next line
        self._block = b""
        self._block_offset = offset  # byte of the text at which the block begins
        self._ends = np.zeros(1, np.int64)  # 0, then just past each line end in the block
        self._next = 0  # line of the block that comes next: [ends[next], ends[next + 1])

    @property
    def offset(self) -> int:
        """Byte of the (uncompressed) text at which the next line begins."""
        return self._block_offset + int(self._ends[self._next])

    def available(self) -> int:
        """Count the lines at hand, reading on if there are none; 0 at the end of the file."""
        if self._next == len(self._ends) - 1:
            self._read_block()
        return len(self._ends) - 1 - self._next

    def chunk(self, rows: Int64) -> Chunk:
        """Give the lines at `rows` (ascending), counted from the next one; they must be at hand."""
        text = pick_lines(memoryview(self._block), self._ends, rows + self._next)
        return Chunk(self._file.path, self.header, text, rows + self.line)

    def advance(self, lines: int) -> None:
        """Go by some of the lines at hand."""
        self._next += lines
        self.line += lines

    def take_header(self) -> bytes:
        """Go by the first line, and give it without its end."""
        self.available()
        self.header = self._block[: int(self._ends[1])].rstrip(b"\r\n")
        self.advance(1)
        return self.header

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _read_block(self) -> None:
        """Read until there is a whole line or the file ends. All lines at hand have gone by."""
        at = int(self._ends[-1])
        pieces, length = [self._block[at:]], len(self._block) - at
        self._block_offset += at
        while data := self._file.read(BLOCK):
            pieces.append(data)
            length += len(data)
            if b"\n" in data:
                break
            if length > MAX_LINE:
                raise DataError(
                    f"{self._file.path}, line {self.line}: no line end in {length} bytes; "
                    "expected a text file with one sample a line"
                )
        block = b"".join(pieces)
        if self._block_offset == 0 and block.startswith(_BOM):
            block, self._block_offset = block[len(_BOM) :], len(_BOM)
        if not data and block and not block.endswith(b"\n"):
            block += b"\n"  # the last line lacks its end
        self._block, self._next = block, 0
        self._ends = line_ends(np.frombuffer(block, np.uint8))


def read_header(path: Path) -> bytes:
    """Give the first line of a file without its end."""
    with closing(LineFile(path)) as file:
        return file.take_header()


def line_ends(text: npt.NDArray[np.uint8]) -> Int64:
    """Give 0 and the places just past each LF: line i is [ends[i], ends[i + 1])."""
    return np.concatenate([np.zeros(1, np.int64), np.flatnonzero(text == ord("\n")) + 1])


def pick_lines(text: memoryview, ends: Int64, lines: Int64) -> bytes | memoryview:
    """Give some lines (at least one, ascending) of a text; a view where they are neighbours."""
    runs = np.split(lines, np.flatnonzero(np.diff(lines) != 1) + 1)
    pieces = [text[ends[run[0]] : ends[run[-1] + 1]] for run in runs]
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)
