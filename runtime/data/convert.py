"""Convert data of any format to HDF5 (hdf5.py) or Parquet."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from fourfold.runtime.data.config import DataConfig
from fourfold.runtime.data.hdf5 import Hdf5Writer
from fourfold.runtime.data.holdout import Split
from fourfold.runtime.data.parquet import ParquetWriter
from fourfold.runtime.data.reader import Reader, open_reader, read_dense_transform
from fourfold.runtime.errors import DataError

_ROWS = 1 << 15  # converted at a time


@dataclass(frozen=True, slots=True)
class Converted:
    """What a conversion did."""

    rows: int
    ids: int
    skipped: int
    """Malformed rows left out, where the job says to skip them."""
    file_bytes: int
    seconds: float


def convert(
    config: DataConfig,
    path: Path,
    *,
    split: Split = "train",
    overwrite: bool = False,
    report: Callable[[int], None] = lambda rows: None,
) -> Converted:
    """Write all rows of a split to one new file, in bounded memory.

    The ending of `path` says the format: .h5, .hdf5 or .parquet. Dense values are stored as the
    data have them; HDF5 keeps the job's transform beside them, and readers use it by default.
    `report` is called with the number of rows so far now and then. The file appears only when it is
    complete. Raises DataError, also if the file exists and may not be overwritten.
    """
    start = time.perf_counter()
    _check_path(path, overwrite)
    raw = replace(config, dense_transform="none")
    rows = ids = 0
    try:
        with (
            open_reader(raw, shard=0, shards=1, batch_size=_ROWS, split=split) as reader,
            _open_writer(path, reader, config) as writer,
        ):
            for batch in reader:
                writer.append(batch)
                rows, ids = rows + batch.size, ids + len(batch.ids)
                report(rows)
            writer.finish()
    except OSError as error:  # what cannot be read is a DataError already
        raise DataError(f"{path}: cannot be written: {error}") from error
    return Converted(
        rows=rows,
        ids=ids,
        skipped=reader.skipped,
        file_bytes=path.stat().st_size,
        seconds=time.perf_counter() - start,
    )


def _check_path(path: Path, overwrite: bool) -> None:
    if path.suffix not in (".h5", ".hdf5", ".parquet"):
        raise DataError(f"{path}: expected a name that ends in .h5, .hdf5 or .parquet")
    if path.exists() and not overwrite:
        raise DataError(f"{path} exists; remove it, or ask to overwrite it")
    if not path.parent.is_dir():
        raise DataError(f"{path}: there is no folder {path.parent}")


def _open_writer(path: Path, reader: Reader, config: DataConfig) -> Hdf5Writer | ParquetWriter:
    if path.suffix == ".parquet":
        return ParquetWriter(path, reader.schema)
    return Hdf5Writer(path, reader.schema, dense_transform=read_dense_transform(config))
