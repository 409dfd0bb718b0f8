"""CSV files, parsed by PyArrow.

Lines are cut here, and every column is parsed as text, so that what a value means depends on the
job alone and never on the values around it. A quoted value may hold the delimiter and doubled
quotes but no line break: shards find their rows by counting lines, without parsing.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv

from fourfold.runtime.data.batch import Batch, Int64
from fourfold.runtime.data.config import DataConfig
from fourfold.runtime.data.faults import Faults, mismatch
from fourfold.runtime.data.lines import Chunk, line_ends, pick_lines
from fourfold.runtime.data.tabular import Mapping
from fourfold.runtime.errors import DataError

_CR, _LF = b"\r\n"


class CsvParser:
    """Parse lines of CSV files."""

    def __init__(self, config: DataConfig, mapping: Mapping) -> None:
        self._config = config
        self._mapping = mapping
        self._header: bytes | None = None
        self._width = 0  # columns of the file
        self._places: dict[str, int] = {}  # of the mapped columns
        if config.columns:
            self._header = b""
            self._set_columns(config.columns)

    def __call__(self, chunk: Chunk) -> tuple[Batch, Faults]:
        """Parse all lines of a chunk; the values of malformed ones are meaningless."""
        if chunk.header != self._header:
            self._read_header(chunk)
        faults = Faults(len(chunk.numbers))
        table = self._table(memoryview(chunk.text), faults)
        return self._mapping.read(
            lambda name: _array(table[str(self._places[name])]), faults
        ), faults

    def _read_header(self, chunk: Chunk) -> None:
        text = chunk.header.decode("utf-8", "backslashreplace")
        try:
            names = next(csv.reader([text], delimiter=self._config.delimiter), [])
        except csv.Error as error:
            raise DataError(f"{chunk.path}, line 1: not a header line of CSV: {error}") from error
        self._mapping.check(chunk.path, names)
        self._header = chunk.header
        self._set_columns(names)

    def _set_columns(self, names: Sequence[str]) -> None:
        self._width = len(names)
        self._places = {name: names.index(name) for name in self._mapping.columns}

    def _table(self, text: memoryview, faults: Faults) -> pa.Table:
        """Cut lines into columns (as binary, named by place): a row a line, null if malformed."""
        data = np.frombuffer(text, np.uint8)
        ends = line_ends(data)
        blank = np.flatnonzero(np.diff(ends) - (data[ends[1:] - 2] == _CR) == 1)
        faults.mark(blank, lambda _: mismatch("", f"{self._width} columns", "a blank line"))
        returns = np.flatnonzero(data == _CR)
        within = returns[data[returns + 1] != _LF]
        broken = np.searchsorted(ends, within, side="right") - 1
        faults.mark(broken, lambda _: mismatch("", "no carriage return in a line", "one"))
        lines = np.flatnonzero(~faults.bad)
        tables = self._parse(text, ends, lines, faults) if len(lines) else []
        if not faults:
            return pa.concat_tables(tables)
        places = np.cumsum(~faults.bad) - 1
        if not tables:
            return self._nulls(len(places))
        return pa.concat_tables(tables).take(pa.array(places, mask=faults.bad))

    def _parse(self, text: memoryview, ends: Int64, lines: Int64, faults: Faults) -> list[pa.Table]:
        """Parse some lines; without those that are marked as malformed for it."""
        table, wrong = self._parse_text(bytes(pick_lines(text, ends, lines)))
        if table.num_rows + len(wrong) == len(lines) + 1:
            at = lines[[line for line, _ in wrong]] if wrong else lines[:0]
            faults.mark(at, lambda k: mismatch("", f"{self._width} columns", str(wrong[k][1])))
            return [table.slice(0, table.num_rows - 1)]
        if len(lines) == 1:
            expected = "each quote to be closed in its line"
            faults.mark(lines, lambda _: mismatch("", expected, "an open one"))
            return []
        half = len(lines) // 2
        return [
            table
            for part in (lines[:half], lines[half:])
            for table in self._parse(text, ends, part, faults)
        ]

    def _parse_text(self, text: bytes) -> tuple[pa.Table, list[tuple[int, int]]]:
        """Parse text; gives the rows, and (line, columns) of lines with a wrong number of columns.

        An open quote swallows line ends and makes rows fewer than lines. The text gets one more
        line, of empty values, as bait: so that there is one also after the last line.
        """
        wrong: list[tuple[int, int]] = []

        def note(row: pacsv.InvalidRow) -> str:
            wrong.append((row.number - 1, row.actual_columns))
            return "skip"

        bait = self._config.delimiter * (self._width - 1) + "\n"
        text += bait.encode()
        names = [str(i) for i in range(self._width)]
        wanted = [str(i) for i in self._places.values()]
        table = pacsv.read_csv(
            pa.py_buffer(text),
            pacsv.ReadOptions(use_threads=False, block_size=len(text) + 1, column_names=names),
            pacsv.ParseOptions(
                delimiter=self._config.delimiter,
                ignore_empty_lines=False,
                invalid_row_handler=note,
            ),
            pacsv.ConvertOptions(
                column_types={name: pa.binary() for name in names},
                include_columns=wanted,
                null_values=[""],
                strings_can_be_null=True,
            ),
        )
        return table, wrong

    def _nulls(self, rows: int) -> pa.Table:
        column = pa.nulls(rows, pa.binary())
        return pa.table({str(i): column for i in self._places.values()})


def _array(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
