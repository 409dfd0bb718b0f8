"""Dynamic tables of `fourfold bench device`: against static ones, and the work on keys on a GPU.

tables    ten dynamic tables against the same ten as static ones, 1,048,570 Zipf ids a batch.
          Target: gather + update within 1.1 of static.
index     DeviceIndex: finds of which 90% are present (target 2e9 keys/s at 10 and 50 million
          keys), inserts of new keys, erasures. Limit: as many random reads of a bucket.
ids       DeviceIds: distinct ids of a batch, and positions grouped by slot. Limit: their arrays
          in and out once, at the copy bandwidth.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from fourfold.jobs.bench_device_pad import Batch, Planned, budget_of, fill, make_pad, make_specs
from fourfold.jobs.bench_index import key_of
from fourfold.jobs.bench_session import Session, Timing
from fourfold.runtime.data.synthetic import zipf_ids
from fourfold.storage.device_ids import DeviceIds
from fourfold.storage.device_index import DeviceIndex

MOST_RATIO = 1.1
FIND_TARGET = 2e9
HIT_RATE = 0.9
ZIPF = 1.05
KEY_BYTES = 26  # of an index, at most
STEPS = ("gather", "update", "step")


@dataclass(frozen=True, slots=True)
class Setting:
    """Tables, batches and keys."""

    tables: int = 10
    ids: int = 104_857
    """Of a table in a batch: 1,048,570 in all."""
    rows: int = 1_000_000
    """Of a table."""
    dim: int = 128
    turns: int = 4
    keys: tuple[int, ...] = (10_000_000, 50_000_000)
    find: int = 1 << 22
    """Keys of a find,"""
    insert: int = 1 << 20
    """of an insert or an erasure."""

    @property
    def needs(self) -> int:
        """Memory of the device: the tables twice and batches, or the largest index as it grows."""
        ids = self.tables * self.ids
        rows = 2 * self.tables * self.rows * (self.dim * 4 + 16)
        tables = rows + 4 * ids * self.dim * 4 + 2 * (self.turns + 1) * ids * 64
        return max(tables, 2 * KEY_BYTES * max(self.keys) + 64 * (self.find + self.insert))


FULL = Setting()
SMALL = Setting(tables=3, ids=500, rows=1000, dim=32, turns=2, keys=(5000,), find=2000, insert=1000)


@dataclass(frozen=True, slots=True)
class Tables:
    """Milliseconds of a batch, and dynamic over static."""

    what: str
    """gather, update, step (both), or plan: that of the host, ahead of the step."""
    dynamic_ms: float
    static_ms: float
    ratio: float
    """Of `step` at most MOST_RATIO."""
    ids: int
    threads: int


@dataclass(frozen=True, slots=True)
class Keys:
    """One operation on keys or ids."""

    what: str
    """find, insert, erase; distinct, group."""
    present: int
    """Keys in the index before; 0 for operations without one."""
    batch: int
    keys_per_s: float
    best_keys_per_s: float
    share: float
    """Of the limit: random reads of a bucket per second, or the copy bandwidth."""


def measure(session: Session, setting: Setting, rounds: int) -> Iterator[Tables | Keys]:
    """Measure tables, index and ids."""
    yield from measure_tables(session, setting, rounds)
    for keys in setting.keys:
        yield from measure_index(session, setting, keys, rounds)
    yield from measure_ids(session, setting, rounds)


def measure_tables(session: Session, setting: Setting, rounds: int) -> Iterator[Tables]:
    """Set dynamic tables against static ones, on the same ids."""
    rng = np.random.default_rng(6)
    batches: list[Batch] = [
        [zipf_ids(rng, setting.ids, setting.rows, ZIPF) for _ in range(setting.tables)]
        for _ in range(setting.turns)
    ]
    both = []
    for dynamic in (True, False):
        specs = make_specs(setting.tables, setting.rows, setting.dim, dynamic=dynamic)
        pad = make_pad(session, specs, budget_of(specs, setting.rows))
        fill(pad, setting.rows)
        both.append(Planned(session, pad, batches, 1, "fp32"))
    ids = setting.tables * setting.ids
    for what in STEPS:
        calls = [{"gather": p.gather_turn, "update": p.update_turn, "step": p.step} for p in both]
        mine, other = (session.time(call[what], setting.turns, rounds).median for call in calls)
        yield Tables(what, mine * 1e3, other * 1e3, mine / other, ids, session.threads)
    mine, other = (planned.plan_s for planned in both)
    yield Tables("plan", mine * 1e3, other * 1e3, mine / other, ids, session.threads)
    for planned in both:
        planned.close()


def measure_index(session: Session, setting: Setting, present: int, rounds: int) -> Iterator[Keys]:
    """Measure an index that has grown to so many keys."""
    index = DeviceIndex(session.device)
    slots = session.empty(4 * max(setting.find, setting.insert))
    for first in range(0, present, setting.insert):
        new = key_of(np.arange(first, min(present, first + setting.insert), dtype=np.uint64))
        memory = session.upload(new)
        index.insert(memory.address, slots.address, len(new), first=first, stream=session.stream)
        session.wait()  # before the keys' memory goes

    def result(what: str, batch: int, took: Timing) -> Keys:
        share = batch / took.median / session.limits.random_reads
        return Keys(what, present, batch, batch / took.median, batch / took.best, share)

    rng = np.random.default_rng(8)
    queries = []
    for _ in range(setting.turns):
        number = rng.integers(0, present, setting.find, dtype=np.uint64)
        number[rng.random(setting.find) > HIT_RATE] += np.uint64(1 << 40)
        queries.append(session.upload(key_of(number)))

    def find(turn: int) -> None:
        index.find(queries[turn].address, slots.address, setting.find, session.stream)

    yield result("find", setting.find, session.time(find, setting.turns, rounds))
    new = key_of(np.arange(1 << 41, (1 << 41) + setting.insert, dtype=np.uint64))
    fresh = session.upload(new)

    def insert() -> None:
        index.insert(fresh.address, slots.address, len(new), first=present, stream=session.stream)

    def erase() -> None:
        index.erase(fresh.address, len(new), stream=session.stream)

    laps = [(session.lap(insert), session.lap(erase)) for _ in range(rounds + 2)][2:]
    for what, seconds in zip(("insert", "erase"), zip(*laps, strict=True), strict=True):
        took = Timing(float(np.median(seconds)), min(seconds), 0.0)
        yield result(what, setting.insert, took)


def measure_ids(session: Session, setting: Setting, rounds: int) -> Iterator[Keys]:
    """Measure what a batch's ids need on a device before rows can be moved."""
    n, rows = setting.tables * setting.ids, setting.tables * setting.rows
    batch = zipf_ids(np.random.default_rng(7), n, rows, ZIPF)
    ids = session.upload(batch.astype(np.uint64))
    slots = session.upload(batch.astype(np.uint32))
    device_ids = DeviceIds(session.device)
    out, inverse, first = session.empty(8 * n), session.empty(4 * n), session.empty(4 * (n + 1))

    def distinct(_: int) -> None:
        device_ids.distinct(
            ids.address,
            n,
            distinct=out.address,
            inverse=inverse.address,
            stream=session.stream,
        )

    def group(_: int) -> None:
        device_ids.group(
            slots.address,
            n,
            limit=rows,
            entry=inverse.address,
            group_slot=out.address,
            group_first=first.address,
            stream=session.stream,
        )

    unique = len(np.unique(batch))
    # In: ids, or slots. Out: place of each and the distinct ones; entries, slots and first of each.
    least = {"distinct": 12 * n + 8 * unique, "group": 8 * n + 8 * unique}
    for what, call in (("distinct", distinct), ("group", group)):
        took = session.time(call, 1, rounds)  # a batch is small: only its first use is cold
        share = least[what] / took.median / session.limits.copy
        yield Keys(what, 0, n, n / took.median, n / took.best, share)
