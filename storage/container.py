"""The file of a file tier: pages of records in HDF5.

```
/                format, version, run, rank, tables (JSON), closed
/rows/fp32x64    (pages,) of {row: (records per page,) of {weights, ..., key, tile, crc}}
/live/fp32x64    (pages, records per page) bool: which records are rows; written at the end
```

A dataset of rows grows by chunks of one segment, which HDF5 places in the file as soon as they are
asked for, at multiples of 4 KiB. The native tier reads and writes them there, past HDF5. Nobody
else may: the file is locked until it is closed, also for other tiers of this process.
"""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from fourfold.storage.errors import CorruptionError, StorageError
from fourfold.storage.kind import Kind
from fourfold.storage.lock import open_locked
from fourfold.storage.row import RowSpec

FORMAT = "fourfold rows"
VERSION = 1
ALIGNMENT = 4096
PART = 64
"""Segments whose flags are in memory at once."""
LIBVER = ("v108", "v108")
"""Format of HDF5 1.8: newer ones leave a mark in files that were not closed, and refuse them."""


class Container:
    """One open file. Made by `create` or `open`, which raise StorageError or CorruptionError.

    `file` is its descriptor, for reading and writing segments; `close` closes it.
    """

    def __init__(self, path: Path, file: int, hdf5: h5py.File, kinds: list[Kind]) -> None:
        self.path = path
        self.file = file
        self.kinds = kinds
        self._hdf5 = hdf5

    @classmethod
    def create(
        cls,
        path: Path,
        specs: Sequence[RowSpec],
        kinds: list[Kind],
        *,
        run: str,
        rank: int,
        direct: bool,
    ) -> Container:
        """Make a new file; one that is there already is refused."""
        file = open_locked(path, os.O_CREAT | os.O_EXCL, direct)
        try:
            with _storage_errors(path, "cannot be made"):
                hdf5 = _open_hdf5(path, "w")
                hdf5.attrs.update(
                    format=FORMAT,
                    version=VERSION,
                    run=run,
                    rank=rank,
                    tables=json.dumps(_tables(specs)),
                    closed=False,
                )
                rows = hdf5.create_group("rows")
                for kind in kinds:
                    _create_dataset(rows, kind)
                hdf5.flush()
        except BaseException:
            os.close(file)
            path.unlink(missing_ok=True)
            raise
        return cls(path, file, hdf5, kinds)

    @classmethod
    def open(
        cls, path: Path, specs: Sequence[RowSpec], kinds: list[Kind], *, run: str, direct: bool
    ) -> Container:
        """Open a file that was closed, of the same run and tables."""
        file = open_locked(path, 0, direct)
        try:
            try:
                hdf5 = _open_hdf5(path, "r+")
            except OSError as error:
                raise CorruptionError(f"{path} is not a whole HDF5 file: {error}") from None
            try:
                _require_ours(path, hdf5, specs, run)
                found = [_found(path, hdf5, kind) for kind in kinds]
            except BaseException:
                hdf5.close()
                raise
        except BaseException:
            os.close(file)
            raise
        return cls(path, file, hdf5, found)

    def extend(self, kind: int, count: int) -> list[int]:
        """Add segments to a kind; returns their offsets in the file."""
        pages = self.kinds[kind].segment_pages
        with _storage_errors(self.path, "cannot grow"):
            dataset = self._hdf5["rows"][self.kinds[kind].name]
            first = dataset.shape[0]
            dataset.resize(first + count * pages, axis=0)
            self._hdf5.flush()
            return [_offset(dataset, first + i * pages) for i in range(count)]

    def segments(self, kind: int) -> Iterator[tuple[list[int], NDArray[np.bool_]]]:
        """Yield offsets of the segments of a kind, in parts, and which of their records live."""
        name, pages = self.kinds[kind].name, self.kinds[kind].segment_pages
        with _storage_errors(self.path, "cannot be read"):
            dataset, flags = self._hdf5["rows"][name], self._hdf5["live"][name]
            if flags.shape != (*dataset.shape, self.kinds[kind].rows_per_page):
                raise CorruptionError(f"{self.path}: /live/{name} does not fit /rows/{name}")
            for start in range(0, dataset.shape[0], PART * pages):
                live = flags[start : start + PART * pages].reshape(-1)
                end = min(dataset.shape[0], start + PART * pages)
                yield [_offset(dataset, first) for first in range(start, end, pages)], live

    def begin(self) -> None:
        """Mark an opened file as one that changes: from now on only `close` makes it whole."""
        with _storage_errors(self.path, "cannot be written"):
            self._hdf5.attrs["closed"] = False
            del self._hdf5["live"]
            self._hdf5.flush()

    def close(self, live: Sequence[NDArray[np.uint8]] | None) -> None:
        """Write which records live (bits, of each kind), or leave the file as it is; close it."""
        try:
            with _storage_errors(self.path, "cannot be closed"):
                try:
                    if live is not None:
                        self._write_live(live)
                        self._hdf5.attrs["closed"] = True
                finally:
                    self._hdf5.close()
        finally:
            os.close(self.file)

    def _write_live(self, live: Sequence[NDArray[np.uint8]]) -> None:
        group = self._hdf5.create_group("live")
        for kind, bits in zip(self.kinds, live, strict=True):
            shape = self._hdf5["rows"][kind.name].shape[0], kind.rows_per_page
            chunk = kind.segment_pages, kind.rows_per_page
            dataset = group.create_dataset(
                kind.name,
                shape,
                np.bool_,
                maxshape=(None, shape[1]),
                chunks=chunk,
                compression="gzip",
                compression_opts=1,
            )
            step = 8 * PART * kind.segment_pages  # pages, so that a part begins with a byte
            for start in range(0, shape[0], step):
                count = min(step, shape[0] - start) * shape[1]
                part = bits[start * shape[1] // 8 :]
                flags = np.unpackbits(part[: (count + 7) // 8], count=count, bitorder="little")
                dataset[start : start + step] = flags.reshape(-1, shape[1]).view(np.bool_)


def _tables(specs: Sequence[RowSpec]) -> list[dict[str, Any]]:
    return [
        {
            "table": spec.table,
            "name": spec.name,
            "rows": spec.rows,
            "bucket": spec.bucket,
            "buckets": spec.buckets,
            "column": spec.column,
            "dim": spec.dim,
            "dtype": spec.dtype,
            "optimizer": type(spec.optimizer).__name__,
        }
        for spec in specs
    ]


def _create_dataset(rows: h5py.Group, kind: Kind) -> None:
    creation = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    creation.set_chunk((kind.segment_pages,))
    creation.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    creation.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    space = h5py.h5s.create_simple((0,), (h5py.h5s.UNLIMITED,))
    page = h5py.h5t.py_create(kind.page, logical=True)
    h5py.h5d.create(rows.id, kind.name.encode(), page, space, creation)


def _offset(dataset: h5py.Dataset, page: int) -> int:
    offset: int | None = dataset.id.get_chunk_info_by_coord((page,)).byte_offset
    if offset is None or offset % ALIGNMENT != 0:
        raise OSError(0, f"HDF5 has placed page {page} of {dataset.name} at {offset}")
    return offset


def _open_hdf5(path: Path, mode: str) -> h5py.File:
    return h5py.File(
        path,
        mode,
        libver=LIBVER,
        locking=False,
        alignment_threshold=ALIGNMENT,
        alignment_interval=ALIGNMENT,
    )


def _require_ours(path: Path, hdf5: h5py.File, specs: Sequence[RowSpec], run: str) -> None:
    attributes = dict(hdf5.attrs)
    if attributes.get("format") != FORMAT:
        raise StorageError(0, f"{path} is not a file of rows")
    if attributes.get("version") != VERSION:
        raise StorageError(
            0, f"{path} has version {attributes.get('version')} of the format, this is {VERSION}"
        )
    if attributes.get("run") != run:
        raise StorageError(0, f"{path} belongs to run {attributes.get('run')!r}, not {run!r}")
    if not attributes.get("closed"):
        raise StorageError(0, f"{path} was not closed: its run was ended while it had it open")
    stored = json.loads(attributes["tables"])
    if len(stored) != len(specs):
        raise StorageError(0, f"{path} holds {len(stored)} tiles, not {len(specs)}")
    for there, here in zip(stored, _tables(specs), strict=True):
        if there != here:
            raise StorageError(0, f"{path} holds other tables: {there} in the place of {here}")


def _found(path: Path, hdf5: h5py.File, kind: Kind) -> Kind:
    """The kind as it lies in the file, which may have other segments."""
    try:
        dataset = hdf5["rows"][kind.name]
        matches = dataset.dtype == kind.page and hdf5["live"][kind.name].dtype == np.bool_
        (segment_pages,) = dataset.chunks
    except (KeyError, OSError, ValueError) as error:
        raise CorruptionError(f"{path}: /rows/{kind.name} cannot be read: {error}") from None
    if not matches:
        raise CorruptionError(f"{path}: /rows/{kind.name} has other fields")
    return Kind(kind.name, kind.record, segment_pages)


@contextmanager
def _storage_errors(path: Path, what: str) -> Iterator[None]:
    try:
        yield
    except StorageError:
        raise
    except (OSError, RuntimeError, ValueError, KeyError) as error:
        raise StorageError(*_cause(error, path, what)) from error


def _cause(error: Exception, path: Path, what: str) -> tuple[int, str]:
    """Say why HDF5 failed: the system's error, which it hides in a text of many lines."""
    found = re.search(r"errno = (\d+)", str(error))
    code = int(found[1]) if found else getattr(error, "errno", None) or errno.EIO
    text = os.strerror(code) if found else str(error)
    if code == errno.ENOSPC:
        text += "; free some, lower storage.file_bytes, or choose another storage.folder"
    return code, f"{path} {what}: {text}"
