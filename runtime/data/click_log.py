"""Writers of generated logs: Criteo's text format, plain or gzipped, and Parquet.

A text line is laid out at fixed columns of a byte matrix, unused bytes are zero, and dropping the
zero bytes of the whole matrix at once gives the text.
"""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import BinaryIO, Literal, Protocol, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from fourfold.runtime.data.kaggle import DENSE_FIELDS, SPARSE_FIELDS
from fourfold.runtime.data.traffic import Bags, Impressions

Format = Literal["criteo", "parquet"]
Bytes = npt.NDArray[np.uint8]

DENSE = tuple(f"I{i}" for i in range(1, DENSE_FIELDS + 1))
SPARSE = tuple(f"C{i}" for i in range(1, SPARSE_FIELDS + 1))

# Stands between the ids of a multi-hot field in a text file.
SEPARATOR = ","

_TAB, _NEWLINE = ord("\t"), ord("\n")
# Four characters for every 16 bits and for every number below 10,000.
_HEX = np.frombuffer("".join(f"{i:04x}" for i in range(2**16)).encode(), np.uint32)
_DECIMAL = np.frombuffer("".join(f"{i:04d}" for i in range(10_000)).encode(), np.uint32)
_POWERS = 10 ** np.arange(1, 8)
_MATRIX_BYTES = 2**21
_ROW_GROUP = 2**17


class LogFile(Protocol):
    """A log that is being written."""

    def write(self, seen: Impressions, clicked: npt.NDArray[np.bool_]) -> None:
        """Append impressions with their labels (n,)."""

    def close(self) -> None:
        """Finish the file."""


def open_log(path: Path, form: Format, hot: tuple[int, ...]) -> LogFile:
    """Create a log; a name that ends in .gz is compressed."""
    if form == "parquet":
        return ParquetLog(path, hot)
    return TextLog(path)


def suffix(form: Format, compress: bool) -> str:
    """Ending of the files' names."""
    return ".parquet" if form == "parquet" else ".tsv.gz" if compress else ".tsv"


class TextLog:
    """Criteo's format: label, 13 integers, 26 ids of 8 hexadecimal digits, between tabs."""

    def __init__(self, path: Path) -> None:
        self._raw = path.open("wb")
        self._out: BinaryIO = self._raw
        if path.suffix == ".gz":  # no name and no time in the header: same logs, same bytes
            packed = gzip.GzipFile("", "wb", compresslevel=1, fileobj=self._raw, mtime=0)
            self._out = cast(BinaryIO, packed)

    def write(self, seen: Impressions, clicked: npt.NDArray[np.bool_]) -> None:
        """Append impressions with their labels (n,)."""
        longest = sum(int(bags.lengths.max(initial=1)) for bags in seen.sparse)
        rows = max(1, _MATRIX_BYTES // (2 + 10 * DENSE_FIELDS + 9 * longest))
        for start in range(0, seen.size, rows):
            stop = min(start + rows, seen.size)
            self._out.write(encode(seen.rows(start, stop), clicked[start:stop]))

    def close(self) -> None:
        """Finish the file."""
        self._out.close()
        self._raw.close()


class ParquetLog:
    """The same columns by name; a missing integer is null, a missing id 0, several ids a list."""

    def __init__(self, path: Path, hot: tuple[int, ...]) -> None:
        self._hot = hot
        ids = [pa.int64() if h == 1 else pa.list_(pa.int64()) for h in hot]
        types = [pa.int8(), *[pa.int32()] * DENSE_FIELDS, *ids]
        self._schema = pa.schema(list(zip(("label", *DENSE, *SPARSE), types, strict=True)))
        self._file = pq.ParquetWriter(path, self._schema)
        self._pending: list[pa.RecordBatch] = []

    def write(self, seen: Impressions, clicked: npt.NDArray[np.bool_]) -> None:
        """Append impressions with their labels (n,)."""
        absent = ~seen.present
        columns = [pa.array(clicked.astype(np.int8))]
        columns += [pa.array(seen.dense[:, f], mask=absent[:, f]) for f in range(DENSE_FIELDS)]
        for bags, hot in zip(seen.sparse, self._hot, strict=True):
            lengths = np.maximum(bags.lengths, 1)
            ids = np.zeros(int(lengths.sum()), np.int64)
            ids[np.repeat(bags.lengths > 0, lengths)] = bags.ids
            offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
            values = pa.array(ids)
            columns.append(values if hot == 1 else pa.ListArray.from_arrays(offsets, values))
        self._pending.append(pa.RecordBatch.from_arrays(columns, schema=self._schema))
        if sum(batch.num_rows for batch in self._pending) >= _ROW_GROUP:
            self._flush()

    def close(self) -> None:
        """Finish the file."""
        self._flush()
        self._file.close()

    def _flush(self) -> None:
        if self._pending:
            self._file.write_table(pa.Table.from_batches(self._pending), row_group_size=_ROW_GROUP)
            self._pending = []


def encode(seen: Impressions, clicked: npt.NDArray[np.bool_]) -> bytes:
    """Write impressions as lines of text."""
    label = np.full((seen.size, 2), _TAB, np.uint8)
    label[:, 0] = ord("0") + clicked
    columns = [label]
    columns += [_integers(seen.dense[:, f], seen.present[:, f]) for f in range(DENSE_FIELDS)]
    columns += [_ids(bags) for bags in seen.sparse]
    columns[-1][:, -1] = _NEWLINE
    matrix = np.concatenate(columns, axis=1)
    return cast(bytes, matrix[matrix != 0].tobytes())


def _integers(values: npt.NDArray[np.int32], present: npt.NDArray[np.bool_]) -> Bytes:
    """Lay out sign, at most 8 digits and a tab, uint8 (n, 10)."""
    size = np.abs(values)
    text = np.zeros((len(values), 10), np.uint8)
    text[:, 0] = np.where(values < 0, ord("-"), 0)
    text[:, 1:5] = _DECIMAL[size // 10_000].view(np.uint8).reshape(-1, 4)
    text[:, 5:9] = _DECIMAL[size % 10_000].view(np.uint8).reshape(-1, 4)
    first = 7 - np.searchsorted(_POWERS, size, side="right")  # column of the leading digit
    text[:, 1:9] *= np.arange(8) >= np.where(present, first, 8)[:, None]
    text[:, 9] = _TAB
    return text


def _ids(bags: Bags) -> Bytes:
    """Lay out the ids of each bag with separators between and a tab behind, uint8 (n, width)."""
    lengths = bags.lengths
    longest = int(lengths.max(initial=1))
    text = np.zeros((len(lengths), longest, 9), np.uint8)
    hexadecimal = np.stack([_HEX[bags.ids >> 16], _HEX[bags.ids & 0xFFFF]], axis=1)
    filled = np.arange(longest) < lengths[:, None]
    text[:, :, :8][filled] = hexadecimal.view(np.uint8)
    text[:, :-1, 8][filled[:, 1:]] = ord(SEPARATOR)
    text[:, -1, 8] = _TAB
    return text.reshape(len(lengths), -1)
