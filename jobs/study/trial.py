"""One trial of a study: one pass over a log in time order, on one rank and one thread."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from fourfold.jobs.study.clicks import CLOSED, EFFECTS, Clicks
from fourfold.jobs.study.log import StudyLog, open_log
from fourfold.jobs.study.memory import hashed_row_bytes, row_bytes
from fourfold.jobs.study.model import ClickNet
from fourfold.jobs.study.policy import Policy, reclaim_options
from fourfold.jobs.study.score import ProgressiveLoss
from fourfold.runtime.assembly import embedding_bags
from fourfold.runtime.data.batch import Batch
from fourfold.runtime.data.hashing import mix
from fourfold.runtime.embedding import EmbeddingBags
from fourfold.runtime.matmul import keep_freed_memory, use_onednn
from fourfold.runtime.table import EmbeddingConfig, OptimizerName, TableConfig
from fourfold.runtime.train_config import TrainConfig
from fourfold.runtime.trainer import Trainer

SCORED = 0.5
"""AUC is that of the last so much of the log: by then the memory of every contender is full."""
_INIT_SCALE = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """All that decides a trial's outcome."""

    samples: int
    seed: int
    batch: int = 1024
    dim: int = 16
    optimizer: OptimizerName = "adam"
    lr: float = 0.002
    """Learning rate of the rows."""
    dense_lr: float = 0.001
    """Learning rate of the dense model, which Adam trains."""
    hashed: tuple[int, ...] | None = None
    """Rows of each table, into which ids are hashed; None: dynamic tables, a row for each id."""
    policy: Policy | None = None
    """What becomes of rows of dynamic tables; None: they stay."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a trial gave."""

    auc: float
    log_loss: float
    curve: list[float]
    """AUC of each tenth of the log."""
    rows: int
    """Rows at the end."""
    most_rows: int
    most_bytes: int
    """The most memory that rows and their index took; of rows that ids are hashed into, what plain
    arrays of them would take."""
    seconds: float
    samples_per_s: float


class ClickBatches:
    """The batches of a log in time order, ids hashed into tables of `hashed` rows if given.

    Values of a closed list are their own hashes, so that none collide in a table that fits them.
    """

    def __init__(self, clicks: Clicks, batch: int, hashed: tuple[int, ...] | None) -> None:
        self._clicks = clicks
        self._batch = batch
        self._rows = None if hashed is None else np.array(hashed, np.uint64)[:, None]
        self._closed = np.array([name in CLOSED for name in EFFECTS])
        self._at = 0

    def next_batch(self) -> Batch | None:
        """Give the next one, None at the end."""
        clicks = self._clicks
        span = slice(self._at, min(self._at + self._batch, clicks.size))
        self._at = span.stop
        if span.start == span.stop:
            return None
        ids = np.ascontiguousarray(clicks.ids[:, span])
        if self._rows is not None:
            hashes = mix(ids.view(np.uint64))
            hashes[self._closed] = ids[self._closed]
            ids = (hashes % self._rows).view(np.int64)
        return Batch(
            dense=np.array(clicks.dense[span]),
            label=np.array(clicks.label[span]),
            ids=ids.reshape(-1),
            offsets=np.arange(ids.size + 1),
        )


def run_trial(trial: Trial, folder: Path) -> Outcome:
    """Train on the log that `folder` keeps and score it progressively."""
    log = open_log(folder, trial.samples, trial.seed)
    torch.set_num_threads(1)
    torch.manual_seed(trial.seed)
    keep_freed_memory()
    use_onednn()
    loss = ProgressiveLoss()
    bags = make_bags(trial)
    try:
        start = time.perf_counter()
        most_rows, most_bytes = _train(trial, log, bags, loss)
        seconds = time.perf_counter() - start
        rows = bags.pad.rows
    finally:
        bags.close()
    scored = loss.metrics(1 - SCORED)
    return Outcome(
        auc=scored.auc,
        log_loss=scored.log_loss,
        curve=loss.curve(),
        rows=rows,
        most_rows=most_rows,
        most_bytes=most_bytes,
        seconds=seconds,
        samples_per_s=trial.samples / seconds,
    )


def make_bags(trial: Trial) -> EmbeddingBags:
    """Make the tables of a trial on this rank alone."""
    from mpi4py import MPI  # starts MPI, which reading the record does without

    count = len(EFFECTS)
    rows: tuple[int | None, ...] = trial.hashed or (None,) * count
    per_table, shared = reclaim_options(trial.policy, count)
    tables = [
        TableConfig(name=name, rows=n, **options)
        for name, n, options in zip(EFFECTS, rows, per_table, strict=True)
    ]
    embedding = EmbeddingConfig(
        dim=trial.dim, optimizer=trial.optimizer, lr=trial.lr, init_scale=_INIT_SCALE
    )
    return embedding_bags(tables, MPI.COMM_SELF, embedding=embedding, seed=trial.seed, **shared)


def _train(
    trial: Trial, log: StudyLog, bags: EmbeddingBags, loss: ProgressiveLoss
) -> tuple[int, int]:
    """Make the pass; give the most rows and the most bytes that were held."""
    clicks = log.clicks
    model = ClickNet(clicks.dense.shape[1], len(EFFECTS) * trial.dim)
    # Everything in line: a trial is one thread, and as many run side by side as there are cores.
    config = TrainConfig(batch_size=trial.batch, lr=trial.dense_lr, lookahead=0)
    trainer = Trainer(model, bags, config, embedding_lr=trial.lr, loss=loss)
    most_rows = most_bytes = 0
    for _ in trainer.steps(ClickBatches(clicks, trial.batch, trial.hashed)):
        most_rows = max(most_rows, bags.pad.rows)
        most_bytes = max(most_bytes, bags.pad.bytes)
    if trial.hashed is None:
        return most_rows, most_bytes
    plain = hashed_row_bytes(row_bytes(trial.dim, trial.optimizer))
    return sum(trial.hashed), sum(trial.hashed) * plain
