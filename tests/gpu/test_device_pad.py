"""The tests of the pad once more, with the rows in the memory of a GPU.

Those of the optimizers have a counterpart in test_device_rows.py.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType

import gpu
import numpy as np
import pad_model
import pad_on_tiers
import pytest
import reclaim_pad
import test_birth
import test_pad
import test_pad_machine
import test_pad_on_tiers
import test_pad_reclaim
import test_reclaim_tiers
import test_tier_limits
from device_pad import DevicePad

from fourfold.storage import SGD, RowSpec, RowWiseAdagrad, Segment, SegmentedRequest, Uniform
from fourfold.storage.tier import HostTier

TESTED = (
    test_pad,
    test_birth,
    test_pad_on_tiers,
    test_tier_limits,
    test_pad_machine,
    test_pad_reclaim,
    test_reclaim_tiers,
)
HELPERS = (pad_model, reclaim_pad, pad_on_tiers)
OF_THE_HOST = {
    "test_readers_see_their_rows_until_they_are_released": "more rows fit where indexes are not",
    "test_rows_out_of_use_for_65_536_batches_leave_first": "the same",
}
"""Tests of memory that a GPU does not have, and why they are left out."""


BESIDE = 112 << 10
"""Bytes of host memory for what is kept beside the pads of the tests with small host tiers."""


def host_tier(specs: Sequence[RowSpec], budget_bytes: int | None) -> HostTier:
    """Make a host tier with so much room for rows and, besides, what is kept beside the pad."""
    return HostTier(specs, budget_bytes=None if budget_bytes is None else budget_bytes + BESIDE)


def beside(specs: list[RowSpec], pad_bytes: int) -> int:
    """Bytes of the host tier that such a pad takes, with the share of all bytes that the tier sets
    aside, and larger blocks."""
    host = HostTier(specs, budget_bytes=1 << 24)
    set_aside = host.bytes / (1 << 24)
    pad = DevicePad(specs, budget_bytes=pad_bytes, host=host)
    try:
        return math.ceil(1.5 * pad.beside_bytes / (1 - set_aside))
    finally:
        pad.close()


def adopt(module: ModuleType) -> None:
    """Collect the tests and fixtures of a module here, too."""
    assert Path(module.__file__ or "").parent.name == "storage", f"{module.__file__} is another"
    for name, value in vars(module).items():
        if name in OF_THE_HOST or getattr(value, "__module__", None) != module.__name__:
            continue
        if name.lower().startswith("test"):
            globals()[f"{name}__{module.__name__}"] = value
        elif type(value).__name__ == "FixtureFunctionDefinition":
            globals()[name] = value


for module in TESTED:
    adopt(module)


@pytest.fixture(autouse=True, scope="module")
def on_device() -> Iterator[None]:
    """Whatever makes a pad makes one on the device."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (*TESTED, *HELPERS):
            if hasattr(module, "Pad"):
                patch.setattr(module, "Pad", DevicePad)
        patch.setattr(pad_on_tiers, "beside", beside)
        patch.setattr(test_reclaim_tiers, "HostTier", host_tier)
        roomy = {tiers: budget + BESIDE for tiers, budget in test_pad_machine.HOST.items()}
        patch.setattr(test_pad_machine, "HOST", roomy)
        yield


SPARE = 1.25
"""Memory is taken with so much room to grow."""


@pytest.mark.parametrize(
    ("fields", "rows", "grouped"),
    [
        ({}, 8, 28),  # addresses of rows; besides, of groups, with first entry and entries
        ({"optimizer": RowWiseAdagrad()}, 12, 32),  # slots, too
        ({"dtype": "bf16"}, 16, 36),  # ids, too
    ],
)
def test_bytes_that_a_plan_sends_for_an_id(fields: dict, rows: int, grouped: int) -> None:
    """Only what kernels read: of distinct ids, and of those that two requesters name."""
    n = 100_000
    spec = RowSpec(**{"table": 0, "name": "t", "dim": 1, "rows": n, "init": Uniform(0.1),
                      "optimizer": SGD()} | fields)  # fmt: skip
    ids = np.arange(n)
    for segments, expected in (
        ([Segment(0, ids)], rows),
        ([Segment(0, ids[: n // 2]), Segment(0, ids[n // 2 :])], grouped),
    ):
        pad = DevicePad([spec], budget_bytes=8 << 20)
        request = SegmentedRequest.of(segments)
        first = pad.plan(request, True)  # bears the rows
        before = gpu.held_bytes(pinned=True)
        second = pad.plan(request, True)
        sent = (gpu.held_bytes(pinned=True) - before) / n / SPARE
        pad.release(first)
        pad.release(second)
        del pad, first, second
        assert expected <= sent < expected + 0.5  # and what there is of each block
