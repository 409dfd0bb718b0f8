"""Space in the file: never more than the budget, and what is dead serves again."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tier_contract import spec_of

from fourfold.storage import BudgetError
from fourfold.storage.tier import FileTier

PAGE = 4096
SPEC = spec_of(0, None, 60)  # 15 records in a page
PER_PAGE = 15


def records(ids: np.ndarray, version: int = 0) -> np.ndarray:
    records = np.zeros(len(ids), SPEC.record)
    records["weights"] = ids[:, None]
    records["weights"][:, 1] = version
    return records


def test_rewriting_for_ever_needs_no_more_room(tmp_path: Path) -> None:
    with FileTier(
        [SPEC], tmp_path / "rows.h5", run="r", budget_bytes=40 * 8 * PAGE, segment_bytes=8 * PAGE
    ) as tier:
        rng = np.random.default_rng(0)
        ids = np.arange(30 * 8 * PER_PAGE)  # 75% of the budget
        versions = np.zeros(len(ids), int)
        tier.write(0, ids, records(ids))
        for version in range(1, 200):
            some = rng.choice(ids, rng.integers(1, 300), replace=False)
            tier.write(0, some, records(some, version))
            versions[some] = version
            assert tier.bytes <= 40 * 8 * PAGE
        got, found = tier.read(0, ids)
        assert found.all()
        assert (got["weights"][:, 0] == ids).all()
        assert (got["weights"][:, 1] == versions).all()


def test_a_full_file_says_what_to_raise_and_keeps_its_rows(tmp_path: Path) -> None:
    with FileTier(
        [SPEC], tmp_path / "rows.h5", run="r", budget_bytes=10 * 8 * PAGE, segment_bytes=8 * PAGE
    ) as tier:
        held = 9 * 8 * PER_PAGE  # one segment is for cleaning
        for first in range(0, held, PER_PAGE):
            ids = np.arange(first, first + PER_PAGE)
            tier.write(0, ids, records(ids))
        with pytest.raises(BudgetError) as raised:
            tier.write(0, np.array([held]), records(np.array([held])))
        assert "rows.h5 holds 320.0 KiB (327680 bytes) with 1080 rows" in str(raised.value)
        assert "storage.file_bytes = 320.0 KiB" in str(raised.value)
        ids = np.arange(held)
        assert (tier.read(0, ids)[0] == records(ids)).all()
        assert tier.erase(0, ids[::8]) == held // 8
        new = np.arange(held, held + 60)
        tier.write(0, new, records(new))
        assert (tier.read(0, new)[0] == records(new)).all()


def test_dead_segments_serve_again_before_the_file_grows(tmp_path: Path) -> None:
    with FileTier([SPEC], tmp_path / "rows.h5", run="r", segment_bytes=8 * PAGE) as tier:
        ids = np.arange(20 * 8 * PER_PAGE)
        tier.write(0, ids, records(ids))
        before = tier.bytes
        for _ in range(5):
            tier.erase(0, ids)
            tier.write(0, ids, records(ids))
        assert tier.bytes <= before + 2 * 8 * PAGE


def test_mostly_dead_segments_are_cleaned_before_the_file_grows(tmp_path: Path) -> None:
    with FileTier([SPEC], tmp_path / "rows.h5", run="r", segment_bytes=8 * PAGE) as tier:
        ids = np.arange(40 * 8 * PER_PAGE)
        tier.write(0, ids, records(ids))
        before = tier.bytes
        kept = ids[::5]
        tier.erase(0, np.setdiff1d(ids, kept))
        new = np.arange(len(ids), len(ids) * 7 // 4)
        tier.write(0, new, records(new))
        assert tier.bytes <= before
        assert (tier.read(0, kept)[0] == records(kept)).all()
        assert (tier.read(0, new)[0] == records(new)).all()


def test_space_passes_between_kinds_of_rows(tmp_path: Path) -> None:
    specs = [SPEC, spec_of(1, None, 124)]
    with FileTier(
        specs, tmp_path / "rows.h5", run="r", budget_bytes=40 * 8 * PAGE, segment_bytes=8 * PAGE
    ) as tier:
        for turn in range(4):
            tile = turn % 2
            ids = np.arange(30 * 8 * (15 if tile == 0 else 7))
            rows = np.zeros(len(ids), specs[tile].record)
            rows["weights"] = ids[:, None] + turn
            tier.write(tile, ids, rows)
            assert tier.bytes <= 40 * 8 * PAGE
            assert (tier.read(tile, ids)[0] == rows).all()
            tier.erase(tile, ids)


@pytest.mark.parametrize("rows", [1 << 31, 1 << 40])
def test_static_tables_take_memory_for_what_they_hold(tmp_path: Path, rows: int) -> None:
    spec = spec_of(0, rows, 60)
    with FileTier([spec], tmp_path / "rows.h5", run="r") as tier:
        empty = tier.memory_bytes
        assert empty < 16 << 20
        ids = np.arange(1000) + rows // 2
        tier.write(0, ids, records(ids))
        assert tier.memory_bytes <= empty + 64 * 1024
        assert (tier.read(0, ids)[0] == records(ids)).all()
        assert [list(ids) for ids, _ in tier.scan(0)] == [list(ids)]


@settings(max_examples=25)
@given(
    budget=st.integers(0, 60 * PAGE),
    segment=st.sampled_from([PAGE, 3 * PAGE, 8 * PAGE]),
    seed=st.integers(0, 1000),
)
def test_no_history_exceeds_the_budget(
    tmp_path_factory: pytest.TempPathFactory, budget: int, segment: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    specs = [SPEC, spec_of(1, 1000, 200), spec_of(2, None, 1200)]
    held: list[dict[int, float]] = [{}, {}, {}]
    path = tmp_path_factory.mktemp("budget") / "rows.h5"
    with FileTier(specs, path, run="r", budget_bytes=budget, segment_bytes=segment) as tier:
        for version in range(40):
            tile = int(rng.integers(3))
            ids = rng.choice(200, rng.integers(1, 40), replace=False)
            if rng.random() < 0.4:
                tier.erase(tile, ids)
                for id in ids.tolist():
                    held[tile].pop(id, None)
            else:
                rows = np.zeros(len(ids), specs[tile].record)
                rows["weights"] = version
                try:
                    tier.write(tile, ids, rows)
                    held[tile] |= dict.fromkeys(ids.tolist(), version)
                except BudgetError:
                    # Some are in, the others are as they were.
                    got, found = tier.read(tile, ids)
                    for id, row, here in zip(ids.tolist(), got, found, strict=True):
                        value = float(row["weights"][0])
                        assert here or id not in held[tile]
                        if here:
                            assert value in (version, held[tile].get(id, version))
                            held[tile][id] = value
            assert tier.bytes <= budget
        for tile in range(3):
            got, found = tier.read(tile, np.arange(200))
            assert set(np.flatnonzero(found).tolist()) == set(held[tile])
            for id in held[tile]:
                assert (got["weights"][id] == held[tile][id]).all()


@pytest.mark.parametrize("engine", ["uring", "threads"])
def test_reading_writing_and_erasing_at_once(tmp_path: Path, engine: str) -> None:
    """Rows carry their id in every column: a read sees a whole row or none, and an old or new one.

    The budget is small, so segments are cleaned and reused all the time under the readers.
    """
    n = 20 * 4 * PER_PAGE
    stop = threading.Event()
    errors: list[BaseException] = []
    with FileTier(
        [SPEC],
        tmp_path / "rows.h5",
        run="r",
        engine=engine,
        budget_bytes=26 * 4 * PAGE,
        segment_bytes=4 * PAGE,
        buffer_bytes=8 * PAGE,
    ) as tier:
        tier.write(0, np.arange(n), records(np.arange(n)))
        newest = np.zeros(n, int)
        done = [0, 0, 0, 0]

        def read(which: int) -> None:
            rng = np.random.default_rng(which)
            while not stop.is_set():
                ids = rng.choice(n, rng.integers(1, 400))
                floor = newest[ids].copy()
                got, found = tier.read(0, ids)
                assert (got["weights"][found][:, 0] == ids[found]).all()
                assert (got["weights"][found][:, 2:] == ids[found][:, None]).all()
                assert (got["weights"][found][:, 1] >= floor[found]).all()
                assert (got["weights"][found][:, 1] >= 0).all()
                done[which] += 1

        def write() -> None:
            rng = np.random.default_rng(9)
            version = 0
            while not stop.is_set():
                version += 1
                ids = rng.choice(n // 2, rng.integers(1, 200), replace=False)
                tier.write(0, ids, records(ids, version))
                newest[ids] = version
                done[2] += 1

        def erase() -> None:
            rng = np.random.default_rng(8)
            while not stop.is_set():
                ids = rng.choice(np.arange(n // 2, n), 50, replace=False)
                erased = tier.erase(0, ids)
                assert 0 <= erased <= 50
                for id in ids[:20]:
                    assert not tier.native.contains(0, int(id) | int(tier._base[0]))
                done[3] += 1
                time.sleep(0.001)

        def guarded(work: object, *args: object) -> None:
            try:
                work(*args)  # type: ignore[operator]
            except BaseException as error:
                errors.append(error)
                stop.set()

        threads = [
            threading.Thread(target=guarded, args=args)
            for args in ((read, 0), (read, 1), (write,), (erase,))
        ]
        for thread in threads:
            thread.start()
        stop.wait(2)
        stop.set()
        for thread in threads:
            thread.join()
        assert not errors, errors
        assert min(done) > 20, done
        ids = np.arange(n // 2)
        got, found = tier.read(0, ids)
        assert found.all()
        assert (got["weights"][:, 1] == newest[: n // 2]).all()
        segments, free, _ = tier.native.space(0)
        assert segments <= 26
        assert free >= 1
