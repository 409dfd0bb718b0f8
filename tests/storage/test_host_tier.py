"""The host tier keeps the promises of every tier, within its budget."""

from __future__ import annotations

import numpy as np
import pytest
from tier_contract import MakeTier, TierContract, ids_of, records_of, tile_specs

from fourfold.storage import BudgetError
from fourfold.storage.tier import HostTier


class TestHostTier(TierContract):
    @pytest.fixture
    def make_tier(self) -> MakeTier:
        return lambda specs: HostTier(specs, budget_bytes=8 << 20)


def test_a_full_tier_keeps_what_it_has() -> None:
    spec = tile_specs()[1]
    tier = HostTier([spec], budget_bytes=64 << 10)
    ids = ids_of(spec)
    tier.write(0, ids, records_of(spec, ids, 1))
    more = np.arange(1000, 9000)
    with pytest.raises(BudgetError, match=r"host tier is full.*storage\.file_bytes"):
        tier.write(0, more, np.zeros(len(more), spec.record))
    assert tier.bytes <= 64 << 10
    records, found = tier.read(0, ids)
    assert found.all()
    assert records.tobytes() == records_of(spec, ids, 1).tobytes()


def test_what_is_erased_makes_room() -> None:
    spec = tile_specs()[1]
    tier = HostTier([spec], budget_bytes=64 << 10)
    for start in range(0, 20_000, 100):
        ids = np.arange(start, start + 100)
        tier.write(0, ids, records_of(spec, ids, start))
        assert tier.erase(0, ids) == 100
    assert tier.rows == 0


def test_no_budget_is_no_limit() -> None:
    spec = tile_specs()[1]
    tier = HostTier([spec])
    ids = np.arange(100_000)
    tier.write(0, ids, np.zeros(len(ids), spec.record))
    assert tier.rows == len(ids)
