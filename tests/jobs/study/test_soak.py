"""The soak: new ids without end, a verdict on memory and speed, and the real path on all ranks."""

from __future__ import annotations

import argparse
import json
import mmap
from pathlib import Path

import pytest
from mpi4py import MPI

from fourfold.jobs.study import soak
from fourfold.jobs.study.newcomers import FIELDS, Newcomers
from fourfold.jobs.study.soak import Interval, judge, merge


def intervals(resident: list[float], speed: list[float]) -> list[Interval]:
    return [
        Interval(minutes=i, samples_per_s=s, resident_bytes=int(r), rows=1, row_bytes=1)
        for i, (r, s) in enumerate(zip(resident, speed, strict=True))
    ]


def test_half_of_the_lookups_are_new_ids() -> None:
    source = Newcomers(64, rank=1, ranks=2, seconds=60)
    seen: set[int] = {1}  # the id of before the first
    for _ in range(20):
        batch = source.next_batch()
        assert batch is not None
        ids = batch.ids.reshape(len(FIELDS), 64)[3]
        assert (ids % 2 == 1).all()
        fresh = set(ids.tolist()) - seen
        assert len(fresh) == 32
        seen |= fresh
    other = Newcomers(64, rank=0, ranks=2, seconds=60).next_batch()
    assert other is not None
    assert not set(other.ids.tolist()) & seen


def test_it_ends_when_time_is_up() -> None:
    assert Newcomers(64, rank=0, ranks=1, seconds=0).next_batch() is None


def test_flat_memory_at_a_steady_speed_passes() -> None:
    verdict = judge(intervals([10, *[1000] * 17, 1019, 1000], [9, 9, *[100] * 16, 96, 96]))

    assert verdict.resident_change == pytest.approx(0.019)
    assert verdict.speed == pytest.approx(0.96)
    assert verdict.passed
    assert str(verdict).startswith("PASSED: memory within 1.90%")


@pytest.mark.parametrize(("resident", "last"), [(1030.0, 100.0), (970.0, 100.0), (1000.0, 94.0)])
def test_growth_and_slowing_fail(resident: float, last: float) -> None:
    verdict = judge(intervals([1000] * 15 + [resident] + [1000] * 4, [100] * 18 + [last] * 2))

    assert not verdict.passed
    assert str(verdict).startswith("FAILED")


def test_ranks_add_up_to_the_shortest() -> None:
    (one,) = merge([intervals([5, 7], [3, 3]), intervals([6], [3])])

    assert (one.resident_bytes, one.rows, one.samples_per_s) == (11, 2, 3)


def test_memory_in_use_is_measured() -> None:
    size = 64 << 20
    with mmap.mmap(-1, size) as fresh:  # an array might get memory that is in use already
        before = soak.resident_bytes()
        for page in range(0, size, mmap.PAGESIZE):
            fresh[page] = 1

        assert soak.resident_bytes() - before > 0.9 * size


@pytest.mark.mpi
@pytest.mark.parametrize("by", ["none", "kraken"])
def test_a_soak_runs_on_all_ranks(comm: MPI.Intracomm, tmp_path: Path, by: str) -> None:
    parser = argparse.ArgumentParser()
    soak.add_arguments(parser)
    options = f"--minutes 0.02 --intervals 10 --by {by} --rows 500 --interval 5 --dim 4 --batch 64"
    soak.run(parser.parse_args(["--out", str(tmp_path), *options.split()]))

    if comm.rank == 0:
        content = json.loads((tmp_path / "study.json").read_text())
        assert content["ranks"] == comm.size
        assert 1 <= len(content["intervals"]) <= 10
        rows = [interval["rows"] for interval in content["intervals"]]
        assert max(rows) < 2_000 * comm.size if by == "kraken" else rows == sorted(rows)
        assert (tmp_path / "soak.png").exists()
