"""Fourfold's own data files: parsed rows in HDF5, which any rank reads from any row.

The format is described field by field in README.md beside this file. Rows are appended in bounded
memory under a temporary name; the last things written are the counts, and the rename to the final
name. Every chunk has a checksum (HDF5's Fletcher-32), so a damaged file is named, never used.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import h5py
import numpy as np
import numpy.typing as npt

from fourfold.runtime.data.batch import Batch, Float32, Int64, Schema, offsets_of, ranges
from fourfold.runtime.data.faults import Faults, mismatch, quote
from fourfold.runtime.data.new_file import NewFile
from fourfold.runtime.errors import DataError

# DO NOT CHANGE THESE NAMES OR NUMBERS: they are in stored files.
FORMAT = "fourfold.data"
VERSION = 1

_CHUNK_ROWS = 1024
_CHUNK_IDS = 1 << 14
_CACHE_BYTES = 8 << 20  # of chunks, per dataset
# The newest file structures: with checksums on the file's own tables too.
_LIBRARY = ("v110", "v110")


class Hdf5Writer:
    """Write batches to a new file, which appears under its name when all is written.

    dense_transform: what readers do to dense values if their job does not say ("log1p" or "none").
    Leaving the `with` block by an exception removes what was written.
    """

    def __init__(self, path: Path, schema: Schema, *, dense_transform: str) -> None:
        self._rows = 0
        self._ids = 0
        self._schema = schema
        self._new = NewFile(path)
        self._file = h5py.File(self._new.partial, "w", libver=_LIBRARY, rdcc_nbytes=_CACHE_BYTES)
        self._file.attrs["format"] = FORMAT
        self._file.attrs["version"] = VERSION
        self._file.attrs["label"] = schema.label
        self._file.attrs["dense_transform"] = dense_transform
        text = h5py.string_dtype()
        self._file.attrs.create("dense", np.array(schema.dense, object), dtype=text)
        self._file.attrs.create("sparse", np.array(schema.sparse, object), dtype=text)
        self._create("label", np.float32, _CHUNK_ROWS)
        if schema.dense:
            self._create("dense", np.float32, _CHUNK_ROWS, len(schema.dense))
        if schema.sparse:
            self._create("lengths", np.uint32, _CHUNK_ROWS, len(schema.sparse))
            self._create("ends", np.int64, _CHUNK_ROWS)
            self._create("ids", np.int64, _CHUNK_IDS)
        if schema.weighted:
            self._create("weights", np.float32, _CHUNK_IDS)

    def append(self, batch: Batch) -> None:
        """Add the rows of a batch; its dense values are stored as they are."""
        if not batch.size:
            return
        arrays = (batch.dense, batch.label, batch.ids, batch.offsets, batch.weights)
        self._new.require_space(sum(array.nbytes for array in arrays if array is not None))
        self._extend("label", batch.label)
        if self._schema.dense:
            self._extend("dense", batch.dense)
        if self._schema.sparse:
            lengths = batch.lengths().T  # (B, F)
            # The ids of a batch lie feature by feature, those of a file row by row.
            starts = batch.offsets[:-1].reshape(-1, batch.size).T
            at = ranges(starts.ravel(), lengths.ravel())
            self._extend("lengths", lengths)
            self._extend("ends", self._ids + np.cumsum(lengths.sum(axis=1)))
            self._extend("ids", batch.ids[at])
            if batch.weights is not None:
                self._extend("weights", batch.weights[at])
        self._rows += batch.size
        self._ids += len(batch.ids)

    def finish(self) -> None:
        """Write the counts and give the file its name."""
        self._file.attrs["ids"] = self._ids
        self._file.attrs["rows"] = self._rows  # last: a file without it is not finished
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
        try:
            self._file.close()
        except (OSError, RuntimeError):
            if error is None:
                raise
        finally:
            self._new.discard()

    def _create(self, name: str, dtype: type[np.generic], chunk: int, width: int = 0) -> None:
        tail = (width,) if width else ()
        self._file.create_dataset(
            name,
            shape=(0, *tail),
            maxshape=(None, *tail),
            chunks=(chunk, *tail),
            dtype=dtype,
            fletcher32=True,
            compression="gzip" if name == "lengths" else None,  # nearly always the same number
            compression_opts=1 if name == "lengths" else None,
        )

    def _extend(self, name: str, values: npt.NDArray[Any]) -> None:
        dataset = self._file[name]
        start = len(dataset)
        dataset.resize(start + len(values), axis=0)
        dataset[start:] = values


class Hdf5File:
    """The rows of a file that `Hdf5Writer` wrote."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with self._errors("the file"):
            self._file = h5py.File(path, "r", rdcc_nbytes=_CACHE_BYTES, locking="best-effort")
            self._check_format()
            about = self._file.attrs
            self.rows = int(about["rows"])
            self.dense_transform = _check_transform(about["dense_transform"])
            self.schema = Schema(
                dense=tuple(about["dense"]),
                sparse=tuple(about["sparse"]),
                label=str(about["label"]),
                weighted="weights" in self._file,
            )
            self._data = {name: self._file[name] for name in self._shapes(int(about["ids"]))}

    def read(self, rows: Int64) -> tuple[Batch, Faults]:
        """Read some rows, by their numbers in the file, ascending. Raises DataError."""
        first, stop = int(rows[0]), int(rows[-1]) + 1
        with self._errors(f"rows {first} to {stop - 1}"):
            dense = self._data["dense"][first:stop] if self.schema.dense else _none(stop - first)
            ids, lengths, weights = self._read_bags(first, stop)
            batch = Batch(
                dense=dense,
                label=self._data["label"][first:stop],
                ids=ids,
                offsets=offsets_of(lengths),
                weights=weights,
            )
        if batch.size != len(rows):
            batch = batch.keep(rows - first)
        return batch, self._find_faults(batch)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _read_bags(self, first: int, stop: int) -> tuple[Int64, Int64, Float32 | None]:
        """Read ids (L,) feature by feature, lengths of bags (F * n,), weights (L,)."""
        if not self.schema.sparse:
            return np.empty(0, np.int64), np.empty(0, np.int64), None
        lengths = self._data["lengths"][first:stop].astype(np.int64)
        ends = self._data["ends"][max(first - 1, 0) : stop]
        ends = ends if first else np.concatenate([[0], ends])
        if not np.array_equal(np.diff(ends), lengths.sum(axis=1)):
            raise OSError("lengths and ends disagree")
        ids = self._data["ids"][ends[0] : ends[-1]]
        weights = self._data["weights"][ends[0] : ends[-1]] if self.schema.weighted else None
        starts = offsets_of(lengths.ravel())[:-1].reshape(lengths.shape)
        if lengths.min() == lengths.max() == 1:
            at = starts.T.ravel()
        else:
            at = ranges(starts.T.ravel(), lengths.T.ravel())
        return ids[at], lengths.T.ravel(), None if weights is None else weights[at]

    def _find_faults(self, batch: Batch) -> Faults:
        """Look for values that no reader would have let through."""
        faults = Faults(batch.size)
        bad = np.flatnonzero((batch.label != 0) & (batch.label != 1))
        faults.mark(
            bad, lambda k: mismatch(self.schema.label, "0 or 1", quote(batch.label[bad[k]]))
        )
        row, column = np.nonzero(~np.isfinite(batch.dense))
        faults.mark(
            row,
            lambda k: mismatch(
                self.schema.dense[column[k]],
                "a finite number",
                quote(batch.dense[row[k], column[k]]),
            ),
        )
        wrong = batch.ids < 0
        if batch.weights is not None:
            wrong |= ~np.isfinite(batch.weights)
        at = np.flatnonzero(wrong)
        feature, bag = np.divmod(np.searchsorted(batch.offsets, at, side="right") - 1, batch.size)
        faults.mark(
            bag,
            lambda k: mismatch(
                self.schema.sparse[feature[k]],
                "ids in [0, 2^63) with finite weights",
                quote(batch.ids[at[k]]),
            ),
        )
        return faults

    def _check_format(self) -> None:
        about = self._file.attrs
        if about.get("format") != FORMAT:
            raise OSError(f'expected attribute format = "{FORMAT}", got {about.get("format")!r}')
        if about["version"] != VERSION:
            raise OSError(f"expected format version {VERSION}, got {about['version']}")
        if "rows" not in about:
            raise OSError("it was never finished: convert it again")

    def _shapes(self, ids: int) -> dict[str, tuple[int, ...]]:
        """Give the datasets that there must be, with their shapes, after checking them."""
        shapes: dict[str, tuple[int, ...]] = {"label": (self.rows,)}
        if self.schema.dense:
            shapes["dense"] = (self.rows, len(self.schema.dense))
        if self.schema.sparse:
            shapes["lengths"] = (self.rows, len(self.schema.sparse))
            shapes |= {"ends": (self.rows,), "ids": (ids,)}
        if self.schema.weighted:
            shapes["weights"] = (ids,)
        for name, shape in shapes.items():
            if self._file[name].shape != shape:
                raise OSError(f"{name}: expected shape {shape}, got {self._file[name].shape}")
        return shapes

    @contextmanager
    def _errors(self, what: str) -> Iterator[None]:
        try:
            yield
        except (OSError, KeyError) as error:
            raise DataError(f"{self._path}: {what} cannot be read: {error}") from error


def _check_transform(name: object) -> Literal["log1p", "none"]:
    if name == "log1p" or name == "none":
        return name
    raise OSError(f"dense_transform: expected log1p or none, got {name!r}")


def _none(rows: int) -> Float32:
    return np.empty((rows, 0), np.float32)
