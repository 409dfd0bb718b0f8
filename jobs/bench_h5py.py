"""The h5py part of `fourfold bench file`: fancy indexing of random rows.

Once into a plain dataset of fixed size, the best that h5py has, and once into the tier's own file.
Before each call the page cache is told to forget the file.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from fourfold.storage import RowSpec

BATCH = 500  # rows read in one call
ROUNDS = 3
CHUNK = 1 << 17

Rows = NDArray[np.void]
Ids = NDArray[np.int64]


def records_of(spec: RowSpec, ids: Ids) -> Rows:
    """Records that can be told apart."""
    records = np.zeros(len(ids), spec.record)
    records["weights"] = ids[:, None]
    return records


def measure(path: Path, spec: RowSpec, num_rows: int) -> Iterator[tuple[str, list[float]]]:
    """Yield (what is read, seconds of each round) for a tier's file with rows in order of id."""
    plain = path.with_suffix(".plain.h5")
    try:
        _fill(plain, spec, num_rows)
        yield "h5py, plain", _time(plain, num_rows, lambda file, ids: file["rows"][ids])
    finally:
        plain.unlink(missing_ok=True)
    yield "h5py, same file", _time(path, num_rows, _from_pages)


def _fill(path: Path, spec: RowSpec, num_rows: int) -> None:
    names = ["weights", "time", "score"]
    record = np.dtype([(name, spec.record[name]) for name in names])
    with h5py.File(path, "w") as file:
        dataset = file.create_dataset("rows", (num_rows,), record)
        for start in range(0, num_rows, CHUNK):
            ids = np.arange(start, min(num_rows, start + CHUNK))
            dataset[start : start + len(ids)] = records_of(spec, ids)[names]


def _from_pages(file: h5py.File, ids: Ids) -> Rows:
    (dataset,) = file["rows"].values()
    per_page = dataset.dtype["row"].shape[0]
    pages, at = np.unique(ids // per_page, return_inverse=True)
    rows: Rows = dataset[pages]["row"][at, ids % per_page]
    return rows


def _time(path: Path, num_rows: int, read: Callable[[h5py.File, Ids], Rows]) -> list[float]:
    seconds = []
    for turn in range(ROUNDS):
        ids = np.sort(np.random.default_rng(turn).choice(num_rows, BATCH, replace=False))
        with h5py.File(path, "r", locking=False) as file, path.open() as raw:
            os.fsync(raw.fileno())
            os.posix_fadvise(raw.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            start = time.perf_counter()
            rows = read(file, ids)
            seconds.append(time.perf_counter() - start)
        if not (rows["weights"][:, 0] == ids).all():
            raise SystemExit("fourfold bench file: h5py has read other rows")
    return seconds
