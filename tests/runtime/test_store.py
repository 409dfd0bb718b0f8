"""A rank's store: one, two or three tiers; its files; and that training is the same on all."""

from __future__ import annotations

import threading
from pathlib import Path

import h5py
import numpy as np
import pytest
from mpi4py import MPI
from training import Case, Outcome, train

from fourfold.comm.cut import Cut
from fourfold.runtime.roles import Roles
from fourfold.runtime.store import Store, open_store
from fourfold.runtime.trace import Trace
from fourfold.storage import (
    BudgetError,
    RowSpec,
    RowWiseAdagrad,
    Segment,
    SegmentedRequest,
    StorageConfig,
    StorageError,
    Uniform,
)

COMM = MPI.COMM_WORLD
SMALL = {"pad_bytes": 512 << 10, "host_bytes": 4 << 20}


def specs() -> list[RowSpec]:
    return [
        RowSpec(
            table=0, name="t", dim=64, rows=None, optimizer=RowWiseAdagrad(), init=Uniform(0.01)
        )
    ]


def config(tiers: int, folder: Path, **more: object) -> StorageConfig:
    """One to three tiers, the pad too small for the tables of the tests."""
    if tiers == 1:
        return StorageConfig()
    if tiers == 2:
        return StorageConfig(**SMALL | {"host_bytes": "64MiB"}, **more)
    return StorageConfig(**SMALL, file_bytes="16MiB", folder=str(folder), direct=False, **more)


def visit(store: Store, first: int, count: int = 500) -> None:
    """Plan and release one batch."""
    ids = np.arange(first, first + count, dtype=np.int64)
    ticket = store.pad.plan(SegmentedRequest.of([Segment(0, ids)]), True)
    store.pad.wait(ticket)
    store.pad.release(ticket)


def background() -> int:
    """Threads of this process, those of the native core included."""
    return len(list(Path("/proc/self/task").iterdir()))


@pytest.mark.mpi
@pytest.mark.parametrize("tiers", [1, 2, 3])
def test_rows_are_spread_over_the_tiers(tiers: int, mpi_tmp_path: Path) -> None:
    threads = background()
    store = open_store(specs(), config(tiers, mpi_tmp_path), comm=COMM, run="r")
    trace = Trace()
    store.trace(trace)
    for first in range(0, 40_000, 500):
        visit(store, first)
    visit(store, 0)
    moved, busy = store.take_traffic()
    held = store.bytes
    store.close()
    store.close()

    assert store.tiered == (tiers > 1)
    assert tuple(held) == (("host",), ("pad", "host"), ("pad", "host", "file"))[tiers - 1]
    assert background() <= threads
    if tiers == 1:
        assert (moved, busy) == ({}, {})
        return
    assert held["pad"] <= 512 << 10
    assert moved["born"] == 40_000
    assert moved["pad_hits"] + moved["host_hits"] + moved["file_hits"] == 500
    assert moved["host_written_bytes"] > 0
    assert busy["fetch_s"] > 0
    assert {span.row for span in trace.spans} >= {"fetch"}
    file = mpi_tmp_path / f"rank-{COMM.rank:04d}.h5"
    assert file.exists() == (tiers == 3)
    if tiers == 3:
        with h5py.File(file) as whole:
            assert list(whole)


@pytest.mark.mpi
def test_a_folder_that_another_run_has_open_is_refused_on_all_ranks(mpi_tmp_path: Path) -> None:
    """Although only the last rank's file is taken."""
    last = COMM.rank == COMM.size - 1
    mine = config(3, mpi_tmp_path)
    alone = open_store(specs() if last else [], mine, comm=COMM, run="first")
    threads = background()
    with pytest.raises(StorageError) as raised:
        open_store(specs(), mine, comm=COMM, run="second")

    messages = COMM.allgather(str(raised.value))
    assert len(set(messages)) == 1
    assert f"rank-{COMM.size - 1:04d}.h5" in messages[0]
    assert background() <= threads
    alone.close()


@pytest.mark.mpi
def test_a_rank_without_rows_has_no_tiers(mpi_tmp_path: Path) -> None:
    store = open_store([], config(3, mpi_tmp_path), comm=COMM)
    moved, busy = store.take_traffic()

    assert store.host is None
    assert store.file is None
    assert sum(moved.values()) == sum(busy.values()) == 0
    assert store.bytes == {"pad": store.pad.bytes, "host": 0, "file": 0}
    store.close()
    COMM.Barrier()
    assert list(mpi_tmp_path.iterdir()) == []


@pytest.mark.mpi
def test_a_budget_that_holds_nothing_is_an_error_on_all_ranks() -> None:
    tiny = StorageConfig(pad_bytes=10 if COMM.rank == 0 else 1 << 20)
    with pytest.raises(BudgetError):
        open_store(specs(), tiny, comm=COMM)


def cuts(size: int) -> list[Cut]:
    everyone = tuple(range(size))
    return [
        Cut(rows=size, ranks=everyone),
        Cut(ranks=(size - 1,)),
        Cut(rows=size, ranks=everyone),
    ]


def same(one: Outcome, other: Outcome) -> None:
    assert one.losses == other.losses
    for mine, theirs in zip(one.dense, other.dense, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    for table in one.rows:
        np.testing.assert_array_equal(one.rows[table], other.rows[table])


@pytest.mark.mpi
@pytest.mark.parametrize("lookahead", [0, 3])
@pytest.mark.parametrize("tiers", [2, 3])
def test_training_is_the_same_on_any_tiers(tiers: int, lookahead: int, mpi_tmp_path: Path) -> None:
    everyone = tuple(range(COMM.size))
    roles = Roles(COMM.size, everyone, everyone)
    case = Case(dim=64, sequence=True, samples=200 * COMM.size, d_rows=16_000 * COMM.size)
    plain = train(COMM, case, roles, cuts(COMM.size), lookahead=lookahead, steps=40)
    tiered = train(
        COMM,
        case,
        roles,
        cuts(COMM.size),
        lookahead=lookahead,
        steps=40,
        storage=config(tiers, mpi_tmp_path),
    )

    same(plain, tiered)
    assert tiered.moved["host_written_bytes"] > 0
    assert tiered.moved[f"{('host', 'file')[tiers - 2]}_hits"] > 0
    assert not {t.name for t in threading.enumerate()} & {"read", "route", "plan"}
