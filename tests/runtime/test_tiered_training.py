"""A job whose rows lie in two or three tiers is the job in one, bit for bit."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from mpi4py import MPI
from test_invariants import cuts_of, roles_of
from training import Case, Outcome, train

from fourfold.runtime.store import open_store
from fourfold.storage import BudgetError, Pad, RowSpec, SegmentedRequest, StorageConfig
from fourfold.storage.request import Request
from fourfold.storage.tier import HostTier

STEPS = 12
CASE = Case(dim=96, d_rows=600, samples=16)
FILE_BYTES = 2**20
HOST_ROWS = 100_000
"""Bytes of the host tier that are left for rows, above a file."""
MIXES = {1: ["colocated"], 2: ["colocated", "split"], 4: ["overlapping", "one holder"]}
AXES = {"colocated": "mixed", "split": "row", "overlapping": "grid", "one holder": "table"}


@dataclasses.dataclass
class Asked:
    """What this rank's pad was asked to train, in a run with one tier."""

    specs: tuple[RowSpec, ...] = ()
    requests: list[SegmentedRequest] = dataclasses.field(default_factory=list)

    @functools.cached_property
    def smallest_pad(self) -> int:
        """The least budget that trains one batch at a time, nearly."""
        return least(self._trains)

    @functools.cached_property
    def smallest_host(self) -> int:
        """The least budget of a host tier that bears a file tier."""
        return least(self._bears_a_file)

    def _trains(self, budget: int) -> None:
        pad = Pad(self.specs, budget_bytes=budget, host=HostTier(self.specs))
        for request in self.requests:
            pad.release(pad.plan(request, True))
        pad.close()

    def _bears_a_file(self, budget: int) -> None:
        with tempfile.TemporaryDirectory() as folder:
            config = StorageConfig(
                pad_bytes=2**20,
                host_bytes=budget,
                file_bytes=FILE_BYTES,
                folder=folder,
                direct=False,
            )
            open_store(self.specs, config, comm=MPI.COMM_SELF).close()


def least(use: Callable[[int], None]) -> int:
    """The least budget that is enough, nearly."""
    low, high = 16 << 10, 4 << 20
    while high - low > 4096:
        middle = (low + high) // 2
        try:
            use(middle)
            high = middle
        except BudgetError:
            low = middle
    return high


@contextlib.contextmanager
def listening(asked: Asked) -> Iterator[None]:
    """Remember what pads are asked meanwhile."""
    real = Pad.try_plan

    def try_plan(pad: Pad, request: Request, train: bool):  # type: ignore[no-untyped-def]
        if train:
            fields = [f.name for f in dataclasses.fields(SegmentedRequest)]
            arrays = {name: getattr(request, name) for name in fields}
            copies = {name: None if a is None else a.copy() for name, a in arrays.items()}
            asked.specs = pad.specs
            asked.requests.append(SegmentedRequest(**copies))
        return real(pad, request, train)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Pad, "try_plan", try_plan)
        yield


@functools.cache
def in_one_tier(mix: str) -> tuple[Outcome, Asked]:
    """The run to compare with."""
    asked = Asked()
    with listening(asked):
        return run(mix, None, lookahead=0), asked


def run(mix: str, storage: StorageConfig | None, lookahead: int) -> Outcome:
    roles = roles_of(mix, MPI.COMM_WORLD.size)
    cuts = cuts_of(AXES[mix], roles)
    return train(
        MPI.COMM_WORLD,
        CASE,
        roles,
        cuts,
        lookahead=lookahead,
        steps=STEPS,
        storage=storage,
        evaluate_every=5,
    )


def assert_same_bits(got: Outcome, expected: Outcome) -> None:
    assert got.losses == expected.losses
    assert got.metrics == expected.metrics
    for mine, theirs in zip(got.dense, expected.dense, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    for name, rows in expected.rows.items():
        np.testing.assert_array_equal(got.rows[name], rows, err_msg=name)


@pytest.fixture
def folder() -> Iterator[Path]:
    """One for all ranks."""
    comm = MPI.COMM_WORLD
    with tempfile.TemporaryDirectory() as mine:
        yield Path(comm.bcast(mine))
        comm.Barrier()


@pytest.mark.mpi
@pytest.mark.parametrize("tiers", ["host", "host+file"])
@pytest.mark.parametrize(("lookahead", "room"), [(0, 1.0), (2, 1.0), (6, 1.0), (6, 1.5)])
@pytest.mark.parametrize("number", [0, 1])
def test_tiers_change_no_bit(
    folder: Path, number: int, lookahead: int, room: float, tiers: str
) -> None:
    mixes = MIXES.get(MPI.COMM_WORLD.size, ["colocated"])
    if number >= len(mixes):
        pytest.skip("this many ranks share out their roles in one way")
    expected, asked = in_one_tier(mixes[number])
    storage = StorageConfig(pad_bytes=2**20)  # a rank that holds no rows has no tiers
    if asked.specs:
        storage = dataclasses.replace(storage, pad_bytes=int(asked.smallest_pad * room))
    if tiers == "host+file":
        host = asked.smallest_host + HOST_ROWS if asked.specs else 2**20
        storage = dataclasses.replace(
            storage, host_bytes=host, file_bytes=FILE_BYTES, folder=str(folder), direct=False
        )

    got = run(mixes[number], storage, lookahead)

    assert_same_bits(got, expected)
    moved = MPI.COMM_WORLD.allreduce(got.moved["file_hits" if "file" in tiers else "host_hits"])
    assert room > 1 or moved > 0
