"""A pad whose file cannot grow says so to whoever asks, as often as they ask."""

from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path

STORY = """
import sys
from errno import ENOSPC
from pathlib import Path

import numpy as np
from pad_model import random_segments, tile_specs

from fourfold.storage import Pad, SegmentedRequest, StorageError
from fourfold.storage.container import Container
from fourfold.storage.tier import FileTier, HostTier


def extend(container, kind, count):
    raise StorageError(ENOSPC, "f.h5 cannot grow: No space left on device")


Container.extend = extend
specs = tile_specs()
host = HostTier(specs, budget_bytes=200_000)
small = {"buffer_bytes": 2**14, "segment_bytes": 2**14}
file = FileTier(specs, Path(sys.argv[1]), run="r", **small)
pad = Pad(specs, budget_bytes=70_000, host=host, file=file)
rng = np.random.default_rng(0)
tickets = []
for _ in range(200):
    request = SegmentedRequest.of(random_segments(4, 8, rng))
    try:
        ticket = pad.try_plan(request, True)
        if ticket is not None:
            tickets.append(ticket)
            continue
        while tickets:
            pad.wait(tickets[-1])
            pad.release(tickets.pop())
        pad.wait_for_room(1)
    except StorageError as error:
        print(error.errno)
        tickets.clear()
pad.close()
"""


def test_a_file_that_cannot_grow_is_met_by_all_who_wait(tmp_path: Path) -> None:
    """In a process of its own: it must not end by a signal."""
    beside = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
    ended = subprocess.run(
        [sys.executable, "-P", "-c", beside + STORY, str(tmp_path / "f.h5")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert ended.returncode == 0, ended.stderr
    met = ended.stdout.split()
    assert len(met) > 2
    assert set(met) == {str(errno.ENOSPC)}
