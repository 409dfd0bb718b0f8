"""`fourfold bench train`: a DLRM step end to end, against the same model without embeddings.

Three things take turns in one run, on the same ranks and threads, so that the machine's mood hits
all alike:

    step        the whole training step: route ahead, gather, exchange, model, exchange, update
    dense       the same model and optimizer with constant vectors in place of embeddings
    plain       `dense` as PyTorch runs it by default: its own fp32 products, dots by indexing

step / dense is what the embeddings cost; step / plain is how the whole step compares with the least
that a PyTorch system without our dense path could reach. Ids are those of 26 tables with Criteo
Kaggle's sizes (the largest capped to `--rows` in all), Zipf-distributed.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import torch
from mpi4py import MPI
from torch import Tensor, nn
from torch.nn import functional

from fourfold.jobs.bench_model import (
    HIDDEN,
    NUM_DENSE,
    add_model_arguments,
    make_batches,
    make_trainer,
    place,
    timed,
)
from fourfold.runtime.data.batch import Batch
from fourfold.runtime.data.synthetic import criteo_sizes
from fourfold.runtime.dense import dense_optimizer
from fourfold.runtime.gradients import GradientBuckets
from fourfold.runtime.matmul import keep_freed_memory, use_onednn
from fourfold.runtime.models.dlrm import Dlrm
from fourfold.runtime.models.mlp import Mlp
from fourfold.runtime.trainer import Trainer
from fourfold.runtime.world import World

HELP = "a DLRM training step against the same model without embeddings"

DISTINCT_BATCHES = 6
STAGES = ("gather", "forward", "backward", "update", "route", "plan", "starved")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the options."""
    add_model_arguments(parser)
    parser.add_argument("--rounds", type=int, default=9, help="turns of each of the three")
    parser.add_argument("--seconds", type=float, default=0.8, help="length of a turn")
    parser.add_argument(
        "--json", action="store_true", help="print one JSON line instead of a table"
    )


class Cycle:
    """A source that gives the same few batches again and again."""

    def __init__(self, batches: list[Batch]) -> None:
        self._batches = batches
        self._next = 0

    def next_batch(self) -> Batch:
        """Give the next one."""
        self._next += 1
        return self._batches[self._next % len(self._batches)]


class PlainDlrm(nn.Module):
    """The same model written the usual way, for the `plain` turns."""

    def __init__(self, model: Dlrm, num_vectors: int) -> None:
        super().__init__()
        self.dim = model.head.dim
        self.bottom = Mlp([NUM_DENSE, *HIDDEN, self.dim], last_relu=True)
        self.top = Mlp([self.dim + model.head.dots.num_pairs, *HIDDEN, 1], last_relu=False)
        self.row, self.column = torch.tril_indices(num_vectors, num_vectors, -1)

    def forward(self, dense: Tensor, pooled: Tensor) -> Tensor:
        """Map dense features and pooled embeddings (B, T * dim) to logits (B,)."""
        bottom = self.bottom(dense)
        vectors = torch.cat([bottom, pooled], 1).view(len(bottom), -1, self.dim)
        dots = torch.bmm(vectors, vectors.transpose(1, 2))[:, self.row, self.column]
        logits: Tensor = self.top(torch.cat([bottom, dots], 1)).squeeze(1)
        return logits


@dataclass
class Constant:
    """Stands where `Embeddings` would: vectors that need a gradient and cost nothing to get."""

    pooled: Tensor

    def after(self, x: Tensor) -> Tensor:
        """Put x before the vectors."""
        return torch.cat([x, self.pooled], 1)


def dense_step(
    args: argparse.Namespace, trainer: Trainer, model: nn.Module, batches: Cycle, plain: bool
) -> Callable[[], None]:
    """Make a training step of `model` without embeddings, its gradients summed over the ranks."""
    parameters = list(model.parameters())
    buckets = GradientBuckets(
        parameters, trainer.bags.backend if trainer.bags.comm.size > 1 else None
    )
    optimizer = dense_optimizer(trainer.config.optimizer, parameters, trainer.config.lr)
    samples = batches.next_batch().size
    width = sum(trainer.bags.pooled_features[1])
    dtype = torch.bfloat16 if args.autocast else torch.float32
    vectors = torch.randn(samples, width).mul_(0.01).to(dtype)

    def step() -> None:
        batch = batches.next_batch()
        pooled = vectors.clone().requires_grad_()
        buckets.zero()
        with torch.autocast("cpu", torch.bfloat16, enabled=args.autocast):
            output = model(torch.from_numpy(batch.dense), pooled if plain else Constant(pooled))
        label = torch.from_numpy(batch.label)
        loss = functional.binary_cross_entropy_with_logits(output.float(), label)
        (loss * (samples / args.batch)).backward()
        buckets.finish()
        optimizer.step()

    return step


