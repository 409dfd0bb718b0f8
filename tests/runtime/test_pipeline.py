from __future__ import annotations

import threading

import numpy as np
import pytest
from mpi4py import MPI
from narrow import NarrowPad
from training import Case, Shard, tables

from fourfold.comm.cut import Cut
from fourfold.comm.placement import Placement
from fourfold.runtime.assembly import create_bags
from fourfold.runtime.data.batch import Batch
from fourfold.runtime.embedding import EmbeddingBags
from fourfold.runtime.pipeline import Pipeline
from fourfold.runtime.roles import Roles
from fourfold.runtime.table import EmbeddingConfig, complete_tables

FEATURES = ("a", "b", "c", "d")


@pytest.fixture
def bags():
    comm = MPI.COMM_WORLD
    everyone = tuple(range(comm.size))
    complete, features = complete_tables(tables(Case()), EmbeddingConfig(dim=8), FEATURES)
    placement = Placement.of(
        [t.shape for t in complete], [Cut(rows=comm.size, ranks=everyone)] * 3, comm.size
    )
    made = create_bags(complete, features, comm, Roles(comm.size, everyone, everyone), placement)
    yield made
    made.close()


def shard(steps: int = 6) -> Shard:
    return Shard(Case(), MPI.COMM_WORLD.rank, MPI.COMM_WORLD.size, steps=steps)


def pipeline(bags: EmbeddingBags, source, depth: int, limit: int | None = None) -> Pipeline:
    return Pipeline(source, bags.exchange, bags.pad, depth=depth, limit=limit)


def threads_alive() -> set[str]:
    return {t.name for t in threading.enumerate()} & {"read", "route", "plan"}


@pytest.mark.mpi
@pytest.mark.parametrize("depth", [0, 1, 4, 20])
def test_batches_come_in_order_and_all_of_them(bags: EmbeddingBags, depth: int) -> None:
    expected = [batch.label for batch in shard()._batches]
    got = []
    for prepared in pipeline(bags, shard(), depth):
        assert prepared.batch is not None
        got.append(prepared.batch.label)
        assert prepared.routed.global_batch == 13
        bags.pad.release(prepared.ticket)

    assert len(got) == len(expected)
    for mine, theirs in zip(got, expected, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert not threads_alive()


@pytest.mark.mpi
@pytest.mark.parametrize("depth", [0, 2, 20])
def test_a_limit_is_kept_on_every_rank(bags: EmbeddingBags, depth: int) -> None:
    count = 0
    for prepared in pipeline(bags, shard(), depth, limit=4):
        bags.pad.release(prepared.ticket)
        count += 1

    assert count == 4


@pytest.mark.mpi
@pytest.mark.parametrize("depth", [1, 3])
def test_leaving_early_ends_the_threads_on_every_rank(bags: EmbeddingBags, depth: int) -> None:
    for i, prepared in enumerate(pipeline(bags, shard(), depth)):
        bags.pad.release(prepared.ticket)
        if i == 1:
            break

    assert not threads_alive()
    for prepared in pipeline(bags, shard(2), depth):  # and the channels are still in step
        bags.pad.release(prepared.ticket)


class Broken:
    """A source that fails at its third batch."""

    def __init__(self) -> None:
        self._good = shard()
        self._given = 0

    def next_batch(self) -> Batch | None:
        self._given += 1
        if self._given == 3:
            raise OSError("disk on fire")
        return self._good.next_batch()


@pytest.mark.mpi
@pytest.mark.parametrize("depth", [0, 2])
def test_a_reader_that_fails_fails_the_step_that_needs_its_batch(
    bags: EmbeddingBags, depth: int
) -> None:
    prepared = iter(pipeline(bags, Broken(), depth))
    bags.pad.release(next(prepared).ticket)
    bags.pad.release(next(prepared).ticket)
    with pytest.raises(OSError, match="disk on fire"):
        next(prepared)


class WithGap:
    """A source whose second batch has no sample left, as when all of its rows were malformed."""

    def __init__(self) -> None:
        self._good = shard(3)
        self._given = 0

    def next_batch(self) -> Batch | None:
        self._given += 1
        return (
            Shard(Case(), 0, 1, steps=1, samples=0).next_batch()
            if self._given == 2
            else (self._good.next_batch())
        )


@pytest.mark.mpi
@pytest.mark.parametrize("depth", [0, 2])
def test_a_batch_without_samples_is_not_the_end(bags: EmbeddingBags, depth: int) -> None:
    sizes = []
    for prepared in pipeline(bags, WithGap(), depth):
        sizes.append(prepared.routed.global_batch)
        bags.pad.release(prepared.ticket)

    assert sizes == [13, 0, 13, 13]


@pytest.mark.mpi
def test_a_rank_without_data_takes_part(bags: EmbeddingBags) -> None:
    rank, size = MPI.COMM_WORLD.rank, MPI.COMM_WORLD.size
    source = Shard(Case(), 0, 1) if rank == size - 1 else None
    count = 0
    for prepared in pipeline(bags, source, 2):
        assert (prepared.batch is None) == (source is None)
        bags.pad.release(prepared.ticket)
        count += 1

    assert count == 5


@pytest.mark.mpi
@pytest.mark.parametrize("depth", [0, 1, 4])
def test_ranks_with_little_room_and_ranks_with_much(bags: EmbeddingBags, depth: int) -> None:
    """Every rank finds its own depth, and all train the same batches."""
    pad = NarrowPad(1 if MPI.COMM_WORLD.rank % 2 == 0 else 100, bags.pad)
    count = 0
    for prepared in Pipeline(shard(12), bags.exchange, pad, depth=depth):
        pad.release(prepared.ticket)
        count += 1

    assert count == 12
    assert pad.held == 0


@pytest.mark.mpi
@pytest.mark.parametrize("depth", [1, 4])
def test_leaving_early_while_some_ranks_wait_for_room(bags: EmbeddingBags, depth: int) -> None:
    pad = NarrowPad(1 if MPI.COMM_WORLD.rank % 2 == 0 else 100, bags.pad)
    for i, prepared in enumerate(Pipeline(shard(12), bags.exchange, pad, depth=depth)):
        if i == 2:
            break  # its ticket is held
        pad.release(prepared.ticket)
    pad.release(prepared.ticket)

    assert not threads_alive()
    assert pad.held == 0
    for prepared in pipeline(bags, shard(2), depth):  # and the channels are still in step
        bags.pad.release(prepared.ticket)
