"""What the tiers must hold on every rank, before a row of it exists: the arithmetic. Pure.

A row lives in one tier, so the tiers' rooms add up. Any row may be in any of them: the pad is full
first, then the host tier, and the file has the rest. Host memory also has the index of the file.

A rank with a GPU has its pad in the GPU's memory, and what is kept beside it (index, metadata, who
leaves next) in host memory. Below the pad it has only the tiers that the job names: without
`storage.host_bytes` there is one tier, the GPU's memory, and nothing limits what is beside it.
Without `storage.pad_bytes` the pad takes a share of what is free there. On a CPU the pad is host
memory, and a job without it has one tier, of `storage.host_bytes`.

Letters: R ranks of the world.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fourfold.comm.errors import PlacementError
from fourfold.comm.placement import Placement
from fourfold.runtime.load import TableLoad, Workload
from fourfold.runtime.row_cost import SCORED_SHARE, RowCost, file_memory, pad_memory
from fourfold.runtime.units import show_bytes
from fourfold.storage import StorageConfig

DEVIATIONS = 3
"""A batch's rows on a rank are the mean and so many standard deviations."""
GROWTH, GROWTH_BYTES = 1.25, 64 << 10
"""Indexes and blocks grow in steps: a pad that must hold so many rows gets so much more."""

PAD_SHARE = 0.7
"""Of the free memory of a GPU, for the pad where the job does not say. The dense model, its
activations and the buffers of the exchange take the rest."""
MEBI = 1 << 20

Bytes = NDArray[np.int64]
Kind = Literal["cpu", "cuda"]


def with_pad(storage: StorageConfig, device: Kind, device_bytes: int | None) -> StorageConfig:
    """Give the pad of a GPU its share of `device_bytes` if the job does not say how much. Pure."""
    if device == "cpu" or device_bytes is None or storage.pad_bytes is not None:
        return storage
    pad = int(PAD_SHARE * device_bytes) // MEBI * MEBI
    return replace(storage, pad_bytes=max(pad, MEBI))


def on_device(storage: StorageConfig, device: Kind) -> StorageConfig:
    """Say what a rank's store is opened with, where "one tier" is the memory of its device. Pure.

    On a GPU that is the pad, if the job names no tier below it.
    """
    if device == "cpu" or storage.host_bytes is not None:
        return storage
    return replace(storage, pad_bytes=None, host_bytes=storage.pad_bytes, fixed_lookahead=False)


def shown_name(tier: str, tiers: Sequence[str], device: Kind) -> str:
    """Name a tier for people: a GPU's memory is `device`, whether or not there is one below it."""
    return "device" if device == "cuda" and tier == tiers[0] else tier


@dataclass(frozen=True, slots=True, eq=False)
class TierDemand:
    """What the tables need of the tiers, rank by rank."""

    tier_bytes: Mapping[str, Bytes]
    """(R,) bytes of every tier once all rows exist, fastest first."""
    rows: NDArray[np.int64]
    """(R,) rows that a rank will hold."""
    batch_pad: Bytes
    """(R,) the smallest pad that works: the rows of one batch."""
    ahead_pad: Bytes
    """(R,) the pad that the whole look-ahead needs: the rows of its batches and of the one that
    trains."""
    ahead: int
    """Batches of the look-ahead."""

    def describe(self, storage: StorageConfig) -> str:
        """Say in one line how the fullest rank fills its tiers, and what its pad should hold.

        storage: what `demand` was asked with.
        """
        tiers = ", ".join(f"{tier} {show_bytes(b.max())}" for tier, b in self.tier_bytes.items())
        batch, ahead = int(self.batch_pad.max()), int(self.ahead_pad.max())
        text = (
            f"tiers of a rank, when full: {tiers}; a batch needs a pad of {show_bytes(batch)},"
            f" {self.ahead + 1} batches {show_bytes(ahead)}"
        )
        if storage.pad_budget is not None and storage.pad_budget < batch:
            text += f": storage.pad_bytes = {show_bytes(storage.pad_budget)} seems too small"
        return text


def joint_budget(
    tables: Sequence[TableLoad], storage: StorageConfig, device: Kind = "cpu"
) -> int | None:
    """Give the bytes of rows, as `TableLoad` counts them, that fit a rank's tiers together.

    device: in whose memory the pad is. None: no limit. Nearly exact for one table, an underestimate
    for a mix of them.
    """
    sole = storage.pad_bytes is None
    if storage.budget_bytes is None or not tables or (sole and device == "cpu"):
        return storage.budget_bytes
    costs = [RowCost.of(table, table.dim, storage, device) for table in tables]
    counted = [table.row_bytes(table.dim) for table in tables]
    pad, host, file, key, place = (
        max(float(getattr(cost, name)) / n for cost, n in zip(costs, counted, strict=True))
        for name in ("pad", "host", "file", "key", "place")
    )
    beside = 1 + max(cost.host_beside for cost in costs)
    host, key, place = host * beside, key * beside, place * beside
    in_pad = (storage.pad_budget or 0) / pad / (1 + max(cost.pad_beside for cost in costs))
    if sole:
        return math.floor(in_pad)
    taken = (pad_memory(storage, costs) + file_memory(storage, costs)) * beside
    memory = max(0.0, (storage.host_budget or 0) - taken)
    if storage.file_budget is None:
        return math.floor(in_pad + memory / host)
    in_file = storage.file_budget / file
    if any(table.scored for table in tables):
        in_file = min(in_file, SCORED_SHARE * memory / key)
    key = max(0.0, key - place)  # no row has both in the index
    total = (in_pad + in_file + (memory - in_file * key) / host) / (1 + place / host)
    if total < in_pad + in_file:  # the index of so many rows leaves no room for a row
        total = in_pad + max(0.0, memory - in_pad * place) / (key + place)
    return math.floor(max(total, in_pad + memory / host))  # or the file stays empty


