"""The file tier: the promises of a tier, with every engine."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any, ClassVar

import pytest
from tier_contract import MakeTier, TierContract

from fourfold.storage import RowSpec
from fourfold.storage.tier import FileTier, Tier


class FileContract(TierContract):
    options: ClassVar[dict[str, Any]]

    @pytest.fixture
    def make_tier(self, tmp_path: Path) -> MakeTier:
        number = itertools.count()

        def make(specs: list[RowSpec]) -> Tier:
            path = tmp_path / f"{next(number)}.h5"
            # Segments of a few pages, so that cleaning is part of any history.
            return FileTier(specs, path, run="r", budget_bytes=2 << 20, **self.options)

        return make


class TestUring(FileContract):
    options: ClassVar[dict[str, Any]] = {"engine": "uring"}


class TestThreads(FileContract):
    options: ClassVar[dict[str, Any]] = {"engine": "threads", "depth": 4}


class TestDirect(FileContract):
    options: ClassVar[dict[str, Any]] = {"direct": True}


class TestSmallBuffers(FileContract):
    options: ClassVar[dict[str, Any]] = {"buffer_bytes": 4096, "segment_bytes": 4096, "depth": 1}
