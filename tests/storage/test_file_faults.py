"""The file tier when the disk fails: rows that were written stay, and the message says where."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from faulty_disk import FaultyTier
from numpy.typing import NDArray
from tier_contract import same, spec_of

from fourfold.storage import BudgetError, CorruptionError, StorageError
from fourfold.storage.tier import FileTier

SPEC = spec_of(0, None, 60)  # 15 records in a page
PER_PAGE = 15
PAGE = 4096


def make(path: Path, **options: Any) -> FaultyTier:
    return FaultyTier([SPEC], path / "rows.h5", run="r", **options)


def some(n: int, first: int = 0, version: int = 1) -> tuple[NDArray[np.int64], NDArray[np.void]]:
    ids = np.arange(first, first + n)
    records = np.zeros(n, SPEC.record)
    records["weights"] = ids[:, None] + np.arange(60) / 64
    records["time"] = version
    return ids, records


def holds(tier: FileTier, ids: NDArray[np.int64], records: NDArray[np.void]) -> bool:
    got, found = tier.read(0, ids)
    return bool(found.all()) and same(got, records)


@pytest.fixture
def tier(tmp_path: Path) -> Iterator[FaultyTier]:
    with make(tmp_path) as tier:
        yield tier


@pytest.mark.parametrize(
    ("result", "code", "text"),
    [
        (-errno.EIO, errno.EIO, "cannot be read: Input/output error"),
        (100, errno.EIO, "cut short: 100 of 4096 bytes"),
        (0, errno.EIO, "cut short: 0 of 4096 bytes"),
    ],
)
def test_a_failed_read_says_where(tier: FaultyTier, result: int, code: int, text: str) -> None:
    ids, records = some(10 * PER_PAGE)
    tier.write(0, ids, records)
    tier.faults.fail_next_read(result, after=1)

    with pytest.raises(StorageError) as raised:
        tier.read(0, ids[[0, 2 * PER_PAGE + 3, 5 * PER_PAGE]])  # three pages

    assert raised.value.errno == code
    assert f"rows.h5: /rows/fp32x60 records {2 * PER_PAGE}:{3 * PER_PAGE}" in str(raised.value)
    assert text in str(raised.value)
    assert holds(tier, ids, records)  # the next time


@pytest.mark.parametrize("result", [-errno.EIO, -errno.ENOSPC, 8192, 0])
@pytest.mark.parametrize("after", [0, 1, 9])
def test_a_failed_write_leaves_what_was_there(tier: FaultyTier, result: int, after: int) -> None:
    old = some(300 * PER_PAGE)
    tier.write(0, *old)
    new = some(600 * PER_PAGE, first=150 * PER_PAGE, version=2)
    tier.faults.fail_next_write(result, after=after)

    with pytest.raises(StorageError) as raised:
        tier.write(0, *new)

    assert raised.value.errno == (-result if result < 0 else errno.EIO)
    assert "rows.h5: /rows/fp32x60 records" in str(raised.value)
    assert "cannot be written" in str(raised.value)
    assert holds(tier, *old)
    assert tier.rows == len(old[0])
    tier.write(0, *new)  # and space is not lost
    assert holds(tier, *new)
    assert holds(tier, old[0][: 150 * PER_PAGE], old[1][: 150 * PER_PAGE])


def test_a_failed_read_or_write_while_cleaning_moves_nothing(tmp_path: Path) -> None:
    with make(tmp_path, budget_bytes=6 * 4 * PAGE, segment_bytes=4 * PAGE) as tier:
        ids, records = some(4 * 4 * PER_PAGE)
        tier.write(0, ids, records)
        tier.erase(0, ids[::2])
        kept = ids[1::2], records[1::2]
        full = some(30 * PER_PAGE, first=1000)
        for fault in (tier.faults.fail_next_read, tier.faults.fail_next_write):
            for after in range(3):
                fault(after=after)
                with contextlib.suppress(StorageError):
                    tier.write(0, *full)
                tier.faults.reads.clear()
                tier.faults.writes.clear()
                assert holds(tier, *kept)
                tier.erase(0, full[0])
        assert tier.faults.num_reads > 0
        tier.write(0, full[0][: 8 * PER_PAGE], full[1][: 8 * PER_PAGE])
        assert holds(tier, full[0][: 8 * PER_PAGE], full[1][: 8 * PER_PAGE])
        assert holds(tier, *kept)
        assert tier.bytes <= 6 * 4 * PAGE


def flip(path: Path, place: int, byte: int) -> None:
    """Change one byte of a record in the file."""
    with h5py.File(path, "r", locking=False) as file:
        dataset = file["rows/fp32x60"]
        pages = dataset.chunks[0]
        page, slot = divmod(place, PER_PAGE)
        start = dataset.id.get_chunk_info_by_coord((page // pages * pages,)).byte_offset
        at = start + page % pages * PAGE + slot * dataset.dtype["row"].base.itemsize + byte
    with open(path, "r+b") as raw:
        raw.seek(at)
        old = raw.read(1)
        raw.seek(at)
        raw.write(bytes([old[0] ^ 1]))


@pytest.mark.parametrize("byte", [0, 100, 241, 244, 252, 256, 259])
def test_a_changed_byte_is_found(tmp_path: Path, byte: int) -> None:
    with make(tmp_path) as tier:
        ids, records = some(100)
        tier.write(0, ids, records)
        assert tier.path is not None
        flip(tier.path, 42, byte)

        with pytest.raises(
            CorruptionError, match=r"rows.h5: /rows/fp32x60 records 42:43, a row of"
        ):
            tier.read(0, ids)
        others = np.delete(ids, 42)
        assert holds(tier, others, records[others])


def test_cleaning_finds_a_changed_byte(tmp_path: Path) -> None:
    with make(tmp_path, budget_bytes=4 * 4 * PAGE, segment_bytes=4 * PAGE) as tier:
        ids, records = some(3 * 4 * PER_PAGE)
        tier.write(0, ids, records)
        assert tier.path is not None
        tier.erase(0, ids[1:60])
        flip(tier.path, 0, 7)

        with pytest.raises(CorruptionError, match=r"records 0:60: 1 of 1 rows are not"):
            tier.write(0, *some(60, first=1000))
        assert holds(tier, ids[60:], records[60:])


def test_a_row_of_another_place_is_found(tmp_path: Path) -> None:
    """Whole records with right checksums, but not the ones that should be there."""
    with make(tmp_path) as tier:
        ids, records = some(2 * PER_PAGE)
        tier.write(0, ids, records)
        assert tier.path is not None
        with h5py.File(tier.path, "r", locking=False) as file:
            start = file["rows/fp32x60"].id.get_chunk_info_by_coord((0,)).byte_offset
        with open(tier.path, "r+b") as raw:
            raw.seek(start)
            page = raw.read(PAGE)
            raw.seek(start + PAGE)
            raw.write(page)

        assert holds(tier, ids[:PER_PAGE], records[:PER_PAGE])
        with pytest.raises(CorruptionError, match="checksum or key is wrong"):
            tier.read(0, ids[PER_PAGE:])


def test_a_file_cut_short_is_an_error(tmp_path: Path) -> None:
    with make(tmp_path) as tier:
        ids, records = some(1000)
        tier.write(0, ids, records)
        assert tier.path is not None
        os.truncate(tier.path, 20000)

        with pytest.raises(StorageError, match=r"rows.h5: .* has been cut short") as raised:
            tier.read(0, ids)
        assert raised.value.errno == errno.EIO


def test_a_full_file_system(tmp_path: Path) -> None:
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(tmp_path)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("a small file system can only be mounted by root")
    try:
        with make(tmp_path, segment_bytes=1 << 18) as tier:
            ids, records = some(100_000)
            done = 0

            def fill() -> None:
                nonlocal done
                for done in range(0, len(ids), 1000):
                    tier.write(0, ids[done : done + 1000], records[done : done + 1000])

            with pytest.raises(StorageError) as raised:
                fill()
            assert raised.value.errno == errno.ENOSPC
            assert "No space left on device" in str(raised.value)
            assert 15_000 < done < 35_000
            assert holds(tier, ids[:done], records[:done])
            tier.erase(0, ids[: done // 2])  # room is found again where rows were
            tier.write(0, ids[done : done + 4000], records[done : done + 4000])
            assert holds(tier, ids[done // 2 : done + 4000], records[done // 2 : done + 4000])
            tier.erase(0, ids)  # HDF5 needs room too, for its own pages at the end
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_a_killed_process_leaves_every_row_it_was_told_is_written(tmp_path: Path) -> None:
    program = f"""
        import sys
        import numpy as np
        sys.path[:0] = {sys.path!r}
        from test_file_faults import SPEC, some
        from fourfold.storage.tier import FileTier
        tier = FileTier([SPEC], {str(tmp_path / "rows.h5")!r}, run="r", segment_bytes=1 << 16)
        for first in range(0, 10**9, 500):
            tier.write(0, *some(500, first=first))
            print(first + 500, flush=True)
    """
    command = [sys.executable, *["-S"] * sys.flags.no_site, "-P", "-c", textwrap.dedent(program)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        written = 0
        while written < 60_000:
            written = int(child.stdout.readline())
        child.send_signal(signal.SIGKILL)
        written = int((child.stdout.read().split() or [written])[-1])

    with h5py.File(tmp_path / "rows.h5", "r", locking=False) as file:
        rows = file["rows/fp32x60"][...]["row"].reshape(-1)
    at = np.full(written, -1)
    mine = np.flatnonzero((rows["crc"] != 0) & (rows["key"] < written))
    at[rows["key"][mine]] = mine
    assert (at >= 0).all()
    _, records = some(written)
    for field in ("weights", "time", "score"):
        assert (rows[field][at] == records[field]).all()
    with pytest.raises(StorageError, match="was not closed"):
        FileTier.open([SPEC], tmp_path / "rows.h5", run="r")


def test_an_engine_that_cannot_be_had(tmp_path: Path) -> None:
    """No descriptor is left for a ring: auto goes on with threads, uring says why not."""
    program = f"""
        import os, resource, sys
        sys.path[:0] = {sys.path!r}
        from fourfold.storage import _native
        file = os.open({str(tmp_path / "x")!r}, os.O_RDWR | os.O_CREAT)
        resource.setrlimit(resource.RLIMIT_NOFILE, (file + 1, file + 1))
        assert _native.Disk.open(file, "auto", 8).engine == "threads"
        try:
            _native.Disk.open(file, "uring", 8)
        except OSError as error:
            print(type(error).__name__, error)
    """
    done = subprocess.run(
        [sys.executable, *["-S"] * sys.flags.no_site, "-P", "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
    )
    assert done.stderr == ""
    assert "StorageError [Errno 24] the system refuses io_uring: Too many open files" in done.stdout


def test_too_few_descriptors(tmp_path: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.open("/dev/null", os.O_RDONLY)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, limits[1]))
    try:
        with pytest.raises(StorageError, match="raise the limit of open files") as raised:
            make(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert raised.value.errno == errno.EMFILE
    assert not (tmp_path / "rows.h5").exists()


def test_memory_that_is_refused_harms_no_row(tier: FaultyTier) -> None:
    held = 0
    limit = 1 << 40

    def charge(amount: int) -> None:
        nonlocal held
        if held + amount > limit:
            raise BudgetError("host memory")
        held += amount

    tier.native.charge_to(charge)
    tier.write(0, *some(1000))
    assert held == tier.memory_bytes > 0
    limit = held + 100_000
    ids, records = some(200_000, first=1000)
    with pytest.raises(BudgetError, match="host memory"):
        tier.write(0, ids, records)
    assert held == tier.memory_bytes <= limit
    assert holds(tier, *some(1000))
    got, found = tier.read(0, ids)
    assert 0 < found.sum() < len(ids)
    assert same(got[found], records[found])
    limit = 1 << 40
    tier.write(0, ids, records)
    assert holds(tier, ids, records)
    tier.native.charge_to(None)
    assert held == 0
