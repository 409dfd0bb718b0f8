"""What ranks send each other in a step, for tests of backends."""

from __future__ import annotations

import numpy as np

from fourfold.comm.backend import BLOCK, Blocks


def sides_of(counts: np.ndarray, rank: int, gap: int = 0) -> tuple[Blocks, Blocks]:
    """Sent and got blocks of one rank. counts (from, to); gap: blocks for the rank's own part."""
    sides = []
    for row in (counts[rank], counts[:, rank]):
        room = row + np.where(np.arange(row.size) == rank, gap, 0)
        starts = np.concatenate([[0], np.cumsum(room)[:-1]]).astype(np.int64)
        sides.append(
            Blocks(np.zeros(int(room.sum()) * BLOCK, np.uint8), row.astype(np.int64), starts)
        )
    return sides[0], sides[1]


def counts_of(size: int, seed: int) -> np.ndarray:
    """Blocks from rank to rank, many of them none."""
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, 5, (size, size)) * rng.integers(0, 2, (size, size))
    np.fill_diagonal(counts, 0)
    return counts
