"""What every tier below the pad promises, against a dictionary.

A test file for a tier derives a class from TierContract and overrides `make_tier`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)
from numpy.typing import NDArray

from fourfold.storage import SGD, Adam, RowSpec, RowWiseAdagrad, Uniform, _native
from fourfold.storage.tier import Tier

MakeTier = Callable[[list[RowSpec]], Tier]


def spec_of(table: int, rows: int | None, dim: int, **changes: Any) -> RowSpec:
    fields = {"optimizer": SGD(), "init": Uniform(1.0)} | changes
    return RowSpec(table=table, name=f"t{table}", dim=dim, rows=rows, **fields)


def tile_specs() -> list[RowSpec]:
    """Tiles of all sorts; some share records, some share a table, one has rows beyond a page."""
    return [
        spec_of(0, 100, 8, bucket=1, buckets=2),
        spec_of(1, None, 8),
        spec_of(2, None, 16, optimizer=RowWiseAdagrad()),
        spec_of(2, None, 8, column=16),
        spec_of(3, 50, 700, dtype="bf16", optimizer=Adam()),
        spec_of(4, None, 5, dtype="fp16", bucket=2, buckets=3),
    ]


def ids_of(spec: RowSpec, most: int = 50) -> NDArray[np.int64]:
    """The first ids of a tile."""
    ids = np.arange(100 if spec.rows is None else spec.rows)
    mine = _native.bucket_of(ids, spec.table, spec.buckets, spec.dynamic) == spec.bucket
    return ids[mine][:most]


def records_of(spec: RowSpec, ids: NDArray[np.int64], version: int) -> NDArray[np.void]:
    """Records whose every byte depends on tile, id and version."""
    records = np.zeros(len(ids), spec.record)
    size = spec.record.itemsize
    seed = [spec.table, spec.column, version]
    for i, id in enumerate(ids.tolist()):
        content = np.random.default_rng([*seed, id]).integers(0, 256, size, dtype=np.uint8)
        records.view(np.uint8).reshape(-1, size)[i] = content
    return records


def same(a: NDArray[np.void], b: NDArray[np.void]) -> bool:
    return a.dtype == b.dtype and a.tobytes() == b.tobytes()


class TierMachine(RuleBasedStateMachine):
    """Any order of calls leaves what a dictionary would hold."""

    make_tier: MakeTier

    @initialize()
    def begin(self) -> None:
        self.specs = tile_specs()
        self.tier = self.make_tier(self.specs)
        self.model: list[dict[int, int]] = [{} for _ in self.specs]  # versions of rows
        self.version = 0

    def draw_ids(self, data: st.DataObject, tile: int) -> NDArray[np.int64]:
        mine = ids_of(self.specs[tile]).tolist()
        ids = data.draw(st.lists(st.sampled_from(mine), unique=True, max_size=len(mine)))
        return np.array(ids, np.int64)

    @rule(data=st.data(), tile=st.integers(0, 5))
    def write(self, data: st.DataObject, tile: int) -> None:
        ids = self.draw_ids(data, tile)
        self.version += 1
        self.tier.write(tile, ids, records_of(self.specs[tile], ids, self.version))
        self.model[tile] |= dict.fromkeys(ids.tolist(), self.version)

    @rule(data=st.data(), tile=st.integers(0, 5))
    def erase(self, data: st.DataObject, tile: int) -> None:
        ids = self.draw_ids(data, tile)
        held = [self.model[tile].pop(id, None) for id in ids.tolist()]
        assert self.tier.erase(tile, ids) == sum(version is not None for version in held)

    @rule(data=st.data(), tile=st.integers(0, 5))
    def read(self, data: st.DataObject, tile: int) -> None:
        ids = self.draw_ids(data, tile)
        self.check(tile, ids, *self.tier.read(tile, ids))

    @rule(tile=st.integers(0, 5))
    def scan(self, tile: int) -> None:
        chunks = list(self.tier.scan(tile, chunk_rows=7))
        ids = [id for chunk, _ in chunks for id in chunk.tolist()]
        assert len(ids) == len(set(ids))
        assert set(ids) == set(self.model[tile])
        for chunk, records in chunks:
            self.check(tile, chunk, records, np.ones(len(chunk), bool))

    def check(
        self,
        tile: int,
        ids: NDArray[np.int64],
        records: NDArray[np.void],
        found: NDArray[np.bool_],
    ) -> None:
        for id, record, here in zip(ids.tolist(), records, found.tolist(), strict=True):
            version = self.model[tile].get(id)
            assert here == (version is not None)
            if version is not None:
                expected = records_of(self.specs[tile], np.array([id]), version)
                assert record.tobytes() == expected.tobytes()

    @invariant()
    def count(self) -> None:
        assert self.tier.rows == sum(len(rows) for rows in self.model)

    def teardown(self) -> None:
        close = getattr(getattr(self, "tier", None), "close", None)
        if close is not None:
            close()


class TierContract:
    """The promises of a tier."""

    @pytest.fixture
    def make_tier(self, tmp_path: Any) -> MakeTier:
        """Give what makes an empty tier for specs; may be called often."""
        raise NotImplementedError

    @pytest.fixture
    def tier(self, make_tier: MakeTier) -> Iterator[Tier]:
        tier = make_tier(tile_specs())
        yield tier
        if hasattr(tier, "close"):
            tier.close()

    def test_any_history_leaves_what_a_dictionary_holds(self, make_tier: MakeTier) -> None:
        machine = type("Machine", (TierMachine,), {"make_tier": staticmethod(make_tier)})
        run_state_machine_as_test(
            machine, settings=settings(max_examples=40, stateful_step_count=30, deadline=None)
        )

    @pytest.mark.parametrize("tile", range(6))
    def test_a_written_row_is_read(self, tier: Tier, tile: int) -> None:
        spec = tier.specs[tile]
        ids = ids_of(spec)
        written = records_of(spec, ids[::2], 1)

        tier.write(tile, ids[::2], written)
        records, found = tier.read(tile, ids)

        assert (found == (np.arange(len(ids)) % 2 == 0)).all()
        assert same(records[found], written)

    def test_a_row_can_be_read_twice_at_once(self, tier: Tier) -> None:
        ids = ids_of(tier.specs[1])
        tier.write(1, ids, records_of(tier.specs[1], ids, 1))

        records, found = tier.read(1, np.concatenate([ids, ids[::-1]]))

        assert found.all()
        assert same(records[: len(ids)], np.ascontiguousarray(records[len(ids) :][::-1]))

    def test_tiles_with_the_same_ids_are_apart(self, tier: Tier) -> None:
        ids = ids_of(tier.specs[1])
        for tile in (1, 2, 3):
            tier.write(tile, ids, records_of(tier.specs[tile], ids, tile))

        assert tier.erase(3, ids) == len(ids)
        for tile in (1, 2):
            expected = records_of(tier.specs[tile], ids, tile)
            assert same(tier.read(tile, ids)[0], expected)
        assert not tier.read(3, ids)[1].any()

    def test_nothing_is_a_legal_batch(self, tier: Tier) -> None:
        none = np.empty(0, np.int64)

        tier.write(0, none, np.empty(0, tier.specs[0].record))

        assert len(tier.read(0, none)[0]) == 0
        assert tier.erase(0, none) == 0
        assert list(tier.scan(0)) == []

    def test_ids_of_other_tiles_are_refused(self, tier: Tier) -> None:
        theirs = np.setdiff1d(np.arange(100), ids_of(tier.specs[0], 100))[:1]
        for ids in (theirs, np.array([-1]), np.array([100])):
            with pytest.raises(ValueError, match="does not belong to this tile"):
                tier.read(0, ids)
            with pytest.raises(ValueError, match="does not belong to this tile"):
                tier.write(0, ids, np.zeros(1, tier.specs[0].record))

    def test_records_must_match_the_ids(self, tier: Tier) -> None:
        with pytest.raises(ValueError, match="2,"):
            tier.write(1, np.arange(2), np.zeros(3, tier.specs[1].record))
