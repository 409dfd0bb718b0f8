"""The published shape of Criteo's Kaggle display advertising log (2014).

Seven days of traffic, 13 integer and 26 categorical fields; Criteo published the data for the
Kaggle Display Advertising Challenge, and the row counts below are the distinct values that the
DLRM repository (facebookresearch/dlrm) counts in each categorical field of it.
"""

DENSE_FIELDS = 13
SPARSE_FIELDS = 26

# Distinct values of C1..C26.
ROWS = (
    1460, 583, 10131227, 2202608, 305, 24, 12517, 633, 3, 93145, 5683, 8351593, 3194,
    27, 14992, 5461306, 10, 5652, 2173, 4, 7046547, 18, 15, 286181, 105, 142572,
)  # fmt: skip

SAMPLES = 45_840_617
CLICK_RATE = 0.256

# A field this small is a closed list (a device type, a country): a smaller or larger log has it
# whole, and nothing new ever appears in it.
CLOSED_ROWS = 1000


def scaled_rows(scale: float) -> tuple[int, ...]:
    """Rows of C1..C26 in a log `scale` times the published one; 1.0 gives the published sizes.

    Closed fields keep their size, open ones never shrink below `CLOSED_ROWS`.
    """
    if not 0 < scale < float("inf"):
        raise ValueError(f"table scale: expected a positive number, got {scale}")
    return tuple(n if n <= CLOSED_ROWS else max(CLOSED_ROWS, round(n * scale)) for n in ROWS)
