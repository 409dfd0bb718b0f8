"""Parquet files through PyArrow: only the mapped columns, page by page.

PyArrow cannot start inside a row group, so a shard decodes also the rows of others in the groups
that it needs. Dense values and ids that `ParquetWriter` wrote come back as they were.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from fourfold.runtime.data.batch import Batch, Int64, Schema
from fourfold.runtime.data.faults import Faults
from fourfold.runtime.data.new_file import NewFile
from fourfold.runtime.data.tabular import Mapping
from fourfold.runtime.errors import DataError

_SLAB = 1 << 14  # rows decoded at a time


class ParquetFile:
    """The rows of a Parquet file, decoded as reading goes on."""

    def __init__(self, path: Path, mapping: Mapping) -> None:
        self._path = path
        self._mapping = mapping
        with self._errors("its footer"):
            self._file = pq.ParquetFile(
                path, buffer_size=1 << 20, pre_buffer=False, page_checksum_verification=True
            )
        schema = self._file.schema_arrow
        mapping.check(path, schema.names)
        mapping.check_types(path, dict(zip(schema.names, schema.types, strict=True)))
        groups = self._file.metadata.num_row_groups
        sizes = [self._file.metadata.row_group(i).num_rows for i in range(groups)]
        self._starts = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])
        self.rows = int(self._starts[-1])
        self._stream: Iterator[pa.RecordBatch] = iter(())  # what is left of a row group
        self._slab: pa.RecordBatch | None = None  # rows [_at, _stop) of the file, decoded
        self._at = self._stop = self._group_stop = 0

    def read(self, rows: Int64) -> tuple[Batch, Faults]:
        """Read some rows, by their numbers in the file, ascending. Raises DataError."""
        first, stop = int(rows[0]), int(rows[-1]) + 1
        parts = []
        while first < stop:
            slab = self._slab_with(first)
            parts.append(slab.slice(first - self._at, stop - first))
            first += parts[-1].num_rows
        table = pa.Table.from_batches(parts)
        if table.num_rows != len(rows):
            table = table.take(pa.array(rows - rows[0]))
        faults = Faults(len(rows))
        return self._mapping.read(lambda name: table[name].combine_chunks(), faults), faults

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _slab_with(self, row: int) -> pa.RecordBatch:
        """Decode on until the slab holds a row, starting anew if it is in another row group."""
        if row < self._at or row >= self._group_stop:
            group = int(np.searchsorted(self._starts, row, side="right")) - 1
            self._stream = self._file.iter_batches(
                _SLAB, row_groups=[group], columns=self._mapping.columns, use_threads=False
            )
            self._stop, self._group_stop = map(int, self._starts[group : group + 2])
        while row >= self._stop or self._slab is None:
            with self._errors(f"rows from {self._stop}"):
                self._slab = next(self._stream)
            self._at, self._stop = self._stop, self._stop + self._slab.num_rows
        return self._slab

    @contextmanager
    def _errors(self, what: str) -> Iterator[None]:
        try:
            yield
        except (pa.ArrowException, OSError, StopIteration) as error:
            reason = str(error) or "it ends early"
            raise DataError(f"{self._path}: {what} cannot be read: {reason}") from error


class ParquetWriter:
    """Write batches to a new Parquet file: label, one column a dense feature, lists of ids.

    The file appears under its name when all is written. Leaving the `with` block by an exception
    removes what was written.
    """

    def __init__(self, path: Path, schema: Schema) -> None:
        self._names = schema
        fields = [(schema.label, pa.int8()), *((name, pa.float32()) for name in schema.dense)]
        for name in schema.sparse:
            fields.append((name, pa.list_(pa.int64())))
            if schema.weighted:
                fields.append((f"{name}_weights", pa.list_(pa.float32())))
        self._schema = pa.schema(fields)
        self._new = NewFile(path)
        self._file = pq.ParquetWriter(self._new.partial, self._schema, write_page_checksum=True)

    def append(self, batch: Batch) -> None:
        """Add the rows of a batch, as one row group; its dense values are stored as they are."""
        columns = [pa.array(batch.label.astype(np.int8))]
        columns += [pa.array(column) for column in batch.dense.T]
        for f in range(len(self._names.sparse)):
            offsets = batch.offsets[f * batch.size : (f + 1) * batch.size + 1]
            at = slice(offsets[0], offsets[-1])
            places = pa.array((offsets - offsets[0]).astype(np.int32))
            columns.append(pa.ListArray.from_arrays(places, pa.array(batch.ids[at])))
            if batch.weights is not None:
                columns.append(pa.ListArray.from_arrays(places, pa.array(batch.weights[at])))
        self._file.write_batch(pa.record_batch(columns, schema=self._schema))

    def finish(self) -> None:
        """Write the footer and give the file its name."""
        self._file.close()
        self._new.commit()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()
        self._new.discard()
