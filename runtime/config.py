"""A job: everything that one run is made of, composed of its components' own sections."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from fourfold.runtime.cut_config import PlacementConfig
from fourfold.runtime.data.config import DataConfig
from fourfold.runtime.hardware import HardwareConfig
from fourfold.runtime.job_file import load_file
from fourfold.runtime.models import ModelConfig
from fourfold.runtime.roles import RolesConfig
from fourfold.runtime.run import RunConfig
from fourfold.runtime.table import EmbeddingConfig, TableConfig
from fourfold.runtime.tiers import with_pad
from fourfold.runtime.train_config import TrainConfig
from fourfold.storage import ReclaimConfig, StorageConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """A job file. Each section belongs to the component that reads it."""

    run: RunConfig = field(default_factory=RunConfig)
    world: RolesConfig = field(default_factory=RolesConfig)
    data: DataConfig
    embedding: EmbeddingConfig = field(default_factory=EmbeddingConfig)
    table: tuple[TableConfig, ...] = ()
    model: ModelConfig = field(default_factory=ModelConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    placement: PlacementConfig = field(default_factory=PlacementConfig)
    storage: StorageConfig = field(default_factory=StorageConfig)
    reclaim: ReclaimConfig = field(default_factory=ReclaimConfig)
    hardware: HardwareConfig = field(default_factory=HardwareConfig)


def settle(job: Job, device: Literal["cpu", "cuda"], device_bytes: int | None = None) -> Job:
    """Write down what the ranks have agreed on, so that the job says it all. Pure.

    device: of the dense ranks. device_bytes: memory that a GPU has for a rank that holds rows.
    """
    world = dataclasses.replace(job.world, device=device)
    storage = with_pad(job.storage, world.rows_device, device_bytes)
    return dataclasses.replace(job, world=world, storage=storage)


def load_job(path: str | Path, overrides: Sequence[str] = ()) -> Job:
    """Read a job file and the overrides of the command line.

    overrides: "--section.key=value", value as TOML. Raises ConfigError, which names file and key.
    """
    job = load_file(Job, path, overrides)
    if job.run.job:
        return job
    return dataclasses.replace(job, run=dataclasses.replace(job.run, job=Path(path).stem))
