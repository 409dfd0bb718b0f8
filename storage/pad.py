"""The pad: all rows that this rank trains, in its fastest memory.

```
plan     find or create the rows of a request, group gradients by row   ahead, on any thread
wait     until the rows are in the pad
gather   reply rows (or sums per bag) to given addresses                 in the step
update   sum the gradients of each row, then its optimizer, in place     in the step
release  the ticket's rows may leave
```

Arrays cross as plain memory: a request holds positions and counts, replies and gradients are
addresses of rows in the type of the wire. `plan` may run on another thread than `gather` and
`update`; the caller orders gathers and updates of tickets that share rows. All results are
independent of the number of threads, bit for bit. None of these calls is collective.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fourfold.storage import _native
from fourfold.storage._native import Ticket
from fourfold.storage.in_place import InPlace
from fourfold.storage.reclaim import Population, ReclaimConfig
from fourfold.storage.request import Request
from fourfold.storage.row import RowSpec, dtype_code, key_ranges
from fourfold.storage.traffic import Span, Traffic

if TYPE_CHECKING:
    from fourfold.storage.tier import FileTier, HostTier


class Pad:
    """The rows of a rank's tiles, within a budget of bytes.

    Args:
        specs: one per held tile, in the order that requests use.
        budget_bytes: most memory that rows, indexes and bitmaps may take; None: no limit. Tickets
            and the directory of blocks (16 bytes per block of 4 KiB to 2 MiB) come on top.
        host, file: tiers for the rows that do not fit the pad, made for the same specs and left to
            it. Then the pad holds the rows of planned batches and, of the others, those it
            can.
        reclaim: which rows are forgotten, and when; None: none.
        device: the GPU in whose memory the rows lie; None: they lie in memory of the host. Then
            `budget_bytes` must be given, and are taken at once; what is kept beside rows is in
            memory of the host (`beside_bytes`). Replies and gradients are in the GPU's memory.
        stream: of that GPU (`CUstream`), on which `gather` and `update` are enqueued; 0: the
            default one.
        threads: threads of every call.
        huge_pages: ask for 2 MiB pages; `huge_pages` of the pad tells whether the system took note.
    """

    def __init__(
        self,
        specs: Sequence[RowSpec],
        *,
        budget_bytes: int | None = None,
        threads: int = 1,
        huge_pages: bool = True,
        host: HostTier | None = None,
        file: FileTier | None = None,
        reclaim: ReclaimConfig | None = None,
        device: _native.Device | None = None,
        stream: int = 0,
    ) -> None:
        if threads < 1:
            raise ValueError(f"Pad: threads must be at least 1, got {threads}")
        if budget_bytes is not None and budget_bytes < 0:
            raise ValueError(f"Pad: budget_bytes must be at least 0, got {budget_bytes}")
        self.specs = tuple(specs)
        counts = any(spec.admission.kind in ("count", "bloom") for spec in self.specs)
        policy = (reclaim or ReclaimConfig()).policy(counters=counts)
        if file is not None and host is None:
            raise ValueError("Pad: a file tier needs a host tier before it")
        for tier in (host, file):
            if tier is not None and tier.specs != self.specs:
                raise ValueError("Pad: its tiers hold other tiles than the pad")
        base, bits = key_ranges(self.specs)
        self._native = _native.Pad(
            [spec.native() for spec in self.specs],
            base,
            bits,
            budget_bytes,
            threads,
            huge_pages,
            policy,
            None if host is None else host.native,
            None if file is None else file.native,
            device,
        )
        self._stream = stream
        # Not by the native core, which would wait for threads that may need Python's lock.
        self._close = weakref.finalize(self, self._native.close)
        self._reported = Traffic()

    def plan(self, request: Request, train: bool) -> Ticket:
        """Find the rows of a request; if training, create those that are missing.

        When reading, an id never seen is answered with the row it would be born as. With tiers
        below, rows begin to move into the pad. Raises ValueError for an id outside the table,
        BudgetError when new rows do not fit; rows created until then stay, newly born.
        """
        return self._native.plan(_arrays(request), train)

    def try_plan(self, request: Request, train: bool) -> Ticket | None:
        """Plan like `plan`; None when there is no room beside the tickets that are not released.

        Then `wait_for_room` and try again. BudgetError if the request alone is too much. Reading
        needs no room.
        """
        return self._native.try_plan(_arrays(request), train)

    def wait_for_room(self, timeout_s: float) -> None:
        """Return when there may be more room than at the last `try_plan`, or after `timeout_s`."""
        self._native.wait_for_room(timeout_s)

    def plan_ahead(self, batches: int) -> None:
        """So many training batches, from 0 on, may be planned before one is released.

        Rows that these and the one that trains name are not forgotten, and what a batch does to
        scores counts that many batches later: so results do not depend on how far planning is.
        """
        if batches < 0:
            raise ValueError(f"Pad.plan_ahead: batches must be at least 0, got {batches}")
        self._native.set_window(batches + 1)

    def foresee(self, request: Request) -> None:
        """Tell of a training batch that will be planned later; in order, before it is planned.

        Rows that it needs leave the pad after all others. Nothing to do while the pad is the only
        tier.
        """
        self._native.foresee(_arrays(request))

    def forget_foreseen(self) -> None:
        """Batches foreseen and not planned by now will not come."""
        self._native.forget_foreseen()

    def wait(self, ticket: Ticket) -> None:
        """Return when all rows of the ticket are in the pad: at once while it is the only tier.

        Raises the StorageError of a tier that could not read or write a row.
        """
        self._native.wait(ticket)

    def take_traffic(self) -> Traffic:
        """Rows and bytes that moved since the last call."""
        now = Traffic(*self._native.traffic())
        since = now - self._reported
        self._reported = now
        return since

    def population(self, tile: int) -> Population:
        """What became of a tile's ids since the start."""
        return Population(*self._native.tile_counts(tile))

    def trace(self, on: bool) -> None:
        """Begin or end to record what the pad's own threads do."""
        self._native.trace(on)

    def take_spans(self) -> list[Span]:
        """What they did since the last call; at most 65,536 spans are kept until then."""
        return [Span(*span) for span in self._native.spans()]

    def gather(self, ticket: Ticket, addresses: NDArray[np.uint64], wire: str) -> None:
        """Write the reply rows of each segment, C-contiguous in dtype `wire`, to its address.

        Sums are formed in fp32 in the order of the bag. `addresses` (S,); those of segments without
        reply are not used. On a GPU this is enqueued on the pad's stream; `addresses` may be reused
        at once.
        """
        self._native.gather(ticket, addresses, dtype_code(wire), self._stream)

    def update(
        self, ticket: Ticket, addresses: NDArray[np.uint64], wire: str, lr: float, step: int
    ) -> None:
        """Apply one optimizer step to every row of the ticket.

        `addresses` (S,) point to one gradient row per reply row, dtype `wire`. A row's gradients
        are summed in fp32 in the order (requester, position); those of a pooled segment times the
        id's weight. `step` counts from 1. On a GPU as `gather`; there ValueError for a second
        update of a ticket where scores count gradients.
        """
        if step < 1:
            raise ValueError(f"Pad.update: step counts from 1, got {step}")
        self._native.update(ticket, addresses, dtype_code(wire), lr, step, self._stream)

    def release(self, ticket: Ticket) -> None:
        """End the use of a ticket."""
        self._native.release(ticket)

    def close(self) -> None:
        """End the threads that move rows between tiers; nothing is flushed.

        Nothing can be planned afterwards. Done for a pad that goes without it, too.
        """
        self._close()

    @property
    def rows(self) -> int:
        """Rows in memory, over all tiles; some may count as gone already."""
        return sum(self.tile_rows(t) for t in range(len(self.specs)))

    @property
    def bytes(self) -> int:
        """Bytes that count against the budget."""
        return self._native.bytes

    @property
    def beside_bytes(self) -> int:
        """Bytes of host memory that are kept beside rows of a GPU; 0 where rows are there, too.

        They count against the budget of the host tier; without one there is no limit.
        """
        return self._native.beside_bytes

    @property
    def huge_pages(self) -> bool:
        """Whether rows lie in memory for which the system accepted huge pages."""
        return self._native.huge_pages

    @property
    def in_place(self) -> InPlace:
        """How rows of a GPU come from the host tier and go there."""
        return InPlace(*_native.in_place(self._native))

    def tile_rows(self, tile: int) -> int:
        """Rows of a tile in memory; some may count as gone already."""
        return self._native.tile_rows(tile)

    def tile_bytes(self, tile: int) -> int:
        """Bytes of the blocks of a tile."""
        return self._native.tile_bytes(tile)

    def read(self, tile: int, ids: NDArray[np.int64]) -> tuple[NDArray[np.void], NDArray[np.bool_]]:
        """Read rows of a tile by id of the table: records (n,) as `RowSpec.record`, found (n,).

        A row that does not exist is given as it would be born. ValueError for ids of other tiles.
        """
        records, found = self._native.read(tile, _ids(ids))
        return records.view(self.specs[tile].record)[:, 0], found

    def weights(self, tile: int, ids: NDArray[np.int64]) -> NDArray[np.float32]:
        """Read weights of rows by id of the table, as float32 (n, dim)."""
        spec = self.specs[tile]
        stored = self.read(tile, ids)[0]["weights"]
        if spec.dtype == "fp32":
            return np.ascontiguousarray(stored)
        bits = np.ascontiguousarray(stored).reshape(-1)
        return _native.widen(bits, dtype_code(spec.dtype)).reshape(-1, spec.dim)

    def write(self, tile: int, ids: NDArray[np.int64], records: NDArray[np.void]) -> None:
        """Set rows of a tile, creating those that do not exist; ids are distinct."""
        record = self.specs[tile].record
        packed = np.ascontiguousarray(records, dtype=record).view(np.uint8)
        self._native.write(tile, _ids(ids), packed.reshape(-1, record.itemsize))

    def erase(self, tile: int, ids: NDArray[np.int64]) -> int:
        """Forget rows; returns how many there were. No ticket may hold them."""
        return self._native.erase(tile, _ids(ids))

    def scan(
        self, tile: int, chunk_rows: int = 65536
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.void]]]:
        """Yield all rows of a tile as (ids, records), in chunks, in the order of memory."""
        ids = self._native.ids(tile)
        for start in range(0, len(ids), chunk_rows):
            chunk = ids[start : start + chunk_rows]
            yield chunk, self.read(tile, chunk)[0]


def _ids(ids: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.ascontiguousarray(ids, dtype=np.int64)


def _arrays(request: Request) -> _native.Request:
    return _native.Request(
        request.tile,
        request.ids,
        request.first,
        request.bags,
        request.lengths,
        request.pooled,
        request.weights,
        request.replies,
        request.credits,
    )
