"""Which device every rank uses: decided by all ranks together, before anything is made.

A rank has one device: its dense model, the rows it holds and its share of the exchange are there.
What a rank can have, it finds by itself (`fourfold.runtime.gpu`); every rank then knows what all
have found, so all decide the same, and what is missing anywhere is the same error everywhere.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch

from fourfold.runtime.errors import ConfigError
from fourfold.runtime.gpu import LEAST_CAPABILITY, GpuFacts, Lack, find_facts, lacks
from fourfold.runtime.roles import Role, Roles, RolesConfig, show_ranks
from fourfold.runtime.units import show_bytes
from fourfold.runtime.world import World

if TYPE_CHECKING:
    from mpi4py import MPI

Kind = Literal["cpu", "cuda"]
Problems = dict[Lack, list[int]]
"""What ranks lack, and which."""


@dataclass(frozen=True, slots=True)
class RankDevice:
    """The device of one rank."""

    kind: Kind = "cpu"
    ordinal: int = 0
    """Of a GPU, among those that the rank's process sees."""
    sharers: int = 1
    """Ranks that use this GPU."""

    @property
    def torch(self) -> torch.device:
        """The same for torch."""
        return torch.device("cuda", self.ordinal) if self.kind == "cuda" else torch.device("cpu")

    def enter(self) -> None:
        """Make it the current device of this thread. The first call makes a context on a GPU."""
        if self.kind == "cuda":
            torch.cuda.set_device(self.ordinal)

    def free_bytes(self) -> int | None:
        """Free memory of the GPU, this rank's share; None on a CPU."""
        if self.kind == "cpu":
            return None
        free, _ = torch.cuda.mem_get_info(self.ordinal)
        return int(free) // self.sharers


@dataclass(frozen=True, slots=True)
class Devices:
    """The devices of all ranks."""

    ranks: tuple[RankDevice, ...]
    why: str
    """What the ranks use, and why, for a person."""
    nccl: bool = False
    """Whether rows travel between GPUs over NCCL. It wants a GPU per rank, and every rank on one;
    otherwise, and on one rank, rows go through host memory and MPI."""

    def kind(self, ranks: Sequence[int]) -> Kind:
        """Return the kind of these ranks' devices; "cuda" if any of them has a GPU."""
        return "cuda" if any(self.ranks[rank].kind == "cuda" for rank in ranks) else "cpu"


def agree_on_devices(
    config: RolesConfig, world: World, roles: Roles, comm: MPI.Intracomm
) -> Devices:
    """Find out what every rank has, and decide. Collective.

    Raises ConfigError, the same on all ranks, for what cannot be.
    """
    check_devices(config, roles)
    if config.device == "cpu":
        return decide(config, world, roles, [])
    facts = find_facts(thorough=config.device == "cuda")
    return decide(config, world, roles, comm.allgather(facts))


def least_free(devices: Devices, roles: Roles, comm: MPI.Intracomm) -> int | None:
    """Give the least free memory that a GPU has for a rank that holds rows. Collective.

    None if rows lie in host memory. Makes a context on every GPU that is used.
    """
    device = devices.ranks[comm.rank]
    device.enter()
    free = device.free_bytes() if comm.rank in roles.embedding else None
    known = [amount for amount in comm.allgather(free) if amount is not None]
    return min(known, default=None)


def check_devices(config: RolesConfig, roles: Roles) -> None:
    """Raise ConfigError if a rank would need two devices. Pure."""
    both = [rank for rank in roles.embedding if roles[rank] is Role.COLOCATED]
    if config.embedding_device == "cpu" and config.device != "cpu" and both:
        raise ConfigError(
            f'world.embedding_device = "cpu" with device = "{config.device}": ranks'
            f" {show_ranks(both)} hold rows and run the dense model, and a rank has one device."
            " Give rows ranks of their own (`dense = 6, embedding = 2`, for one), leave"
            ' embedding_device out, or write device = "cpu"'
        )


def decide(config: RolesConfig, world: World, roles: Roles, facts: Sequence[GpuFacts]) -> Devices:
    """Give every rank its device, by what all ranks have found. Pure.

    facts: (size,) by rank; not looked at with device = "cpu". Raises ConfigError where the job asks
    for GPUs and a rank has none that it can use, with what is missing and how to get it.
    """
    on_cpu = (RankDevice(),) * world.size
    if config.device == "cpu":
        return Devices(on_cpu, 'all ranks on the CPU (world.device = "cpu")')
    wanted = [r for r in range(world.size) if _wants_gpu(r, config, roles)]
    among_gpus = len(wanted) == world.size > 1 and not config.share_gpus
    problems = _problems(wanted, facts, among_gpus)
    if not problems:
        ordinals = _ordinals(wanted, world, facts)
        problems = _too_old(ordinals, facts)
    if not problems:
        sharers = _sharers(ordinals, facts)
        problems = _crowded(ordinals, sharers, world, facts, config)
    if not problems:
        devices = list(on_cpu)
        for rank, ordinal in ordinals.items():
            devices[rank] = RankDevice("cuda", ordinal, sharers[rank])
        alone = len(wanted) == world.size > 1 and max(sharers.values()) == 1
        # NCCL takes MIG devices of one GPU for the same one.
        gpus = {r: facts[r].driver.gpus[ordinal] for r, ordinal in ordinals.items()}
        apart = len({(world.nodes[r], gpu.bus or gpu.uuid) for r, gpu in gpus.items()})
        nccl = alone and apart == len(gpus) and all(found.nccl is not None for found in facts)
        return Devices(tuple(devices), _describe(ordinals, world, facts), nccl)
    if config.device == "cuda":
        raise ConfigError(_refusal(problems))
    lack, ranks = next(iter(problems.items()))
    return Devices(
        on_cpu, f'all ranks on the CPU (world.device = "auto"): {_named(ranks)}: no {lack.what}'
    )


