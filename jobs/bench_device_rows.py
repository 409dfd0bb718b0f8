"""Rows of `fourfold bench device`: gather+pool and backward+update against the copy bandwidth.

The settings are those of FBGEMM's benchmark, and one as large as training is. Plans are made
before: the host's work on them is told apart. Where fbgemm_gpu is installed, it does the same on
the same ids, in turn (bench_fbgemm.py).

Two counts of bytes:

    least   what must move at least: every distinct row once, gradients and outputs once, and what
            the kernels read of the plan. Its share of the copy bandwidth has the target, 0.85.
    looked up   as FBGEMM counts: a row for every id, and the outputs; the same twice for backward.
            Caches can make it more than the memory gives.

In the large setting ids name a row 1.8 times, too far apart for a cache: gather moves 12.0 GB in
fp32, of which 7.2 are the least, so its share stays near 0.6 however fast it is, and that of update
near it, which reads a gradient for every id. There FBGEMM on the same ids is the measure.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from fourfold.comm.route import WIRE_BYTES
from fourfold.jobs.bench_device_pad import (
    Batch,
    Planned,
    budget_of,
    fill,
    make_pad,
    make_specs,
)
from fourfold.jobs.bench_fbgemm import Fbgemm
from fourfold.jobs.bench_session import Call, Session, Timing
from fourfold.storage import SGD, RowWiseAdagrad
from fourfold.storage.optimizer import Optimizer

TARGET = 0.85
OPTIMIZERS: dict[str, Optimizer] = {"sgd": SGD(), "rowwise_adagrad": RowWiseAdagrad()}
DTYPES = ("fp32", "fp16")


@dataclass(frozen=True, slots=True)
class Setting:
    """Tables and batches."""

    name: str
    tables: int
    rows: int
    """Of a table."""
    batch: int
    pooling: int
    turns: int
    """Different batches, one after the other: together far more than a cache holds."""
    dim: int = 128

    @property
    def ids(self) -> int:
        """Of a batch."""
        return self.tables * self.batch * self.pooling

    @property
    def bags(self) -> int:
        """Of a batch."""
        return self.tables * self.batch

    @property
    def needs(self) -> int:
        """Memory of the device: the rows, outputs and gradients, and plans."""
        rows = self.tables * self.rows * (self.dim * 4 + 16)
        return rows + 3 * self.bags * self.dim * 4 + (self.turns + 1) * self.ids * 64


SETTINGS = (
    Setting("standard", tables=32, rows=100_000, batch=512, pooling=20, turns=8),
    Setting("large", tables=16, rows=1_000_000, batch=131_072, pooling=10, turns=2),
)
SMALL = (
    Setting("standard", tables=4, rows=1000, batch=16, pooling=20, turns=2, dim=32),
    Setting("large", tables=2, rows=400, batch=128, pooling=10, turns=2, dim=32),
)


@dataclass(frozen=True, slots=True)
class Counts:
    """What a batch asks for, over all tables."""

    ids: int
    distinct: int
    bags: int


def gather_bytes(counts: Counts, dim: int, dtype: str, wire: str) -> int:
    """Least bytes of gather+pool: rows, outputs; 8 of the plan per id and bag (address, offset).

    >>> gather_bytes(Counts(ids=6, distinct=5, bags=2), 4, "fp32", "fp16")
    160
    >>> 5 * 4 * 4 + 2 * 4 * 2 + 6 * 8 + 2 * 8
    160
    """
    rows = counts.distinct * dim * WIRE_BYTES[dtype]
    return rows + counts.bags * dim * WIRE_BYTES[wire] + 8 * (counts.ids + counts.bags)


def update_bytes(counts: Counts, dim: int, dtype: str, wire: str, optimizer: Optimizer) -> int:
    """Least bytes of backward+update: rows and their state both ways, gradients once, the plan.

    Of the plan 8 per id (whose gradient), and per row 12 (its address and first id), 4 for its
    state (slot), 8 for rounding (its id).

    >>> update_bytes(Counts(ids=6, distinct=5, bags=2), 4, "fp32", "fp32", RowWiseAdagrad())
    360
    >>> 2 * 5 * (4 * 4 + 4) + 2 * 4 * 4 + 6 * 8 + 5 * (12 + 4)
    360
    """
    state = 4 * (optimizer.row_states + optimizer.element_states * dim)
    row = 2 * (dim * WIRE_BYTES[dtype] + state) + 12
    row += (4 if state else 0) + (8 if dtype != "fp32" else 0)
    return counts.distinct * row + counts.bags * dim * WIRE_BYTES[wire] + 8 * counts.ids


def looked_up_bytes(counts: Counts, dim: int, dtype: str, wire: str) -> int:
    """Bytes of a forward as FBGEMM's benchmark counts: B sum(D) output + B sum(D) L weights.

    Its standard setting, 32 tables, batch 512, pooling 20, dim 128, fp32:

    >>> looked_up_bytes(Counts(ids=32 * 512 * 20, distinct=0, bags=32 * 512), 128, "fp32", "fp32")
    176160768
    >>> 4 * 512 * (32 * 128) + 4 * 512 * (32 * 128) * 20
    176160768
    """
    return dim * (counts.bags * WIRE_BYTES[wire] + counts.ids * WIRE_BYTES[dtype])


@dataclass(frozen=True, slots=True)
class Result:
    """One operation on a batch; milliseconds, and bytes per second over 1e9."""

    setting: str
    who: str
    """fourfold or fbgemm."""
    what: str
    """gather or update. FBGEMM's update sorts the ids, which ours has done in the plan."""
    dtype: str
    """Of rows, outputs and gradients."""
    optimizer: str
    ms: float
    best_ms: float
    host_ms: float
    """To enqueue it."""
    least_bytes: int
    least_gbps: float
    share: float
    """Of the copy bandwidth, by the least bytes; ours should reach TARGET."""
    looked_up_gbps: float
    distinct: int
    """Rows of a batch."""
    plan_ms: float
    """Of the host, ahead of the step; 0 for FBGEMM, which has none."""
    threads: int
    """Of the host."""


