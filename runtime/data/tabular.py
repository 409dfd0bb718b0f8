"""Named columns, of CSV as of Parquet, and the job's mapping of them to features.

PyArrow reads the columns; what their values mean is in columns.py.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa

from fourfold.runtime.data.batch import Batch, Float32, Int64, Schema, offsets_of
from fourfold.runtime.data.columns import (
    is_list,
    is_text,
    read_dense,
    read_ids,
    read_label,
    read_weights,
    value_type,
    values_of,
)
from fourfold.runtime.data.config import DataConfig
from fourfold.runtime.data.faults import Faults
from fourfold.runtime.errors import DataError

Columns = Callable[[str], pa.Array]
"""Gives a column of n rows by its name."""


class Mapping:
    """Which columns to read, and as what.

    typed: whether the columns' types mean something, so that text is hashed without being listed.
    """

    def __init__(self, config: DataConfig, *, typed: bool) -> None:
        self._config = config
        self._typed = typed
        self.schema = Schema(
            config.dense, config.sparse, config.label, weighted=bool(config.weights)
        )
        self.columns = (config.label, *config.dense, *config.sparse, *config.weights.values())

    def check(self, path: Path, present: Iterable[str]) -> None:
        """Raise DataError unless each column to read is in a file exactly once."""
        present = list(present)
        for name in self.columns:
            if present.count(name) > 1:
                raise DataError(f"{path}: there are {present.count(name)} columns called {name!r}")
            if name not in present:
                near = difflib.get_close_matches(name, present, n=1)
                hint = f"nearest: {near[0]!r}" if near else f"it has {', '.join(present)}"
                raise DataError(f"{path}: there is no column {name!r}; {hint}")

    def check_types(self, path: Path, types: dict[str, pa.DataType]) -> None:
        """Raise DataError if a column's type cannot be what it is read as."""
        config = self._config
        for name in self.columns:
            kind = value_type(types[name])
            whole = pa.types.is_integer(kind) or pa.types.is_boolean(kind)
            expected = "numbers"
            fits = whole or pa.types.is_floating(kind) or pa.types.is_decimal(kind) or is_text(kind)
            if name in config.hashed:
                expected, fits = "text or whole numbers", whole or is_text(kind)
            elif name in config.sparse:
                expected, fits = "whole numbers or text", fits and not pa.types.is_decimal(kind)
            if is_list(types[name]) and name not in (*config.sparse, *config.weights.values()):
                expected, fits = "one number a row", False
            if not fits:
                raise DataError(
                    f"{path}: column {name!r}: expected {expected}, but its type is {types[name]}"
                )

    def read(self, column: Columns, faults: Faults) -> Batch:
        """Make a batch of all rows; what malformed ones become is meaningless."""
        config = self._config
        label = read_label(values_of(config.label, column(config.label)), faults)
        dense = np.empty((len(label), len(config.dense)), np.float32)
        for i, name in enumerate(config.dense):
            dense[:, i] = read_dense(values_of(name, column(name)), faults)
        bags = [self._bags(name, column, faults) for name in config.sparse]
        ids, lengths, weights = zip(*bags, strict=True) if bags else ((_NO_IDS,), (_NO_IDS,), ())
        return Batch(
            dense=dense,
            label=label,
            ids=np.concatenate(ids),
            offsets=offsets_of(np.concatenate(lengths)),
            weights=np.concatenate(weights) if config.weights else None,
        )

    def _bags(self, name: str, column: Columns, faults: Faults) -> tuple[Int64, Int64, Float32]:
        """Read one sparse feature: ids (L,), lengths (n,), weights (L,)."""
        config = self._config
        separator = config.list_separator if name in config.lists else None
        values = values_of(name, column(name), separator)
        hashed = name in config.hashed or (self._typed and is_text(values.flat.type))
        ids = read_ids(values, faults, hashed=hashed)
        if name not in config.weights:
            return ids, values.lengths, np.ones(len(ids), np.float32)
        key = config.weights[name]
        weights = read_weights(values_of(key, column(key), separator), values.lengths, faults)
        return ids, values.lengths, weights


_NO_IDS = np.empty(0, np.int64)
