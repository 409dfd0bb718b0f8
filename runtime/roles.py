"""Roles: what each rank does."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from fourfold.runtime.errors import ConfigError


class Role(StrEnum):
    """What a rank does."""

    DENSE = "dense"
    """Reads data and runs the dense model."""
    EMBEDDING = "embedding"
    """Holds rows of the embedding tables."""
    COLOCATED = "colocated"
    """Both."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RolesConfig:
    """The `[world]` section: who reads and trains the dense model, who holds rows, and on what.

    A number n means the first n ranks for `dense` and the last n ranks for `embedding`; a list
    names the ranks. A rank in both does both. With both left at 0 every rank does both.
    """

    # These change who does what, and so the order of sums; nothing else of the results.
    dense: int | tuple[int, ...] = 0
    """Dense ranks: how many (the first ones), or which."""
    embedding: int | tuple[int, ...] = 0
    """Embedding ranks: how many (the last ones), or which."""
    # These change how sums are ordered and rounded.
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """What a rank computes on, and where the rows that it holds lie: CPU and host memory, or a GPU
    and its memory. "auto": GPUs if every rank has one that it can use, else the CPU; the start says
    which, and why. "cuda": GPUs, or an error that names what is missing."""
    embedding_device: Literal["same", "cpu"] = "same"
    """"cpu": ranks that hold rows and run no dense model stay on the CPU, beside dense ranks on
    GPUs. "same": as `device`."""
    # This changes the speed only.
    share_gpus: bool = False
    """Let several ranks of a node use one GPU, where there are more of them than GPUs. Rows then
    travel through host memory, for NCCL wants a GPU per rank."""

    @property
    def dense_device(self) -> Literal["cpu", "cuda"]:
        """Device of the dense ranks; "auto" counts as the CPU until the ranks have agreed."""
        return "cuda" if self.device == "cuda" else "cpu"

    @property
    def rows_device(self) -> Literal["cpu", "cuda"]:
        """Device of the embedding ranks, likewise."""
        return "cpu" if self.embedding_device == "cpu" else self.dense_device

    def __post_init__(self) -> None:
        for name, value in (("dense", self.dense), ("embedding", self.embedding)):
            if isinstance(value, int):
                if value < 0:
                    raise ConfigError(f"{name} = {value}: a number of ranks cannot be negative")
                continue
            twice = [rank for rank, count in Counter(value).items() if count > 1]
            if twice:
                raise ConfigError(f"{name} names rank {twice[0]} twice")
            if any(rank < 0 for rank in value):
                raise ConfigError(f"{name} names rank {min(value)}; ranks count from 0")
        for name, value, other in (
            ("dense", self.dense, self.embedding),
            ("embedding", self.embedding, self.dense),
        ):
            if value == () or (value == 0 and other != 0):
                raise ConfigError(
                    f"{name} = {0 if value == 0 else '[]'} leaves no {name} rank; give it ranks,"
                    " or leave out both `dense` and `embedding` to have every rank do both"
                )


@dataclass(frozen=True, slots=True)
class Roles:
    """The dense and the embedding ranks of a world, each ascending."""

    world_size: int
    dense: tuple[int, ...]
    embedding: tuple[int, ...]

    def __getitem__(self, rank: int) -> Role:
        """Return what `rank` does."""
        if rank in self.dense and rank in self.embedding:
            return Role.COLOCATED
        return Role.DENSE if rank in self.dense else Role.EMBEDDING

    def __str__(self) -> str:
        by_role = {
            role: [rank for rank in range(self.world_size) if self[rank] is role] for role in Role
        }
        return ", ".join(f"{role} {show_ranks(ranks)}" for role, ranks in by_role.items() if ranks)


def assign_roles(world_size: int, config: RolesConfig) -> Roles:
    """Give every rank of the world its role. Pure. Raises ConfigError."""
    everyone = tuple(range(world_size))
    if config.dense == 0 and config.embedding == 0:
        return Roles(world_size, everyone, everyone)
    for name, value in (("dense", config.dense), ("embedding", config.embedding)):
        wanted = value if isinstance(value, int) else max(value) + 1
        if wanted > world_size:
            names = f"{value} ranks" if isinstance(value, int) else f"rank {max(value)}"
            raise ConfigError(
                f"world.{name} wants {names}, but the world has {world_size}"
                f" (ranks 0 to {world_size - 1}); start at least {wanted} ranks or ask for fewer"
            )
    dense = everyone[: config.dense] if isinstance(config.dense, int) else config.dense
    embedding = config.embedding
    if isinstance(embedding, int):
        embedding = everyone[world_size - embedding :]
    idle = sorted(set(everyone) - {*dense, *embedding})
    if idle:
        raise ConfigError(
            f"ranks {show_ranks(idle)} of the {world_size} have no role"
            f" (dense {show_ranks(dense)}, embedding {show_ranks(embedding)});"
            " give them one or start fewer ranks"
        )
    return Roles(world_size, tuple(sorted(dense)), tuple(sorted(embedding)))


def show_ranks(ranks: Sequence[int]) -> str:
    """Write ranks briefly: "0-3,6"."""
    runs: list[list[int]] = []
    for rank in sorted(ranks):
        if runs and rank == runs[-1][1] + 1:
            runs[-1][1] = rank
        else:
            runs.append([rank, rank])
    return ",".join(f"{a}" if a == b else f"{a}-{b}" for a, b in runs)
