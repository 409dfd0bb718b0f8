"""A small model over every kind of table, and its training on any number of ranks: for the
tests."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from mpi4py import MPI
from torch import Tensor, nn

from fourfold.comm.cut import Cut
from fourfold.comm.placement import Placement
from fourfold.runtime.assembly import create_bags
from fourfold.runtime.data.batch import Batch
from fourfold.runtime.device import Devices
from fourfold.runtime.embedding import Embeddings
from fourfold.runtime.metrics import Metrics
from fourfold.runtime.roles import Roles
from fourfold.runtime.table import EmbeddingConfig, TableConfig, complete_tables
from fourfold.runtime.train_config import TrainConfig
from fourfold.runtime.trainer import Trainer
from fourfold.storage import StorageConfig

torch.set_num_threads(1)  # ranks share the cores

NUM_DENSE = 3
FEATURES = ("a", "b", "c", "d")
"""Features a and b share the static table "ab"; c is a static table, d a dynamic one."""
ROWS = {"ab": 40, "c": 17}
"""Rows of the static tables."""


class Model(nn.Module):
    """One linear layer over everything: every embedding gets a gradient of its own."""

    def __init__(self, pooled_width: int, sequence_dim: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(5)
        self.weight = nn.Parameter(torch.randn(NUM_DENSE + pooled_width, generator=generator) * 0.5)
        self.sequence = nn.Parameter(torch.randn(sequence_dim, generator=generator) * 0.5)

    def forward(self, dense: Tensor, embeddings: Embeddings) -> Tensor:
        out = torch.tanh(embeddings.after(dense)) @ self.weight
        for values, offsets in embeddings.sequences().values():
            scores = torch.tanh(values.float() @ self.sequence)
            sums = torch.cat([scores.new_zeros(1), scores.cumsum(0)])
            out = out + sums[offsets[1:]] - sums[offsets[:-1]]
        return out


@dataclass(frozen=True, kw_only=True)
class Case:
    """What is varied."""

    pooling: str = "sum"
    sequence: bool = False
    weighted: bool = False
    reply: str = "rows"
    wire: str = "fp32"
    dtype: str = "fp32"
    optimizer: str = "adagrad"
    dim: int = 8
    seed: int = 0
    samples: int = 13
    """Of a global batch."""
    d_rows: int = 60
    """Ids that occur in the dynamic table."""

    @property
    def d_ids(self) -> np.ndarray:
        """These ids."""
        return 10**12 + np.arange(self.d_rows, dtype=np.int64) * 7_919


def tables(case: Case) -> tuple[TableConfig, ...]:
    """The three tables."""
    last = "none" if case.sequence else case.pooling
    return (
        TableConfig(name="ab", features=("a", "b"), rows=ROWS["ab"], pooling=case.pooling),
        TableConfig(name="c", rows=ROWS["c"], pooling=case.pooling),
        TableConfig(name="d", pooling=last),
    )


def global_batch(case: Case, step: int, samples: int) -> list[list[tuple[np.ndarray, ...]]]:
    """Sample by sample: per feature (ids, weights), then (dense,), then (label,)."""
    return _global_batch(case.seed, case.d_rows, case.weighted, step, samples)


@functools.lru_cache(100)  # a test trains on the same data more than once
def _global_batch(
    seed: int, d_rows: int, weighted: bool, step: int, samples: int
) -> list[list[tuple[np.ndarray, ...]]]:
    rng = np.random.default_rng([seed, step])
    pools = (ROWS["ab"], ROWS["ab"], ROWS["c"], d_rows)
    counts, d_ids = [0, 1, 1, 2, 5], Case(d_rows=d_rows).d_ids
    out = []
    for _ in range(samples):
        sample: list[tuple[np.ndarray, ...]] = []
        for feature, rows in enumerate(pools):
            count = counts[rng.integers(len(counts))]
            ids = rng.integers(0, rows, count)
            ids = d_ids[ids] if feature == 3 else ids
            weights = rng.uniform(0.2, 2.0, count) if weighted else np.ones(count)
            sample.append((ids, weights.astype(np.float32)))
        sample.append((rng.standard_normal(NUM_DENSE).astype(np.float32),))
        sample.append((np.float32(rng.integers(0, 2)),))
        out.append(sample)
    return out


def to_batch(samples: list[list[tuple[np.ndarray, ...]]], weighted: bool) -> Batch:
    """Feature-major batch of some samples."""
    bags = [sample[f] for f in range(len(FEATURES)) for sample in samples]
    lengths = [len(ids) for ids, _ in bags]
    empty = [np.empty(0, np.int64)], [np.empty(0, np.float32)]
    return Batch(
        dense=np.array([s[-2][0] for s in samples], np.float32).reshape(len(samples), NUM_DENSE),
        label=np.array([s[-1][0] for s in samples], np.float32),
        ids=np.concatenate([ids for ids, _ in bags] or empty[0]),
        offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        weights=np.concatenate([w for _, w in bags] or empty[1]) if weighted else None,
    )


class Shard:
    """One dense rank's part of the global batches; `shares` cuts each batch unevenly if given."""

    def __init__(
        self,
        case: Case,
        shard: int,
        shards: int,
        *,
        steps: int = 5,
        samples: int | None = None,
        uneven: bool = False,
    ) -> None:
        samples = case.samples if samples is None else samples
        self._batches = []
        for step in range(steps):
            whole = global_batch(case, step, samples)
            cuts = [samples * i // shards for i in range(shards + 1)]
            if uneven and step >= steps // 2:  # only the first rank still has data
                cuts = [0] + [samples] * shards
            mine = whole[cuts[shard] : cuts[shard + 1]]
            if mine or not uneven:
                self._batches.append(to_batch(mine, case.weighted))
        self._next = 0

    def next_batch(self) -> Batch | None:
        if self._next == len(self._batches):
            return None
        self._next += 1
        return self._batches[self._next - 1]


@dataclass
class Outcome:
    """What training left: dense weights, rows of every table by id, and the losses."""

    dense: list[np.ndarray]
    rows: dict[str, np.ndarray]
    losses: list[float]
    moved: dict[str, float] = field(default_factory=dict)
    """Traffic between tiers, of this rank."""
    metrics: list[Metrics] = field(default_factory=list)
    """Of the evaluations."""


def train(
    comm: MPI.Intracomm,
    case: Case,
    roles: Roles,
    cuts: Sequence[Cut],
    *,
    lookahead: int = 2,
    threads: int = 1,
    uneven: bool = False,
    steps: int = 5,
    storage: StorageConfig | None = None,
    evaluate_every: int = 0,
    devices: Devices | None = None,
    make_model: Callable[[int, int], nn.Module] = Model,
    cuda_graphs: bool = False,
) -> Outcome:
    """Train the small model over `comm` and gather the outcome on every rank. Collective."""
    defaults = EmbeddingConfig(
        dim=case.dim,
        dtype=case.dtype,
        optimizer=case.optimizer,
        reply=case.reply,
        wire=case.wire,
        lr=0.05,
        init="uniform",
        init_scale=0.5,
    )
    complete, features = complete_tables(tables(case), defaults, FEATURES)
    placement = Placement.of([t.shape for t in complete], cuts, comm.size)
    bags = create_bags(
        complete,
        features,
        comm,
        roles,
        placement,
        embedding=defaults,
        threads=threads,
        seed=11,
        storage=storage,
        devices=devices,
    )
    dense_rank = comm.rank in roles.dense
    model = None
    if dense_rank:
        model = make_model(sum(bags.pooled_features[1]), case.dim)
    config = TrainConfig(
        batch_size=case.samples,
        optimizer="adam",
        lr=0.01,
        lookahead=lookahead,
        cuda_graphs=cuda_graphs,
    )
    trainer = Trainer(model, bags, config, embedding_lr=0.05)
    source = None
    if dense_rank:
        shard = roles.dense.index(comm.rank)
        source = Shard(case, shard, len(roles.dense), steps=steps, uneven=uneven)
    losses, metrics = [], []
    for loss in trainer.steps(source):
        losses.append(comm.allreduce(loss))
        if evaluate_every and len(losses) % evaluate_every == 0:
            metrics.append(trainer.evaluate(held_out(comm, case, roles)))
    dense = [p.detach().cpu().numpy().copy() for p in model.parameters()] if model else None
    rows = {t.name: gather_table(comm, case, bags, placement, i) for i, t in enumerate(complete)}
    everyone = [d for d in comm.allgather(dense) if d is not None]
    for other in everyone[1:]:  # every dense rank has the same model, bit for bit
        for mine, theirs in zip(everyone[0], other, strict=True):
            np.testing.assert_array_equal(mine, theirs)
    moved, _ = bags.store.take_traffic()
    bags.close()
    return Outcome(everyone[0], rows, losses, moved, metrics)


def held_out(comm: MPI.Intracomm, case: Case, roles: Roles) -> Shard | None:
    """What a dense rank evaluates on."""
    if comm.rank not in roles.dense:
        return None
    shard = roles.dense.index(comm.rank)
    return Shard(replace(case, seed=case.seed + 1), shard, len(roles.dense), steps=2)


def gather_table(comm, case: Case, bags, placement: Placement, table: int) -> np.ndarray:
    """All rows of a table, put together from its tiles, in the order of its ids. Collective.

    Replicas of a tile must agree bit for bit.
    """
    shape = placement.shapes[table]
    ids = case.d_ids if shape.rows is None else np.arange(shape.rows, dtype=np.int64)
    pieces = []
    for i, tile in enumerate(placement.held_by(comm.rank)):
        if tile.table == table:
            own = np.sort(np.concatenate([ids[:0], *(found for found, _ in bags.pad.scan(i))]))
            pieces.append((tile.start, tile.stop, own, bags.pad.weights(i, own)))
    whole = np.full((len(ids), shape.dim), np.nan, np.float32)
    for start, stop, own, weights in (p for of_rank in comm.allgather(pieces) for p in of_rank):
        at = np.searchsorted(ids, own)
        known = whole[at, start:stop]
        fresh = np.isnan(known)
        np.testing.assert_array_equal(known[~fresh], weights[~fresh])
        whole[at, start:stop] = weights
    return whole


def replaced(case: Case, **changes: object) -> Case:
    return replace(case, **changes)  # type: ignore[arg-type]
