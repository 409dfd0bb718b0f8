"""Ids for benchmarks: the published Criteo table sizes under a cap, and a bounded Zipf law.

Real logs are better served by `generate`; these are the ids that published benchmarks of embedding
layers use, quick to draw and easy to compare with.
"""

from math import gcd

import numpy as np
import numpy.typing as npt

from fourfold.runtime.data.kaggle import ROWS

# Fibonacci hashing's multiplier (Knuth, TAOCP vol. 3, section 6.4), 2^32 over the golden ratio.
_MULTIPLIER = 2654435761
_OFFSET = 12345


def criteo_sizes(total: int) -> list[int]:
    """Rows of the 26 Criteo Kaggle tables, the largest cut down alike until all fit in `total`.

    Gives the largest cap that fits; at least 26 rows, one a table, are needed.
    """
    if total < len(ROWS):
        raise ValueError(f"total rows: expected at least {len(ROWS)}, one a table, got {total}")
    low, high = 1, max(ROWS)
    while low < high:
        middle = (low + high + 1) // 2
        if sum(min(rows, middle) for rows in ROWS) <= total:
            low = middle
        else:
            high = middle - 1
    return [min(rows, low) for rows in ROWS]


def zipf_ids(
    rng: np.random.Generator, n: int, rows: int, alpha: float = 1.05
) -> npt.NDArray[np.int64]:
    """Draw n ids of [0, rows), the k-th most popular with probability ~ k^-alpha, int64 (n,).

    Draws by inverting the continuous power law on [1, rows + 1). Popularity is scattered over the
    ids by an affine permutation, so that hot rows are not neighbours in memory. alpha 0 is uniform.
    """
    if rows < 1:
        raise ValueError(f"rows of a table: expected at least 1, got {rows}")
    if alpha == 0:
        return rng.integers(0, rows, n)
    u = rng.random(n)
    if alpha == 1:
        x = np.power(rows + 1.0, u)
    else:
        top = (rows + 1.0) ** (1 - alpha)
        x = np.power(1 + u * (top - 1), 1 / (1 - alpha))
    rank = np.clip(x.astype(np.int64) - 1, 0, rows - 1)
    multiplier = _MULTIPLIER
    while gcd(multiplier, rows) != 1:
        multiplier += 2
    return (rank * (multiplier % rows) + _OFFSET % rows) % rows
