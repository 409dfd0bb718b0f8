"""What a run says of itself before it trains: devices, model, tables and where they lie."""

from __future__ import annotations

from fourfold.runtime.blueprint import Blueprint, storage_of
from fourfold.runtime.config import Job
from fourfold.runtime.data.hashing import describe_hashing
from fourfold.runtime.device import Devices
from fourfold.runtime.roles import Roles
from fourfold.runtime.run import RunFolder
from fourfold.runtime.units import show_bytes


def introduce(
    folder: RunFolder, job: Job, roles: Roles, blueprint: Blueprint, devices: Devices
) -> None:
    """Say what will be trained, on what, and where it lies."""
    tables, plan = blueprint.tables, blueprint.plan
    dynamic = sum(table.rows is None for table in tables)
    held = plan.prediction.held[list(roles.embedding)]
    folder.console.title(f"fourfold train: {folder.world}; {roles}")
    for line in (
        f"run folder {folder.path}",
        devices.why,
        f"{job.model.kind}: {blueprint.workload.dense_parameters:,} dense parameters,"
        f" {len(tables)} tables"
        f" ({dynamic} dynamic), lookups {blueprint.lookups}",
        f"rows take up to {show_bytes(int(held.max()))} on a rank if tables reach their expected"
        " size",
        *_pad_line(job, blueprint, roles),
        *plan.placement.describe(plan.prediction.table_bytes).splitlines(),
        *(blueprint.turnover.describe(roles.embedding) if blueprint.turnover else ()),
    ):
        folder.console.line(line)
    if blueprint.demand is not None:
        folder.console.line(blueprint.demand.describe(storage_of(job)))
    if job.data.hashed:
        folder.console.line(describe_hashing(job.data.hashed))


def _pad_line(job: Job, blueprint: Blueprint, roles: Roles) -> list[str]:
    """Say how much memory of a GPU rows may take, and of the host what is kept beside them."""
    if job.world.rows_device == "cpu" or job.storage.pad_budget is None:
        return []
    host = blueprint.plan.prediction.tier_bytes["host"][list(roles.embedding)]
    return [
        f"rows may take {show_bytes(job.storage.pad_budget)} of GPU memory on a rank; host memory"
        f" has up to {show_bytes(int(host.max()))} for what is beside and below them"
    ]
