"""Batches for one dense rank, out of any format, with a position that can be saved.

The stream is all rows of all files of a split, in file order. Global batch b is rows
[b * G, (b + 1) * G) of it, and shard d of D takes rows [G * d // D, G * (d + 1) // D) of each
global batch. So every number of shards sees the same global batches, and a saved position, which is
a row of the stream, suits any of them. The last global batch is cut at the same places: some get
fewer rows of it, or none. All shards give the same number of batches.

A malformed row that is skipped keeps its place: the global batch it belongs to is that much
smaller. So no shard needs to know which rows of another shard are malformed, and the batches still
do not depend on the number of shards.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import numpy as np

from fourfold.runtime.data.batch import Batch, Schema, join_batches
from fourfold.runtime.data.config import DataConfig
from fourfold.runtime.data.criteo import SCHEMA, CriteoParser
from fourfold.runtime.data.delimited import CsvParser
from fourfold.runtime.data.files import Position, find_files
from fourfold.runtime.data.hdf5 import Hdf5File
from fourfold.runtime.data.holdout import Members, Split
from fourfold.runtime.data.parquet import ParquetFile
from fourfold.runtime.data.source import RowSource, Source, TextSource
from fourfold.runtime.data.tabular import Mapping
from fourfold.runtime.errors import ConfigError, DataError

__all__ = [
    "DataConfig",
    "Reader",
    "Split",
    "open_reader",
    "read_dense_transform",
    "read_schema",
]

DenseTransform = Literal["log1p", "none"]


def open_reader(
    config: DataConfig,
    *,
    shard: int,
    shards: int,
    batch_size: int,
    split: Split = "train",
    position: dict[str, Any] | None = None,
) -> Reader:
    """Open the rows of one shard. Not collective.

    batch_size: rows of a global batch, over all shards. position: what `Reader.position` gave, to
    continue after that batch; number of shards and batch size may differ from then.
    Raises ConfigError for arguments that cannot be and DataError for what is wrong with the files.
    """
    if not 0 <= shard < shards:
        raise ConfigError(f"shard must be in [0, {shards}), got {shard}")
    if batch_size < 1:
        raise ConfigError(f"batch_size must be at least 1, got {batch_size}")
    if position and position["split"] != split:
        raise DataError(f"the saved position is in the {position['split']} data, not {split}")
    if split == "eval" and not config.has_eval:
        raise ConfigError("there is nothing to evaluate on: set data.eval_paths or data.holdout")
    return Reader(config, shard, shards, batch_size, split, position)


def read_schema(config: DataConfig) -> Schema:
    """Say which features the data have. Reads the first file of hdf5 data and no other."""
    if config.kind == "criteo":
        return SCHEMA
    if config.kind == "hdf5":
        return _read_layout(find_files(config.paths, "data.paths")[0])[0]
    return Mapping(config, typed=False).schema


def read_dense_transform(config: DataConfig) -> DenseTransform:
    """Say what is done to dense values. Reads the first file of hdf5 data if the job is silent."""
    if config.dense_transform != "auto":
        return config.dense_transform
    if config.kind == "hdf5":
        return _read_layout(find_files(config.paths, "data.paths")[0])[1]
    return "log1p" if config.kind == "criteo" else "none"


class Reader:
    """The batches of one shard, in order; made by `open_reader`."""

    def __init__(
        self,
        config: DataConfig,
        shard: int,
        shards: int,
        batch_size: int,
        split: Split,
        position: dict[str, Any] | None,
    ) -> None:
        self._batch_size = batch_size
        self._own = np.array([batch_size * shard // shards, batch_size * (shard + 1) // shards])
        self._split = split
        self._members = Members(0.0 if config.eval_paths else config.holdout, split)
        self._row = int(position["row"]) if position else 0  # of the files, held out or not
        self._any = self._row > 0
        key = "eval_paths" if split == "eval" and config.eval_paths else "paths"
        paths = find_files(getattr(config, key), f"data.{key}")
        self._named = f"data.{key} = {list(getattr(config, key))}"
        self.schema = read_schema(config)
        self.dense_transform = read_dense_transform(config)
        self._source = self._open(config, paths, position["source"] if position else None)

    @property
    def skipped(self) -> int:
        """Malformed rows of this shard dropped since it was opened; 0 unless they are skipped."""
        return self._source.skipped

    def next_batch(self) -> Batch | None:
        """Give this shard's rows of the next global batch, perhaps none; None after the last one.

        Raises DataError for malformed rows (unless they are skipped), for damaged files, and when
        the data have no row at all.
        """
        taken, parts = 0, []
        while taken < self._batch_size:
            span, members = self._members.window(self._row, self._batch_size - taken)
            first, last = np.clip(self._own - taken, 0, len(members))
            gone, batches = self._source.take(span, members[first:last])
            taken += int(np.searchsorted(members, gone))
            parts += batches
            self._row += gone
            if gone < span:
                break
        if not taken:
            if not self._any:
                raise DataError(f"the {self._split} data have no rows: {self._named}")
            return None
        self._any = True
        batch = join_batches(parts, self.schema)
        if self.dense_transform == "log1p":
            batch.dense = np.log1p(np.maximum(batch.dense, 0))
        return batch

    def __iter__(self) -> Iterator[Batch]:
        while (batch := self.next_batch()) is not None:
            yield batch

    def position(self) -> dict[str, Any]:
        """Say where to continue after the last batch given, as JSON; the same on every shard."""
        return {"split": self._split, "row": self._row, "source": self._source.position()}

    def close(self) -> None:
        """Close the open file."""
        self._source.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _open(
        self, config: DataConfig, paths: tuple[Path, ...], position: Position | None
    ) -> Source:
        """Open files at a position."""
        match config.kind:
            case "criteo":
                criteo = CriteoParser(config.list_separator)
                return TextSource(paths, criteo, config, header=False, position=position)
            case "csv":
                csv = CsvParser(config, Mapping(config, typed=False))
                header = not config.columns
                return TextSource(paths, csv, config, header=header, position=position)
            case "parquet":
                mapping = Mapping(config, typed=True)
                parquet = partial(ParquetFile, mapping=mapping)
                return RowSource(paths, parquet, config, position=position)
            case "hdf5":
                transform = self.dense_transform if config.dense_transform == "auto" else None
                hdf5 = partial(_open_hdf5, schema=self.schema, transform=transform)
                return RowSource(paths, hdf5, config, position=position)


def _read_layout(path: Path) -> tuple[Schema, DenseTransform]:
    file = Hdf5File(path)
    file.close()
    return file.schema, file.dense_transform


def _open_hdf5(path: Path, schema: Schema, transform: DenseTransform | None) -> Hdf5File:
    """Open a file that must have a schema, and a transform if it is the one to go by."""
    file = Hdf5File(path)
    if file.schema != schema or transform not in (None, file.dense_transform):
        file.close()
        raise DataError(
            f"{path}: expected the columns and dense transform of the first file of data.paths, "
            f"{schema} and {transform}, got {file.schema} and {file.dense_transform}"
        )
    return file
