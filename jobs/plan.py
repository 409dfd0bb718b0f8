"""`fourfold plan JOB.toml --ranks 64`: where the tables would lie, and what a step would cost.

It plans as `train` does on so many ranks, without MPI and without the machine: for CPUs, unless the
job says `world.device = "cuda"`.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from fourfold.comm.cut import Cut, ranks_text
from fourfold.comm.placement import aligned
from fourfold.runtime.blueprint import Blueprint, hardware_of, make_blueprint
from fourfold.runtime.config import Job, load_job, settle
from fourfold.runtime.cost import Rates, tile_cost
from fourfold.runtime.device import check_devices
from fourfold.runtime.errors import ConfigError
from fourfold.runtime.roles import Roles, RolesConfig, assign_roles
from fourfold.runtime.tiers import TierDemand
from fourfold.runtime.turnover import RankTurnover
from fourfold.runtime.units import show_bytes, show_seconds
from fourfold.runtime.world import World

HELP = "show where a job's tables would lie on any number of ranks, and what a step would cost"

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
    parser.add_argument(
        "--stats", metavar="FILE", help="go by what `fourfold stats` measured (placement.stats)"
    )
    parser.add_argument("--save", metavar="FILE", help="write the placement, to edit and to use")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")


@dataclass(frozen=True, slots=True)
class Report:
    """A blueprint, and the ranks that it is for."""

    world: World
    roles: Roles
    rates: Rates
    blueprint: Blueprint
    config: RolesConfig

    @property
    def devices(self) -> str:
        """What the ranks are taken to use."""
        names = {"cpu": "the CPU", "cuda": "GPUs"}
        dense, rows = self.config.dense_device, self.config.rows_device
        if dense == rows:
            return f"all ranks on {names[rows]}"
        return f"dense ranks on {names[dense]}, embedding ranks on {names[rows]}"


def run(args: argparse.Namespace) -> int:
    """Plan, print, and save if asked to."""
    if args.nodes < 1 or args.ranks < 1 or args.ranks % args.nodes:
        raise ConfigError(
            f"--ranks {args.ranks} --nodes {args.nodes}: expected as many ranks on every node"
        )
    job = load_job(args.job, args.overrides)
    if args.stats is not None:
        job = replace(job, placement=replace(job.placement, stats=args.stats))
    report = make_report(job, args.ranks, args.nodes)
    print(json.dumps(as_json(report), indent=2) if args.json else as_text(report))
    if args.save:
        report.blueprint.plan.placement.save(Path(args.save))
        if not args.json:
            print(f"\nsaved: use it with --placement.path={args.save}")
    return 0


def make_report(job: Job, ranks: int, nodes: int) -> Report:
    """Plan a job. Pure but for reading the first batches of its data."""
    world = World.imagine(ranks, ranks // nodes)
    roles = assign_roles(ranks, job.world)
    check_devices(job.world, roles)
    job = settle(job, job.world.dense_device, hardware_of(job).device_bytes)
    rates = Rates.of(world, roles, hardware_of(job))
    return Report(world, roles, rates, make_blueprint(job, world, roles), job.world)


def as_text(report: Report) -> str:
    """Print placement, bytes and load per rank, stages, and where the bottleneck is."""
    prediction = report.blueprint.plan.prediction
    holders = list(report.roles.embedding)
    spread: list[tuple[str, ...]] = [("per embedding rank", "min", "mean", "max", "max/mean")]
    spread += [
        _spread(f"bytes, {tier}", held[holders], show_bytes)
        for tier, held in prediction.tier_bytes.items()
    ]
    spread += _pads(report, holders)
    spread.append(_spread("load", prediction.load[holders], show_seconds))
    step = prediction.step_seconds
    stages = [("stage", "slowest rank", "share")]
    stages += [
        (name, show_seconds(seconds) if seconds else "-", f"{seconds / step:.0%}")
        for name, seconds in prediction.stage_seconds.items()
    ]
    ahead = float(prediction.route.max())
    stages.append(("route (ahead of the step)", show_seconds(ahead), f"{ahead / step:.0%}"))
    rate = report.blueprint.workload.batch_size / step
    return "\n\n".join(
        (
            f"{report.world}; {report.roles}; {report.devices}\n"
            f"lookups: {report.blueprint.lookups}",
            report.blueprint.plan.placement.describe(prediction.table_bytes),
            "\n".join((aligned(spread, right=(1, 2, 3, 4)), *_turnover(report, holders))),
            aligned(stages, right=(1, 2)),
            f"predicted step {show_seconds(step)}, {rate:,.0f} samples/s; {hint(report)}",
        )
    )


def _turnover(report: Report, holders: list[int]) -> list[str]:
    turnover = report.blueprint.turnover
    return [] if turnover is None else turnover.describe(holders)


def _pads(report: Report, holders: list[int]) -> list[tuple[str, ...]]:
    """Show what the pad must hold, if there are tiers."""
    demand = report.blueprint.demand
    if demand is None:
        return []
    return [
        _spread("smallest pad, one batch", demand.batch_pad[holders], show_bytes),
        _spread(f"pad for {demand.ahead + 1} batches", demand.ahead_pad[holders], show_bytes),
    ]


def _spread(name: str, values: Any, show: Any) -> tuple[str, str, str, str, str]:
    mean = float(values.mean())
    ratio = f"{values.max() / mean:.2f}" if mean else "-"
    return name, show(values.min()), show(mean), show(values.max()), ratio


def hint(report: Report) -> str:
    """Say where the time goes, and which tile makes the fullest rank full."""
    prediction = report.blueprint.plan.prediction
    name, seconds = max(prediction.stage_seconds.items(), key=lambda item: item[1])
    text = f"most of it ({seconds / prediction.step_seconds:.0%}) is {_ADVICE[name]}"
    if prediction.route.max() >= prediction.step_seconds:
        text = "routing, which runs ahead, is slower than the step; more dense ranks shorten it"
    load = prediction.load[list(report.roles.embedding)]
    if load.max() <= UNEVEN * load.mean():
        return text
    rank = int(np.argmax(prediction.load))

    def seconds_of(tile: Any) -> float:
        table = report.blueprint.loads[tile.table]
        cost = tile_cost(
            table, tile.buckets, tile.dim, report.blueprint.workload, len(report.roles.dense)
        )
        return report.rates.serve_seconds(cost, replicas=len(tile.ranks))

    tile = max(report.blueprint.plan.placement.held_by(rank), key=seconds_of)
    return (
        f"{text}.\nRank {rank} has {load.max() / load.mean():.2f} x the mean load; its largest tile"
        f" is of table {report.blueprint.loads[tile.table].name!r} (bucket {tile.bucket} of"
        f" {tile.buckets},"
        f" columns {tile.start}:{tile.stop})"
    )


def as_json(report: Report) -> dict[str, Any]:
    """Give the same for programs: bytes and seconds, per rank where ranks differ."""
    placement, prediction = report.blueprint.plan.placement, report.blueprint.plan.prediction
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
        "dense_device": report.config.dense_device,
        "embedding_device": report.config.rows_device,
        "lookups": report.blueprint.lookups,
        "tables": tables,
        "tier_bytes": {tier: held.tolist() for tier, held in prediction.tier_bytes.items()},
        **_pads_json(report.blueprint.demand),
        **_turnover_json(report.blueprint.turnover),
        "load_s": prediction.load.tolist(),
        "stages_s": prediction.stage_seconds,
        "route_s": float(prediction.route.max()),
        "step_s": prediction.step_seconds,
        "samples_per_s": report.blueprint.workload.batch_size / prediction.step_seconds,
        "hint": hint(report),
    }


def _pads_json(demand: TierDemand | None) -> dict[str, Any]:
    if demand is None:
        return {}
    return {
        "batch_pad_bytes": demand.batch_pad.tolist(),
        "lookahead_pad_bytes": demand.ahead_pad.tolist(),
    }


def _turnover_json(turnover: RankTurnover | None) -> dict[str, Any]:
    if turnover is None:
        return {}
    return {
        "protected_rows": turnover.protected.tolist(),
        "window_rows": turnover.window.tolist(),
    }
