"""The traffic of `fourfold bench tiers`: rows that the pad moves per batch, against two policies.

    pad 2/2    ours, 2 batches planned ahead and 2 foreseen, as the pipeline does with lookahead 2
    pad 2/32   ours, if the pipeline foresaw further than it plans
    lru        the least recently used row leaves; nothing is known of batches to come
    optimum    the row needed last leaves (Belady, 1966): all batches are known from the start

All see the same batches and hold the same number of rows. The two policies are simulated exactly,
batch by batch: what a batch needs must be in at once. Rows moved are those fetched and those that
left. Locality is the skew of a Zipf law.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fourfold.runtime.data.synthetic import zipf_ids
from fourfold.storage import SGD, Pad, RowSpec, Segment, SegmentedRequest, Ticket, Uniform
from fourfold.storage.tier import HostTier

LOCALITY = {"low": 0.8, "medium": 1.05, "high": 1.2}
AHEAD = ((2, 2), (8, 8), (2, 32))  # batches planned, batches foreseen
PAD_SHARE = 0.1
BESIDE = 22 + 27  # bytes that the pad keeps of a row: who it is, and the index
IDS_PER_ROW = 1 / 100  # of a batch
WARM, MEASURED, AFTER = 150, 100, 50  # batches; the last are for the optimum to look at

Ids = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Result:
    """Rows moved per batch for one locality."""

    locality: str
    alpha: float
    rows: int
    capacity: int
    keys: float
    """Distinct keys of a batch, on average."""
    pad: dict[str, float]
    """Ours, by batches planned ahead / foreseen."""
    lru: float
    optimum: float


def make_batches(rows: int, alpha: float) -> list[Ids]:
    """Draw the distinct ids of each batch."""
    rng = np.random.default_rng(11)
    count = max(1, round(rows * IDS_PER_ROW))
    return [np.unique(zipf_ids(rng, count, rows, alpha)) for _ in range(WARM + MEASURED + AFTER)]


class OurPad:
    """A pad that holds a share of the rows of one table, the others in host memory."""

    def __init__(self, rows: int) -> None:
        spec = RowSpec(table=0, name="bench", dim=8, rows=rows, optimizer=SGD(), init=Uniform(1.0))
        self.host = HostTier([spec])
        budget = int(rows * PAD_SHARE * (spec.row_bytes + BESIDE) * 1.05)
        self.pad = Pad([spec], budget_bytes=budget, host=self.host)
        chunk = max(1, rows // 100)
        for start in range(0, rows, chunk):
            self.finish(self.plan(Segment(0, np.arange(start, min(rows, start + chunk)))))
        self.capacity = self.pad.rows - self.host.rows
        self.pad.take_traffic()

    def plan(self, segment: Segment) -> Ticket:
        """Plan rows for which there is room."""
        return self.pad.plan(SegmentedRequest.of([segment]), train=True)

    def finish(self, ticket: Ticket) -> None:
        """Wait for the rows and let them go."""
        self.pad.wait(ticket)
        self.pad.release(ticket)

    def moved(self, batches: list[Ids], ahead: int, foreseen: int) -> float:
        """Rows moved per measured batch, planning ahead as far as there is room."""
        requests = [SegmentedRequest.of([Segment(0, ids)]) for ids in batches]
        out: deque[Ticket] = deque()
        told = planned = 0
        fetched: list[float] = []
        for step in range(len(requests)):
            for request in requests[told : step + foreseen + 1]:
                self.pad.foresee(request)
                told += 1
            for request in requests[planned : step + ahead + 1]:
                ticket = self.pad.try_plan(request, True)
                if ticket is None:
                    break
                out.append(ticket)
                planned += 1
                traffic = self.pad.take_traffic()
                fetched.append(traffic.host_hits + traffic.born)
            self.finish(out.popleft())
        if self.pad.rows - self.host.rows != self.capacity:
            raise SystemExit("fourfold bench tiers: the pad of the traffic is no longer full")
        return 2 * float(np.mean(fetched[WARM : WARM + MEASURED]))


def simulate(batches: list[Ids], worth: list[Floats], rows: int, capacity: int) -> float:
    """Rows moved per measured batch if the row of least worth leaves that the batch does not need.

    `worth`: of each batch's rows, from then until they are needed again.
    """
    resident = np.zeros(rows, np.bool_)
    value = np.zeros(rows)
    moved = []
    for ids, values in zip(batches, worth, strict=True):
        fetched = int((~resident[ids]).sum())
        value[ids] = np.inf
        resident[ids] = True
        here = np.flatnonzero(resident)
        too_many = max(0, len(here) - capacity)
        if too_many:
            resident[here[np.argpartition(value[here], too_many - 1)[:too_many]]] = False
        value[ids] = values
        moved.append(fetched + too_many)
    return float(np.mean(moved[WARM : WARM + MEASURED]))


def by_last_use(batches: list[Ids]) -> list[Floats]:
    """Worth of rows to LRU."""
    return [np.full(len(ids), float(turn)) for turn, ids in enumerate(batches)]


def by_next_use(batches: list[Ids], rows: int) -> list[Floats]:
    """Worth of rows to one who knows all batches."""
    following = np.full(rows, np.inf)
    worth = []
    for turn in reversed(range(len(batches))):
        worth.append(-following[batches[turn]])
        following[batches[turn]] = turn
    return worth[::-1]


def measure(locality: str, rows: int) -> Result:
    """Let all three work through the same batches."""
    alpha = LOCALITY[locality]
    batches = make_batches(rows, alpha)
    ours = {}
    for ahead, foreseen in AHEAD:
        pad = OurPad(rows)
        ours[f"{ahead}/{foreseen}"] = pad.moved(batches, ahead, foreseen)
        pad.pad.close()
    capacity = pad.capacity
    return Result(
        locality=locality,
        alpha=alpha,
        rows=rows,
        capacity=capacity,
        keys=float(np.mean([len(ids) for ids in batches])),
        pad=ours,
        lru=simulate(batches, by_last_use(batches), rows, capacity),
        optimum=simulate(batches, by_next_use(batches, rows), rows, capacity),
    )
