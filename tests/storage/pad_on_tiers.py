"""Pads on tiers below them, and batches through them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fourfold.storage import (
    BudgetError,
    Optimizer,
    Pad,
    RowSpec,
    RowWiseAdagrad,
    Segment,
    SegmentedRequest,
    Ticket,
    Uniform,
)
from fourfold.storage.tier import FileTier, HostTier

MakePad = Callable[..., Pad]
LOOKAHEAD = 3
IDS = 500
SMALL: dict[str, Any] = {"buffer_bytes": 2**14, "segment_bytes": 2**14}


def tile_specs(optimizer: Optimizer | None = None, dtype: str = "fp32") -> list[RowSpec]:
    """Static and dynamic tiles of three sizes of rows; two tiles of one table."""
    shared: dict[str, Any] = {
        "optimizer": optimizer or RowWiseAdagrad(),
        "init": Uniform(0.1),
        "dtype": dtype,
    }
    return [
        RowSpec(table=0, name="a", dim=16, rows=IDS, **shared),
        RowSpec(table=1, name="b", dim=16, rows=None, **shared),
        RowSpec(table=2, name="c", dim=40, rows=None, **shared),
        RowSpec(table=2, name="c", dim=24, column=40, rows=None, **shared),
    ]


def beside(specs: list[RowSpec], pad_bytes: int) -> int:
    """Bytes of the host tier that such a pad takes: none, where both are in host memory."""
    return 0


@contextmanager
def pads_on_tiers(folder: Path) -> Iterator[MakePad]:
    """Give what makes a pad with `tiers` of "host" or "host+file"; closes all of them."""
    closing: list[Pad | FileTier] = []

    def make(
        specs: list[RowSpec],
        budget_bytes: int,
        tiers: str = "host",
        host_bytes: int = 2**23,
        **options: Any,
    ) -> Pad:
        host = HostTier(specs, budget_bytes=host_bytes + beside(specs, budget_bytes))
        file = None
        if tiers == "host+file":
            path = folder / f"{len(closing)}.h5"
            file = FileTier(specs, path, run="r", **SMALL, **options)
        pad = Pad(specs, budget_bytes=budget_bytes, host=host, file=file, threads=2)
        closing.append(pad)
        if file is not None:
            closing.append(file)
        return pad

    try:
        yield make
    finally:
        for each in closing:
            each.close()


def requests(seed: int, steps: int, ids: int = 40) -> list[SegmentedRequest]:
    """Batches of skewed ids that drift; two requesters ask for the first table."""
    rng = np.random.default_rng(seed)

    def draw(step: int) -> NDArray[np.int64]:
        drawn = (rng.zipf(1.2, ids) + step) % IDS
        return np.unique(drawn).astype(np.int64)

    found = []
    for step in range(steps):
        shared = draw(step)
        segments = [Segment(0, draw(step)), Segment(0, draw(step)), Segment(1, draw(step))]
        segments += [Segment(2, shared), Segment(3, shared)]
        found.append(SegmentedRequest.of(segments))
    return found


def train_step(
    pad: Pad, ticket: Ticket, request: SegmentedRequest, step: int
) -> list[NDArray[np.float32]]:
    """Gather, update with gradients that depend on the step only, release."""
    rows = np.diff(request.bags)
    dims = [pad.specs[tile].dim for tile in request.tile]
    out = [np.empty((n, dim), np.float32) for n, dim in zip(rows, dims, strict=True)]
    pad.wait(ticket)
    pad.gather(ticket, request.addresses(out), "fp32")
    rng = np.random.default_rng(step)
    gradients = [rng.standard_normal(o.shape, np.float32) for o in out]
    pad.update(ticket, request.addresses(gradients), "fp32", 0.1, step)
    pad.release(ticket)
    return out


def train(
    pad: Pad, batches: list[SegmentedRequest], *, foresee: bool = True, lookahead: int = LOOKAHEAD
) -> list[list[NDArray[np.float32]]]:
    """Train on all batches, planning as far ahead as there is room; gives what was gathered."""
    tickets: list[Ticket] = []
    replies = []
    planned = foreseen = 0
    for step, batch in enumerate(batches):
        while planned < min(len(batches), step + lookahead + 1):
            while foresee and foreseen < min(len(batches), planned + 2 * lookahead):
                pad.foresee(batches[foreseen])
                foreseen += 1
            ticket = pad.try_plan(batches[planned], True)
            if ticket is None and tickets:
                break
            if ticket is None:
                pad.wait_for_room(1)
                continue
            tickets.append(ticket)
            planned += 1
        replies.append(train_step(pad, tickets.pop(0), batch, step + 1))
    return replies


def contents(pad: Pad) -> list[dict[int, bytes]]:
    """All rows of each tile, as bytes by id."""
    return [
        {
            int(id): record.tobytes()
            for ids, records in pad.scan(tile)
            for id, record in zip(ids, records, strict=True)
        }
        for tile in range(len(pad.specs))
    ]


def smallest_pad(make_pad: MakePad, specs: list[RowSpec], batches: list[SegmentedRequest]) -> int:
    """The least budget that trains one batch at a time."""
    low, high = 16 << 10, 4 << 20
    while high - low > 4096:
        middle = (low + high) // 2
        try:
            pad = make_pad(specs, middle)
            for batch in batches:
                pad.release(pad.plan(batch, True))
            high = middle
        except BudgetError:
            low = middle
    return high
