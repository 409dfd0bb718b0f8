"""The step of `fourfold bench tiers`: the same DLRM, its rows in one tier, in two and in three.

    memory   all rows where they are trained
    host     a pad for 1/10 of the rows, the others in host memory
    file     the same pad, 1/20 (`--host-share`) of the bytes of host memory, the rest in a file

All rows exist before anything is measured, and the pads have seen enough batches to know which rows
are hot. Each variant trains on the same stream of batches, none twice; they take turns on it. A
turn begins with steps that are not timed, so that each timed step has the preparation of one batch
beside it. Their losses must be the same bits.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from mpi4py import MPI
from numpy.typing import NDArray

from fourfold.jobs.bench_model import Placed, make_batches, make_trainer, place, timed
from fourfold.runtime.data.batch import Batch
from fourfold.runtime.data.synthetic import criteo_sizes
from fourfold.runtime.matmul import keep_freed_memory, use_onednn
from fourfold.runtime.pipeline import Pipeline
from fourfold.runtime.progress import merge, tier_figures
from fourfold.runtime.tiers import demand
from fourfold.runtime.trainer import STEP_STAGES, Trainer
from fourfold.runtime.world import World
from fourfold.storage import Pad, RowSpec, Segment, SegmentedRequest, StorageConfig, _native

VARIANTS = ("memory", "host", "file")
PAD_SHARE = 1 / 10  # of the bytes that all rows would take there
FILE_SLACK = 1.25
SAMPLES = 6  # batches by which the planner knows the lookups
LEAD = 4  # steps of a turn that are not timed
CHUNK = 65_536  # rows born at a time
PLENTY = 1 << 50
BUSY = ("step", "read", "route", "plan", "fetch_s", "write_s")


@dataclass(frozen=True, slots=True)
class Result:
    """One variant; milliseconds and rows are per step, stages those of the slowest rank."""

    variant: str
    step_ms: float
    best_ms: float
    ratio: float
    """Of the time that `memory` took in the same rounds; 1 is as fast."""
    stages_ms: dict[str, float]
    """Busy: the step, what runs ahead of it, and the pad's threads. They overlap."""
    waits_ms: dict[str, float]
    """Of the step for the stages ahead (`starved`, `fetch_wait`); of a stage for room."""
    overlap: float
    """Sum of the busy stages over the longest: what running them side by side can gain."""
    hidden: float
    """The longest stage over the step as measured: 1 if all else is hidden behind it."""
    traffic: dict[str, float] = field(default_factory=dict)
    """Rows and bytes of all ranks; `hit_rate` of the pad."""


class Stream:
    """A source that gives each batch once."""

    def __init__(self, batches: list[Batch]) -> None:
        self._batches = iter(batches)

    def next_batch(self) -> Batch | None:
        """Give the next one."""
        return next(self._batches, None)


def storage_of(variant: str, args: argparse.Namespace, placed: Placed, rank: int) -> StorageConfig:
    """Share out memory to the tiers of one rank, by what all its rows would take in each."""
    if variant == "memory":
        return StorageConfig()

    def whole(tier: str, storage: StorageConfig) -> int:
        wanted = demand(placed.placement, placed.loads, placed.workload, storage, args.lookahead)
        return int(wanted.tier_bytes[tier][rank])

    pad = int(whole("pad", StorageConfig(pad_bytes=PLENTY)) * PAD_SHARE)
    if variant == "host":
        return StorageConfig(pad_bytes=pad)
    host = whole("host", StorageConfig(pad_bytes=1))
    return StorageConfig(
        pad_bytes=pad,
        host_bytes=int(host * args.host_share),
        file_bytes=int(host * FILE_SLACK),
        direct=not args.buffered,
    )


def all_ids(spec: RowSpec, expected: int) -> NDArray[np.int64]:
    """All ids of a tile, as requests name them; `expected` rows of a dynamic table."""
    if spec.rows is not None:
        return np.arange(_native.bucket_rows(spec.rows, spec.table, spec.bucket, spec.buckets))
    ids = np.arange(expected)
    held: NDArray[np.int64] = ids[
        _native.bucket_of(ids, spec.table, spec.buckets, True) == spec.bucket
    ]
    return held