def demand(
    placement: Placement,
    tables: Sequence[TableLoad],
    workload: Workload,
    storage: StorageConfig,
    lookahead: int,
    device: Kind = "cpu",
) -> TierDemand:
    """Say what a placement needs of pad, host and file.

    device: in whose memory the pad is. Raises PlacementError if the rows of some rank do not fit
    its tiers together, with what is missing. Needs `storage.pad_bytes`.
    """
    size = placement.world_size
    tier_bytes = {tier: np.zeros(size, np.int64) for tier in storage.tiers}
    rows, batch, ahead = (np.zeros(size, np.int64) for _ in range(3))
    for rank, tiles in enumerate(_held_by(placement, tables, storage, device)):
        if not tiles:
            continue
        rows[rank] = sum(held.rows for held in tiles)
        batch[rank] = _pad_of(tiles, workload.batch_size)
        ahead[rank] = _pad_of(tiles, workload.batch_size * (lookahead + 1))
        for tier, num_bytes in _fill(tiles, storage, rank).items():
            tier_bytes[tier][rank] = num_bytes
    return TierDemand(tier_bytes, rows, batch, ahead, lookahead)


def sole_tier(
    placement: Placement, tables: Sequence[TableLoad], storage: StorageConfig
) -> dict[str, Bytes]:
    """Say what a placement needs on GPUs where their memory is the only tier.

    Gives (R,) bytes of every rank: "pad", and "host" for what is kept beside it.
    """
    held_by = _held_by(placement, tables, storage, "cuda")
    pad = [sum(held.rows * held.cost.pad for held in tiles) for tiles in held_by]
    host = [
        sum(held.rows * held.cost.pad * held.cost.pad_in_host for held in tiles)
        for tiles in held_by
    ]
    return {"pad": np.ceil(pad).astype(np.int64), "host": np.ceil(host).astype(np.int64)}


def _held_by(
    placement: Placement, tables: Sequence[TableLoad], storage: StorageConfig, device: Kind
) -> list[list[_Held]]:
    """Give the tiles of every rank."""
    held_by: list[list[_Held]] = [[] for _ in range(placement.world_size)]
    for tile in placement.tiles:
        table = tables[tile.table]
        held = _Held(table, tile.buckets, RowCost.of(table, tile.dim, storage, device))
        for rank in tile.ranks:
            held_by[rank].append(held)
    return held_by


@dataclass(frozen=True, slots=True)
class _Held:
    """A tile that a rank holds."""

    table: TableLoad
    buckets: int
    cost: RowCost

    @property
    def rows(self) -> int:
        return self.table.tile_rows(self.buckets)


def _pad_of(tiles: Sequence[_Held], samples: int) -> int:
    """Give the bytes that the distinct rows of so many samples take in a rank's pad."""
    mean = variance = whole = 0.0
    for held in tiles:
        rows = held.table.distinct(samples * held.table.lookups) / held.buckets
        mean += held.cost.pad * rows
        variance += held.cost.pad**2 * rows
        whole += held.cost.pad * held.rows
    in_blocks = min(mean + DEVIATIONS * math.sqrt(variance), whole)
    beside = max(held.cost.pad_beside for held in tiles)
    return math.ceil(in_blocks * (1 + beside) * GROWTH + GROWTH_BYTES)


def _fill(tiles: Sequence[_Held], storage: StorageConfig, rank: int) -> dict[str, int]:
    """Fill the tiers of a rank from the fastest down; gives the bytes of each."""
    costs = [held.cost for held in tiles]
    every = {  # bytes if all rows were there
        name: sum(held.rows * float(getattr(held.cost, name)) for held in tiles)
        for name in ("pad", "host", "file", "key", "place")
    }
    every["pad"] *= 1 + max(cost.pad_beside for cost in costs)
    beside = 1 + max(cost.host_beside for cost in costs)  # is set aside of the whole budget
    every |= {name: every[name] * beside for name in ("host", "key", "place")}
    pad = min(every["pad"], storage.pad_budget or math.inf)
    left = 1 - pad / every["pad"]
    room = math.inf if storage.host_budget is None else storage.host_budget
    memory = (pad_memory(storage, costs) + file_memory(storage, costs)) * beside
    if left * every["host"] + memory <= room:
        host = math.ceil(left * every["host"] + memory)
        filled = {"pad": math.floor(pad), "host": host, "file": 0}
        return {tier: filled[tier] for tier in storage.tiers}
    if storage.file_budget is None:
        raise _too_small(tiles, storage, rank, "host", left * every["host"] + memory)
    index = memory + every["place"] + left * every["key"]
    if index > room:
        raise _too_small(tiles, storage, rank, "host", index, " for the index of the file")
    in_file = left - (room - index) / (every["host"] - every["key"])
    if in_file * every["file"] > storage.file_budget:
        raise _too_small(tiles, storage, rank, "file", in_file * every["file"])
    return {
        "pad": math.floor(pad),
        "host": math.floor(room),
        "file": math.ceil(in_file * every["file"]),
    }


def _too_small(
    tiles: Sequence[_Held],
    storage: StorageConfig,
    rank: int,
    tier: str,
    least: float,
    what: str = "",
) -> PlacementError:
    rooms = ", ".join(f"{t} {show_bytes(getattr(storage, f'{t}_budget'))}" for t in storage.tiers)
    return PlacementError(
        f"the tiers of rank {rank} are too small for its {sum(held.rows for held in tiles):,} rows"
        f" ({rooms}): raise storage.{tier}_bytes to {show_bytes(least)}{what}, or add embedding"
        " ranks"
    )
