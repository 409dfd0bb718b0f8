"""Records in host memory that a GPU reads and writes where they lie."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class InPlace:
    """What a pad on a GPU does with the records of its host tier. All zero where there is none.

    The GPU can follow addresses of pinned memory. From some size on it is faster to let it do that
    than to copy records to a buffer and send that; the pad measures both, once, when 4,096 rows or
    more move at once for the first time. Until then, and for smaller records, there are buffers.
    """

    pinned_bytes: int
    """Memory of records that is pinned, of the host tier's."""
    refusal: str
    """Why more is not pinned, in the system's words; "" if nothing was refused."""
    rows: int
    """Rows that were read or written in place since the start."""
    measured: bool
    loads_from: int | None
    """Bytes of the smallest record that is read in place; None: none is."""
    stores_from: int | None
    """Bytes of the smallest record that is written in place; None: none is."""
