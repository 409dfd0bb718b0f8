"""The tests of the pad once more, with the rows in the memory of a GPU.

Those of the optimizers have a counterpart in test_device_rows.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

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
        yield
