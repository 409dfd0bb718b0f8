"""Any order of plans, training, readings and releases leaves what a dictionary would hold."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)
from numpy.typing import NDArray
from pad_model import IDS, LR, Model, Records, random_records, random_segments, tile_specs
from slow_disk import SlowTier

from fourfold.storage import Pad, RowSpec, Segment, SegmentedRequest, Ticket
from fourfold.storage.tier import HostTier

PAD, HOST, FILE = 70_000, {"host": 240_000, "host+file": 200_000}, 2**18
"""Budgets: two to four batches in the pad; a fifth of the rows in the host tier above a file."""
SIZE = 8
"""Most rows of a tile in a batch."""
TILES = 4
SEEDS = st.integers(0, 2**32 - 1)
PACES = st.sampled_from([0.0, 0.001, 0.004])

Window = tuple[Pad, HostTier, SlowTier | None]
MakeWindow = Callable[[list[RowSpec], str], Window]


@dataclass
class Out:
    """A ticket that is not released."""

    ticket: Ticket
    segments: list[Segment]
    request: SegmentedRequest
    train: bool
    before: list[NDArray[np.float32]]
    """Weights when it was planned."""


class PadMachine(RuleBasedStateMachine):
    make_window: MakeWindow
    tiers: str

    @initialize(full=st.booleans(), seed=SEEDS, read_s=PACES, write_s=PACES)
    def begin(self, full: bool, seed: int, read_s: float, write_s: float) -> None:
        self.specs = tile_specs()
        self.pad, self.host, self.file = self.make_window(self.specs, self.tiers)
        self.model = Model.of(self.specs)
        self.coming: list[list[Segment]] = []
        self.out: list[Out] = []
        self.step = 0
        if full:
            order = np.random.default_rng(seed).permutation(IDS).astype(np.int64)
            for ids in np.array_split(order, IDS // SIZE + 1):
                self.plan_training([Segment(tile, ids) for tile in range(TILES)])
                self.update(0, seed)
                self.release(0)
        self.pace(read_s, write_s)

    # ---- training --------------------------------------------------------------------------------

    @rule(seed=SEEDS, size=st.integers(1, SIZE))
    def foresee(self, seed: int, size: int) -> None:
        if len(self.coming) == 4:
            return
        self.coming.append(random_segments(TILES, size, np.random.default_rng(seed)))
        self.pad.foresee(SegmentedRequest.of(self.coming[-1]))

    @rule()
    def forget_foreseen(self) -> None:
        self.pad.forget_foreseen()
        self.coming.clear()

    @rule(seed=SEEDS, size=st.integers(1, SIZE))
    def plan(self, seed: int, size: int) -> None:
        """The next batch that was foreseen, or one that was not."""
        if self.coming:
            segments = self.coming[0]
        else:
            segments = random_segments(TILES, size, np.random.default_rng(seed))
        if self.plan_training(segments):
            del self.coming[:1]

    def plan_training(self, segments: list[Segment]) -> bool:
        """False without room, which is right as long as tickets are out."""
        request = SegmentedRequest.of(segments)
        ticket = self.pad.try_plan(request, True)
        for _ in range(100):
            if ticket is not None or self.out:
                break
            self.pad.wait_for_room(0.1)
            ticket = self.pad.try_plan(request, True)
        if ticket is None:
            assert self.out, "no room, though no ticket is out"
            return False
        self.model.create(segments)
        before = [self.model.weights(segment) for segment in segments]
        self.out.append(Out(ticket, segments, request, True, before))
        return True

    @rule(seed=SEEDS, size=st.integers(1, SIZE))
    def plan_reading(self, seed: int, size: int) -> None:
        segments = random_segments(TILES, size, np.random.default_rng(seed))
        request = SegmentedRequest.of(segments)
        ticket = self.pad.try_plan(request, False)
        assert ticket is not None
        held = [id in self.model.rows[s.tile] for s in segments for id in s.ids.tolist()]
        assert ticket.missing == held.count(False)
        before = [self.model.weights(segment) for segment in segments]
        self.out.append(Out(ticket, segments, request, False, before))

    @rule(which=st.integers(0, 99))
    def gather(self, which: int) -> None:
        """A reader may see a row as it was when planned, if it was below the pad then."""
        if not self.out:
            return
        out = self.out[which % len(self.out)]
        now = [self.model.weights(segment) for segment in out.segments]
        replies = [np.full_like(rows, np.nan) for rows in now]
        self.pad.wait(out.ticket)
        self.pad.gather(out.ticket, out.request.addresses(replies), "fp32")
        for reply, old, new in zip(replies, out.before, now, strict=True):
            right = (reply == new).all(axis=1)
            if not out.train:
                right |= (reply == old).all(axis=1)
            assert right.all()

    @rule(which=st.integers(0, 99), seed=SEEDS)
    def update(self, which: int, seed: int) -> None:
        training = [out for out in self.out if out.train]
        if not training:
            return
        out = training[which % len(training)]
        rng = np.random.default_rng(seed)
        gradients = [rng.integers(-8, 9, rows.shape).astype(np.float32) for rows in out.before]
        self.step += 1
        self.pad.wait(out.ticket)
        self.pad.update(out.ticket, out.request.addresses(gradients), "fp32", LR, self.step)
        self.model.update(out.segments, gradients)

    @rule(which=st.integers(0, 99))
    def release(self, which: int) -> None:
        """Trained or not, arrived or not, in any order."""
        if self.out:
            self.pad.release(self.out.pop(which % len(self.out)).ticket)

    @rule(seed=SEEDS)
    def train_oldest(self, seed: int) -> None:
        """What a step does."""
        if not self.out:
            return
        self.gather(0)
        if self.out[0].train:
            self.update(0, seed)
        self.release(0)

    def train_all(self, seed: int) -> None:
        """So that no ticket is out, and no batch is to come."""
        while self.out:
            self.train_oldest(seed)
        self.forget_foreseen()

    # ---- rows by id ------------------------------------------------------------------------------

    @rule(tile=st.integers(0, TILES - 1))
    def read(self, tile: int) -> None:
        ids = np.arange(IDS)
        records, found = self.pad.read(tile, ids)
        assert found.tolist() == [id in self.model.rows[tile] for id in ids.tolist()]
        self.check(tile, ids, records)

    @rule(tile=st.integers(0, TILES - 1))
    def scan(self, tile: int) -> None:
        chunks = list(self.pad.scan(tile, chunk_rows=7))
        ids = [id for chunk, _ in chunks for id in chunk.tolist()]
        assert sorted(ids) == sorted(self.model.rows[tile])
        for chunk, records in chunks:
            self.check(tile, chunk, records)

    @rule(tile=st.integers(0, TILES - 1), seed=SEEDS, size=st.integers(0, SIZE))
    def write(self, tile: int, seed: int, size: int) -> None:
        self.train_all(seed)
        rng = np.random.default_rng(seed)
        ids = rng.permutation(IDS)[:size]
        records = random_records(self.specs[tile], size, rng)
        self.pad.write(tile, ids, records)
        self.model.rows[tile] |= dict(zip(ids.tolist(), records, strict=True))

    @rule(tile=st.integers(0, TILES - 1), seed=SEEDS, size=st.integers(0, 2 * SIZE))
    def erase(self, tile: int, seed: int, size: int) -> None:
        self.train_all(seed)
        ids = np.random.default_rng(seed).permutation(IDS)[:size]
        held = [self.model.rows[tile].pop(id, None) is not None for id in ids.tolist()]
        assert self.pad.erase(tile, ids) == sum(held)

    def check(self, tile: int, ids: NDArray[np.int64], records: Records) -> None:
        for id, record in zip(ids.tolist(), records, strict=True):
            assert record.tobytes() == self.model.row(tile, id).tobytes()

    # ---- always ----------------------------------------------------------------------------------

    @rule(read_s=PACES, write_s=PACES)
    def pace(self, read_s: float, write_s: float) -> None:
        if self.file is not None:
            self.file.pace.read_s, self.file.pace.write_s = read_s, write_s

    @invariant()
    def budgets_hold(self) -> None:
        assert self.pad.bytes <= PAD
        assert self.host.bytes <= HOST[self.tiers]
        assert self.file is None or self.file.bytes <= FILE

    @invariant()
    def every_row_is_counted(self) -> None:
        for tile in range(TILES):
            assert self.pad.tile_rows(tile) == len(self.model.rows[tile])

    def teardown(self) -> None:
        if not hasattr(self, "pad"):
            return
        try:
            for tile in range(TILES):
                self.scan(tile)
            self.pad.close()
            self.check_tiers()
        finally:
            self.pad.close()
            if self.file is not None:
                self.file.close()

    def check_tiers(self) -> None:
        """Below the pad no row lies that is not the row, even if nobody would look there."""
        for tile in range(TILES):
            for tier in (self.host, self.file):
                for ids, records in tier.scan(tile) if tier is not None else ():
                    assert set(ids.tolist()) <= set(self.model.rows[tile])
                    self.check(tile, ids, records)


@pytest.fixture
def make_window(tmp_path: Path) -> MakeWindow:
    """Make a pad and the tiers below it; the caller closes them."""
    number = itertools.count()

    def make(specs: list[RowSpec], tiers: str) -> Window:
        host = HostTier(specs, budget_bytes=HOST[tiers])
        file = None
        if tiers == "host+file":
            path = tmp_path / f"{next(number)}.h5"
            small = {"buffer_bytes": 2**14, "segment_bytes": 2**14}
            file = SlowTier(specs, path, run="r", budget_bytes=FILE, **small)
        return Pad(specs, budget_bytes=PAD, host=host, file=file, threads=2), host, file

    return make


@pytest.mark.parametrize("tiers", list(HOST))
def test_any_history_leaves_what_a_dictionary_holds(make_window: MakeWindow, tiers: str) -> None:
    machine = type(
        "Machine", (PadMachine,), {"make_window": staticmethod(make_window), "tiers": tiers}
    )
    checks = list(HealthCheck)
    run_state_machine_as_test(
        machine,
        settings=settings(max_examples=60, stateful_step_count=40, suppress_health_check=checks),
    )


def test_a_reader_is_released_when_its_rows_have_been_read(make_window: MakeWindow) -> None:
    """Before that, memory that it was lent would be written while it has another use."""
    specs = tile_specs()
    pad, _, file = make_window(specs, "host+file")
    assert file is not None
    for ids in np.array_split(np.arange(IDS), IDS // SIZE + 1):
        request = SegmentedRequest.of([Segment(tile, ids) for tile in range(TILES)])
        ticket = pad.plan(request, True)
        pad.wait(ticket)
        pad.release(ticket)
    before = file.pace.reads_begun
    file.pace.read_s = 0.1
    reading = pad.plan(SegmentedRequest.of([Segment(0, np.arange(SIZE))]), False)

    pad.release(reading)

    assert file.pace.reads_done == file.pace.reads_begun > before
    pad.close()
    file.close()
