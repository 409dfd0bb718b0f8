from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from mpi4py import MPI
from torch import nn

from fourfold.comm.mpi import MpiBackend
from fourfold.runtime import (
    Batch,
    EmbeddingConfig,
    TableConfig,
    TrainConfig,
    Trainer,
    embedding_bags,
)
from fourfold.runtime.errors import ConfigError, Error
from fourfold.runtime.gradients import GradientBuckets
from fourfold.storage import Pad, ReclaimConfig


class Scores(nn.Module):
    """A logit that is the sum of a sample's embeddings."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, dense, embeddings):
        return embeddings.pooled.sum(1) * self.scale + dense.sum(1)


def batch_of(ids, label, dense=0.0) -> Batch:
    n = len(ids)
    return Batch(
        dense=np.full((n, 1), dense, np.float32),
        label=np.asarray(label, np.float32),
        ids=np.asarray(ids, np.int64),
        offsets=np.arange(n + 1),
        weights=None,
    )


class Batches:
    def __init__(self, *batches: Batch) -> None:
        self._left = list(batches)

    def next_batch(self) -> Batch | None:
        return self._left.pop(0) if self._left else None


def make(
    table: TableConfig | None = None, reclaim: ReclaimConfig | None = None, **config
) -> Trainer:
    bags = embedding_bags(
        [table or TableConfig(name="id", dim=4)],
        MPI.COMM_WORLD,
        embedding=EmbeddingConfig(dim=4),
        reclaim=reclaim,
    )
    return Trainer(Scores(), bags, TrainConfig(**config), embedding_lr=0.5)


@pytest.mark.mpi
def test_training_separates_clicked_ids_and_evaluation_sees_it() -> None:
    rank = MPI.COMM_WORLD.rank
    ids = np.arange(32) + 32 * rank
    batches = [batch_of(ids, ids % 2) for _ in range(30)]
    trainer = make()
    before = trainer.evaluate(Batches(batches[0]))
    losses = [MPI.COMM_WORLD.allreduce(loss) for loss in trainer.steps(Batches(*batches))]
    after = trainer.evaluate(Batches(batches[0]))

    assert losses[-1] < 0.2 < losses[0]
    assert after.auc == 1.0 > before.auc
    assert after.samples == 32 * MPI.COMM_WORLD.size
    trainer.bags.close()


@pytest.mark.mpi
def test_evaluation_leaves_no_rows_behind() -> None:
    trainer = make()
    trainer.evaluate(Batches(batch_of([1, 2, 3], [0, 1, 0])))

    assert trainer.bags.pad.rows == 0
    trainer.bags.close()


@pytest.mark.mpi
@pytest.mark.parametrize("lookahead", [0, 2])
@pytest.mark.parametrize("reply", ["rows", "pooled"])
def test_owners_are_told_what_training_samples_count_for(
    reply, lookahead, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where a rank has no samples; evaluation counts for nothing."""
    comm, told = MPI.COMM_WORLD, {True: Counter(), False: Counter()}
    real = Pad.try_plan

    def try_plan(pad, request, train):
        credits = [] if request.credits is None else request.credits.tolist()
        for key, credit in zip(request.ids.tolist(), credits, strict=bool(credits)):
            told[train][key] += credit
        return real(pad, request, train)

    monkeypatch.setattr(Pad, "try_plan", try_plan)
    reclaim = ReclaimConfig(by="kraken", positive_weight=3.0, rows=1000)
    trainer = make(TableConfig(name="id", dim=4, reply=reply), reclaim, lookahead=lookahead)
    batch = batch_of(np.array([1, 2, 1, 3]) + 10 * comm.rank, [1, 0, 0, 1])
    steps = 2 if comm.rank == 0 else 1
    assert len(list(trainer.steps(Batches(*[batch] * steps)))) == 2
    trainer.evaluate(Batches(batch))

    for train, want in ((True, {1: 4.0, 2: 1.0, 3: 3.0}), (False, {})):
        expected = Counter()
        for rank in range(comm.size):
            for key, credit in want.items():
                expected[key + 10 * rank] = credit * (2 if rank == 0 else 1)
        assert sum(comm.allgather(told[train]), Counter()) == expected
    trainer.bags.close()


@pytest.mark.mpi
def test_rows_that_nothing_limits_do_not_go() -> None:
    with pytest.raises(ConfigError, match=r"reclaim.by = .kraken. has no use without a budget"):
        make(reclaim=ReclaimConfig(by="kraken"))


@pytest.mark.mpi
def test_evaluation_between_steps_changes_nothing() -> None:
    batches = [batch_of(np.arange(8) + step, np.arange(8) % 2) for step in range(6)]
    plain, watched = make(), make()
    expected = list(plain.steps(Batches(*batches)))
    got = []
    for loss in watched.steps(Batches(*batches)):
        got.append(loss)
        watched.evaluate(Batches(batch_of([10**9], [1])))

    assert got == expected
    plain.bags.close()
    watched.bags.close()


@pytest.mark.mpi
def test_dense_ranks_start_from_the_parameters_of_the_first() -> None:
    torch.manual_seed(MPI.COMM_WORLD.rank)
    model = nn.Linear(3, 2)
    bags = embedding_bags([TableConfig(name="id", dim=4)], MPI.COMM_WORLD)
    Trainer(model, bags)
    all_weights = MPI.COMM_WORLD.allgather(model.weight.detach().numpy().copy())

    for weights in all_weights:
        np.testing.assert_array_equal(weights, all_weights[0])
    bags.close()


@pytest.mark.mpi
def test_gradient_buckets_sum_over_the_ranks_whatever_arrives_first() -> None:
    comm = MPI.COMM_WORLD
    backend = MpiBackend(comm)
    layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(5))
    buckets = GradientBuckets(layers.parameters(), backend, bucket_bytes=64)
    x = torch.full((2, 4), float(comm.rank + 1))
    used = layers[:3] if comm.rank == 0 else reversed(layers[1:])  # other layers, other order
    buckets.zero()
    out = x
    for layer in used:
        out = layer(out)
    out.sum().backward()
    own = [p.grad.clone() for p in layers.parameters()]
    buckets.finish()

    # What backward left before sums ended cannot be told apart here, so compare by a second way.
    del own
    summed = [p.grad.clone() for p in layers.parameters()]
    everyone = comm.allgather([g.numpy() for g in summed])
    for other in everyone:
        for mine, theirs in zip(summed, other, strict=True):
            np.testing.assert_array_equal(mine.numpy(), theirs)
    assert all(g.abs().sum() > 0 for g in summed[2:6])
    backend.close()


@pytest.mark.mpi
def test_a_loss_that_is_not_finite_is_an_error_with_the_step() -> None:
    trainer = make()
    with pytest.raises(Error, match=r"step 1: the loss .* is nan"):
        list(trainer.steps(Batches(batch_of([1], [1], dense=float("nan")))))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"steps": 0}, "steps must be at least 1"),
        ({"lr": -1.0}, "lr must be positive"),
        ({"decay": 1.5, "steps": 4}, "decay must be in"),
        ({"decay": 0.5}, "decay needs steps"),
        ({"lookahead": -1}, "lookahead must be at least 0"),
    ],
)
def test_impossible_training_is_refused(changes: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TrainConfig(**changes)


def test_learning_rates_rise_and_fall_linearly() -> None:
    config = TrainConfig(steps=10, warmup_steps=4, decay=0.5)
    rates = [config.rate(step) for step in range(1, 11)]

    np.testing.assert_allclose(rates, [0.25, 0.5, 0.75, 1, 1, 1, 0.8, 0.6, 0.4, 0.2])
