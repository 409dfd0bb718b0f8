"""`fourfold train` on real ranks when its files cannot be made or cannot grow: all ranks end."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from ranks import Ended
from tiered_job import train, write_job

from fourfold.storage import SGD, RowSpec, Uniform
from fourfold.storage.tier import FileTier

SECONDS = 45
"""A run that fails is over by then."""


@pytest.fixture
def job(tmp_path: Path) -> Path:
    return write_job(tmp_path)


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a file system of fixed size")
    at = tmp_path / "small"
    at.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(at)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
    yield at
    subprocess.run(["umount", "--lazy", str(at)], check=True)


def assert_failed(ended: Ended, *words: str) -> None:
    """All ranks ended, soon, and the end says why."""
    assert ended.code != 0, ended.output
    assert ended.seconds < SECONDS
    for word in words:
        assert word in ended.output[-1500:], ended.output


def test_a_full_file_system_ends_all_ranks(job: Path, mounted: Path) -> None:
    ended = train(job, f"--storage.folder={mounted}")

    assert_failed(ended, "StorageError: [Errno 28] ", f"{mounted}/rank-000")
    assert ended.last_line.startswith("[rank"), ended.output
    assert "No space left on device" in ended.last_line


def test_a_file_system_that_cannot_be_written(job: Path, mounted: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(mounted)], check=True)

    ended = train(job, f"--storage.folder={mounted}/rows")

    assert_failed(ended, "[ranks 0-1/2 ", f"{mounted}/rows", "Read-only file system")


def test_a_folder_that_is_a_file(job: Path) -> None:
    rows = job.parent / "rows"
    rows.write_text("")

    ended = train(job, f"--storage.folder={rows}")

    assert_failed(ended, "[ranks 0-1/2 ", str(rows))


def test_a_file_that_was_there_stays_as_it_was(job: Path) -> None:
    """Only the last rank meets it; all ranks say so, and leave nothing of their own behind."""
    rows = job.parent / "rows"
    rows.mkdir()
    (rows / "rank-0001.h5").write_text("of somebody else")

    ended = train(job, f"--storage.folder={rows}")

    assert_failed(ended, "[ranks 0-1/2 ", "StorageError", "rank-0001.h5")
    assert [path.name for path in rows.iterdir()] == ["rank-0001.h5"]
    assert (rows / "rank-0001.h5").read_text() == "of somebody else"


def test_a_run_that_is_under_way_keeps_its_files(job: Path) -> None:
    spec = RowSpec(table=0, name="t", dim=8, rows=None, optimizer=SGD(), init=Uniform(1.0))
    ids = np.arange(1000)
    records = np.zeros(len(ids), spec.record)
    records["weights"] = ids[:, None]
    rows = job.parent / "rows"
    rows.mkdir()
    with FileTier([spec], rows / "rank-0001.h5", run="other", rank=1) as other:
        other.write(0, ids, records)
        ended = train(job, f"--storage.folder={rows}")
        kept, found = other.read(0, ids)

    assert_failed(ended, "[ranks 0-1/2 ", "StorageError", "rank-0001.h5")
    assert found.all()
    assert kept.tobytes() == records.tobytes()


def test_a_pad_that_is_too_small_says_so_before_it_trains(job: Path) -> None:
    ended = train(job, "--storage.pad_bytes=20KiB")

    assert_failed(ended, "storage.pad_bytes", "bytes) in the pad")
    assert re.search(r"BudgetError: a batch asks .* raise it", ended.last_line)
    assert "storage.pad_bytes = 20.0 KiB seems too small" in ended.output
    assert "samples/s" not in ended.output  # no step was lost
