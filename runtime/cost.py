"""What a placement costs: bytes on every rank, and seconds of every stage of a step.

After Neo (Mudigere et al., ISCA 2022, section 5) and the estimator of its descendant TorchRec: a
cost is bytes moved over a bandwidth, for memory and for the wire, plus a fixed latency. What
differs is what moves here: ids are distinct before they travel, a reply is distinct rows or sums of
bags, gradients are summed per reply row before they go back, and every replica of a tile gets them.

Letters: R ranks of the world, D dense ranks (requesters), B samples of the global batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fourfold.comm.placement import Placement
from fourfold.comm.tile import Tile
from fourfold.runtime.hardware import Hardware
from fourfold.runtime.load import CACHE_LINE, TableLoad, Workload
from fourfold.runtime.roles import Roles
from fourfold.runtime.world import World

Seconds = NDArray[np.float64]

SEGMENT_S = 2e-7
"""Overhead of one (tile, requester) pair in a step."""
ROUTE_S = 3e-8
"""De-duplicating and bucketing one id."""
BACKWARD_SHARE = 2 / 3
"""Share of the dense model's time that its backward takes, during which gradients all-reduce."""


@dataclass(frozen=True, slots=True)
class TileCost:
    """What one tile makes a holder do in one step."""

    held_bytes: int
    """Rows, state, metadata and index."""
    id_bytes: float
    """Sent by one requester."""
    reply_bytes: float
    """Sent to one requester in forward, and back as gradients."""
    gather_bytes: float
    """Memory traffic to answer one requester."""
    update_bytes: float
    """Memory traffic to apply the gradients of all requesters."""


def tile_cost(
    table: TableLoad, buckets: int, dim: int, workload: Workload, num_dense: int
) -> TileCost:
    """Price one tile: one of `buckets`, `dim` columns wide, asked by `num_dense` requesters."""
    samples = workload.batch_size / num_dense
    id_size = 4 if table.num_rows // buckets < 1 << 32 and table.rows is not None else 8
    rows = table.distinct(samples * table.lookups) / buckets
    sums = samples * table.features * _bags_met(table.lookups / table.features, buckets)
    lookups = samples * table.lookups / buckets
    row_wire, sum_wire = (n * dim * workload.wire_bytes for n in (rows, sums))
    pooled_ids = lookups * id_size + sums * 4  # a pooled reply needs the number of ids of each bag
    pooled = table.reply == "pooled" or (
        table.reply == "auto" and pooled_ids + 2 * sum_wire < rows * id_size + 2 * row_wire
    )
    reads = lookups if pooled else rows
    reply = sum_wire if pooled else row_wire
    updated = table.distinct(workload.batch_size * table.lookups) / buckets
    row = _lines(dim * table.weight_bytes) + _lines(dim * table.state_bytes + 8)
    return TileCost(
        held_bytes=table.tile_bytes(buckets, dim),
        id_bytes=pooled_ids if pooled else rows * id_size,
        reply_bytes=reply,
        gather_bytes=reads * _lines(dim * table.weight_bytes) + reply,
        update_bytes=num_dense * reply + 2 * updated * row,
    )


def _bags_met(bag: float, buckets: int) -> float:
    """Expect this share of the bags (of `bag` ids each) to have an id in a given bucket."""
    if buckets == 1:
        return min(1.0, bag)
    return float(min(1.0, bag) * (1 - (1 - 1 / buckets) ** max(1.0, bag)))


