"""The synchronous training step over all ranks, and the loop around it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, nullcontext
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from fourfold.runtime.data.batch import Batch
from fourfold.runtime.dense import dense_optimizer, share_parameters
from fourfold.runtime.embedding import STAGES, EmbeddingBags
from fourfold.runtime.errors import Error
from fourfold.runtime.gradients import GradientBuckets
from fourfold.runtime.graphs import StepGraphs
from fourfold.runtime.metrics import Evaluation, Metrics
from fourfold.runtime.pipeline import Pipeline
from fourfold.runtime.preparation import Prepared, Source
from fourfold.runtime.reading import Reading
from fourfold.runtime.trace import Trace
from fourfold.runtime.train_config import TrainConfig

Loss = Callable[[Tensor, Tensor], Tensor]

STEP_STAGES = (*STAGES, "model", "gradients", "allreduce", "optimizer", "rest")
"""Laps of one step."""


class Trainer:
    """Train a model and its embedding tables together, one synchronous step at a time.

    model: called as `model(dense (B, num_dense), embeddings) -> (B,)`; None on a rank that only
    holds rows; it is moved to the device of `bags`. bags: the embedding tables. loss: mean over a
    batch of (outputs (B,), labels (B,)).
    embedding_lr: learning rate of the rows. trace: where this rank's threads leave their spans.
    Every rank of the world makes one and calls the same methods. The sum of all ranks' gradients is
    that of one rank with the whole batch, also when ranks hold uneven shares of it or none.
    """

    def __init__(
        self,
        model: nn.Module | None,
        bags: EmbeddingBags,
        config: TrainConfig | None = None,
        *,
        embedding_lr: float = 0.02,
        loss: Loss = functional.binary_cross_entropy_with_logits,
        trace: Trace | None = None,
    ) -> None:
        self.model = model
        self.bags = bags
        self.config = config or TrainConfig()
        self.step_count = 0
        self.global_batch = 0
        self.pipeline: Pipeline | None = None
        self._embedding_lr = embedding_lr
        self._loss = loss
        self._trace = trace
        self._graphs: Callable[[], AbstractContextManager[None]] = nullcontext
        self._watch = bags.watch
        self._watch.trace = trace
        if self.config.sync_stages and bags.device.type == "cuda":
            self._watch.sync = partial(torch.cuda.synchronize, bags.device)
        bags.store.trace(trace)
        if model is not None:
            parameters = list(model.to(bags.device).parameters())
            backend = bags.backend if len(bags.roles.dense) > 1 else None
            if backend is not None:
                share_parameters(parameters, backend, first=bags.comm.rank == bags.roles.dense[0])
            # A rank without samples sends the gradients of rows first, and then sums. Where calls
            # wait for those before them, the others must do so, too, or each waits for the other.
            in_order = backend is not None and backend.in_order
            self._buckets = GradientBuckets(
                parameters,
                backend,
                may_start=(lambda: bags.gradients_left) if in_order else (lambda: True),
            )
            self._optimizer = dense_optimizer(self.config.optimizer, parameters, self.config.lr)
            if self.config.cuda_graphs:
                self._graphs = StepGraphs(model, bags.device)

    def steps(self, source: Source | None, *, limit: int | None = None) -> Generator[float]:
        """Train on this rank's batches until no rank has any left, or `limit` steps; yield each
        loss.

        source: None on a rank that reads no data. The loss is this rank's share of the batch mean:
        their sum over the ranks is the mean over the whole batch. Collective over the world.
        """
        depth = self.config.lookahead if self.bags.backend.can_overlap else 0
        self.pipeline = Pipeline(
            source,
            self.bags.exchange,
            self.bags.pad,
            depth=depth,
            foresight=self.bags.store.foresight if depth else 0,
            fixed=self.bags.store.fixed_lookahead,
            limit=limit,
            first=self.step_count + 1,
            credit=self.bags.credit,
            trace=self._trace,
            upload=None if self.model is None else self.bags.upload,
        )
        for prepared in self.pipeline:
            yield self.step(prepared)

    def step(self, prepared: Prepared) -> float:
        """Train on one batch and release it. Collective over the world."""
        self.step_count += 1
        self.global_batch = prepared.routed.global_batch
        self._watch.batch = prepared.number
        with self._watch("rest", shown="step"):
            # If every row of the batch was malformed, there is nothing to learn.
            loss = self._learn(prepared) if self.global_batch else None
            self._release(prepared)
            share = 0.0 if loss is None else self._finish(loss, prepared)
        self.bags.store.collect_spans()
        return share

    def take_stage_seconds(self) -> dict[str, float]:
        """Seconds of this rank by stage since the last call.

        Of the step: `fetch_wait`, `gather`, `forward`, `backward` (the exchanges), `model`
        (forward), `gradients` (its backward), `update`, `allreduce`, `optimizer`, `rest`. Of the
        stages that run ahead: `Pipeline.take_seconds`.
        """
        ahead = self.pipeline.take_seconds() if self.pipeline is not None else {}
        return dict.fromkeys(STEP_STAGES, 0.0) | self._watch.take() | ahead

    @torch.no_grad()
    def evaluate(self, source: Source | None, *, limit: int | None = None) -> Metrics:
        """Score held-out batches and merge the metrics of all ranks. Collective over the world.

        Ids never seen in training read as their key-born rows and are not inserted.
        """
        evaluation = Evaluation()
        pipeline = Pipeline(
            source, self.bags.eval_exchange, self.bags.pad, depth=0, train=False, limit=limit
        )
        if self.model is not None:
            self.model.eval()
        self._watch.batch = None
        scored: deque[tuple[Reading, Batch]] = deque()  # of a GPU, while the next batch runs
        with self._watch.aside(), self._watch("evaluate"):
            for prepared in pipeline:
                batch = self._own(prepared)
                if batch is None:
                    self.bags.serve_forward(prepared)
                else:
                    scored.append((Reading(self._predict(prepared)), batch))
                self._release(prepared)
                while scored and (len(scored) > 1 or scored[0][0].arrived):
                    logits, batch = scored.popleft()
                    evaluation.add(logits.wait().numpy(), batch.label)
            for logits, batch in scored:
                evaluation.add(logits.wait().numpy(), batch.label)
            evaluation.merge(self.bags.comm)
        if self.model is not None:
            self.model.train()
        return evaluation.result()

    def _own(self, prepared: Prepared) -> Batch | None:
        """This rank's samples, None if it has none."""
        batch = prepared.batch
        return batch if self.model is not None and batch is not None and batch.size else None

    def _learn(self, prepared: Prepared) -> Reading | None:
        """Forward, backward, both optimizers; return this rank's share of the loss, None without
        samples."""
        loss = self._forward_backward(prepared)
        rate = self.config.rate(self.step_count)
        self.bags.update(self._embedding_lr * rate, self.step_count)
        if self.model is not None:
            with self._watch("allreduce", shown="all-reduce"):
                self._buckets.finish()
            with self._watch("optimizer"):
                for group in self._optimizer.param_groups:
                    group["lr"] = self.config.lr * rate
                self._optimizer.step()
        return loss

    def _forward_backward(self, prepared: Prepared) -> Reading | None:
        """Leave gradients where the optimizers look for them; return this rank's share of the
        loss, None without samples."""
        if self.model is not None:
            self._buckets.zero()
        batch = self._own(prepared)
        if batch is None:
            self.bags.serve_forward(prepared)
            self.bags.serve_backward(prepared)
            return None
        with self._watch("model"), self._graphs():
            label = self.bags.inputs(prepared).label
            loss = self._loss(self._predict(prepared), label)
            share = loss * (batch.size / prepared.routed.global_batch)
            value = Reading(share)
        if not value.late:
            self._finite(value, prepared)  # before it spoils anything
        with (
            self._watch("gradients", shown="backward"),
            # On this thread, also with a GPU: MPI may not take calls of another one.
            torch.autograd.set_multithreading_enabled(False),
        ):
            share.backward()
        return value

    def _finish(self, loss: Reading, prepared: Prepared) -> float:
        """Return the loss. On a GPU the host waits for it here, and nowhere else.

        All of the step is enqueued by now, and what comes after the forward keeps the GPU busy
        until the next step is.
        """
        if not loss.late:
            return loss.wait().item()
        with self._watch("model", shown="loss"):
            return self._finite(loss, prepared)

    def _finite(self, loss: Reading, prepared: Prepared) -> float:
        """Return the loss when it is known, or raise if it is not a number to go on with."""
        value = loss.wait().item()
        if not value < float("inf"):
            assert prepared.batch is not None
            raise Error(
                f"step {self.step_count}: the loss of this rank's {prepared.batch.size} samples is"
                f" {value}: lower the learning rates or look for extreme dense features"
            )
        return value

    def _predict(self, prepared: Prepared) -> Tensor:
        assert self.model is not None
        dense, device = self.bags.inputs(prepared).dense, self.bags.device.type
        with torch.autocast(device, torch.bfloat16, enabled=self.config.autocast):
            output: Tensor = self.model(dense, self.bags(prepared))
        return output.float()

    def _release(self, prepared: Prepared) -> None:
        self.bags.pad.release(prepared.ticket)
