"""What a batch asks for, what it moved, and which kind of reply moves less.

Notation: L ids, B bags of one feature, S segments, n ids of a request.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fourfold.comm.placement import Placement

Pooling = Literal["sum", "mean", "none"]
Reply = Literal["rows", "pooled"]
Wire = Literal["fp32", "bf16", "fp16"]

WIRE_BYTES: dict[str, int] = {"fp32": 4, "bf16": 2, "fp16": 2}


@dataclass(frozen=True, slots=True)
class Feature:
    """A sparse field of the data and the table it looks up."""

    name: str
    table: int
    """Ordinal of the table; several features may share one."""
    pooling: Pooling
    """ "sum" and "mean" give one row per sample; "none" gives one row per id."""


@dataclass(frozen=True, slots=True)
class Request:
    """What this rank must serve: S segments ordered by (held tile, requester rank)."""

    tile: NDArray[np.int32]
    """(S,) index into placement.held_by(rank)."""
    ids: NDArray[np.int64]
    """(n,) positions (static table) or ids (dynamic); segment s owns ids[first[s]:first[s+1]]."""
    first: NDArray[np.int64]
    """(S+1,)"""
    bags: NDArray[np.int64]
    """(S+1,) reply rows: segment s is answered by bags[s+1] - bags[s] rows."""
    lengths: NDArray[np.int32]
    """Ids per reply row of the pooled segments, concatenated in segment order; all >= 1."""
    pooled: NDArray[np.bool_]
    """(S,) sums over the ids of a bag; otherwise one row per id, and the ids are distinct."""
    weights: NDArray[np.float32] | None
    """(n,) of pooled segments; 1 where a segment has none. None when no rank sent any."""
    credits: NDArray[np.float32] | None
    """(n,) what the appearances of the id in the requester's batch count for: the sum over all of
    them, in their order, where ids are distinct; that of one in a pooled segment. 1 where the table
    takes none. None when no table of this rank takes any, or there are no ids."""
    replies: NDArray[np.bool_]
    """(S,) False: another replica answers this requester; only its gradients come here."""


@dataclass(frozen=True, slots=True)
class Traffic:
    """What one batch moves between this rank and the others. Bytes, off-rank only.

    `torchrec_*` is what TorchRec's pooled all-to-all would move for the same batch, placement and
    wire type. Per tile that this rank does not hold: ids = 8 per lookup (+ 4 with weights) and 4
    per bag for its length; replies = tile dim * element size per bag (per lookup for pooling
    "none", taken as spread evenly over buckets), and as much in gradients. It neither de-duplicates
    nor leaves out empty bags. A replicated static tile moves no ids and no rows; its dense fp32
    gradient is all-reduced, which sends 2 (n - 1) / n of the tile.
    """

    lookups: int
    """Ids of the batch on this rank."""
    rows: int
    """Reply rows asked for: distinct ids, or the non-empty part of a bag in a bucket."""
    id_bytes: int
    """Sent: counts, ids, lengths, weights, credits."""
    reply_bytes: int
    """Received in forward."""
    gradient_bytes: int
    """Sent in backward."""
    torchrec_id_bytes: int
    torchrec_reply_bytes: int
    torchrec_gradient_bytes: int

    @property
    def num_bytes(self) -> int:
        """Everything that this rank's batch moves."""
        return self.id_bytes + self.reply_bytes + self.gradient_bytes

    @property
    def torchrec_bytes(self) -> int:
        """Everything that it would move there."""
        return self.torchrec_id_bytes + self.torchrec_reply_bytes + self.torchrec_gradient_bytes


@dataclass(frozen=True, slots=True)
class LookupStats:
    """What batches ask of one table, per batch and rank (means over the measured batches)."""

    lookups: float
    """Ids."""
    unique: float
    """Distinct ids."""
    bags: float
    """Bags that are not empty."""


def measure_lookups(
    features: Sequence[Feature],
    num_tables: int,
    batches: Iterable[tuple[NDArray[np.int64], NDArray[np.int64], int]],
) -> tuple[LookupStats, ...]:
    """Count ids, distinct ids and bags per table over a few batches (ids, offsets, batch).

    ids (L,) and offsets (F * batch + 1,) as in Exchange.route. Local: no communication.
    """
    totals = np.zeros((num_tables, 3))
    count = 0
    for ids, offsets, batch in batches:
        count += 1
        of_table: list[list[NDArray[Any]]] = [[] for _ in range(num_tables)]
        for f, feature in enumerate(features):
            first, last = offsets[f * batch], offsets[(f + 1) * batch]
            of_table[feature.table].append(ids[first:last])
            lengths = np.diff(offsets[f * batch : (f + 1) * batch + 1])
            totals[feature.table] += last - first, 0, np.count_nonzero(lengths)
        for table, parts in enumerate(of_table):
            if parts:
                totals[table, 1] += np.unique(np.concatenate(parts)).size
    means = totals / max(count, 1)
    return tuple(LookupStats(*map(float, row)) for row in means)


def choose_replies(
    features: Sequence[Feature],
    placement: Placement,
    stats: Sequence[LookupStats],
    *,
    wire: Wire = "fp32",
) -> tuple[Reply, ...]:
    """Pick per table the kind of reply that moves fewer bytes between ranks.

    On a tie (nothing leaves the rank) the kind that moves fewer bytes within ranks wins. A table
    with a feature of pooling "none" needs rows. Pure; the same on all ranks if `stats` is.
    """
    sequence = {feature.table for feature in features if feature.pooling == "none"}
    return tuple(
        "rows"
        if table in sequence
        or _cost(placement, table, stats[table], "rows", WIRE_BYTES[wire])
        <= _cost(placement, table, stats[table], "pooled", WIRE_BYTES[wire])
        else "pooled"
        for table in range(len(placement.shapes))
    )


def _cost(
    placement: Placement, table: int, stats: LookupStats, reply: Reply, element: int
) -> tuple[float, float]:
    """Bytes between ranks, and bytes in all, if every rank asks what `stats` says.

    A bag of m ids meets k (1 - (1 - 1/k)^m) of k buckets on average.
    """
    between = within = 0.0
    world = placement.world_size
    per_bag = stats.lookups / max(stats.bags, 1.0)
    for tile in placement.tiles:
        if tile.table != table:
            continue
        if reply == "rows":
            ids = rows = stats.unique / tile.buckets
            lengths = 0.0
        else:
            ids = stats.lookups / tile.buckets
            rows = stats.bags * (1.0 - (1.0 - 1.0 / tile.buckets) ** per_bag)
            lengths = 4.0 * rows
        limit = placement.shapes[table].rows
        id_bytes = 4 if limit is not None and limit <= tile.buckets * 2**32 else 8
        one_way = ids * id_bytes + lengths + rows * tile.dim * element  # ids and gradients
        back = rows * tile.dim * element
        holders = len(tile.ranks)
        between += one_way * (world * holders - holders) + back * (world - holders)
        within += (one_way * holders + back) * world
    return between, within