def _lines(num_bytes: int) -> int:
    return -(-num_bytes // CACHE_LINE) * CACHE_LINE


@dataclass(frozen=True, slots=True)
class Topology:
    """Who is near whom: arrays over ranks, made once for a world and its roles."""

    nodes: NDArray[np.int64]
    """(R,) node of every rank."""
    dense: NDArray[np.bool_]
    """(R,) whether the rank is dense."""
    near: NDArray[np.int64]
    """(R,) other dense ranks on its node."""
    far: NDArray[np.int64]
    """(R,) dense ranks on other nodes."""

    @staticmethod
    def of(world: World, roles: Roles) -> Topology:
        """Look at every rank of the world."""
        nodes = np.array(world.nodes, dtype=np.int64)
        dense = np.zeros(world.size, dtype=np.bool_)
        dense[list(roles.dense)] = True
        on_node = np.bincount(nodes[dense], minlength=world.num_nodes)[nodes]
        return Topology(nodes, dense, on_node - dense, dense.sum() - on_node)

    def from_holders(self, per_requester: Seconds) -> tuple[Seconds, Seconds]:
        """Give what every rank gets, (near, far), if holder h sends x[h] to each requester."""
        on_node = np.bincount(self.nodes, weights=per_requester)[self.nodes]
        return (
            np.where(self.dense, on_node - per_requester, 0.0),
            np.where(self.dense, per_requester.sum() - on_node, 0.0),
        )


@dataclass(frozen=True, slots=True)
class Rates:
    """What an average embedding rank pays for bytes, to plan with before any tile has a rank."""

    num_dense: int
    memory: float
    """Seconds per byte of memory traffic."""
    wire: float
    """Seconds per byte sent to each of the dense ranks, itself excepted."""

    @staticmethod
    def of(world: World, roles: Roles, hardware: Hardware) -> Rates:
        """Average over the embedding ranks."""
        topology, ranks = Topology.of(world, roles), list(roles.embedding)
        near, far = topology.near[ranks].mean(), topology.far[ranks].mean()
        return Rates(
            num_dense=len(roles.dense),
            memory=1 / hardware.memory_bytes_per_s,
            wire=float(near / hardware.node_bytes_per_s + far / hardware.network_bytes_per_s),
        )

    def serve_seconds(self, cost: TileCost, replicas: int = 1) -> float:
        """Load of a rank for one tile that it holds alone, or beside a replica per dense rank."""
        readers = self.num_dense / replicas
        memory = readers * cost.gather_bytes + cost.update_bytes
        replies = 1 + (replicas == 1)  # with a replica at home only gradients travel
        return (
            memory * self.memory
            + replies * cost.reply_bytes * self.wire
            + self.num_dense * SEGMENT_S
        )


@dataclass(frozen=True, slots=True, eq=False)
class Prediction:
    """What a placement is expected to cost, rank by rank."""

    tier_bytes: Mapping[str, NDArray[np.int64]]
    """(R,) bytes of rows on every rank, by tier."""
    table_bytes: tuple[int, ...]
    """(tables,) the most bytes of that table on one rank."""
    load: Seconds
    """(R,) seconds that a rank serves and updates rows in a step, its messages included."""
    stages: Mapping[str, Seconds]
    """(R,) seconds of every stage of a step, in order. All ranks wait for the slowest in each."""
    route: Seconds
    """(R,) seconds of routing, which runs ahead of the step."""

    @property
    def held(self) -> NDArray[np.int64]:
        """(R,) bytes of rows on every rank, all tiers together."""
        held: NDArray[np.int64] = np.sum(list(self.tier_bytes.values()), axis=0)
        return held

    @property
    def stage_seconds(self) -> dict[str, float]:
        """Seconds of every stage: those of its slowest rank."""
        return {name: float(seconds.max()) for name, seconds in self.stages.items()}

    @property
    def step_seconds(self) -> float:
        """Seconds of one step."""
        return max(sum(self.stage_seconds.values()), float(self.route.max()))


def predict(
    placement: Placement,
    tables: Sequence[TableLoad],
    world: World,
    roles: Roles,
    workload: Workload,
    hardware: Hardware,
) -> Prediction:
    """Predict the cost of any placement, by hand or planned. Pure."""
    topology = Topology.of(world, roles)
    size, num_dense = world.size, len(roles.dense)
    gather, update, segments, ids, gradients, replies = (np.zeros(size) for _ in range(6))
    near_in, far_in, near_out, far_out = (np.zeros(size) for _ in range(4))
    table_held = np.zeros((len(tables), size), dtype=np.int64)
    costs: dict[tuple[int, int, int], TileCost] = {}
    for tile in placement.tiles:
        key = (tile.table, tile.buckets, tile.dim)
        if key not in costs:
            costs[key] = tile_cost(tables[tile.table], tile.buckets, tile.dim, workload, num_dense)
        cost, holders = costs[key], list(tile.ranks)
        table_held[tile.table, holders] += cost.held_bytes
        ids[holders] += cost.id_bytes
        gradients[holders] += cost.reply_bytes
        update[holders] += cost.update_bytes
        segments[holders] += num_dense
        if len(holders) == 1:
            replies[holders] += cost.reply_bytes
            gather[holders] += num_dense * cost.gather_bytes
        else:
            requesters = np.flatnonzero(topology.dense)
            providers = _providers(tile, requesters)
            np.add.at(gather, providers, cost.gather_bytes)
            away = providers != requesters
            same = topology.nodes[providers] == topology.nodes[requesters]
            for link, sent, got in ((away & same, near_out, near_in), (~same, far_out, far_in)):
                np.add.at(sent, providers[link], cost.reply_bytes)
                np.add.at(got, requesters[link], cost.reply_bytes)
    held = table_held.sum(axis=0)
    reply_near, reply_far = topology.from_holders(replies)
    sent_near, sent_far = replies * topology.near + near_out, replies * topology.far + far_out

    def wire(near: Seconds, far: Seconds) -> Seconds:
        return near / hardware.node_bytes_per_s + far / hardware.network_bytes_per_s

    messages = hardware.latency_s * (size - 1)
    forward_out = wire(sent_near, sent_far)
    backward_in = wire(gradients * topology.near, gradients * topology.far)
    memory = hardware.memory_bytes_per_s
    gather_s, update_s = gather / memory + segments * SEGMENT_S, update / memory
    lookups = workload.batch_size / num_dense * sum(t.lookups for t in tables)
    dense_s, all_reduce_s = _dense_seconds(workload, hardware, num_dense, world.num_nodes)
    on_dense = topology.dense.astype(np.float64)
    return Prediction(
        tier_bytes={"host": held},
        table_bytes=tuple(int(b) for b in table_held.max(axis=1)),
        load=gather_s + forward_out + backward_in + update_s,
        stages={
            "gather": gather_s,
            "forward": np.maximum(forward_out, wire(reply_near + near_in, reply_far + far_in))
            + messages,
            "pool": on_dense
            * _pool_bytes(tables, workload, num_dense)
            / hardware.memory_bytes_per_s,
            "dense": on_dense * dense_s,
            "all-reduce": on_dense * all_reduce_s,
            "backward": np.maximum(backward_in, wire(*topology.from_holders(gradients))) + messages,
            "update": update_s,
        },
        route=on_dense * lookups * ROUTE_S
        + np.maximum(
            wire(ids * topology.near, ids * topology.far), wire(*topology.from_holders(ids))
        )
        + messages,
    )


def _providers(tile: Tile, requesters: NDArray[np.int64]) -> NDArray[np.int64]:
    """Give `tile.provider` of every requester, (D,)."""
    holders = np.array(tile.ranks, dtype=np.int64)
    turn = holders[requesters % len(holders)]
    return np.where(np.isin(requesters, holders), requesters, turn)


def _pool_bytes(tables: Sequence[TableLoad], workload: Workload, num_dense: int) -> float:
    """Give the memory traffic of a requester: pooling in forward, summing gradients in backward."""
    samples = workload.batch_size / num_dense
    elements = sum((t.lookups + t.features) * t.dim for t in tables)
    return 2 * samples * elements * 4


def _dense_seconds(
    workload: Workload, hardware: Hardware, num_dense: int, num_nodes: int
) -> tuple[float, float]:
    """Give the time of the dense model, and what its all-reduce takes beyond its backward.

    Six operations per parameter and sample: two in forward, four in backward. A ring all-reduce
    sends 2 (D - 1) / D of the gradient.
    """
    samples = workload.batch_size / num_dense
    dense = 6 * workload.dense_parameters * samples / hardware.flops_per_s
    if num_dense == 1 or workload.dense_parameters == 0:
        return dense, 0.0
    bandwidth = hardware.network_bytes_per_s if num_nodes > 1 else hardware.node_bytes_per_s
    ring = 2 * (num_dense - 1) / num_dense * 4 * workload.dense_parameters / bandwidth
    ring += 2 * (num_dense - 1) * hardware.latency_s
    return dense, max(0.0, ring - BACKWARD_SHARE * dense)
