"""Put embedding bags together: placement, exchange and pad, from what a user says of the tables."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from fourfold.comm.exchange import Exchange
from fourfold.comm.placement import Placement
from fourfold.comm.route import (
    Feature,
    LookupStats,
    Reply,
    choose_replies,
    measure_lookups,
)
from fourfold.runtime.accelerator import Accelerator, open_backend
from fourfold.runtime.cut_config import PlacementConfig
from fourfold.runtime.data.batch import Batch
from fourfold.runtime.device import (
    Devices,
    RankDevice,
    agree_on_devices,
    least_free,
)
from fourfold.runtime.embedding import EmbeddingBags
from fourfold.runtime.hardware import HardwareConfig
from fourfold.runtime.load import INDEX_BYTES, TableLoad, Workload, growth_of
from fourfold.runtime.planner import plan
from fourfold.runtime.reclaim import (
    check_budget,
    check_reclaim,
    check_replicas,
    credit_of,
    is_scored,
    loses_rows,
    takes_credits,
)
from fourfold.runtime.roles import Roles, RolesConfig, assign_roles
from fourfold.runtime.store import open_store
from fourfold.runtime.table import EmbeddingConfig, Table, TableConfig, complete_tables
from fourfold.runtime.tiers import Kind, joint_budget, on_device, with_pad
from fourfold.runtime.turnover import Turnover, first_that_fits
from fourfold.runtime.world import World
from fourfold.storage import (
    KeyCode,
    ReclaimConfig,
    RowSpec,
    StorageConfig,
    init_names,
    optimizer_names,
)

if TYPE_CHECKING:
    from mpi4py import MPI

_TYPICAL = LookupStats(lookups=1000.0, unique=500.0, bags=1000.0)
"""What is assumed of tables of which nothing was measured: one id per bag, half of them
distinct."""


def create_bags(
    tables: Sequence[Table],
    features: Sequence[Feature],
    comm: MPI.Intracomm,
    roles: Roles,
    placement: Placement,
    *,
    embedding: EmbeddingConfig | None = None,
    storage: StorageConfig | None = None,
    stats: Sequence[LookupStats] | None = None,
    threads: int = 1,
    seed: int = 0,
    reclaim: ReclaimConfig | None = None,
    output_dtype: torch.dtype = torch.float32,
    folder: Path | None = None,
    run: str = "",
    devices: Devices | None = None,
) -> EmbeddingBags:
    """Make the embedding bags of a model over all ranks of `comm`. Collective.

    tables, features: from `complete_tables`. placement: of the tables' shapes, checked against
    `roles`. stats: measured lookups per table, equal on all ranks; they settle replies left "auto".
    seed: of the rows. reclaim: which rows go when memory is short. folder, run: where the file tier
    lies if `storage` does not say, and the name of the run that it remembers. devices: what the
    ranks have agreed on; None: all on the CPU. Raises ConfigError
    for a table that loses rows and is placed on several ranks at once, and StorageError on all
    ranks if a tier cannot be had on one.
    """
    embedding = embedding or EmbeddingConfig()
    storage, reclaim = storage or StorageConfig(), reclaim or ReclaimConfig()
    device = RankDevice() if devices is None else devices.ranks[comm.rank]
    rows_device = "cpu" if devices is None else devices.kind(roles.embedding)
    gpu = Accelerator.open(device)
    check_reclaim(tables, reclaim)
    check_replicas(tables, placement, reclaim)
    placement.validate(roles.embedding, roles.dense)
    known = KeyCode.of([table.rows for table in tables]).bits
    replies = settle_replies(tables, features, placement, stats, embedding)
    specs = row_specs(tables, placement, comm.rank, seed)
    nccl = devices is not None and devices.nccl
    backend, eval_backend = (
        open_backend(comm, dense_ranks, gpu, nccl=nccl) for dense_ranks in (roles.dense, ())
    )
    earning = [takes_credits(table, reclaim) for table in tables]
    exchange, eval_exchange = (
        Exchange(
            channels,
            placement,
            features,
            replies=replies,
            wire=embedding.wire,
            id_bits=known,
            hash_ids=[table.hash_ids for table in tables],
            credits=credits,
            threads=threads,
            memory=None if gpu is None else gpu.memory(),
        )
        for channels, credits in ((backend, earning), (eval_backend, None))
    )
    store = open_store(
        specs,
        on_device(storage, rows_device),
        threads=threads,
        comm=comm,
        folder=folder,
        run=run,
        reclaim=reclaim,
        device=rows_device,
        gpu=gpu,
    )
    return EmbeddingBags(
        tables,
        features,
        store,
        exchange,
        eval_exchange,
        backend,
        eval_backend,
        comm,
        roles,
        wire=embedding.wire,
        output_dtype=output_dtype,
        credit=credit_of(reclaim) if any(earning) else None,
        device=device,
    )


def embedding_bags(
    tables: Sequence[TableConfig],
    comm: MPI.Intracomm,
    *,
    embedding: EmbeddingConfig | None = None,
    roles: RolesConfig | None = None,
    placement: PlacementConfig | None = None,
    storage: StorageConfig | None = None,
    reclaim: ReclaimConfig | None = None,
    threads: int = 1,
    seed: int = 0,
) -> EmbeddingBags:
    """Make the embedding bags of a model of one's own: complete, plan and create. Collective.

    tables: their `features`, one after the other, are the sparse features of the batches, in this
    order. roles: who holds rows, and on what device; None: every rank, on the CPU.
    """
    embedding = embedding or EmbeddingConfig()
    storage, reclaim = storage or StorageConfig(), reclaim or ReclaimConfig()
    names = [feature for table in tables for feature in (table.features or (table.name,))]
    complete, features = complete_tables(tables, embedding, names)
    world = World.from_mpi(comm)
    roles = roles or RolesConfig(device="cpu")
    assigned = assign_roles(world.size, roles)
    devices = agree_on_devices(roles, world, assigned, comm)
    rows_device = devices.kind(assigned.embedding)
    storage = with_pad(storage, rows_device, least_free(devices, assigned, comm))
    stored = on_device(storage, rows_device)
    loads = table_loads(complete, features, reclaim=reclaim, device=rows_device)
    work = Workload(batch_size=1024 * len(assigned.dense))
    room = joint_budget(loads, stored, rows_device)
    check_budget(reclaim, stored)
    turnover = Turnover(reclaim, complete, tuple(loads), 1, work.batch_size, room)
    _, planned = first_that_fits(
        turnover.attempts(len(assigned.embedding)),
        lambda loads: plan(
            loads,
            world,
            assigned,
            work,
            hardware=HardwareConfig().on(rows_device, devices.kind(assigned.dense)),
            config=placement,
            budget_bytes=room,
        ),
    )
    check_replicas(complete, planned.placement, reclaim, placement)
    return create_bags(
        complete,
        features,
        comm,
        assigned,
        planned.placement,
        embedding=embedding,
        storage=storage,
        reclaim=reclaim,
        threads=threads,
        seed=seed,
        devices=devices,
    )


def row_specs(tables: Sequence[Table], placement: Placement, rank: int, seed: int) -> list[RowSpec]:
    """Describe the rows of every tile that `rank` holds, in the placement's order."""
    specs = []
    for tile in placement.held_by(rank):
        table = tables[tile.table]
        specs.append(
            RowSpec(
                table=tile.table,
                name=table.name,
                dim=tile.dim,
                column=tile.start,
                rows=table.rows,
                bucket=tile.bucket,
                buckets=tile.buckets,
                dtype=table.dtype,
                optimizer=optimizer_names[table.optimizer](**table.optimizer_options),
                init=init_names[table.init](table.init_scale),
                seed=seed,
                admission=table.admission,
                time_to_live=table.time_to_live,
                priority=table.priority,
                absent=table.absent,
            )
        )
    return specs


