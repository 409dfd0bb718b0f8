"""Training of `fourfold bench device`: DLRM-DCNv2 at MLPerf's sizes, as large as fits.

26 tables of dim 128 with MLPerf's numbers of rows (the largest capped to fit the GPU) and ids per
bag (214 a sample), Zipf 1.05; DCNv2 with bottom 512-256-128, three cross layers of rank 512, top
1024-1024-512-256-1, in bf16; row-wise Adagrad, Adagrad for the dense model, which runs kernel by
kernel ("eager") and on a GPU from CUDA graphs ("graphs", `train.cuda_graphs`). Speed is measured
without waiting for stages; the time by stage in steps of their own, with `sync_stages`. Limit: the
bf16 product of matrices; the dense model's share of it is given.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch

from fourfold.jobs.bench_session import Limits
from fourfold.runtime.assembly import embedding_bags
from fourfold.runtime.data.batch import Batch
from fourfold.runtime.data.synthetic import zipf_ids
from fourfold.runtime.embedding import EmbeddingBags
from fourfold.runtime.models.dcn import DcnV2
from fourfold.runtime.roles import RolesConfig
from fourfold.runtime.table import EmbeddingConfig, TableConfig
from fourfold.runtime.train_config import TrainConfig
from fourfold.runtime.trainer import Trainer
from fourfold.storage import StorageConfig

if TYPE_CHECKING:
    from mpi4py import MPI

ROWS = (
    *(40_000_000, 39_060, 17_295, 7_424, 20_265, 3, 7_122, 1_543, 63, 40_000_000, 3_067_956),
    *(405_282, 10, 2_209, 11_938, 155, 4, 976, 14, 40_000_000, 40_000_000, 40_000_000, 590_152),
    *(12_973, 108, 36),
)
IDS = (3, 2, 1, 2, 6, 1, 1, 1, 1, 7, 3, 8, 1, 6, 9, 5, 1, 1, 1, 12, 100, 27, 10, 3, 1, 1)
"""Of a bag, by table."""
NUM_DENSE = 13
ZIPF = 1.05
LEAD = 4  # steps that are not timed
DISTINCT_BATCHES = 4

Way = Literal["eager", "graphs"]


@dataclass(frozen=True, slots=True)
class Setting:
    """Model and batches."""

    rows: int = 10_000_000
    """Most rows of a table."""
    dim: int = 128
    bottom: tuple[int, ...] = (512, 256)
    top: tuple[int, ...] = (1024, 1024, 512, 256)
    cross_layers: int = 3
    cross_rank: int = 512
    batches: tuple[int, ...] = (65_536, 16_384, 4_096)
    steps: int = 6
    """Of a round."""

    @property
    def pad_bytes(self) -> int:
        """Of all rows, and room in every table's last blocks."""
        rows = sum(min(self.rows, rows) for rows in ROWS)
        return int(rows * (self.dim * 4 + 16) * 1.05) + len(ROWS) * (4 << 20)

    @property
    def needs(self) -> int:
        """Memory of the device: rows, plans and rows of batches on their way, the dense model."""
        largest = max(self.batches)
        ids = largest * sum(IDS)
        width = (len(ROWS) + 1) * self.dim
        return self.pad_bytes + 4 * ids * 64 + ids * self.dim * 4 + 60 * largest * width


FULL = Setting()
SMALL = Setting(
    rows=2000, dim=16, bottom=(32,), top=(32,), cross_layers=1, cross_rank=8, batches=(64,), steps=2
)


@dataclass(frozen=True, slots=True)
class Result:
    """One size of batch."""

    batch: int
    dense: Way
    """How the dense model runs."""
    step_ms: float
    best_ms: float
    samples_per_s: float
    stages_ms: dict[str, float]
    """Of a step with `sync_stages`, and of what runs ahead of it on other threads."""
    dense_share: float
    """Of the bf16 limit that the dense model's products would need, over the whole step."""
    ids: int
    rows: int
    """Of all tables."""
    threads: int


class Cycle:
    """A source that gives the same few batches again and again."""

    def __init__(self, batches: Sequence[Batch]) -> None:
        self._batches = batches
        self._next = 0

    def next_batch(self) -> Batch:
        """Give the next one."""
        self._next += 1
        return self._batches[self._next % len(self._batches)]


