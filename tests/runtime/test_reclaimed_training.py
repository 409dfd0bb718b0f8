"""A job that forgets rows repeats bit for bit, whatever its threads and tiers do."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from mpi4py import MPI
from numpy.typing import NDArray
from torch import Tensor

from fourfold.runtime import Batch, TableConfig, Trainer, embedding_bags
from fourfold.runtime.embedding import Embeddings
from fourfold.runtime.table import EmbeddingConfig
from fourfold.runtime.train_config import TrainConfig
from fourfold.storage import ReclaimConfig, StorageConfig

STEPS, SAMPLES, DIM = 60, 24, 16


class Model(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.top = torch.nn.Linear(2 + 2 * DIM, 1)

    def forward(self, dense: Tensor, embeddings: Embeddings) -> Tensor:
        return self.top(torch.cat([dense, embeddings.pooled], 1)).squeeze(1)


class Stream:
    """Ids of two features, skewed, of which new ones keep coming; each rank's are its own."""

    def __init__(self, rank: int) -> None:
        self.rng = np.random.default_rng(rank)
        self.step = 0

    def next_batch(self) -> Batch | None:
        if self.step == STEPS:
            return None
        self.step += 1
        ids = self.rng.zipf(1.4, 2 * SAMPLES) % 500 + 5 * self.step
        return Batch(
            dense=self.rng.random((SAMPLES, 2), np.float32),
            label=(self.rng.random(SAMPLES) < 0.3).astype(np.float32),
            ids=ids.astype(np.int64),
            offsets=np.arange(2 * SAMPLES + 1),
        )


def outcome(
    by: str, storage: StorageConfig, lookahead: int = 2
) -> tuple[list[float], list[NDArray[np.void]]]:
    """Losses, and this rank's rows that are left."""
    comm = MPI.COMM_WORLD
    tables = [
        TableConfig(name="a", expected_rows=200, time_to_live=20),
        TableConfig(name="b", expected_rows=200, admission="count", admit_count=2, absent="zeros"),
    ]
    bags = embedding_bags(
        tables,
        comm,
        embedding=EmbeddingConfig(dim=DIM),
        storage=storage,
        reclaim=ReclaimConfig(  # type: ignore[arg-type]
            by=by, rows=120, interval=5, admission_bytes=4096
        ),
    )
    trainer = Trainer(Model(), bags, TrainConfig(lookahead=lookahead, lr=0.05), embedding_lr=0.1)
    losses = [float(loss) for loss in trainer.steps(Stream(comm.rank))]
    rows = []
    for tile in range(len(bags.pad.specs)):
        found = [np.sort(ids) for ids, _ in bags.pad.scan(tile)]
        ids = np.concatenate([np.empty(0, np.int64), *found])
        rows.append(bags.pad.read(tile, np.sort(ids))[0])
    gone = [bags.pad.population(tile).reclaimed for tile in range(len(bags.pad.specs))]
    bags.close()
    bags.store.close()
    assert comm.allreduce(sum(gone)) > 50
    return losses, rows


ONE = StorageConfig()
TWO = StorageConfig(pad_bytes=2**16, host_bytes=2**20)


@pytest.mark.mpi
@pytest.mark.parametrize(
    "by", ["kraken", "frequency", "recency", "importance", "relative_importance"]
)
def test_the_same_rows_are_forgotten_in_every_run(by: str) -> None:
    losses, rows = outcome(by, ONE)
    for storage in (ONE, TWO):
        again, rows_again = outcome(by, storage)
        assert again == losses
        for one, other in zip(rows, rows_again, strict=True):
            assert one.tobytes() == other.tobytes()
