"""What is wrong with rows that were just read, and what becomes of them.

Parsers work on whole columns, so they find faults column by column. A user wants the first bad row
of the file and what is wrong with it; `on_error = "skip"` wants every bad row dropped and counted.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from fourfold.runtime.errors import DataError

_SHOWN = 40  # characters of a bad value that a message quotes


class Faults:
    """The malformed ones among n rows that were read together."""

    def __init__(self, rows: int) -> None:
        self.bad = np.zeros(rows, np.bool_)  # (n,)
        self._row = rows  # the first bad row
        self._text = ""

    def __bool__(self) -> bool:
        return self._row < len(self.bad)

    def mark(
        self,
        rows: npt.NDArray[np.integer[Any]],  # the bad rows, in any order
        describe: Callable[[int], str],  # position in `rows` -> what is wrong, from `mismatch`
    ) -> None:
        """Note that rows are malformed. Of one row, the fault marked first is the one reported."""
        if not len(rows):
            return
        self.bad[rows] = True
        at = int(np.argmin(rows))
        if rows[at] < self._row:
            self._row = int(rows[at])
            self._text = describe(at)

    @property
    def count(self) -> int:
        """Malformed rows."""
        return int(np.count_nonzero(self.bad))

    def message(self, where: Callable[[int], str]) -> str:
        """Say what is wrong with the first malformed row, and where `where(row)` says it is."""
        return f"{where(self._row)}{self._text}"

    def fail(self, where: Callable[[int], str]) -> None:
        """Raise DataError for the first malformed row."""
        hint = 'mend the row, or set data.on_error = "skip" to drop and count such rows'
        raise DataError(f"{self.message(where)}; {hint}")


def mismatch(column: str, expected: str, got: str) -> str:
    """Say what is wrong with a value; `column` is empty if it is the row as a whole."""
    place = f", column {column}" if column else ""
    return f"{place}: expected {expected}, got {got}"


def quote(value: object) -> str:
    """Show a value of the input in a message, cut to a readable length."""
    if isinstance(value, bytes):
        value = value.decode("utf-8", "backslashreplace")
    if not isinstance(value, str):
        return str(value)
    text = ascii(value)
    return text if len(text) <= _SHOWN + 2 else f"{text[:_SHOWN]}... ({len(value)} characters)"
