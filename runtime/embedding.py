"""Embedding bags as one torch module: tables cut over the ranks, looked up and updated together.

Letters: B samples of this rank, W the widths of all pooled features side by side, L ids of one
feature.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from fourfold.comm.exchange import Exchange
from fourfold.comm.route import Feature
from fourfold.runtime import tensors
from fourfold.runtime.device import RankDevice
from fourfold.runtime.preparation import Prepared
from fourfold.runtime.reclaim import Credit
from fourfold.runtime.roles import Roles
from fourfold.runtime.stopwatch import Stopwatch
from fourfold.runtime.store import Store
from fourfold.runtime.table import Table
from fourfold.runtime.upload import Inputs, Upload

if TYPE_CHECKING:
    from mpi4py import MPI

    from fourfold.comm.backend import Backend


STAGES = ("fetch_wait", "gather", "forward", "backward", "update")
"""Laps of `EmbeddingBags.watch`: until the rows are in the pad; the pad's gather; the exchange of
rows; that of gradients; the pad's update."""


class Rows(NamedTuple):
    """The rows of an unpooled feature."""

    values: Tensor
    """(L, dim), one row per id."""
    offsets: Tensor
    """(B + 1,) int64: sample b owns values[offsets[b] : offsets[b + 1]]."""


@dataclass(slots=True)
class Embeddings:
    """The embeddings of one batch; they arrive when first asked for.

    A model runs whatever does not need them first (DLRM's bottom MLP), which then overlaps with
    the exchange.
    """

    bags: EmbeddingBags
    prepared: Prepared
    _lead: int = 0
    _values: tuple[Tensor, ...] | None = field(default=None)

    @property
    def pooled(self) -> Tensor:
        """(B, W): pooled features side by side, in the order of the data's features."""
        return self._arrived(None)[0][:, self._lead :]

    def after(self, x: Tensor) -> Tensor:
        """(B, D + W): x (B, D) and the pooled features side by side, as `torch.cat` would give.

        But the features arrive in their place, so that nothing is copied but x. Once per batch, and
        before `pooled` or what else needs the exchange.
        """
        if self._values is not None:
            raise RuntimeError(
                "Embeddings.after: the embeddings of this batch have arrived already"
            )
        return self._arrived(x)[0]

    def by_feature(self) -> Mapping[str, Tensor]:
        """Each pooled feature as (B, dim), by name."""
        names, widths = self.bags.pooled_features
        return dict(zip(names, self.pooled.split(list(widths), 1), strict=True))

    def sequences(self) -> Mapping[str, Rows]:
        """Each unpooled feature, by name: one row per id, in the order of the batch."""
        names = [f.name for f in self.bags.features if f.pooling == "none"]
        values, offsets = self._arrived(None)[1:], self.bags.inputs(self.prepared).offsets
        return dict(zip(names, map(Rows, values, offsets), strict=True))

    def _arrived(self, lead: Tensor | None) -> tuple[Tensor, ...]:
        if self._values is None:
            self._lead = 0 if lead is None else lead.shape[1]
            self._values = _Lookup.apply(  # type: ignore[no-untyped-call]
                self.bags.anchor, lead, self.bags, self.prepared
            )
        return self._values


