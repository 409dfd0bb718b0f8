"""Reclamation with tiers below the pad: the same rows go as in one tier, wherever they lie."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from reclaim_pad import Trainer, fresh, ids_of, make, spec

from fourfold.storage import Admission, Pad, ReclaimConfig, RowSpec, Segment, SegmentedRequest
from fourfold.storage.tier import FileTier, HostTier

TIERS = ["host", "file"]


@contextmanager
def tiered(
    specs: Sequence[RowSpec],
    folder: Path,
    tiers: str,
    *,
    pad_bytes: int = 1 << 16,
    host_bytes: int | None = 1 << 20,
    file_bytes: int = 8 << 20,
    window: int = 1,
    **reclaim: object,
) -> Iterator[Pad]:
    """A pad on a host tier, and a file if `tiers` says so."""
    host = HostTier(specs, budget_bytes=host_bytes)
    path = folder / "rows.h5"
    file = None
    if tiers == "file":
        small = {"buffer_bytes": 2**14, "segment_bytes": 2**14}
        file = FileTier(specs, path, run="r", budget_bytes=file_bytes, **small)
    config = ReclaimConfig(admission_bytes=4096, **reclaim)  # type: ignore[arg-type]
    pad = Pad(specs, budget_bytes=pad_bytes, host=host, file=file, reclaim=config)
    pad.plan_ahead(window - 1)
    try:
        yield pad
    finally:
        pad.close()
        if file is not None:
            file.close()


def batches(seed: int, n: int, size: int) -> list[tuple[NDArray[np.int64], float]]:
    """Skewed ids of which new ones keep coming, and a gradient for each batch."""
    rng = np.random.default_rng(seed)
    return [
        (np.unique(rng.zipf(1.3, size) % 1200 + step * 4).astype(np.int64), float(rng.random()))
        for step in range(n)
    ]


def train(pad: Pad, ahead: int, seed: int, n: int = 200, size: int = 120) -> None:
    run = Trainer(pad, ahead)
    for ids, gradient in batches(seed, n, size):
        run.batch(ids, gradient=gradient)
    run.finish()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("by", ["kraken", "recency", "importance", "relative_importance"])
@pytest.mark.parametrize("tiers", TIERS)
def test_the_same_rows_stay_as_in_one_tier(tiers: str, by: str, seed: int, tmp_path: Path) -> None:
    filtered = {"admission": Admission(kind="count", count=2)} if seed == 2 else {}
    specs = [spec(dim=128, time_to_live=60 if seed == 1 else None, **filtered)]
    policy: dict[str, object] = {"by": by, "interval": 5, "rows": 1000, "share": 1.0}
    one = make(specs, window=3, admission_bytes=4096, **policy)
    train(one, 2, seed)
    room = {"pad_bytes": 3 << 16, "host_bytes": 1 << 19 if tiers == "file" else 1 << 20}
    with tiered(specs, tmp_path, tiers, window=3, **room, **policy) as pad:  # type: ignore[arg-type]
        train(pad, seed, seed)
        kept = sorted(ids_of(one))
        assert sorted(ids_of(pad)) == kept
        assert len(kept) > 100
        assert one.population(0).admitted == pad.population(0).admitted
        ids = np.array(kept)
        assert np.array_equal(pad.read(0, ids)[0], one.read(0, ids)[0])
        traffic = pad.take_traffic()
        assert traffic.host_hits > 50
        if tiers == "file":
            assert traffic.file_written_bytes > 0


@pytest.mark.parametrize("tiers", TIERS)
def test_endless_new_ids_fit_the_tiers(tiers: str, tmp_path: Path) -> None:
    with tiered(
        [spec(dim=32)], tmp_path, tiers, host_bytes=1 << 20, file_bytes=4 << 20, by="recency"
    ) as pad:
        run = Trainer(pad)
        for step in range(800):
            run.batch(np.arange(step * 100, step * 100 + 100))
        assert pad.population(0).reclaimed > 40_000
        assert pad.rows > 3000
        first = np.arange(100)
        assert not pad.read(0, first)[1].any()
        assert np.array_equal(pad.weights(0, first), fresh(pad.specs[0], first))


@pytest.mark.parametrize("tiers", TIERS)
def test_a_row_that_comes_back_after_it_went_is_new(tiers: str, tmp_path: Path) -> None:
    policy: dict[str, object] = {"by": "recency", "rows": 400, "interval": 1}
    with tiered([spec(dim=32)], tmp_path, tiers, host_bytes=1 << 18, **policy) as pad:  # type: ignore[arg-type]
        run = Trainer(pad)
        ids = np.arange(60)
        for turn in range(3):
            run.batch(ids)
            got = pad.weights(0, ids)
            assert np.allclose(got, fresh(pad.specs[0], ids) - 0.5, atol=1e-6)
            for step in range(30):
                base = 10_000 * (turn + 1) + step * 60
                run.batch(np.arange(base, base + 60))


@pytest.mark.parametrize("tiers", TIERS)
def test_readers_keep_their_rows(tiers: str, tmp_path: Path) -> None:
    policy: dict[str, object] = {"by": "recency", "rows": 150, "interval": 1, "pad_bytes": 1 << 18}
    with tiered([spec(dim=32)], tmp_path, tiers, **policy) as pad:  # type: ignore[arg-type]
        run = Trainer(pad)
        ids = np.arange(50)
        run.batch(ids)
        weights = pad.weights(0, ids)
        request = SegmentedRequest.of([Segment(0, ids)])
        reader = pad.plan(request, False)
        for step in range(20):
            run.batch(np.arange(1000 + step * 50, 1050 + step * 50), gradient=9.0)
        assert not pad.read(0, ids)[1].any()
        out = np.empty((50, 32), np.float32)
        pad.gather(reader, request.addresses([out]), "fp32")
        assert np.array_equal(out, weights)
        pad.release(reader)


@pytest.mark.parametrize("tiers", TIERS)
def test_refused_ids_train_nothing(tiers: str, tmp_path: Path) -> None:
    never = Admission(kind="probability", probability=1e-12)
    specs = [spec(0, dim=32, admission=never, absent="zeros"), spec(1, dim=32)]
    with tiered(specs, tmp_path, tiers) as pad:
        ids = np.arange(40)
        request = SegmentedRequest.of([Segment(0, ids), Segment(1, ids)])
        ticket = pad.plan(request, True)
        assert (ticket.missing, ticket.unique) == (40, 40)
        out = [np.full((40, 32), 7, np.float32) for _ in range(2)]
        pad.gather(ticket, request.addresses(out), "fp32")
        assert not out[0].any()
        assert np.array_equal(out[1], fresh(specs[1], ids))
        ones = np.ones((40, 32), np.float32)
        pad.update(ticket, request.addresses([ones, ones]), "fp32", 0.5, 1)
        pad.release(ticket)
        assert pad.tile_rows(0) == 0
        assert np.allclose(pad.weights(1, ids), fresh(specs[1], ids) - 0.5)


def test_a_full_host_tier_forgets_rows_before_it_gives_up(tmp_path: Path) -> None:
    """A budget that asks for more rows than there is memory."""
    policy: dict[str, object] = {"by": "recency", "rows": 10**6, "share": 1.0}
    with tiered([spec(dim=32)], tmp_path, "host", host_bytes=1 << 19, **policy) as pad:  # type: ignore[arg-type]
        run = Trainer(pad)
        for step in range(300):
            run.batch(np.arange(step * 50, step * 50 + 50))
        assert pad.population(0).reclaimed > 5000


def test_tiles_of_one_table_forget_the_same_rows(tmp_path: Path) -> None:
    """Two ranges of the columns have the same keys, and each rows of its own."""
    specs = [spec(dim=128), spec(dim=128, column=128)]
    policy: dict[str, object] = {"by": "recency", "interval": 5, "rows": 600, "share": 1.0}
    one = make(specs, window=3, **policy)
    with tiered(specs, tmp_path, "host", pad_bytes=3 << 17, window=3, **policy) as pad:  # type: ignore[arg-type]
        for each in (one, pad):
            run = Trainer(each)
            for ids, gradient in batches(0, 200, 120):
                run.batch({0: ids, 1: ids}, gradient=gradient)
        for tile in range(2):
            assert sorted(ids_of(pad, tile)) == sorted(ids_of(one, tile))
        ids = np.array(sorted(ids_of(one)))
        assert len(ids) > 100
        assert np.array_equal(pad.read(1, ids)[0], one.read(1, ids)[0])
        admitted = {each.population(tile).admitted for each in (one, pad) for tile in range(2)}
        assert len(admitted) == 1  # how far sweeps have come decides nothing
