"""`fourfold bench file`: rows of the file tier against the bare device, and against h5py.

The reference of reads is the same engine reading the same pages in the same run, and nothing else:
no index, no checksum, no copy; that of appends, the same engine writing as many bytes. Both take
turns with ours. O_DIRECT keeps the page cache out of it. fio, if it is on the PATH, says what the
device does with the same page size and depth; h5py reads the same rows from a plain dataset.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from fourfold.jobs import bench_h5py
from fourfold.jobs.bench_h5py import records_of
from fourfold.jobs.bench_turns import interleave
from fourfold.storage import SGD, RowSpec, Uniform, _native
from fourfold.storage.config import parse_bytes
from fourfold.storage.tier import FileTier

HELP = "measure the file tier against the bare device"

PAGE = 4096
BATCH = 20_000  # rows read in one call
APPEND = 64 << 20  # bytes of records written in one turn
WRITE_PIECE = 128 << 10
WRITE_BATCH = 4096  # rows written in one call
CHUNK = 131_040  # rows written at a time while filling: whole pages of any row size measured
ROW_BYTES = (256, 512)


@dataclass(frozen=True, slots=True)
class Result:
    """One comparison; `unit` per second, medians and best of the rounds."""

    what: str
    row_bytes: int
    engine: str
    depth: int
    direct: bool
    unit: str
    ours: float
    ours_best: float
    reference: float
    reference_best: float
    against: str

    @property
    def ratio(self) -> float:
        """Median over median; above 1 ours is faster."""
        return self.ours / self.reference


def spec_of(row_bytes: int) -> RowSpec:
    """Rows whose record has so many bytes: floats, and 4 bytes of metadata."""
    dim = row_bytes // 4 - 1
    return RowSpec(table=0, name="bench", dim=dim, rows=None, optimizer=SGD(), init=Uniform(1.0))


class Bench:
    """A file tier full of rows of one size, and the same file open beside it for the reference."""

    def __init__(self, folder: Path, row_bytes: int, size: int, args: argparse.Namespace) -> None:
        self.spec = spec_of(row_bytes)
        self.args = args
        self.path = folder / f"rows-{row_bytes}.h5"
        self.num_rows = size // row_bytes
        self.pages_per_batch = float(BATCH)
        self.tier = FileTier(
            [self.spec],
            self.path,
            run="bench",
            engine=args.engine,
            direct=not args.buffered,
            depth=args.depth,
        )
        for start in range(0, self.num_rows, CHUNK):
            ids = np.arange(start, min(self.num_rows, start + CHUNK))
            self.tier.write(0, ids, records_of(self.spec, ids))
        flags = os.O_RDWR | (0 if args.buffered else os.O_DIRECT)
        self.file = os.open(self.path, flags)
        self.disk = _native.Disk.open(self.file, self.tier.engine, args.depth)

    def close(self) -> None:
        """Close and remove the file."""
        os.close(self.file)
        self.tier.close()
        self.path.unlink()

    def result(
        self, what: str, unit: str, work: tuple[float, float], seconds: dict[str, list[float]]
    ) -> Result:
        """Set ours against the other call of `seconds`; `work` is what one call of each does."""
        (_, ours), (against, reference) = seconds.items()
        return Result(
            what=what,
            row_bytes=self.spec.record.itemsize,
            engine=self.tier.engine,
            depth=self.args.depth,
            direct=not self.args.buffered,
            unit=unit,
            ours=work[0] / float(np.median(ours)),
            ours_best=work[0] / min(ours),
            reference=work[1] / float(np.median(reference)),
            reference_best=work[1] / min(reference),
            against=against,
        )

    def draw(self, n: int, turn: int) -> NDArray[np.int64]:
        """Draw distinct random ids (n,)."""
        rng = np.random.default_rng(turn)
        ids: NDArray[np.int64] = rng.choice(self.num_rows, n, replace=False)
        return ids

    def offsets(self, ids: NDArray[np.int64]) -> NDArray[np.uint64]:
        """Where the pages of rows lie, each once, in random order. Rows were written in order."""
        with h5py.File(self.path, "r", locking=False) as file:
            (dataset,) = file["rows"].values()
            pages = dataset.chunks[0]
            start = np.array(
                [
                    dataset.id.get_chunk_info_by_coord((first,)).byte_offset
                    for first in range(0, dataset.shape[0], pages)
                ]
            )
            per_page = dataset.dtype["row"].shape[0]
        page = np.random.default_rng(0).permutation(np.unique(ids // per_page))
        offsets: NDArray[np.uint64] = (start[page // pages] + page % pages * PAGE).astype(np.uint64)
        return offsets

    def read(self) -> Result:
        """Random rows against the engine's rate of the same pages."""
        batches = [self.draw(BATCH, turn) for turn in range(self.args.rounds + 2)]
        pages = [self.offsets(ids) for ids in batches]
        keys = [ids.astype(np.uint64) for ids in batches]
        records = np.zeros((BATCH, self.spec.record.itemsize), np.uint8)
        found = np.zeros(BATCH, np.bool_)

        def ours(turn: int) -> None:
            self.tier.native.read(0, keys[turn], records, found)

        def engine(turn: int) -> None:
            _native.reference_read(self.disk, pages[turn], PAGE)

        seconds = interleave({"ours": ours, "engine": engine}, self.args.rounds)
        expected = records_of(self.spec, batches[-1])
        if not (found.all() and (records == expected.view(np.uint8).reshape(BATCH, -1)).all()):
            raise SystemExit("fourfold bench file: a row that was read is not what was written")
        work = float(np.mean([len(offsets) for offsets in pages]))
        self.pages_per_batch = work
        return self.result("random rows", "pages", (work, work), seconds)

    def write(self, what: str) -> Result:
        """Rows that are new, or rows that are there, against as many bytes of the engine.

        New rows make index and file grow, so the engine's file does; the others go where rows have
        died, so the engine writes over what is there.
        """
        growing = what == "append"
        records = records_of(self.spec, np.arange(APPEND // self.spec.record.itemsize))
        n = len(records)
        packed = records.view(np.uint8).reshape(n, -1)
        path = self.path.with_suffix(".raw")
        flags = os.O_RDWR | os.O_CREAT | (0 if self.args.buffered else os.O_DIRECT)
        file = os.open(path, flags)
        disk = _native.Disk.open(file, self.tier.engine, self.args.depth)

        def ours(turn: int) -> None:
            first = self.num_rows + turn * n if growing else 0
            for start in range(0, n, WRITE_BATCH):
                batch = packed[start : start + WRITE_BATCH]
                keys = np.arange(first + start, first + start + len(batch))
                self.tier.native.write(0, keys.astype(np.uint64), batch)

        def engine(turn: int) -> None:
            first = turn * APPEND if growing else 0
            size = WRITE_BATCH * self.spec.record.itemsize // WRITE_PIECE * WRITE_PIECE
            for start in range(first, first + APPEND, size):
                offsets = np.arange(start, start + size, WRITE_PIECE)
                _native.reference_write(disk, offsets.astype(np.uint64), WRITE_PIECE)

        try:
            seconds = interleave({"ours": ours, "engine": engine}, self.args.rounds)
        finally:
            os.close(file)
            path.unlink()
        work = n * self.spec.record.itemsize / 1e6, APPEND / 1e6
        return self.result(what, "MB", work, seconds)

    def fio(self, ours: Result) -> Result | None:
        """Set a result of random reads against fio on the same file, if it is installed."""
        if shutil.which("fio") is None:
            return None
        job = {
            "name": "bench",
            "filename": str(self.path),
            "readonly": None,
            "rw": "randread",
            "bs": PAGE,
            "direct": int(not self.args.buffered),
            "invalidate": 0,
            "time_based": None,
            "runtime": 3,
            "output-format": "json",
        }
        if self.tier.engine == "uring":
            job |= {"ioengine": "io_uring", "iodepth": self.args.depth}
        else:
            job |= {"ioengine": "psync", "thread": None, "numjobs": self.args.depth}
            job["group_reporting"] = None
        options = [
            f"--{key}" if value is None else f"--{key}={value}" for key, value in job.items()
        ]
        done = subprocess.run(["fio", *options], capture_output=True, text=True, check=True)
        rate = float(json.loads(done.stdout[done.stdout.index("{") :])["jobs"][0]["read"]["iops"])
        return replace(ours, reference=rate, reference_best=rate, against="fio")

    def h5py(self, ours: Result) -> Iterator[Result]:
        """Set rows per second of random reads against h5py, which reads past the page cache."""
        rows_per_page = BATCH / self.pages_per_batch
        for against, seconds in bench_h5py.measure(self.path, self.spec, self.num_rows):
            yield replace(
                ours,
                unit="rows",
                ours=ours.ours * rows_per_page,
                ours_best=ours.ours_best * rows_per_page,
                reference=bench_h5py.BATCH / float(np.median(seconds)),
                reference_best=bench_h5py.BATCH / min(seconds),
                against=against,
            )


def bench(row_bytes: int, size: int, args: argparse.Namespace) -> Iterator[Result]:
    """Measure everything for rows of one size."""
    with tempfile.TemporaryDirectory(dir=args.folder, prefix="bench-file-") as folder:
        bench = Bench(Path(folder), row_bytes, size, args)
        try:
            read = bench.read()
            yield read
            against_fio = bench.fio(read)
            if against_fio is not None:
                yield against_fio
            yield from bench.h5py(read)
            yield bench.write("append")
            yield bench.write("rewrite")
        finally:
            bench.close()


def print_result(result: Result) -> None:
    """Print one line."""
    print(
        f"{result.what:<12} {result.row_bytes:4} B {result.engine:>8} {result.depth:4} "
        f"{'direct' if result.direct else 'buffered':>8} {result.ours:10,.0f} "
        f"{result.ours_best:10,.0f} {result.reference:10,.0f} {result.reference_best:10,.0f} "
        f"{result.ratio:8.2f}  {result.unit}/s against {result.against}",
        flush=True,
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the command."""
    parser.add_argument("--folder", type=Path, default=Path(), help="where the files go for now")
    parser.add_argument("--size", default="2GiB", help="bytes of rows in the file")
    parser.add_argument("--depth", type=int, default=64, help="requests under way at a time")
    parser.add_argument("--engine", choices=("auto", "uring", "threads"), default="auto")
    parser.add_argument("--buffered", action="store_true", help="through the page cache")
    parser.add_argument("--rounds", type=int, default=9, help="turns per measurement")
    parser.add_argument("--row-bytes", type=int, nargs="+", default=list(ROW_BYTES))
    parser.add_argument("--json", action="store_true", help="one JSON object per line")


def run(args: argparse.Namespace) -> int:
    """Measure; the files are removed."""
    size = parse_bytes(args.size)
    if not args.json:
        print(
            f"pages of {PAGE} bytes, {BATCH:,} rows per call\n"
            f"{'':<12} {'row':>6} {'engine':>8} {'depth':>4} {'':>8} {'ours':>10} {'(best)':>10} "
            f"{'ref':>10} {'(best)':>10} {'ratio':>8}"
        )
    for row_bytes in args.row_bytes:
        for result in bench(row_bytes, size, args):
            if args.json:
                print(json.dumps({"file": asdict(result) | {"ratio": result.ratio}}), flush=True)
            else:
                print_result(result)
    return 0
