"""What an exchange is built from: it must fit together, and be the same on all ranks."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from fourfold.comm._native import BLOCK
from fourfold.comm.backend import Backend, Blocks
from fourfold.comm.errors import CommError, PlacementError
from fourfold.comm.placement import Placement
from fourfold.comm.route import Feature, Reply, Wire

WIRES: dict[str, int] = {"fp32": 0, "bf16": 1, "fp16": 2}
POOLINGS: dict[str, int] = {"sum": 0, "mean": 1, "none": 2}
MAX_BUCKETS = 2**16


def check(
    backend: Backend,
    placement: Placement,
    features: Sequence[Feature],
    replies: Sequence[Reply],
    wire: Wire,
    id_bits: Sequence[int],
    hash_ids: Sequence[bool],
    credits: Sequence[bool],
) -> None:
    """Raise ValueError or PlacementError for arguments that do not fit one another. Local."""
    tables = len(placement.shapes)
    if placement.world_size != backend.size:
        raise PlacementError(
            f"the placement is for {placement.world_size} ranks, and {backend.size} were started"
        )
    placement.validate(range(backend.size), ())
    if (most := max((t.buckets for t in placement.tiles), default=1)) > MAX_BUCKETS:
        raise PlacementError(f"{most} buckets in a table; at most {MAX_BUCKETS} are supported")
    per_table = {"replies": replies, "id_bits": id_bits, "hash_ids": hash_ids, "credits": credits}
    for name, values in per_table.items():
        if len(values) != tables:
            raise ValueError(f"{name}: expected one per table ({tables}), got {len(values)}")
    if wire not in WIRES:
        raise ValueError(f"wire: expected one of {', '.join(WIRES)}, got {wire!r}")
    for shape, bits, reply in zip(placement.shapes, id_bits, replies, strict=True):
        if reply not in ("rows", "pooled"):
            raise ValueError(f"table {shape.name!r}: reply is 'rows' or 'pooled', got {reply!r}")
        if shape.rows is None and not 1 <= bits <= 63:
            raise ValueError(f"table {shape.name!r}: id_bits must be 1 to 63, got {bits}")
    for feature in features:
        if not 0 <= feature.table < tables:
            raise ValueError(
                f"feature {feature.name!r}: table {feature.table} does not exist; expected 0 to"
                f" {tables - 1}"
            )
        if feature.pooling not in POOLINGS:
            raise ValueError(
                f"feature {feature.name!r}: pooling is one of {', '.join(POOLINGS)}, got"
                f" {feature.pooling!r}"
            )
        if feature.pooling == "none" and replies[feature.table] == "pooled":
            raise ValueError(
                f"feature {feature.name!r} has pooling 'none', so the replies of its table"
                f" {placement.shapes[feature.table].name!r} must be 'rows'"
            )


def agree(backend: Backend, plan: str) -> None:
    """Raise CommError unless all ranks were built from the same plan. Collective."""
    if backend.size == 1:
        return
    size, rank = backend.size, backend.rank
    digest = np.frombuffer(hashlib.blake2b(plan.encode(), digest_size=BLOCK).digest(), np.uint8)
    counts, starts = np.ones(size, np.int64), np.arange(size, dtype=np.int64)
    counts[rank] = 0
    got = np.tile(digest, size)
    backend.route(Blocks(np.tile(digest, size), counts, starts), Blocks(got, counts, starts))
    others = np.flatnonzero((got.reshape(size, BLOCK) != digest).any(axis=1))
    if others.size:
        raise CommError(
            f"rank {rank}: rank {others[0]} was given other tables, features, placement,"
            " replies, credits or wire type; all ranks must build the exchange from the same job",
            op="Exchange",
            peer=int(others[0]),
        )