def _refusal(problems: Problems) -> str:
    lines = [f"  {_named(ranks)}: {lack}" for lack, ranks in problems.items()]
    return "\n".join(
        (
            'world.device = "cuda", but not every rank has a GPU that it can use'
            ' (`fourfold env` shows what was found; world.device = "cpu" trains without)',
            *lines,
        )
    )


def _named(ranks: Sequence[int]) -> str:
    return f"rank{'s' * (len(ranks) > 1)} {show_ranks(ranks)}"


def _wants_gpu(rank: int, config: RolesConfig, roles: Roles) -> bool:
    return config.embedding_device != "cpu" or roles[rank] is not Role.EMBEDDING


def _problems(wanted: Sequence[int], facts: Sequence[GpuFacts], among_gpus: bool) -> Problems:
    """Ask the facts of every rank. among_gpus: whether rows shall travel between GPUs."""
    problems: Problems = {}
    for rank in wanted:
        for problem in lacks(facts[rank], several=among_gpus):
            problems.setdefault(problem, []).append(rank)
    return problems


def _ordinals(wanted: Sequence[int], world: World, facts: Sequence[GpuFacts]) -> Mapping[int, int]:
    """Deal the GPUs of each node to its ranks in turn.

    Ranks of a node mostly see the same GPUs; where the launcher gave each its own, it takes that.
    """
    before: Counter[int] = Counter()
    ordinals = {}
    for rank in wanted:
        node = world.nodes[rank]
        ordinals[rank] = before[node] % len(facts[rank].driver.gpus)
        before[node] += 1
    return ordinals


def _too_old(ordinals: Mapping[int, int], facts: Sequence[GpuFacts]) -> Problems:
    problems: Problems = {}
    for rank, ordinal in ordinals.items():
        gpu = facts[rank].driver.gpus[ordinal]
        if gpu.capability < LEAST_CAPABILITY:
            have, need = (".".join(map(str, v)) for v in (gpu.capability, LEAST_CAPABILITY))
            lack = Lack(
                f"GPU of compute capability {need} or more ({gpu.name} has {have})",
                "A100 and newer have it",
            )
            problems.setdefault(lack, []).append(rank)
    return problems


def _sharers(ordinals: Mapping[int, int], facts: Sequence[GpuFacts]) -> dict[int, int]:
    """Count, for each rank, the ranks that use its GPU."""
    used = {rank: facts[rank].driver.gpus[ordinal].uuid for rank, ordinal in ordinals.items()}
    count = Counter(used.values())
    return {rank: count[uuid] for rank, uuid in used.items()}


def _crowded(
    ordinals: Mapping[int, int],
    sharers: Mapping[int, int],
    world: World,
    facts: Sequence[GpuFacts],
    config: RolesConfig,
) -> Problems:
    """Say on which nodes several ranks would use one GPU, unless the job allows it."""
    if config.share_gpus:
        return {}
    problems: Problems = {}
    for node in range(world.num_nodes):
        here = [rank for rank in ordinals if world.nodes[rank] == node]
        shared = [rank for rank in here if sharers[rank] > 1]
        if shared:
            gpus = {gpu.uuid for rank in here for gpu in facts[rank].driver.gpus}
            lack = Lack(
                f"GPU of its own ({world.hosts[node]} has {len(here)} ranks that use GPUs, and"
                f" {len(gpus)} GPU{'s' * (len(gpus) > 1)})",
                "start as many ranks as there are GPUs, or write world.share_gpus = true",
            )
            problems[lack] = shared
    return problems


def _describe(ordinals: Mapping[int, int], world: World, facts: Sequence[GpuFacts]) -> str:
    chosen = Counter(
        (gpu.name, show_bytes(gpu.memory_bytes))
        for gpu in (facts[rank].driver.gpus[ordinal] for rank, ordinal in ordinals.items())
    )
    kinds = ", ".join(f"{count} x {name} {memory}" for (name, memory), count in chosen.items())
    text = f"{_named(list(ordinals))} on GPUs ({kinds})"
    others = [rank for rank in range(world.size) if rank not in ordinals]
    return f"{text}, {_named(others)} on the CPU" if others else text
