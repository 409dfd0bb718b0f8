"""The tests of the pad once more, with the rows in the memory of a GPU.

Those of the optimizers have a counterpart in test_device_rows.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import ModuleType

import pad_model
import pytest
import reclaim_pad
import test_birth
import test_pad
import test_pad_machine
import test_pad_reclaim
import test_reclaim_tiers
import test_tiers
from device_pad import DevicePad

from fourfold.storage import RowSpec
from fourfold.storage.tier import HostTier

TESTED = (
    test_pad,
    test_birth,
    test_tiers,
    test_pad_machine,
    test_pad_reclaim,
    test_reclaim_tiers,
)
HELPERS = (pad_model, reclaim_pad)
OF_THE_HOST = {
    "test_readers_see_their_rows_until_they_are_released": "more rows fit where indexes are not",
}
"""Tests of memory that a GPU does not have, and why they are left out."""


BESIDE = 112 << 10
"""Bytes of host memory for what is kept beside the pads of the tests with small host tiers."""


def host_tier(specs: Sequence[RowSpec], budget_bytes: int | None) -> HostTier:
    """Make a host tier with so much room for rows and, besides, what is kept beside the pad."""
    return HostTier(specs, budget_bytes=None if budget_bytes is None else budget_bytes + BESIDE)


def adopt(module: ModuleType) -> None:
    """Collect the tests and fixtures of a module here, too."""
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
        patch.setattr(test_reclaim_tiers, "HostTier", host_tier)
        roomy = {tiers: budget + BESIDE for tiers, budget in test_pad_machine.HOST.items()}
        patch.setattr(test_pad_machine, "HOST", roomy)
        yield
