"""Rows by table: of any placement each row counts once, and what came less what went is there."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mpi4py import MPI
from torch import nn

from fourfold.comm.cut import Cut
from fourfold.comm.placement import Placement
from fourfold.runtime.assembly import create_bags
from fourfold.runtime.data.batch import Batch
from fourfold.runtime.population import Census, TablePopulation, take_census
from fourfold.runtime.progress import merge
from fourfold.runtime.roles import Roles
from fourfold.runtime.table import EmbeddingConfig, TableConfig, complete_tables
from fourfold.runtime.train_config import TrainConfig
from fourfold.runtime.trainer import Trainer
from fourfold.storage import Population, ReclaimConfig

COMM = MPI.COMM_WORLD
EVERYONE = tuple(range(COMM.size))
DIM = 8 * COMM.size
ALL = {"user": Cut(rows=COMM.size, ranks=EVERYONE), "item": Cut(ranks=(0,))}


class Scores(nn.Module):
    """A logit that is the sum of a sample's embeddings."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, dense, embeddings):
        return embeddings.pooled.sum(1) * self.scale + dense.sum(1)


class Batches:
    """Each rank's samples of some batches: users, and items that are the same over and over."""

    def __init__(self, users: np.ndarray) -> None:
        self.users = np.array_split(users, COMM.size, axis=1)[COMM.rank]
        self.at = 0

    def next_batch(self) -> Batch | None:
        if self.at == len(self.users):
            return None
        users, self.at = self.users[self.at], self.at + 1
        n = len(users)
        return Batch(
            dense=np.zeros((n, 1), np.float32),
            label=(users % 2).astype(np.float32),
            ids=np.concatenate([users, users % 5]),
            offsets=np.arange(2 * n + 1),
        )


def observe(
    cuts: dict[str, Cut], users: np.ndarray, reclaim: ReclaimConfig, every: int = 3, **user: object
) -> tuple[list[dict[str, TablePopulation]], Census]:
    """Train on the users of each batch (N, B); gives what every third step reported. Collective."""
    tables, features = complete_tables(
        [TableConfig(name="user", **user), TableConfig(name="item", rows=7)],
        EmbeddingConfig(dim=DIM),
        ["user", "item"],
    )
    placement = Placement.of([t.shape for t in tables], [cuts[t.name] for t in tables], COMM.size)
    roles = Roles(COMM.size, EVERYONE, EVERYONE)
    bags = create_bags(tables, features, COMM, roles, placement, reclaim=reclaim)
    trainer = Trainer(Scores(), bags, TrainConfig(lookahead=1))
    census = Census(bags.pad, placement, COMM.rank)
    reports = []
    for step, _ in enumerate(trainer.steps(Batches(users)), start=1):
        if step % every == 0:
            reports.append(census.report(merge(COMM, census.take(), {})))
    bags.close()
    return reports, census


@pytest.mark.mpi
@pytest.mark.parametrize(
    "cuts",
    [
        ALL,
        {"user": Cut(columns=COMM.size, ranks=EVERYONE), "item": Cut(rows=2, ranks=(0,))},
        {
            "user": Cut(rows=3, columns=2, ranks=(COMM.size - 1,)),
            "item": Cut(columns=2, ranks=(0,)),
        },
        {"user": Cut(ranks=(0,)), "item": Cut(replicas=COMM.size, ranks=EVERYONE)},
    ],
    ids=["rows", "columns", "grid", "replicas"],
)
def test_every_row_counts_once_wherever_it_lies(cuts: dict[str, Cut]) -> None:
    users = np.random.default_rng(1).integers(0, 500, (9, 40))
    reports, census = observe(cuts, users, ReclaimConfig(by="recency"))

    assert reports[0]["user"].admitted < len(np.unique(users))
    assert sum(r["user"].admitted for r in reports) == len(np.unique(users))
    assert sum(r["item"].admitted for r in reports) == 5
    last = reports[-1]
    assert (last["user"].rows, last["item"].rows) == (len(np.unique(users)), 5)
    assert last["user"].bytes >= len(np.unique(users)) * DIM * 4
    copies = COMM.size if cuts["item"].replicas > 1 else 1
    assert last["item"].bytes >= copies * 5 * DIM * 4
    assert census.whole.admitted == len(np.unique(users)) + 5
    assert census.whole.rows == last["user"].rows + last["item"].rows