def settle_replies(
    tables: Sequence[Table],
    features: Sequence[Feature],
    placement: Placement,
    stats: Sequence[LookupStats] | None,
    embedding: EmbeddingConfig,
) -> tuple[Reply, ...]:
    """Choose the replies that tables leave "auto": those that move fewer bytes."""
    measured = stats or [_TYPICAL] * len(tables)
    best = choose_replies(features, placement, measured, wire=embedding.wire)
    return tuple(
        choice if table.reply == "auto" else table.reply
        for table, choice in zip(tables, best, strict=True)
    )


def lookup_stats(
    features: Sequence[Feature], num_tables: int, batches: Sequence[Batch]
) -> tuple[LookupStats, ...]:
    """Measure what some batches of one rank ask of each table."""
    return measure_lookups(features, num_tables, [(b.ids, b.offsets, b.size) for b in batches])


def table_loads(
    tables: Sequence[Table],
    features: Sequence[Feature],
    stats: Sequence[LookupStats] | None = None,
    samples: float = 1.0,
    reclaim: ReclaimConfig | None = None,
    device: Kind = "cpu",
) -> list[TableLoad]:
    """Describe the tables to the planner.

    stats: lookups measured over batches of `samples` samples; without them one id per feature and
    sample. reclaim: which rows go; their tables are not to be replicated. device: that has rows.
    """
    reclaim, loads = reclaim or ReclaimConfig(), []
    for i, table in enumerate(tables):
        optimizer = optimizer_names[table.optimizer]
        own = sum(feature.table == i for feature in features)
        measured = stats[i] if stats is not None else None
        loads.append(
            TableLoad(
                name=table.name,
                dim=table.dim,
                rows=table.rows,
                expected_rows=table.expected_rows,
                features=own,
                lookups=measured.lookups / samples if measured else float(own),
                growth=growth_of(measured.unique, measured.lookups) if measured else 1.0,
                weight_bytes=4 if table.dtype == "fp32" else 2,
                state_bytes=4 * optimizer.element_states,
                row_state_bytes=4 * optimizer.row_states,
                reply=table.reply,
                copies=not loses_rows(table, reclaim),
                index_bytes=INDEX_BYTES if device == "cpu" else 0,
                scored=is_scored(table, reclaim),
            )
        )
    return loads
