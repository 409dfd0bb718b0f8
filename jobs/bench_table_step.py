"""Steps of one table in `fourfold bench store`: kinds of tables against each other, and FBGEMM."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from fourfold.jobs.bench_turns import (
    Call,
    Ids,
    Result,
    aligned,
    bags_of,
    compare,
    draw,
    filled_pad,
    interleave,
)
from fourfold.storage import Pad, Ticket

STEP_LOOKUPS = 163_840  # of a training step: 8,192 bags of 20


class Step:
    """Plan, forward, backward and update of one table, 20 ids per bag, on one rank."""

    def __init__(self, pad: Pad, batches: list[Ids], wire: str = "fp32", pooling: int = 20) -> None:
        self.pad, self.wire = pad, wire
        self.requests = [bags_of(ids, pooling) for ids in batches]
        dim = pad.specs[0].dim
        out = aligned(len(batches[0]) // pooling, dim)
        out[:] = 0.01
        if wire != "fp32":
            out = np.zeros(out.shape, np.uint16)
        self.rows = out
        self.addresses = self.requests[0].addresses([out])
        self.tickets: list[Ticket] = [pad.plan(request, train=True) for request in self.requests]

    def plan(self, turn: int) -> None:
        """Plan a batch and drop the plan."""
        self.pad.release(self.pad.plan(self.requests[turn % len(self.requests)], train=True))

    def gather(self, turn: int) -> None:
        """Forward."""
        self.pad.gather(self.tickets[turn % len(self.tickets)], self.addresses, self.wire)

    def update(self, turn: int) -> None:
        """Backward and optimizer."""
        ticket = self.tickets[turn % len(self.tickets)]
        self.pad.update(ticket, self.addresses, self.wire, 0.01, turn + 1)

    def whole(self, turn: int) -> None:
        """All of it, one after the other; in training, `plan` runs ahead beside other work."""
        request = self.requests[turn % len(self.requests)]
        ticket = self.pad.plan(request, train=True)
        self.pad.gather(ticket, self.addresses, self.wire)
        self.pad.update(ticket, self.addresses, self.wire, 0.01, turn + 1)
        self.pad.release(ticket)


def bench_kinds(rows: int, threads: Sequence[int], rounds: int) -> Iterator[Result]:
    """Dynamic tables against static ones, and 16-bit rows against fp32 rows."""
    rng = np.random.default_rng(3)
    for n in threads:
        for skewed in (False, True):
            batches = [draw(rows, STEP_LOOKUPS, skewed, rng) for _ in range(4)]
            fp32 = Step(filled_pad(rows, 64, n), batches)
            others = {
                "dynamic": (Step(filled_pad(rows, 64, n, dynamic=True), batches), "static"),
                "bf16": (Step(filled_pad(rows, 64, n, dtype="bf16"), batches, "bf16"), "fp32"),
                "fp16": (Step(filled_pad(rows, 64, n, dtype="fp16"), batches, "fp16"), "fp32"),
            }
            for part in ("plan", "gather", "update", "whole"):
                calls = {name: getattr(step, part) for name, (step, _) in others.items()}
                seconds = interleave({"fp32 static": getattr(fp32, part)} | calls, rounds)
                for name, (_, against) in others.items():
                    yield compare(
                        seconds,
                        STEP_LOOKUPS,
                        name,
                        "fp32 static",
                        against,
                        what=f"{name} {part}",
                        dim=64,
                        pooling=20,
                        ids="zipf" if skewed else "uniform",
                        threads=n,
                    )


def fbgemm_step(rows: int, batches: list[Ids], threads: int) -> Call | None:
    """The same step in FBGEMM, if it is installed."""
    try:
        import torch
        from fbgemm_gpu.split_embedding_configs import EmbOptimType
        from fbgemm_gpu.split_table_batched_embeddings_ops_common import (
            BoundsCheckMode,
            EmbeddingLocation,
            PoolingMode,
        )
        from fbgemm_gpu.split_table_batched_embeddings_ops_training import (
            ComputeDevice,
            SplitTableBatchedEmbeddingBagsCodegen,
        )
    except ImportError:
        return None
    torch.set_num_threads(threads)
    layer = SplitTableBatchedEmbeddingBagsCodegen(
        [(rows, 64, EmbeddingLocation.HOST, ComputeDevice.CPU)],
        optimizer=EmbOptimType.EXACT_ROWWISE_ADAGRAD,
        learning_rate=0.01,
        eps=1e-8,
        pooling_mode=PoolingMode.SUM,
        bounds_check_mode=BoundsCheckMode.NONE,
    )
    layer.init_embedding_weights_uniform(-0.01, 0.01)
    offsets = torch.arange(0, STEP_LOOKUPS + 1, 20)
    gradient = torch.full((STEP_LOOKUPS // 20, 64), 0.01)
    ids = [torch.from_numpy(batch) for batch in batches]
    return lambda turn: layer(ids[turn % len(ids)], offsets).backward(gradient)


def bench_step(rows: int, threads: Sequence[int], rounds: int) -> Iterator[Result]:
    """Forward, backward and update of 163,840 lookups, against FBGEMM; our parts one by one."""
    rng = np.random.default_rng(4)
    for n in threads:
        pad = filled_pad(rows, 64, n)
        for skewed in (False, True):
            batches = [draw(rows, STEP_LOOKUPS, skewed, rng) for _ in range(4)]
            step = Step(pad, batches)
            calls: dict[str, Call] = {
                "step": step.whole,
                "step, planned ahead": lambda turn, step=step: (  # type: ignore[misc]
                    step.gather(turn),
                    step.update(turn),
                ),
                "plan": step.plan,
                "gather": step.gather,
                "update": step.update,
            }
            peer = fbgemm_step(rows, batches, n)
            if peer is not None:
                calls["FBGEMM"] = peer
            seconds = interleave(calls, rounds)
            against = "step" if peer is None else "FBGEMM"
            for name in calls:
                yield compare(
                    seconds,
                    STEP_LOOKUPS,
                    name,
                    against,
                    against,
                    what=name,
                    dim=64,
                    pooling=20,
                    ids="zipf" if skewed else "uniform",
                    threads=n,
                )
