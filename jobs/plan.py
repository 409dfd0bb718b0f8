"""`fourfold plan JOB.toml --ranks 64`: where the tables would lie, and what a step would cost.

It plans as `train` does on so many ranks, without MPI and without the machine.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fourfold.comm.cut import Cut, ranks_text
from fourfold.comm.placement import aligned
from fourfold.comm.route import Feature
from fourfold.runtime.assembly import lookup_stats, table_loads
from fourfold.runtime.config import Job, load_job
from fourfold.runtime.cost import Rates, tile_cost
from fourfold.runtime.data.reader import open_reader, read_schema
from fourfold.runtime.errors import ConfigError, DataError
from fourfold.runtime.load import TableLoad, Workload, growth_of, zipf_distinct
from fourfold.runtime.models import build_model
from fourfold.runtime.planner import Plan, plan_or_load
from fourfold.runtime.roles import Roles, assign_roles
from fourfold.runtime.table import Table, complete_tables
from fourfold.runtime.units import show_bytes, show_seconds
from fourfold.runtime.world import World

HELP = "show where a job's tables would lie on any number of ranks, and what a step would cost"

SAMPLED_BATCHES = 3
SKEW = 1.05
"""Zipf exponent of the ids where there are no data to look at."""
UNEVEN = 1.15
"""Fullest rank's load over the mean, from which on it is worth a word."""