def draw(setting: Setting) -> list[Batch]:
    """Draw uniform ids."""
    rng = np.random.default_rng(5)
    shape = (setting.turns, setting.tables, setting.batch * setting.pooling)
    return [list(batch) for batch in rng.integers(0, setting.rows, shape)]


def measure(session: Session, setting: Setting, rounds: int) -> Iterator[Result]:
    """Measure every type of rows with every optimizer."""
    for case in _cases(session, setting, rounds):
        yield from case.measure()


def measure_fbgemm(session: Session, setting: Setting, rounds: int) -> Iterator[Result]:
    """Let FBGEMM do the same."""
    for case in _cases(session, setting, rounds):
        yield from case.measure_fbgemm()


def _cases(session: Session, setting: Setting, rounds: int) -> list[_Case]:
    batches = draw(setting)
    return [
        _Case(session, setting, batches, dtype, optimizer, rounds)
        for dtype in DTYPES
        for optimizer in OPTIMIZERS
    ]


@dataclass(frozen=True, slots=True)
class _Case:
    session: Session
    setting: Setting
    batches: list[Batch]
    dtype: str
    optimizer: str
    rounds: int

    def measure(self) -> Iterator[Result]:
        session, setting = self.session, self.setting
        optimizer = OPTIMIZERS[self.optimizer]
        sizes = (setting.tables, setting.rows, setting.dim)
        specs = make_specs(*sizes, dtype=self.dtype, optimizer=optimizer)
        pad = make_pad(session, specs, budget_of(specs, setting.rows))
        fill(pad, setting.rows)
        planned = Planned(session, pad, self.batches, setting.pooling, self.dtype)
        counts = Counts(setting.ids, planned.distinct, setting.bags)
        calls = {"gather": planned.gather_turn, "update": planned.update_turn}
        for what, call in calls.items():
            yield self._result("fourfold", what, self._time(call), counts, planned.plan_s)
        planned.close()
        session.wait()
        pad.close()

    def measure_fbgemm(self) -> Iterator[Result]:
        setting = self.setting
        sizes = (setting.rows, setting.dim, setting.pooling)
        peer = Fbgemm(*sizes, self.dtype, self.optimizer, self.batches)
        distinct = sum(len(np.unique(ids)) for batch in self.batches for ids in batch)
        counts = Counts(setting.ids, distinct // setting.turns, setting.bags)
        for what, call in {"gather": peer.gather, "update": peer.update}.items():
            yield self._result("fbgemm", what, self._time(call), counts, 0)

    def _time(self, call: Call) -> Timing:
        return self.session.time(call, self.setting.turns, self.rounds)

    def _result(self, who: str, what: str, took: Timing, counts: Counts, plan_s: float) -> Result:
        dim, types = self.setting.dim, (self.dtype, self.dtype)
        looked_up = looked_up_bytes(counts, dim, *types)
        if what == "gather":
            least = gather_bytes(counts, dim, *types)
        else:
            least = update_bytes(counts, dim, *types, OPTIMIZERS[self.optimizer])
            looked_up *= 2
        return Result(
            setting=self.setting.name,
            who=who,
            what=what,
            dtype=self.dtype,
            optimizer=self.optimizer,
            ms=took.median * 1e3,
            best_ms=took.best * 1e3,
            host_ms=took.host * 1e3,
            least_bytes=least,
            least_gbps=least / took.median / 1e9,
            share=least / took.median / self.session.limits.copy,
            looked_up_gbps=looked_up / took.median / 1e9,
            distinct=counts.distinct,
            plan_ms=plan_s * 1e3,
            threads=self.session.threads,
        )