def fill(pad: Pad, sizes: list[int]) -> None:
    """Let all rows of a rank be born, in order."""
    chunk = max(1, min(CHUNK, sum(sizes) // 100))
    for tile, spec in enumerate(pad.specs):
        ids = all_ids(spec, sizes[spec.table])
        for start in range(0, len(ids), chunk):
            request = SegmentedRequest.of([Segment(tile, ids[start : start + chunk])])
            while (ticket := pad.try_plan(request, True)) is None:
                pad.wait_for_room(0.05)
            pad.wait(ticket)
            pad.release(ticket)


class Variant:
    """A trainer with its rows in some tiers, and what its timed steps were like."""

    def __init__(self, name: str, trainer: Trainer, batches: list[Batch]) -> None:
        self.name = name
        self.trainer = trainer
        self.steps = trainer.steps(Stream(batches))
        self.seconds: list[float] = []
        self.losses: list[float] = []
        self.stages: dict[str, float] = {}
        self.traffic: dict[str, float] = {}
        self.busy: dict[str, float] = {}

    def warm_up(self, batches: list[Batch], lookahead: int) -> None:
        """Bring the pad into the state that training would have left. Collective."""
        bags = self.trainer.bags
        for prepared in Pipeline(Stream(batches), bags.exchange, bags.pad, depth=lookahead):
            bags.pad.wait(prepared.ticket)
            bags.pad.release(prepared.ticket)

    def step(self) -> None:
        """Train on the next batch. Collective."""
        self.losses.append(next(self.steps))

    def turn(self, count: int) -> None:
        """Time `count` steps, all ranks together. Collective."""
        bags = self.trainer.bags
        for _ in range(LEAD):
            self.step()
        self.trainer.take_stage_seconds()
        bags.store.take_traffic()
        self.seconds.append(bags.comm.bcast(timed(bags.comm, self.step, count)))
        traffic, busy = bags.store.take_traffic()
        add(self.stages, self.trainer.take_stage_seconds())
        add(self.traffic, traffic)
        add(self.busy, busy)

    def close(self) -> None:
        """End the threads, close the tiers. Collective."""
        self.steps.close()
        self.trainer.bags.close()

    def result(self, memory: list[float], count: int) -> Result:
        """Sum up turns of `count` steps; `memory`: seconds of the first variant. Collective."""
        steps = count * len(self.seconds)
        own = dict.fromkeys(("fetch_s", "write_s"), 0.0) | self.busy | self.stages
        own["step"] = sum(own[name] for name in STEP_STAGES if name != "fetch_wait")
        merged = merge(self.trainer.bags.comm, self.traffic, own)
        ms = {name: merged[name] / steps * 1e3 for name in own}
        stages = {name.removesuffix("_s"): ms[name] for name in BUSY}
        waits = [name for name in ms if name.endswith(("_wait", "starved", "stalled"))]
        median = statistics.median(self.seconds)
        return Result(
            variant=self.name,
            step_ms=median * 1e3,
            best_ms=min(self.seconds) * 1e3,
            ratio=statistics.median(
                other / own for other, own in zip(memory, self.seconds, strict=True)
            ),
            stages_ms=stages,
            waits_ms={name: ms[name] for name in waits},
            overlap=sum(stages.values()) / max(stages.values()),
            hidden=max(stages.values()) / 1e3 / statistics.mean(self.seconds),
            traffic=tier_figures(merged, steps) if self.traffic else {},
        )


def add(total: dict[str, float], part: dict[str, float]) -> None:
    """Add figures by name."""
    for name, value in part.items():
        total[name] = total.get(name, 0.0) + value


def measure(args: argparse.Namespace) -> list[Result]:
    """Train all variants in turns. Collective over the world."""
    comm = MPI.COMM_WORLD
    world = World.from_mpi(comm)
    torch.set_num_threads(args.threads)
    keep_freed_memory()
    use_onednn()
    sizes = criteo_sizes(args.rows)
    trained = args.rounds * (args.steps + LEAD) + args.lookahead + 1
    batches = make_batches(args, world, sizes, args.warm + trained)
    placed = place(args, world, sizes, comm.bcast(batches[:SAMPLES]))
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory("", "bench-tiers-", args.folder))
        variants = []
        for name in VARIANTS:
            storage = storage_of(name, args, placed, world.rank)
            trainer = make_trainer(args, placed, storage, Path(folder))
            variant = Variant(name, trainer, batches[args.warm :])
            stack.callback(variant.close)
            fill(trainer.bags.pad, sizes)
            variant.warm_up(batches[: args.warm], args.lookahead)
            variants.append(variant)
        for _ in range(args.rounds):
            for variant in variants:
                variant.turn(args.steps)
        if any(variant.losses != variants[0].losses for variant in variants):
            raise SystemExit("fourfold bench tiers: the tiers do not train alike")
        return [variant.result(variants[0].seconds, args.steps) for variant in variants]
