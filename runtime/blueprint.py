"""What a job will build, before any rank builds it: tables, lookups, model size and placement.

`fourfold plan` prints it for ranks that need not exist; `fourfold train` makes it on one rank and
sends it to the others, so that all of them build the same. Needs no MPI.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from fourfold.comm.route import Feature, LookupStats
from fourfold.runtime.assembly import lookup_stats, table_loads
from fourfold.runtime.config import Job
from fourfold.runtime.cut_config import PlacementConfig
from fourfold.runtime.data.batch import Schema
from fourfold.runtime.data.reader import open_reader, read_schema
from fourfold.runtime.errors import ConfigError, DataError
from fourfold.runtime.hardware import Hardware
from fourfold.runtime.load import TableLoad, Workload, growth_of, zipf_distinct
from fourfold.runtime.models import build_model
from fourfold.runtime.planner import Plan, plan_or_load
from fourfold.runtime.reclaim import check_budget, check_reclaim, check_replicas
from fourfold.runtime.roles import Roles
from fourfold.runtime.statistics import load_statistics, match_tables
from fourfold.runtime.table import Table, complete_tables
from fourfold.runtime.tiers import (
    Bytes,
    TierDemand,
    demand,
    joint_budget,
    on_device,
    shown_name,
    sole_tier,
)
from fourfold.runtime.turnover import RankTurnover, Turnover, first_that_fits
from fourfold.runtime.world import World
from fourfold.storage import StorageConfig

SAMPLED_BATCHES = 3
"""Batches read to see how many ids, and how many distinct ones, each table gets."""
SKEW = 1.05
"""Zipf exponent of the ids where there are no data to look at."""


@dataclass(frozen=True, slots=True)
class Blueprint:
    """A job's tables, what each step asks of them, and where they lie."""

    schema: Schema
    tables: tuple[Table, ...]
    features: tuple[Feature, ...]
    stats: tuple[LookupStats, ...] | None
    """Lookups measured over whole batches; None without data."""
    loads: tuple[TableLoad, ...]
    lookups: str
    """Where the numbers of lookups come from."""
    workload: Workload
    plan: Plan
    demand: TierDemand | None
    """What the tiers must hold; None with one tier."""
    turnover: RankTurnover | None
    """What rows need that come and go; None if none do."""


def storage_of(job: Job) -> StorageConfig:
    """What the store of an embedding rank is opened with."""
    return on_device(job.storage, job.world.rows_device)


def hardware_of(job: Job) -> Hardware:
    """What the planner believes of the ranks' devices."""
    return job.hardware.on(job.world.rows_device, job.world.dense_device)


def make_blueprint(job: Job, world: World, roles: Roles, *, needs_data: bool = False) -> Blueprint:
    """Look at the first batches of a job's data and place its tables. Local.

    needs_data: raise DataError if there are none, instead of assuming what they would ask. Raises
    ConfigError, DataError and PlacementError for what cannot be.
    """
    schema = read_schema(job.data)
    tables, features = complete_tables(job.table, job.embedding, schema.sparse)
    check_reclaim(tables, job.reclaim)
    check_budget(job.reclaim, storage_of(job))
    with torch.device("meta"):
        model = build_model(job.model, len(schema.dense), tables, features)
    workload = Workload(
        batch_size=job.train.batch_size,
        wire_bytes=4 if job.embedding.wire == "fp32" else 2,
        dense_parameters=sum(p.numel() for p in model.parameters()),
    )
    stats, loads, lookups = _look_at_data(job, tables, features, needs_data)
    memory = joint_budget(loads, storage_of(job), job.world.rows_device)
    batches = job.train.lookahead + 1
    samples = batches * workload.batch_size
    turnover = Turnover(job.reclaim, tables, tuple(loads), batches, samples, memory)
    try:
        placed = _place(job, world, roles, turnover, workload, job.placement)
    except ConfigError:
        wide = turnover.spread(job.placement)
        if wide == job.placement:
            raise
        placed = _place(job, world, roles, turnover, workload, wide)
    return Blueprint(
        schema,
        tables,
        features,
        stats,
        placed.loads,
        lookups,
        workload,
        placed.plan,
        placed.demand,
        placed.turnover,
    )


@dataclass(frozen=True, slots=True)
class _Placed:
    """The fields of a blueprint that a placement decides."""

    loads: tuple[TableLoad, ...]
    plan: Plan
    demand: TierDemand | None
    turnover: RankTurnover | None


