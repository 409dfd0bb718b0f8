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

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fourfold.comm._native import Route, Router
from fourfold.comm.agreement import POOLINGS, WIRES, agree, check
from fourfold.comm.backend import Backend, Blocks
from fourfold.comm.errors import CommError
from fourfold.comm.memory import HostMemory, Memory
from fourfold.comm.placement import Placement
from fourfold.comm.route import Feature, Reply, Request, Traffic, Wire


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

    replies, id_bits, hash_ids, credits: one value per table. id_bits: ids of a dynamic table must
    be below 2**id_bits. hash_ids: any 64-bit id is taken and hashed, to [0, rows) or
    [0, 2**id_bits). credits: whether holders are told what the appearances of an id count for.
    wire: element type of rows and gradients between ranks; sums are always made in fp32.
    memory: where rows and gradients lie, the host's if None; ranks may differ in it. All arrays and
    addresses of a step are of that memory: NumPy's of the host's, those that
    `device.as_device_array` takes of a GPU's. On a GPU a step is enqueued on the stream of
    `memory`, and so must be what writes reply rows and reads gradient rows.
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
        credits: Sequence[bool] | None = None,
        threads: int = 1,
        memory: Memory | None = None,
    ) -> None:
        tables = len(placement.shapes)
        id_bits = (52,) * tables if id_bits is None else tuple(id_bits)
        hash_ids = (False,) * tables if hash_ids is None else tuple(hash_ids)
        credits = (False,) * tables if credits is None else tuple(credits)
        check(backend, placement, features, replies, wire, id_bits, hash_ids, credits)
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
                    credited,
                )
                for shape, bits, hashed, reply, credited in zip(
                    placement.shapes, id_bits, hash_ids, replies, credits, strict=True
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
        self._step = (memory or HostMemory()).step(self._router)
        self._reply_sent, self._reply_got = self._step.buffer(), self._step.buffer()
        self._gradient_sent, self._gradient_got = self._step.buffer(), self._step.buffer()
        plan = (placement, tuple(features), tuple(replies), wire, id_bits, hash_ids, credits)
        agree(backend, repr(plan))

    def route(
        self,
        ids: NDArray[np.int64],
        offsets: NDArray[np.int64],
        weights: NDArray[np.float32] | None,
        batch: int,
        credits: NDArray[np.float32] | None = None,
        *,
        live: bool = True,
    ) -> Routed:
        """Send the ids of a batch to their holders, and take in what others ask of this rank.

        ids (L,) and weights (L,) are feature-major: bag b of feature f is
        ids[offsets[f*batch + b] : offsets[f*batch + b + 1]]. A rank without data passes batch 0,
        offsets [0] and live False. Weights multiply rows (also of features with pooling "none"); a
        mean is the weighted sum divided by the number of ids. credits (batch,), at least 0, is what
        an appearance of an id in that sample counts for: required if a table takes credits, except
        without samples, and refused if none does.

        Collective over the world on the route channel: may run on one background thread while
        another thread is in forward or backward. Raises ValueError that names feature, sample and
        id (or sample) on the rank with the bad batch, CommError on all others.
        """
        refusal: Exception | None = None
        try:
            route = self._router.route(ids, offsets, weights, batch, credits, live)
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
        self._step.upload(route)
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
        address = self._step.address
        return self._router.reply_addresses(route, address(sent), address(got))

    def forward(
        self,
        routed: Routed,
        out: Any,
        sequences: Sequence[Any] = (),
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
        self._step.pool(route, got, out, list(sequences))

    def backward(
        self,
        routed: Routed,
        grad: Any,
        grad_sequences: Sequence[Any] = (),
    ) -> NDArray[np.uint64]:
        """Bring the gradients of reply rows to every holder of their tile.

        grad, grad_sequences: shaped and typed as in forward. Returns the address of each segment's
        first gradient row, (S,): one row per reply row, tile.dim wide, in the wire type. Valid
        until the next call of `backward`. Collective over the world on the step channel.
        """
        route = routed.route
        sent = self._gradient_sent.reserve(route.gradient_sent[2])
        got = self._gradient_got.reserve(route.gradient_got[2])
        self._step.spread(route, grad, list(grad_sequences), sent)
        if self._backend.size > 1:
            self._backend.step(
                Blocks(sent, *route.gradient_sent[:2]), Blocks(got, *route.gradient_got[:2])
            )
        address = self._step.address
        return self._router.gradient_addresses(route, address(sent), address(got))

    def _request(self, route: Route) -> Request:
        weights, credits = route.weights, route.credits
        return Request(
            tile=self._segment_tile,
            ids=route.ids,
            first=route.first,
            bags=route.bags,
            lengths=route.lengths,
            pooled=self._segment_pooled,
            weights=weights if weights.size else None,
            credits=credits if credits.size else None,
            replies=self._segment_replies,
        )
