"""Which rows of a stream are held out of training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from fourfold.runtime.data.batch import Int64
from fourfold.runtime.data.hashing import mix

Split = Literal["train", "eval"]

PIECE = 1 << 16
"""Most rows of a stream that are looked at in one go."""


@dataclass(frozen=True, slots=True)
class Members:
    """The rows of a stream that belong to one split.

    A row belongs to evaluation when the hash of its number in the stream, as a fraction of 2^64, is
    below the held-out share. So membership depends on the row's place and on nothing else: every
    shard of every run agrees, and files added later change nothing. Not every n-th row, because
    logs have periods (three slots of a page are three lines).
    """

    fraction: float
    """Share of the rows held out, in [0, 1); 0: every row is a member."""
    split: Split

    def window(self, row: int, wanted: int) -> tuple[int, Int64]:
        """Find the next members from row `row` on, at most `wanted` of them.

        Gives how many rows of the stream to go on by, at most `PIECE`, and the members' offsets
        from `row`, ascending.
        """
        if not self.fraction:
            span = min(wanted, PIECE)
            return span, np.arange(span)
        share = self.fraction if self.split == "eval" else 1 - self.fraction
        span = min(PIECE, int(wanted / share * 1.25) + 64)
        numbers = np.arange(row, row + span, dtype=np.uint64)
        held_out = mix(numbers) < np.uint64(min(int(self.fraction * 2.0**64), 2**64 - 1))
        offsets = np.flatnonzero(held_out if self.split == "eval" else ~held_out)[:wanted]
        return int(offsets[-1]) + 1 if len(offsets) == wanted else span, offsets
