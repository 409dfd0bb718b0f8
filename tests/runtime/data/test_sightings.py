"""Samples of ids: what is kept, in which order, and in how much memory."""

from __future__ import annotations

import tracemalloc
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

from fourfold.runtime.data import sightings
from fourfold.runtime.data.lifetimes import Lifetimes
from fourfold.runtime.data.reader import DataConfig, open_reader
from fourfold.runtime.data.sightings import (
    HELD_BYTES,
    WORK_BYTES,
    Sample,
    Trail,
    piece_of,
    read_sample,
)

ROWS = 100
PLENTY = 1 << 30


@pytest.fixture(autouse=True)
def _small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sightings, "PIECE", 16)


@pytest.fixture
def config(tmp_path: Path) -> DataConfig:
    """Feature a has two ids or none, b its row's number."""
    lines = [f"{i % 2},{f'{i % 5};{i % 3}' if i % 4 else ''},{i}" for i in range(ROWS)]
    (tmp_path / "log.csv").write_text("\n".join(["y,a,b", *lines]) + "\n")
    return DataConfig(
        kind="csv",
        paths=(str(tmp_path),),
        label="y",
        sparse=("a", "b"),
        lists=("a",),
        list_separator=";",
    )


def read(
    config: DataConfig,
    owner: list[int],
    batch_size: int,
    batches: int,
    memory: int = PLENTY,
    share: float = 1.0,
) -> Sample:
    with open_reader(config, shard=0, shards=1, batch_size=piece_of(batch_size)) as reader:
        return read_sample(
            reader,
            owner,
            max(owner) + 1,
            batch_size=batch_size,
            batches=batches,
            memory_bytes=memory,
            share=share,
        )


def expected(owner: list[int], rows: int) -> list[list[tuple[int, int]]]:
    """Give (sample, id) of every lookup, by table, feature by feature in a sample."""
    found: list[list[tuple[int, int]]] = [[] for _ in range(max(owner) + 1)]
    for i in range(rows):
        if i % 4:
            found[owner[0]] += [(i, i % 5), (i, i % 3)]
        found[owner[1]].append((i, i))
    return found


