"""A pad that forgets rows, and batches through it."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fourfold.storage import (
    SGD,
    Pad,
    ReclaimConfig,
    RowSpec,
    Segment,
    SegmentedRequest,
    Ticket,
    Uniform,
)

DIM = 4
Ids = NDArray[np.int64]


def spec(table: int = 0, **options: object) -> RowSpec:
    facts: dict[str, object] = {"dim": DIM, "rows": None, "optimizer": SGD(), "init": Uniform(1.0)}
    return RowSpec(table=table, name=f"t{table}", **(facts | options))  # type: ignore[arg-type]


def make(
    specs: Sequence[RowSpec], budget: int | None = None, window: int = 1, **reclaim: object
) -> Pad:
    config = ReclaimConfig(**reclaim) if reclaim else None  # type: ignore[arg-type]
    pad = Pad(specs, budget_bytes=budget, reclaim=config)
    pad.plan_ahead(window - 1)
    return pad


class Trainer:
    """Takes batches through the pad, `ahead` of them planned before one trains."""

    def __init__(self, pad: Pad, ahead: int = 0) -> None:
        self.pad = pad
        self.ahead = ahead
        self.steps = 0
        self.planned: deque[tuple[Ticket, SegmentedRequest, float]] = deque()

    def batch(
        self, ids: dict[int, Ids] | Ids, gradient: float = 1.0, credits: float | None = None
    ) -> None:
        by_tile = ids if isinstance(ids, dict) else {0: ids}
        segments = [
            Segment(
                tile,
                np.asarray(named, np.int64),
                credits=None if credits is None else np.full(len(named), credits, np.float32),
            )
            for tile, named in sorted(by_tile.items())
        ]
        request = SegmentedRequest.of(segments)
        self.planned.append((self.pad.plan(request, True), request, gradient))
        if len(self.planned) > self.ahead:
            self.train()

    def train(self) -> None:
        ticket, request, gradient = self.planned.popleft()
        self.steps += 1
        rows = [
            np.full((int(n), self.pad.specs[int(tile)].dim), gradient, np.float32)
            for tile, n in zip(request.tile, np.diff(request.first), strict=True)
        ]
        self.pad.update(ticket, request.addresses(rows), "fp32", 0.5, self.steps)
        self.pad.release(ticket)

    def finish(self) -> None:
        while self.planned:
            self.train()


def ids_of(pad: Pad, tile: int = 0) -> set[int]:
    return {int(i) for ids, _ in pad.scan(tile) for i in ids}


def fresh(spec: RowSpec, ids: Ids) -> NDArray[np.float32]:
    """Rows as they are born."""
    return Pad([spec]).weights(0, np.asarray(ids, np.int64))