def _place(
    job: Job,
    world: World,
    roles: Roles,
    turnover: Turnover,
    workload: Workload,
    config: PlacementConfig,
) -> _Placed:
    """Place the tables, and say what that needs."""
    storage, device = storage_of(job), job.world.rows_device

    def place(loads: list[TableLoad]) -> tuple[Plan, TierDemand | None]:
        plan = plan_or_load(
            loads,
            world,
            roles,
            workload,
            hardware=hardware_of(job),
            config=config,
            budget_bytes=turnover.memory,
        )
        tiers, held = None, plan.prediction.tier_bytes
        if storage.pad_bytes is not None:
            tiers = demand(plan.placement, loads, workload, storage, job.train.lookahead, device)
            held = tiers.tier_bytes
        elif device == "cuda":
            held = sole_tier(plan.placement, loads, storage)
        held = _shown(held, job)
        if tiers is not None:
            tiers = dataclasses.replace(tiers, tier_bytes=held)
        prediction = dataclasses.replace(plan.prediction, tier_bytes=held)
        return dataclasses.replace(plan, prediction=prediction), tiers

    num_ranks = len(roles.embedding)
    turnover.check_memory(num_ranks)
    loads, (plan, tiers) = first_that_fits(turnover.attempts(num_ranks), place)
    check_replicas(turnover.tables, plan.placement, job.reclaim, job.placement)
    on_ranks = turnover.on_ranks(plan.placement) if turnover.any else None
    return _Placed(tuple(loads), plan, tiers, on_ranks)


def _shown(held: Mapping[str, Bytes], job: Job) -> dict[str, Bytes]:
    """Bytes by tier, with the names that people read."""
    device, tiers = job.world.rows_device, tuple(held)
    return {shown_name(tier, tiers, device): amount for tier, amount in held.items()}


def _look_at_data(
    job: Job, tables: tuple[Table, ...], features: tuple[Feature, ...], needs_data: bool
) -> tuple[tuple[LookupStats, ...] | None, list[TableLoad], str]:
    """Measure the lookups of each table on the first batches; assume them if there are none."""
    size = job.train.batch_size
    if job.placement.stats is not None:
        if needs_data:
            open_reader(job.data, shard=0, shards=1, batch_size=size).close()
        return _look_at_statistics(job, tables, features, job.placement.stats)
    try:
        with open_reader(job.data, shard=0, shards=1, batch_size=size) as reader:
            batches = list(itertools.islice(reader, SAMPLED_BATCHES))
    except DataError as error:
        if needs_data:
            raise
        loads = [
            dataclasses.replace(load, growth=growth_of(zipf_distinct(n, load.num_rows, SKEW), n))
            for load in _loads(job, tables, features)
            for n in (size * load.lookups,)
        ]
        return None, loads, f"assumed, one id per feature, Zipf {SKEW} (no data: {error})"
    samples = [batch.size for batch in batches]
    stats = lookup_stats(features, len(tables), batches)
    text = f"measured on the first {sum(samples):,} samples"
    mean = float(np.mean(samples))
    return stats, _loads(job, tables, features, stats, mean), text


def _loads(
    job: Job,
    tables: tuple[Table, ...],
    features: tuple[Feature, ...],
    stats: tuple[LookupStats, ...] | None = None,
    samples: float = 1.0,
) -> list[TableLoad]:
    """Describe the job's tables to the planner."""
    return table_loads(tables, features, stats, samples, job.reclaim, job.world.rows_device)


def _look_at_statistics(
    job: Job, tables: tuple[Table, ...], features: tuple[Feature, ...], path: str
) -> tuple[tuple[LookupStats, ...], list[TableLoad], str]:
    """Take lookups, and rows of dynamic tables, from what `fourfold stats` measured."""
    size, steps = job.train.batch_size, job.train.steps
    statistics = load_statistics(path)
    measured = match_tables(statistics, tables, path)
    stats = tuple(statistics.lookup_stats(table, size) for table in measured)
    samples = None if steps is None else steps * size
    loads = [
        dataclasses.replace(load, expected_rows=statistics.expected_rows(table, samples))
        for load, table in zip(
            _loads(job, tables, features, stats, float(size)), measured, strict=True
        )
    ]
    text = f"measured with the rows of dynamic tables on {statistics.samples:,} samples ({path})"
    if not statistics.complete and samples is None:
        text += "; rows as of there, for train.steps does not say how far training goes"
    return stats, loads, text