def make_batches(setting: Setting, samples: int) -> list[Batch]:
    """Draw batches of random samples."""
    rng = np.random.default_rng(2)
    lengths = np.repeat(np.array(IDS), samples)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)

    def ids() -> Iterator[np.ndarray[tuple[int], np.dtype[np.int64]]]:
        for rows, count in zip(ROWS, IDS, strict=True):
            yield zipf_ids(rng, samples * count, min(rows, setting.rows), ZIPF)

    return [
        Batch(
            dense=rng.standard_normal((samples, NUM_DENSE), np.float32),
            label=rng.integers(0, 2, samples).astype(np.float32),
            ids=np.concatenate(list(ids())),
            offsets=offsets,
        )
        for _ in range(DISTINCT_BATCHES)
    ]


def make_bags(
    setting: Setting, comm: MPI.Intracomm, threads: int, device: Literal["cpu", "cuda"]
) -> EmbeddingBags:
    """Make the tables."""
    tables = [
        TableConfig(name=f"C{i + 1}", rows=min(rows, setting.rows)) for i, rows in enumerate(ROWS)
    ]
    storage = StorageConfig(pad_bytes=setting.pad_bytes) if device == "cuda" else None
    return embedding_bags(
        tables,
        comm,
        embedding=EmbeddingConfig(dim=setting.dim, optimizer="rowwise_adagrad", init="uniform"),
        roles=RolesConfig(device=device),
        storage=storage,
        threads=threads,
    )


def make_model(setting: Setting) -> DcnV2:
    """Make the dense model."""
    return DcnV2(
        NUM_DENSE,
        len(ROWS) * setting.dim,
        setting.dim,
        setting.bottom,
        setting.top,
        cross_layers=setting.cross_layers,
        cross_rank=setting.cross_rank,
    )


def product_operations(model: torch.nn.Module) -> int:
    """Floating point operations of a sample's products: two forward, four backward per weight."""
    return 6 * sum(p.numel() for p in model.parameters() if p.dim() == 2)


def measure(
    setting: Setting,
    rounds: int,
    threads: int,
    limits: Limits,
    device: Literal["cpu", "cuda"] = "cuda",
) -> Iterator[Result]:
    """Train on batches of every size; on a GPU with and without graphs."""
    from mpi4py import MPI

    comm = MPI.COMM_WORLD
    torch.set_num_threads(threads)
    bags = make_bags(setting, comm, threads, device)
    model = make_model(setting)
    ways: Sequence[Way] = ("eager", "graphs") if bags.device.type == "cuda" else ("eager",)
    try:
        for samples in setting.batches:
            batches = make_batches(setting, samples)
            for way in ways:
                train = partial(_train, bags, model, batches, setting, threads, way)
                seconds, stages = train(rounds)[0], train(1, sync=True)[1]
                step = median(seconds)
                yield Result(
                    batch=samples,
                    dense=way,
                    step_ms=step * 1e3,
                    best_ms=min(seconds) * 1e3,
                    samples_per_s=samples / step,
                    stages_ms={name: value * 1e3 for name, value in stages.items()},
                    dense_share=product_operations(model) * samples / step / limits.bf16,
                    ids=samples * sum(IDS),
                    rows=sum(min(setting.rows, rows) for rows in ROWS),
                    threads=threads,
                )
    finally:
        bags.close()


def _train(
    bags: EmbeddingBags,
    model: DcnV2,
    batches: Sequence[Batch],
    setting: Setting,
    threads: int,
    way: Way,
    rounds: int,
    *,
    sync: bool = False,
) -> tuple[list[float], dict[str, float]]:
    """Seconds of a step in each round, and by stage over all."""
    config = TrainConfig(
        batch_size=batches[0].size,
        optimizer="adagrad",
        lr=0.005,
        autocast=True,
        threads=threads,
        cuda_graphs=way == "graphs",
        sync_stages=sync,
    )
    trainer = Trainer(model, bags, config, embedding_lr=0.005)
    steps = trainer.steps(Cycle(batches))
    for _ in range(LEAD):
        next(steps)
    trainer.take_stage_seconds()
    seconds = []
    for _ in range(rounds):
        begin = time.perf_counter()
        for _ in range(setting.steps):
            next(steps)
        seconds.append((time.perf_counter() - begin) / setting.steps)
    stages = trainer.take_stage_seconds()
    steps.close()
    bags.watch.sync = None
    return seconds, {name: value / rounds / setting.steps for name, value in stages.items()}
