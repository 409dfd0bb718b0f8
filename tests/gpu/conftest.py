"""What stands in for a GPU, and ranks that have one: fixtures of tests with ranks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import gpu
import pytest

if TYPE_CHECKING:
    from device_side import DeviceSide, World


def pytest_collection_finish(session: pytest.Session) -> None:
    """Build the stand-in before the time of the first test that wants it runs."""
    chosen = any(item.path.parent == Path(__file__).parent for item in session.items)
    if chosen and not session.config.option.collectonly:
        gpu.build()


@pytest.fixture(scope="module", params=gpu.devices())
def side(request: pytest.FixtureRequest) -> DeviceSide:
    from device_side import DeviceSide  # starts MPI, which only tests with ranks do

    return DeviceSide(request.param)


@pytest.fixture(scope="module")
def world(side: DeviceSide) -> Iterator[World]:
    from device_side import World

    world = World(side)
    yield world
    world.staged.close()