@pytest.mark.mpi
def test_what_came_less_what_went_is_there() -> None:
    users = np.arange(40 * 60).reshape(40, 60)  # nobody returns
    reclaim = ReclaimConfig(by="kraken", rows=200, free=0.5)
    reports, census = observe(ALL, users, reclaim, every=4, time_to_live=5)

    rows = 0
    for report in reports:
        user = report["user"]
        rows += user.admitted - user.expired - user.reclaimed
        assert min(user.admitted, user.expired, user.reclaimed) >= 0
        assert abs(user.rows - rows) <= 120  # what is planned while rows are counted
    whole = census.whole
    assert whole.admitted == users.size + 5
    assert whole.rows == whole.admitted - whole.expired - whole.reclaimed
    assert 200 * COMM.size / 4 < whole.rows < 400 * COMM.size
    assert whole.expired + whole.reclaimed > 1000
    assert reports[0]["user"].expired == 0
    assert {r["item"].admitted for r in reports[1:]} == {0}


@pytest.mark.mpi
def test_ids_that_got_no_row() -> None:
    users = np.arange(9 * 40).reshape(9, 40)
    reports, census = observe(ALL, users, ReclaimConfig(), admission="count", admit_count=15)

    assert sum(r["user"].refused for r in reports) == users.size
    assert [r["user"].rows for r in reports] == [0, 0, 0]
    assert census.whole.admitted == 5


class BusyPad:
    """A pad in which rows come and go between two looks at it."""

    def __init__(self) -> None:
        self.rows, self.gone = 100, 0

    def tile_bytes(self, tile: int) -> int:
        return 10 * self.rows

    def tile_rows(self, tile: int) -> int:
        seen, self.rows, self.gone = self.rows, self.rows - 30, self.gone + 30
        return seen

    def population(self, tile: int) -> Population:
        return Population(reclaimed=self.gone)


def test_counting_while_rows_go() -> None:
    """A row that went before it was counted is not told to have come twice."""
    placement = Placement.of([SimpleNamespace(name="t", dim=4, rows=None)], [Cut(ranks=(0,))], 1)
    pad = BusyPad()
    census = Census(pad, placement, 0)  # looked at 100 rows, then at 30 that are gone
    pad.tile_rows = lambda tile: pad.rows
    taken = [TablePopulation(*map(int, census.take().values()))]
    pad.rows += 40
    taken.append(TablePopulation(*map(int, census.take().values())))

    assert [t.admitted for t in taken] == [0, 10]  # 30 of 40 were told before
    assert [t.rows for t in taken] == [70, 110]


def test_rows_are_counted_by_table_only_if_they_come_and_go() -> None:
    def asked(reclaim: ReclaimConfig, **own: object) -> bool:
        tables, _ = complete_tables([TableConfig(name="t", **own)], EmbeddingConfig(), ["t"])
        placement = Placement.of([tables[0].shape], [Cut(ranks=(1,))], 2)
        return take_census(tables, reclaim, placement, BusyPad(), 0) is not None

    assert not asked(ReclaimConfig())
    assert asked(ReclaimConfig(by="kraken"))
    assert not asked(ReclaimConfig(by="kraken"), rows=9)
    assert asked(ReclaimConfig(), admission="bloom")


def test_how_it_is_told() -> None:
    one = TablePopulation(198_000, 1 << 20, 12_040, 3_100, 1_000, 10_000)
    other = TablePopulation(27, 1 << 20, 0, 0, 0, 300)
    both = one + other

    assert both.describe() == "198,027 (+12,040 -11,300, 3,100 refused)"
    assert other.since(both).summarize() == (
        "rows: 27 at the end (1.00 MiB); 12,040 admitted, 3,100 refused, 1,000 expired,"
        " 10,600 reclaimed"
    )