class EmbeddingBags(nn.Module):
    """All embedding tables of a model, held by the ranks of a world as the placement says.

    Made by `fourfold.runtime.assembly.create_bags`. tables: all tables of the model. features:
    sparse features in the order of the data. store: the rows that this rank holds. exchange,
    eval_exchange: for training and, on channels of its own, for evaluation in between. backend: the
    channels of `exchange`. comm: the world. credit: what a sample of training counts for, None if
    `exchange` carries no credits. device: where this rank's embeddings arrive and its rows lie.
    `bags(prepared)` gives the batch's `Embeddings`;
    `loss.backward()` sends their gradients to the owners; `update(lr)` then applies them in place.
    All three are collective over the world: a rank without data or without a model calls
    `serve_forward` and `serve_backward` instead. Rows are not `nn.Parameter`s: they never exist as
    a tensor on one rank.
    """

    def __init__(
        self,
        tables: Sequence[Table],
        features: Sequence[Feature],
        store: Store,
        exchange: Exchange,
        eval_exchange: Exchange,
        backend: Backend,
        eval_backend: Backend,
        comm: MPI.Intracomm,
        roles: Roles,
        *,
        wire: str = "fp32",
        output_dtype: torch.dtype = torch.float32,
        credit: Credit | None = None,
        device: RankDevice | None = None,
    ) -> None:
        super().__init__()
        self.tables = tuple(tables)
        self.features = tuple(features)
        self.store = store
        self.pad = store.pad
        self.exchange = exchange
        self.eval_exchange = eval_exchange
        self.backend = backend
        self.eval_backend = eval_backend
        self.comm = comm
        self.roles = roles
        self.wire = wire
        self.output_dtype = output_dtype
        self.credit = credit
        self.device = (device or RankDevice()).torch
        unpooled = [i for i, feature in enumerate(self.features) if feature.pooling == "none"]
        self.upload = Upload(self.device, unpooled)
        self.watch = Stopwatch("step", STAGES)
        # Makes autograd call the lookup's backward.
        self.anchor = torch.zeros((), device=self.device, requires_grad=True)
        self._pending: tuple[Prepared, Any] | None = None

    @property
    def pooled_features(self) -> tuple[tuple[str, ...], tuple[int, ...]]:
        """Names and widths of the pooled features, in order."""
        pooled = [f for f in self.features if f.pooling != "none"]
        return (
            tuple(f.name for f in pooled),
            tuple(self.tables[f.table].dim for f in pooled),
        )

    @property
    def gradients_left(self) -> bool:
        """Whether the gradients of rows have left, and `update` has not been called since."""
        return self._pending is not None

    def forward(self, prepared: Prepared) -> Embeddings:
        """Serve the rows this rank holds and give the embeddings of its own batch. Collective."""
        self._gather(prepared)
        return Embeddings(self, prepared)

    def inputs(self, prepared: Prepared) -> Inputs:
        """Give what the dense model reads of the batch, brought here if nobody has done it."""
        if prepared.inputs is None:
            assert prepared.batch is not None
            prepared.inputs = self.upload(prepared.batch)
        return prepared.inputs.take()

    def serve_forward(self, prepared: Prepared) -> None:
        """Take part in the forward exchange without samples of one's own. Collective."""
        self._gather(prepared)
        self._receive(prepared, *self._outputs(prepared))

    def serve_backward(self, prepared: Prepared) -> None:
        """Take part in the backward exchange without samples of one's own. Collective."""
        pooled, sequences = self._outputs(prepared)
        self._send_gradients(prepared, pooled, sequences)

    def update(self, lr: float, step: int) -> None:
        """Apply the gradients of the last backward to the rows that this rank holds, in place.

        lr: learning rate of the rows. step: 1 for the first update (Adam's bias correction counts
        it).
        """
        if self._pending is None:
            raise RuntimeError(
                "EmbeddingBags.update was called before loss.backward() had sent any gradient:"
                " does the loss depend on the embeddings?"
            )
        prepared, addresses = self._pending
        self._pending = None
        with self.watch("update"):
            self.pad.update(prepared.ticket, addresses, self.wire, lr, step)

    def close(self) -> None:
        """Close the store and free the communicators. Collective over the world."""
        self.store.close()
        self.backend.close()
        self.eval_backend.close()

    def _gather(self, prepared: Prepared) -> None:
        with self.watch("fetch_wait"):
            self.pad.wait(prepared.ticket)
        with self.watch("gather"):
            self.pad.gather(prepared.ticket, prepared.exchange.reply(prepared.routed), self.wire)

    def _receive(self, prepared: Prepared, pooled: Tensor, sequences: list[Tensor]) -> None:
        arrays = [tensors.shared(s) for s in sequences]
        with self.watch("forward", shown="forward exchange"):
            prepared.exchange.forward(prepared.routed, tensors.shared(pooled), arrays)

    def _send_gradients(self, prepared: Prepared, pooled: Tensor, sequences: list[Tensor]) -> None:
        arrays = [tensors.shared(s) for s in sequences]
        with self.watch("backward", shown="backward exchange"):
            addresses = prepared.exchange.backward(prepared.routed, tensors.shared(pooled), arrays)
        self._pending = (prepared, addresses)

    def _outputs(self, prepared: Prepared, lead: int = 0) -> tuple[Tensor, list[Tensor]]:
        """Empty tensors for the exchange to fill: (B, W), one (L, dim) per sequence feature.

        lead: columns to leave free before the pooled ones, in the same memory.
        """
        batch = prepared.batch
        size = 0 if batch is None else batch.size
        width = lead + sum(self.pooled_features[1])
        pooled = self._empty(size, width)[:, lead:]
        sequences = []
        for i, feature in enumerate(self.features):
            if feature.pooling == "none":
                ends = (0, 0) if batch is None else batch.offsets[[i * size, (i + 1) * size]]
                dim = self.tables[feature.table].dim
                length = int(ends[1] - ends[0])
                sequences.append(self._empty(length, dim))
        return pooled, sequences

    def _empty(self, rows: int, columns: int) -> Tensor:
        return torch.empty(rows, columns, dtype=self.output_dtype, device=self.device)


class _Lookup(torch.autograd.Function):
    """Forward: rows arrive beside `lead` (B, D). Backward: their gradients leave."""

    @staticmethod
    def forward(
        ctx: Any, anchor: Tensor, lead: Tensor | None, bags: EmbeddingBags, prepared: Prepared
    ) -> tuple[Tensor, ...]:
        ctx.bags, ctx.prepared, ctx.lead = bags, prepared, 0 if lead is None else lead.shape[1]
        pooled, sequences = bags._outputs(prepared, ctx.lead)
        bags._receive(prepared, pooled, sequences)
        if lead is None:
            return (pooled, *sequences)
        joined = pooled.as_strided((len(pooled), ctx.lead + pooled.shape[1]), pooled.stride(), 0)
        joined[:, : ctx.lead] = lead
        return (joined, *sequences)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, Tensor | None, None, None]:
        joined, *sequences = (g if g.stride(-1) == 1 else g.contiguous() for g in grads)
        pooled = joined[:, ctx.lead :]
        ctx.bags._send_gradients(ctx.prepared, pooled, [s.contiguous() for s in sequences])
        return None, joined[:, : ctx.lead] if ctx.lead else None, None, None