@pytest.mark.parametrize("owner", [[0, 1], [1, 0], [0, 0]])
@pytest.mark.parametrize(("size", "batches"), [(1, 30), (7, 4), (7, 1000), (32, 2), (300, 1)])
def test_lookups_in_order(config: DataConfig, owner: list[int], size: int, batches: int) -> None:
    sample = read(config, owner, size, batches)
    rows = min(ROWS, size * batches)

    assert sample.samples == rows
    assert sample.batch_of.tolist() == [i // size for i in range(rows)]
    assert sample.batches == -(-rows // size)
    assert sample.complete == (size * batches >= ROWS)
    for trail, lookups in zip(sample.trails, expected(owner, rows), strict=True):
        assert trail.lookups == trail.kept == len(lookups)
        ids, samples = trail.take()
        assert list(zip(samples.tolist(), ids.tolist(), strict=True)) == lookups
    assert sum(trail.bags for trail in sample.trails) == rows + sum(i % 4 > 0 for i in range(rows))


@pytest.mark.parametrize("batches", [9, 10, 11])
def test_complete_is_known_at_the_very_end(config: DataConfig, batches: int) -> None:
    assert read(config, [0, 1], 10, batches).complete == (batches >= 10)


def test_dropped_rows_keep_their_place_in_their_piece(tmp_path: Path) -> None:
    lines = [f"{'x' if i in (3, 4, 5) else 1},{i}" for i in range(64)]
    (tmp_path / "log.csv").write_text("\n".join(["y,b", *lines]) + "\n")
    paths = (str(tmp_path),)
    config = DataConfig(kind="csv", paths=paths, label="y", sparse=("b",), on_error="skip")
    sample = read(config, [0], 8, 100)
    ids, samples = sample.trails[0].take()

    assert sample.samples == 61
    later = ids >= 16  # of pieces that have no malformed row
    assert (sample.batch_of[samples][later] == ids[later] // 8).all()


def test_a_piece_without_a_good_row(tmp_path: Path) -> None:
    lines = [f"{'x' if 16 <= i < 32 else 1},{i}" for i in range(64)]
    (tmp_path / "log.csv").write_text("\n".join(["y,b", *lines]) + "\n")
    paths = (str(tmp_path),)
    config = DataConfig(kind="csv", paths=paths, label="y", sparse=("b",), on_error="skip")
    sample = read(config, [0], 8, 100)

    assert sample.batch_of.tolist() == [i // 8 for i in range(64) if not 16 <= i < 32]
    assert sample.batches == 8


def test_ids_are_thinned_and_keep_all_of_their_lookups() -> None:
    rng = np.random.default_rng(0)
    ids, samples = rng.integers(0, 4000, 50_000), np.arange(50_000, dtype=np.int32)
    whole, thin, at_once = Trail(), Trail(), Trail(share=0.25)
    for first in range(0, len(ids), 1000):
        some = slice(first, first + 1000)
        for trail in (whole, thin, at_once):
            trail.add(ids[some], samples[some])
        if first in (20_000, 30_000):
            thin.thin()
    kept_ids, kept_samples = thin.take()

    assert thin.share == 0.25
    assert thin.kept == len(kept_ids)
    assert all(map(np.array_equal, at_once.take(), (kept_ids, kept_samples)))
    chosen = np.isin(ids, kept_ids)
    assert np.array_equal(ids[chosen], kept_ids)
    assert np.array_equal(samples[chosen], kept_samples)
    assert len(np.unique(kept_ids)) == pytest.approx(1000, abs=5 * (4000 * 3 / 16) ** 0.5)


def test_gaps_stay_what_they_are_when_ids_are_thinned() -> None:
    """Id i comes every 50 samples: so it does in a quarter of the ids."""
    ids = np.arange(20_000) % 50
    samples = np.arange(20_000, dtype=np.int32)
    trail = Trail(share=0.25)
    trail.add(ids, samples)
    lives = Lifetimes.of(*trail.take(), samples)

    assert 0 < lives.ids < 50
    assert lives.gap_percentiles()[0] == [50] * 4


def test_the_largest_table_is_thinned_first(config: DataConfig) -> None:
    """So much memory that two tables do not fit whole, and the small one does."""
    whole = read(config, [0, 1], 10, 10)
    kept = [trail.kept for trail in whole.trails]
    memory = HELD_BYTES * sum(kept) + WORK_BYTES * max(kept) - 1
    thinned = read(config, [0, 1], 10, 10, memory=memory)

    assert [trail.share for trail in thinned.trails] == [0.5, 1.0]
    assert [trail.lookups for trail in thinned.trails] == kept
    left = [trail.kept for trail in thinned.trails]
    assert HELD_BYTES * sum(left) + WORK_BYTES * max(left) <= memory


def test_memory_holds_no_more_than_promised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three tables of distinct ids, an eighth of the memory that all of them need."""
    monkeypatch.setattr(sightings, "PIECE", 1 << 10)
    rows, memory = 60_000, 2 << 20
    lines = "".join(f"1,{i},{i * 7919},{i * 104729}\n" for i in range(rows))
    (tmp_path / "log.csv").write_text("y,a,b,c\n" + lines)
    config = DataConfig(
        kind="csv", paths=(str(tmp_path / "log.csv"),), label="y", sparse=("a", "b", "c")
    )
    read(config, [0, 1, 2], 64, 1)
    tracemalloc.start()
    sample = read(config, [0, 1, 2], 64, 1 << 20, memory=memory)
    base = 1 << 20  # a block of text
    base += 4 * 2 * rows  # the batch of every sample, and its pieces
    for trail in sample.trails:
        Lifetimes.of(*trail.take(), sample.batch_of)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert sample.samples == rows
    assert all(trail.share < 0.5 for trail in sample.trails)
    assert peak < 2 * memory + base


def test_every_table_gets_its_own(config: DataConfig) -> None:
    """Two tables with an id in common do not mix."""
    by_table: dict[int, set[int]] = defaultdict(set)
    for table, trail in enumerate(read(config, [0, 1], 10, 2).trails):
        by_table[table] = set(trail.take()[0].tolist())

    assert by_table == {0: {0, 1, 2, 3, 4}, 1: set(range(20))}
