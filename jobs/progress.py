"""How far a long command is, said every few seconds on the error stream."""

import sys
import time
from collections.abc import Callable

SECONDS = 5.0
"""Between two lines."""


def progress(unit: str) -> Callable[[int], None]:
    """Give a function to be told how many `unit` ("rows") are done."""
    last = time.monotonic()

    def report(done: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= SECONDS:
            last = now
            print(f"{done:,} {unit}", file=sys.stderr, flush=True)

    return report
