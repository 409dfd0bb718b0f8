"""The run folder: everything that one run leaves behind.

    runs/<name>/config.toml          the job with nothing left open; itself a job file
    runs/<name>/env.json             versions, commit, hosts, ranks, roles, command line
    runs/<name>/metrics.jsonl        rank 0: one JSON object per line
    runs/<name>/log/rank-0003.log    one per rank
    runs/<name>/rows/rank-0003.h5    one per embedding rank, if there is a file tier
    runs/<name>/trace/rank-0003.json one per rank, on request

An old run is never written over: a name that is taken is an error.
"""

from __future__ import annotations

import json
import logging
import math
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from fourfold.runtime.console import Console, ConsoleHandler, Value
from fourfold.runtime.environment import describe
from fourfold.runtime.errors import ConfigError
from fourfold.runtime.roles import Roles
from fourfold.runtime.world import World

if TYPE_CHECKING:
    from mpi4py import MPI

LOGGER = "fourfold"
"""Name of the logger whose records a run keeps."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunConfig:
    """The `[run]` section: the name of the run and where it leaves its files."""

    # These change the results.
    seed: int = 0
    """Seed of the dense weights and of the rows that are not born yet."""

    # These do not.
    job: str = ""
    """Name of the job; default: the job file's name without `.toml`."""
    name: str = ""
    """Name of the run; default: the job's name and the time (UTC). A taken name is an error."""
    folder: str = "runs"
    """Folder of the runs."""

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**63:
            raise ConfigError(f"seed must be in [0, 2**63), got {self.seed}")
        for key, value in (("job", self.job), ("name", self.name)):
            if value in (".", "..") or "/" in value or "\0" in value:
                raise ConfigError(f"{key} must be the name of a folder, got {value!r}")


class MetricsLog:
    """`metrics.jsonl`: objects, each with `step` and the time (`time`, UTC)."""

    def __init__(self, path: Path | None) -> None:
        self._file = path.open("w", encoding="utf-8", buffering=1) if path else None

    def write(self, *, step: int, **values: Value | Mapping[str, Mapping[str, int]]) -> None:
        """Add one line, on rank 0; other ranks write nothing.

        values: figures by name, the unit at its end (`step_s`, `sent_bytes`, `samples_per_s`), or
        counts by table and name. A figure that is not finite is written as a string ("nan", "inf"),
        because JSON has none.
        """
        if self._file is None:
            return
        now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        line = {"step": step, "time": now, **{k: _plain(v) for k, v in values.items()}}
        self._file.write(json.dumps(line, allow_nan=False) + "\n")

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()


def _plain(value: Any) -> Any:
    value = value.item() if hasattr(value, "item") else value  # a NumPy or torch scalar
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


class RunFolder:
    """The folder of one run and the logs that fill it. Close it, or use it as a context."""

    def __init__(self, path: Path, world: World) -> None:
        self.path = path
        self.world = world
        self.log = logging.getLogger(LOGGER)
        self.console = Console(self.log)
        (path / "log").mkdir(parents=True, exist_ok=True)
        self.log_path = path / "log" / f"rank-{world.rank:04d}.log"
        self._handlers = self._start_logging()
        self.metrics = MetricsLog(path / "metrics.jsonl" if world.rank == 0 else None)

    @classmethod
    def create(
        cls, config: RunConfig, world: World, comm: MPI.Intracomm | None = None
    ) -> RunFolder:
        """Make the folder of a new run. Collective over `comm`, the world's communicator.

        Raises ConfigError on all ranks if the name is taken or the folder cannot be made.
        """
        made: tuple[str, str] = _make_folder(config) if world.rank == 0 else ("", "")
        path, failure = comm.bcast(made) if comm is not None else made
        if failure:
            raise ConfigError(failure)
        return cls(Path(path), world)

    def write_config(self, text: str) -> None:
        """Write the job with nothing left open, on rank 0."""
        if self.world.rank == 0:
            (self.path / "config.toml").write_text(text, encoding="utf-8")

    def write_environment(self, roles: Roles, **more: Any) -> None:
        """Write what this run ran on, on rank 0. more: JSON values to add."""
        if self.world.rank == 0:
            world = {**asdict(self.world), "size": self.world.size}
            ranks = {"dense": roles.dense, "embedding": roles.embedding}
            content = {**describe(), "world": world, "roles": ranks, **more}
            text = json.dumps(content, indent=2, default=str)
            (self.path / "env.json").write_text(text + "\n", encoding="utf-8")

    def close(self) -> None:
        """Close the files of this rank."""
        self.metrics.close()
        for handler in self._handlers:
            self.log.removeHandler(handler)
            handler.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:  # a failing rank still has something to say to its log
            self.close()

    def _start_logging(self) -> tuple[logging.Handler, ...]:
        file = logging.FileHandler(self.log_path, mode="w", encoding="utf-8")
        formatter = logging.Formatter(
            "%(asctime)s.%(msecs)03dZ %(levelname)s %(message)s", "%Y-%m-%dT%H:%M:%S"
        )
        formatter.converter = time.gmtime
        file.setFormatter(formatter)
        console = ConsoleHandler(sys.stdout, self.world.rank, self.world.size)
        self.log.setLevel(logging.INFO)
        self.log.propagate = False
        for handler in (file, console):
            self.log.addHandler(handler)
        return file, console


def _make_folder(config: RunConfig) -> tuple[str, str]:
    """Return the path of the new folder, and what went wrong, if anything."""
    name = config.name or f"{config.job or 'run'}-{datetime.now(UTC):%Y%m%d-%H%M%S}"
    path = Path(config.folder) / name
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for number in range(2, 100):
            if not path.exists():
                path.mkdir()
                return os.fspath(path), ""
            if config.name:
                break
            path = path.with_name(f"{name}-{number}")  # another run of the same second
    except OSError as error:
        return "", f"run.folder: {path} cannot be made: {error.strerror}"
    return "", (
        f"run.name: {path} exists and is never written over;"
        " choose another --run.name, or leave it out"
    )
