"""The DLRM that `bench train` and `bench tiers` train: its options, batches, placement, trainer."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from mpi4py import MPI

from fourfold.comm.placement import Placement
from fourfold.comm.route import Feature, LookupStats
from fourfold.runtime.assembly import create_bags, lookup_stats, table_loads
from fourfold.runtime.data.batch import Batch
from fourfold.runtime.data.synthetic import zipf_ids
from fourfold.runtime.load import TableLoad, Workload
from fourfold.runtime.models.dlrm import Dlrm
from fourfold.runtime.planner import plan
from fourfold.runtime.roles import Roles, RolesConfig, assign_roles
from fourfold.runtime.table import EmbeddingConfig, Table, TableConfig, complete_tables
from fourfold.runtime.train_config import TrainConfig
from fourfold.runtime.trainer import Trainer
from fourfold.runtime.world import World
from fourfold.storage import StorageConfig

NUM_DENSE = 13
HIDDEN = (512, 256)


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the options of the model, its tables and its step."""
    parser.add_argument("--batch", type=int, default=2048, help="samples of a step, all ranks")
    parser.add_argument("--pooling", type=int, default=1, help="ids per bag")
    parser.add_argument("--dim", type=int, default=64, help="columns of a row")
    parser.add_argument("--rows", type=int, default=5_000_000, help="rows of all 26 tables")
    parser.add_argument("--alpha", type=float, default=1.05, help="skew of the ids (Zipf)")
    parser.add_argument("--dtype", choices=("fp32", "bf16", "fp16"), default="fp32", help="of rows")
    parser.add_argument("--wire", choices=("fp32", "bf16", "fp16"), default="fp32")
    parser.add_argument("--reply", choices=("auto", "rows", "pooled"), default="auto")
    parser.add_argument(
        "--dynamic", action="store_true", help="hashed tables instead of static ones"
    )
    parser.add_argument("--autocast", action="store_true", help="dense model in bf16")
    parser.add_argument("--threads", type=int, default=1, help="per rank")
    parser.add_argument("--lookahead", type=int, default=2)


@dataclass(frozen=True, slots=True)
class Placed:
    """The tables, and where the planner puts them, all ranks colocated."""

    embedding: EmbeddingConfig
    tables: tuple[Table, ...]
    features: tuple[Feature, ...]
    stats: tuple[LookupStats, ...]
    loads: list[TableLoad]
    workload: Workload
    roles: Roles
    placement: Placement


def make_batches(
    args: argparse.Namespace, world: World, sizes: list[int], count: int
) -> list[Batch]:
    """Draw `count` batches of this rank."""
    samples = args.batch * (world.rank + 1) // world.size - args.batch * world.rank // world.size
    rng = np.random.default_rng(7 + world.rank)
    batches = []
    for _ in range(count):
        ids = [zipf_ids(rng, samples * args.pooling, rows, args.alpha) for rows in sizes]
        batches.append(
            Batch(
                dense=np.log1p(rng.exponential(1.0, (samples, NUM_DENSE))).astype(np.float32),
                label=rng.integers(0, 2, samples).astype(np.float32),
                ids=np.concatenate(ids),
                offsets=np.arange(0, len(sizes) * samples * args.pooling + 1, args.pooling),
                weights=None,
            )
        )
    return batches


def place(args: argparse.Namespace, world: World, sizes: list[int], batches: list[Batch]) -> Placed:
    """Have the planner place the tables; `batches` are a few of one rank, the same on all."""
    roles = assign_roles(world.size, RolesConfig())
    configs = [
        TableConfig(name=f"C{i + 1}", rows=None if args.dynamic else rows, expected_rows=rows)
        for i, rows in enumerate(sizes)
    ]
    embedding = EmbeddingConfig(
        dim=args.dim,
        dtype=args.dtype,
        wire=args.wire,
        reply=args.reply,
        init="uniform",
        init_scale=0.01,
    )
    tables, features = complete_tables(configs, embedding, [c.name for c in configs])
    stats = lookup_stats(features, len(tables), batches)
    loads = table_loads(tables, features, stats, args.batch / world.size)
    workload = Workload(batch_size=args.batch, wire_bytes=4 if args.wire == "fp32" else 2)
    placement = plan(loads, world, roles, workload).placement
    return Placed(embedding, tables, features, stats, loads, workload, roles, placement)


def make_trainer(
    args: argparse.Namespace,
    placed: Placed,
    storage: StorageConfig | None = None,
    folder: Path | None = None,
) -> Trainer:
    """Build the model; the same values every time. Collective."""
    bags = create_bags(
        placed.tables,
        placed.features,
        MPI.COMM_WORLD,
        placed.roles,
        placed.placement,
        embedding=placed.embedding,
        storage=storage,
        stats=placed.stats,
        threads=args.threads,
        output_dtype=torch.bfloat16 if args.autocast else torch.float32,
        folder=folder,
        run="bench",
    )
    torch.manual_seed(0)
    model = Dlrm(NUM_DENSE, len(placed.features), args.dim, HIDDEN, HIDDEN)
    config = TrainConfig(
        batch_size=args.batch,
        optimizer="sgd",
        lr=0.01,
        autocast=args.autocast,
        lookahead=args.lookahead,
        threads=args.threads,
    )
    return Trainer(model, bags, config, embedding_lr=0.01)


def timed(comm: MPI.Comm, step: Callable[[], object], count: int) -> float:
    """Seconds per step over `count` steps, all ranks together. Collective."""
    comm.Barrier()
    start = time.perf_counter()
    for _ in range(count):
        step()
    comm.Barrier()
    return (time.perf_counter() - start) / count