def measure(
    comm: MPI.Comm, contenders: dict[str, Callable[[], object]], rounds: int, seconds: float
) -> dict[str, list[float]]:
    """Let the contenders take turns; seconds per step of each turn. Collective."""
    counts = {}
    for name, step in contenders.items():
        timed(comm, step, 3)
        counts[name] = max(2, int(seconds / comm.bcast(timed(comm, step, 3))))
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, step in contenders.items():
            times[name].append(comm.bcast(timed(comm, step, counts[name])))
    return times


def run(args: argparse.Namespace) -> int:
    """Measure and print; collective over the world."""
    comm = MPI.COMM_WORLD
    world = World.from_mpi(comm)
    torch.set_num_threads(args.threads)
    keep_freed_memory()
    onednn = use_onednn()
    sizes = criteo_sizes(args.rows)
    batches = make_batches(args, world, sizes, DISTINCT_BATCHES)
    trainer = make_trainer(args, place(args, world, sizes, comm.bcast(batches)))
    model = trainer.model
    assert isinstance(model, Dlrm)
    steps = trainer.steps(Cycle(batches))
    without = Dlrm(NUM_DENSE, len(sizes), args.dim, HIDDEN, HIDDEN)
    plain = dense_step(args, trainer, PlainDlrm(model, len(sizes) + 1), Cycle(batches), plain=True)
    matmul = cast(Any, torch.backends.mkldnn).matmul
    fast_precision = matmul.fp32_precision

    def plain_step() -> None:
        matmul.fp32_precision = "none"
        plain()
        matmul.fp32_precision = fast_precision

    contenders: dict[str, Callable[[], object]] = {
        "step": lambda: next(steps),
        "dense": dense_step(args, trainer, without, Cycle(batches), plain=False),
        "plain": plain_step,
    }
    times = measure(comm, contenders, args.rounds, args.seconds)
    steps.close()
    if world.rank == 0:
        report(args, world, trainer, times, onednn)
    return 0


def report(
    args: argparse.Namespace,
    world: World,
    trainer: Trainer,
    times: dict[str, list[float]],
    onednn: bool,
) -> None:
    """Print medians, bests and ratios."""
    median = {name: statistics.median(values) for name, values in times.items()}
    ratios = {
        name: statistics.median(
            other / step for other, step in zip(times[name], times["step"], strict=True)
        )
        for name in ("dense", "plain")
    }
    steps = trainer.step_count
    stages = {name: round(s / steps * 1e3, 3) for name, s in trainer.take_stage_seconds().items()}
    record = {
        "bench": "train",
        "ranks": world.size,
        **{key: value for key, value in vars(args).items() if isinstance(value, int | float | str)},
        "onednn": onednn,
        **{f"{name}_ms": round(value * 1e3, 2) for name, value in median.items()},
        **{f"{name}_best_ms": round(min(times[name]) * 1e3, 2) for name in times},
        **{f"{name}_samples_per_s": round(args.batch / value) for name, value in median.items()},
        "step_over_dense": round(ratios["dense"], 3),
        "step_over_plain": round(ratios["plain"], 3),
        **{f"{name}_ms": stages[name] for name in STAGES},
    }
    if args.json:
        print(json.dumps(record))
        return
    print(
        f"DLRM, {world.size} ranks x {args.threads} threads, batch {args.batch},"
        f" 26 tables x {args.dim},"
        f" {args.rows:,} rows {args.dtype} {'dynamic' if args.dynamic else 'static'},"
        f" {args.pooling} ids per bag, Zipf {args.alpha},"
        f" {'bf16 autocast' if args.autocast else 'fp32'}"
    )
    print(f"{'':10}{'ms (median)':>12}{'best':>9}{'samples/s':>12}{'step is':>9}")
    for name in times:
        ratio = "" if name == "step" else f"{ratios[name]:.2f} x"
        print(
            f"{name:10}{record[f'{name}_ms']:>12}{record[f'{name}_best_ms']:>9}"
            f"{record[f'{name}_samples_per_s']:>12,}{ratio:>9}"
        )
    print("rank 0, ms per step: " + ", ".join(f"{name} {record[f'{name}_ms']}" for name in STAGES))
