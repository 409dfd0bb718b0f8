"""The exchange: ids to the tiles, rows back, gradients the way of the ids.

Everything that can be known before the step is made in `route`, natively and ahead of time:
de-duplication, buckets, message sizes, where each reply row goes and which bags it belongs to. The
step is then gather (by the holder) / all-to-all / pool, and spread / all-to-all / update (by the
holder). The holder reads and writes rows at addresses, so a rank's own rows never pass through MPI.

Sums have one order whatever the number of threads: replies "rows" are added in the order of the
bag's ids, whatever the placement; partial sums of buckets (replies "pooled") in bucket order; the
gradient of a reply row in the order of the lookups.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fourfold.comm._native import BLOCK, Buffer, Route, Router
from fourfold.comm.backend import Backend, Blocks
from fourfold.comm.errors import CommError, PlacementError
from fourfold.comm.placement import Placement
from fourfold.comm.route import Feature, Reply, Request, Traffic, Wire

WIRES: dict[str, int] = {"fp32": 0, "bf16": 1, "fp16": 2}
POOLINGS: dict[str, int] = {"sum": 0, "mean": 1, "none": 2}
MAX_BUCKETS = 2**16


@dataclass(frozen=True, slots=True)
class Routed:
    """A batch whose ids have arrived. Its memory is reused once nothing refers to it."""

    batch: int
    """Samples of this rank."""
    global_batch: int
    """Samples of all ranks."""
    any_live: bool
    """Whether some rank still has data; its batch may be empty all the same."""
    request: Request
    """What this rank must serve."""
    stats: Traffic
    route: Route
    """The native side: where rows and gradients go."""


class Exchange:
    """Carries ids, rows and gradients between the ranks of `backend`.

    replies, id_bits, hash_ids: one value per table. id_bits: ids of a dynamic table must be below
    2**id_bits. hash_ids: any 64-bit id is taken and hashed, to [0, rows) or [0, 2**id_bits).
    wire: element type of rows and gradients between ranks; sums are always made in fp32.
    output_dim: columns of the pooled output, features with pooling "sum" and "mean" side by side.
    Collective over the world. Raises ValueError or PlacementError for arguments that do not fit,
    CommError if the ranks were given different ones.
    """

    def __init__(
        self,
        backend: Backend,
        placement: Placement,
        features: Sequence[Feature],
        *,
        replies: Sequence[Reply],
        wire: Wire = "fp32",
        id_bits: Sequence[int] | None = None,
        hash_ids: Sequence[bool] | None = None,
        threads: int = 1,
    ) -> None:
        tables = len(placement.shapes)
        id_bits = (52,) * tables if id_bits is None else tuple(id_bits)
        hash_ids = (False,) * tables if hash_ids is None else tuple(hash_ids)
        _check(backend, placement, features, replies, wire, id_bits, hash_ids)
        self._backend = backend
        self._router = Router(
            backend.rank,
            backend.size,
            threads,
            WIRES[wire],
            [
                (
                    shape.name,
                    shape.dim,
                    2**bits if shape.rows is None else shape.rows,
                    shape.rows is None,
                    hashed,
                    reply == "pooled",
                )
                for shape, bits, hashed, reply in zip(
                    placement.shapes, id_bits, hash_ids, replies, strict=True
                )
            ],
            [(f.name, f.table, POOLINGS[f.pooling]) for f in features],
            [(t.table, t.bucket, t.start, t.stop, list(t.ranks)) for t in placement.tiles],
        )
        self.output_dim = self._router.output_dim
        self._headers_sent = self._router.headers_sent
        self._headers_got = self._router.headers_got
        self._segment_tile = self._router.segment_tile
        self._segment_pooled = self._router.segment_pooled.view(np.bool_)
        self._segment_replies = self._router.segment_replies.view(np.bool_)
        self._reply_sent, self._reply_got = Buffer(), Buffer()
        self._gradient_sent, self._gradient_got = Buffer(), Buffer()
        self._agree(repr((placement, tuple(features), tuple(replies), wire, id_bits, hash_ids)))

    def route(
        self,
        ids: NDArray[np.int64],
        offsets: NDArray[np.int64],
        weights: NDArray[np.float32] | None,
        batch: int,
        *,
        live: bool = True,
    ) -> Routed:
        """Send the ids of a batch to their holders, and take in what others ask of this rank.

        ids (L,) and weights (L,) are feature-major: bag b of feature f is
        ids[offsets[f*batch + b] : offsets[f*batch + b + 1]]. A rank without data passes batch 0,
        offsets [0] and live False. Weights multiply rows (also of features with pooling "none"); a
        mean is the weighted sum divided by the number of ids.

        Collective over the world on the route channel: may run on one background thread while
        another thread is in forward or backward. Raises ValueError that names feature, sample and
        id on the rank with the bad batch, CommError on all others.
        """
        refusal: Exception | None = None
        try:
            route = self._router.route(ids, offsets, weights, batch, live)
        except (ValueError, TypeError, MemoryError) as error:
            refusal, route = error, self._router.refuse()
        alone = self._backend.size == 1
        if not alone:
            self._backend.route(
                Blocks(route.header_sent, *self._headers_sent[:2]),
                Blocks(route.header_got, *self._headers_got[:2]),
            )
        if refusal is not None:
            raise refusal
        self._router.accept(route)
        if route.failed_rank >= 0:
            raise CommError(
                f"rank {self._backend.rank}: rank {route.failed_rank} refused its batch; its own"
                " message says why",
                op="route",
                peer=route.failed_rank,
            )
        if not alone:
            self._backend.route(
                Blocks(route.message_sent, *route.messages_sent[:2]),
                Blocks(route.message_got, *route.messages_got[:2]),
            )
        self._router.unpack(route)
        return Routed(
            route.batch,
            route.global_batch,
            route.any_live,
            self._request(route),
            Traffic(*route.traffic),
            route,
        )

    def reply(self, routed: Routed) -> NDArray[np.uint64]:
        """Return where the holder must write the reply rows of each segment: (S,) addresses.

        Rows of a segment are contiguous, tile.dim wide, in the wire type; 0 where another replica
        replies. Valid until the next call of `reply`.
        """
        route = routed.route
        sent = self._reply_sent.reserve(route.reply_sent[2])
        got = self._reply_got.reserve(route.reply_got[2])
        return self._router.reply_addresses(route, sent, got)

    def forward(
        self,
        routed: Routed,
        out: NDArray[np.generic],
        sequences: Sequence[NDArray[np.generic]] = (),
    ) -> None:
        """Bring the rows written since `reply(routed)` to their requesters and pool them.

        out: (batch, output_dim), may be strided by rows. sequences: (ids, dim) per feature with
        pooling "none". float32, float16, or bfloat16 as uint16; all of one type. An empty bag gives
        zeros. Collective over the world on the step channel.
        """
        route = routed.route
        got = self._reply_got.reserve(route.reply_got[2])
        if self._backend.size > 1:
            sent = self._reply_sent.reserve(route.reply_sent[2])
            self._backend.step(
                Blocks(sent, *route.reply_sent[:2]), Blocks(got, *route.reply_got[:2])
            )
        self._router.pool(route, got, out, list(sequences))

    def backward(
        self,
        routed: Routed,
        grad: NDArray[np.generic],
        grad_sequences: Sequence[NDArray[np.generic]] = (),
    ) -> NDArray[np.uint64]:
        """Bring the gradients of reply rows to every holder of their tile.

        grad, grad_sequences: shaped and typed as in forward. Returns the address of each segment's
        first gradient row, (S,): one row per reply row, tile.dim wide, in the wire type. Valid
        until the next call of `backward`. Collective over the world on the step channel.
        """
        route = routed.route
        sent = self._gradient_sent.reserve(route.gradient_sent[2])
        got = self._gradient_got.reserve(route.gradient_got[2])
        self._router.spread(route, grad, list(grad_sequences), sent)
        if self._backend.size > 1:
            self._backend.step(
                Blocks(sent, *route.gradient_sent[:2]), Blocks(got, *route.gradient_got[:2])
            )
        return self._router.gradient_addresses(route, sent, got)

    def _request(self, route: Route) -> Request:
        weights = route.weights
        return Request(
            tile=self._segment_tile,
            ids=route.ids,
            first=route.first,
            bags=route.bags,
            lengths=route.lengths,
            pooled=self._segment_pooled,
            weights=weights if weights.size else None,
            replies=self._segment_replies,
        )

    def _agree(self, plan: str) -> None:
        """Raise CommError unless all ranks were built from the same plan. Collective."""
        if self._backend.size == 1:
            return
        size, rank = self._backend.size, self._backend.rank
        digest = np.frombuffer(hashlib.blake2b(plan.encode(), digest_size=BLOCK).digest(), np.uint8)
        counts, starts = np.ones(size, np.int64), np.arange(size, dtype=np.int64)
        counts[rank] = 0
        got = np.tile(digest, size)
        self._backend.route(
            Blocks(np.tile(digest, size), counts, starts), Blocks(got, counts, starts)
        )
        others = np.flatnonzero((got.reshape(size, BLOCK) != digest).any(axis=1))
        if others.size:
            raise CommError(
                f"rank {rank}: rank {others[0]} was given other tables, features, placement,"
                " replies or wire type; all ranks must build the exchange from the same job",
                op="Exchange",
                peer=int(others[0]),
            )


def _check(
    backend: Backend,
    placement: Placement,
    features: Sequence[Feature],
    replies: Sequence[Reply],
    wire: Wire,
    id_bits: Sequence[int],
    hash_ids: Sequence[bool],
) -> None:
    tables = len(placement.shapes)
    if placement.world_size != backend.size:
        raise PlacementError(
            f"the placement is for {placement.world_size} ranks, and {backend.size} were started"
        )
    placement.validate(range(backend.size), ())
    if (most := max((t.buckets for t in placement.tiles), default=1)) > MAX_BUCKETS:
        raise PlacementError(f"{most} buckets in a table; at most {MAX_BUCKETS} are supported")
    for name, values in (("replies", replies), ("id_bits", id_bits), ("hash_ids", hash_ids)):
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