_ADVICE = {
    "gather": "reading rows; 16-bit rows (embedding.dtype) or more embedding ranks shorten it",
    "forward": "rows on the wire; a 16-bit wire (embedding.wire) halves them",
    "pool": "pooling on the dense ranks; more of them shorten it",
    "dense": "the dense model; more dense ranks or train.autocast shorten it",
    "all-reduce": "the dense model's gradients; a larger train.batch_size hides them",
    "backward": "gradients on the wire; a 16-bit wire (embedding.wire) halves them",
    "update": "updating rows; 16-bit rows (embedding.dtype) or more embedding ranks shorten it",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the options."""
    parser.add_argument("job", help="job file (TOML); override any key with --section.key=value")
    parser.add_argument("--ranks", type=int, required=True, help="ranks to plan for")
    parser.add_argument("--nodes", type=int, default=1, help="nodes that share them (default 1)")
    parser.add_argument("--save", metavar="FILE", help="write the placement, to edit and to use")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")


@dataclass(frozen=True, slots=True)
class Report:
    """A plan and all that was assumed."""

    world: World
    roles: Roles
    loads: tuple[TableLoad, ...]
    workload: Workload
    rates: Rates
    lookups: str
    """Where the numbers of lookups come from."""
    plan: Plan


def run(args: argparse.Namespace) -> int:
    """Plan, print, and save if asked to."""
    if args.nodes < 1 or args.ranks < 1 or args.ranks % args.nodes:
        raise ConfigError(
            f"--ranks {args.ranks} --nodes {args.nodes}: expected as many ranks on every node"
        )
    report = make_report(load_job(args.job, args.overrides), args.ranks, args.nodes)
    print(json.dumps(as_json(report), indent=2) if args.json else as_text(report))
    if args.save:
        report.plan.placement.save(Path(args.save))
        if not args.json:
            print(f"\nsaved: use it with --placement.path={args.save}")
    return 0


def make_report(job: Job, ranks: int, nodes: int) -> Report:
    """Plan a job. Pure but for reading the first batches of its data."""
    world = World.imagine(ranks, ranks // nodes)
    roles = assign_roles(ranks, job.world)
    schema = read_schema(job.data)
    tables, features = complete_tables(job.table, job.embedding, schema.sparse)
    with torch.device("meta"):
        model = build_model(job.model, len(schema.dense), tables, features)
    workload = Workload(
        batch_size=job.train.batch_size,
        wire_bytes=4 if job.embedding.wire == "fp32" else 2,
        dense_parameters=sum(p.numel() for p in model.parameters()),
    )
    loads, lookups = look_at_data(job, tables, features)
    plan = plan_or_load(
        loads,
        world,
        roles,
        workload,
        hardware=job.hardware,
        config=job.placement,
        budget_bytes=job.storage.budget_bytes,
    )
    rates = Rates.of(world, roles, job.hardware)
    return Report(world, roles, tuple(loads), workload, rates, lookups, plan)


def look_at_data(
    job: Job, tables: Sequence[Table], features: Sequence[Feature]
) -> tuple[list[TableLoad], str]:
    """Measure the lookups of each table on the first batches; assume them if there are none."""
    size = job.train.batch_size
    try:
        with open_reader(job.data, shard=0, shards=1, batch_size=size) as reader:
            batches = list(itertools.islice(reader, SAMPLED_BATCHES))
    except DataError as error:
        loads = [
            dataclasses.replace(load, growth=growth_of(zipf_distinct(n, load.num_rows, SKEW), n))
            for load in table_loads(tables, features)
            for n in (size * load.lookups,)
        ]
        return loads, f"assumed, one id per feature, Zipf {SKEW} (no data: {error})"
    samples = [batch.size for batch in batches]
    stats = lookup_stats(features, len(tables), batches)
    text = f"measured on the first {sum(samples):,} samples"
    return table_loads(tables, features, stats, float(np.mean(samples))), text


def as_text(report: Report) -> str:
    """Print placement, bytes and load per rank, stages, and where the bottleneck is."""
    prediction = report.plan.prediction
    holders = list(report.roles.embedding)
    spread = [("per embedding rank", "min", "mean", "max", "max/mean")]
    spread += [
        _spread(f"bytes, {tier} tier", held[holders], show_bytes)
        for tier, held in prediction.tier_bytes.items()
    ]
    spread.append(_spread("load", prediction.load[holders], show_seconds))
    step = prediction.step_seconds
    stages = [("stage", "slowest rank", "share")]
    stages += [
        (name, show_seconds(seconds) if seconds else "-", f"{seconds / step:.0%}")
        for name, seconds in prediction.stage_seconds.items()
    ]
    ahead = float(prediction.route.max())
    stages.append(("route (ahead of the step)", show_seconds(ahead), f"{ahead / step:.0%}"))
    rate = report.workload.batch_size / step
    return "\n\n".join(
        (
            f"{report.world}; {report.roles}\nlookups: {report.lookups}",
            report.plan.placement.describe(prediction.table_bytes),
            aligned(spread, right=(1, 2, 3, 4)),
            aligned(stages, right=(1, 2)),
            f"predicted step {show_seconds(step)}, {rate:,.0f} samples/s; {hint(report)}",
        )
    )


def _spread(name: str, values: Any, show: Any) -> tuple[str, str, str, str, str]:
    mean = float(values.mean())
    ratio = f"{values.max() / mean:.2f}" if mean else "-"
    return name, show(values.min()), show(mean), show(values.max()), ratio


def hint(report: Report) -> str:
    """Say where the time goes, and which tile makes the fullest rank full."""
    prediction = report.plan.prediction
    name, seconds = max(prediction.stage_seconds.items(), key=lambda item: item[1])
    text = f"most of it ({seconds / prediction.step_seconds:.0%}) is {_ADVICE[name]}"
    if prediction.route.max() >= prediction.step_seconds:
        text = "routing, which runs ahead, is slower than the step; more dense ranks shorten it"
    load = prediction.load[list(report.roles.embedding)]
    if load.max() <= UNEVEN * load.mean():
        return text
    rank = int(np.argmax(prediction.load))

    def seconds_of(tile: Any) -> float:
        table = report.loads[tile.table]
        cost = tile_cost(table, tile.buckets, tile.dim, report.workload, len(report.roles.dense))
        return report.rates.serve_seconds(cost, replicas=len(tile.ranks))

    tile = max(report.plan.placement.held_by(rank), key=seconds_of)
    return (
        f"{text}.\nRank {rank} has {load.max() / load.mean():.2f} x the mean load; its largest tile"
        f" is of table {report.loads[tile.table].name!r} (bucket {tile.bucket} of {tile.buckets},"
        f" columns {tile.start}:{tile.stop})"
    )


def as_json(report: Report) -> dict[str, Any]:
    """Give the same for programs: bytes and seconds, per rank where ranks differ."""
    placement, prediction = report.plan.placement, report.plan.prediction
    tables = []
    for ordinal, shape in enumerate(placement.shapes):
        tiles = placement.of_table(ordinal)
        cut = Cut.of(tiles, shape)
        holders = sorted({rank for tile in tiles for rank in tile.ranks})
        tables.append(
            {
                "name": shape.name,
                "rows": shape.rows,
                "dim": shape.dim,
                "cut": str(cut) if cut else f"{len(tiles)} tiles",
                "ranks": ranks_text(cut.ranks if cut else holders),
                "bytes_per_rank": prediction.table_bytes[ordinal],
            }
        )
    return {
        "ranks": report.world.size,
        "nodes": report.world.num_nodes,
        "dense": ranks_text(report.roles.dense),
        "embedding": ranks_text(report.roles.embedding),
        "lookups": report.lookups,
        "tables": tables,
        "tier_bytes": {tier: held.tolist() for tier, held in prediction.tier_bytes.items()},
        "load_s": prediction.load.tolist(),
        "stages_s": prediction.stage_seconds,
        "route_s": float(prediction.route.max()),
        "step_s": prediction.step_seconds,
        "samples_per_s": report.workload.batch_size / prediction.step_seconds,
        "hint": hint(report),
    }
