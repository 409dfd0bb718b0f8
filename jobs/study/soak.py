"""`fourfold study soak`: endless new ids at a fixed budget, by the clock.

The real training path on all ranks that mpirun starts: routing and planning ahead, exchange, step.
Memory of the processes must stay where it was when the budget was full, and so must the speed.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean

import torch
from mpi4py import MPI

from fourfold.jobs.study.model import ClickNet
from fourfold.jobs.study.newcomers import DENSE_FIELDS, FIELDS, Newcomers
from fourfold.jobs.study.plot import plot_over_time
from fourfold.jobs.study.policy import Policy, reclaim_options
from fourfold.runtime.assembly import embedding_bags
from fourfold.runtime.embedding import EmbeddingBags
from fourfold.runtime.errors import ConfigError
from fourfold.runtime.matmul import keep_freed_memory, use_onednn
from fourfold.runtime.table import EmbeddingConfig, TableConfig
from fourfold.runtime.train_config import TrainConfig
from fourfold.runtime.trainer import Trainer

HELP = "endless new ids at a fixed budget: is memory flat, does the speed stay"

TENTHS = 10
FLAT = 0.02
STEADY = 0.95


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the options."""
    parser.add_argument("--out", type=Path, default=Path("runs/study-soak"))
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--intervals", type=int, default=120, help="measurements, all in all")
    parser.add_argument("--by", default="kraken", help='score of rows; "none": they stay')
    parser.add_argument("--rows", type=int, default=1_000_000, help="budget of a rank")
    parser.add_argument("--interval", type=int, default=100, help="batches between two decays")
    parser.add_argument("--dim", type=int, default=16, help="columns of a row")
    parser.add_argument("--batch", type=int, default=2048, help="samples of a step, all ranks")
    parser.add_argument("--lookahead", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1, help="per rank")


@dataclass(frozen=True, slots=True)
class Interval:
    """A stretch of the run, of one rank or of all."""

    minutes: float
    """Since the start, at its end."""
    samples_per_s: float
    resident_bytes: int
    rows: int
    row_bytes: int
    """What the budget is charged."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether the second to the last tenth are alike."""

    resident_change: float
    """Largest relative distance of the resident memory from that of the second tenth."""
    speed: float
    """Of the last tenth against the second."""

    @property
    def passed(self) -> bool:
        """Whether memory is flat and the speed holds."""
        return self.resident_change <= FLAT and self.speed >= STEADY

    def __str__(self) -> str:
        return (
            f"{'PASSED' if self.passed else 'FAILED'}: memory within {self.resident_change:.2%} of"
            f" the second tenth's (at most {FLAT:.0%}), speed of the last tenth {self.speed:.3f} of"
            f" it (at least {STEADY})"
        )


def run(args: argparse.Namespace) -> int:
    """Soak, print, write JSON and plot. Collective over the world."""
    comm = MPI.COMM_WORLD
    if min(args.intervals, args.rows, args.batch) < TENTHS or args.minutes <= 0:
        raise ConfigError(f"--intervals, --rows and --batch: at least {TENTHS}; --minutes: above 0")
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    keep_freed_memory()
    use_onednn()
    bags = make_bags(args, comm)
    try:
        ranks = comm.gather(soak(args, bags, comm))
    finally:
        bags.close()
    passed = True
    if ranks is not None:
        intervals = merge(ranks)
        verdict = judge(intervals)
        passed = verdict.passed
        report(args, comm.size, intervals, verdict)
    return 0 if comm.bcast(passed) else 1


def make_bags(args: argparse.Namespace, comm: MPI.Intracomm) -> EmbeddingBags:
    """Make the tables. Collective."""
    policy = None
    if args.by != "none":
        policy = Policy(by=args.by, rows=args.rows, interval=args.interval)
    per_table, shared = reclaim_options(policy, len(FIELDS))
    tables = [TableConfig(name=name, **own) for name, own in zip(FIELDS, per_table, strict=True)]
    embedding = EmbeddingConfig(dim=args.dim)
    return embedding_bags(tables, comm, embedding=embedding, threads=args.threads, **shared)


def soak(args: argparse.Namespace, bags: EmbeddingBags, comm: MPI.Intracomm) -> list[Interval]:
    """Train until time is up; give this rank's intervals. Collective."""
    share = args.batch * (comm.rank + 1) // comm.size - args.batch * comm.rank // comm.size
    config = TrainConfig(batch_size=args.batch, lookahead=args.lookahead, threads=args.threads)
    model = ClickNet(DENSE_FIELDS, len(FIELDS) * args.dim)
    trainer = Trainer(model, bags, config, embedding_lr=0.02)
    seconds = 60 * args.minutes
    source = Newcomers(share, comm.rank, comm.size, seconds)
    start = before = time.monotonic()
    samples = 0
    intervals: list[Interval] = []
    for _ in trainer.steps(source):
        samples += trainer.global_batch
        now = time.monotonic()
        due = seconds * (len(intervals) + 1) / args.intervals
        if now - start >= due and len(intervals) < args.intervals:
            intervals.append(
                Interval(
                    minutes=(now - start) / 60,
                    samples_per_s=samples / (now - before),
                    resident_bytes=resident_bytes(),
                    rows=bags.pad.rows,
                    row_bytes=bags.pad.bytes,
                )
            )
            before, samples = now, 0
            if comm.rank == 0 and len(intervals) % max(1, args.intervals // TENTHS) == 0:
                print(line(intervals[-1]), flush=True)
    return intervals


def resident_bytes() -> int:
    """Memory of this process that is in use, from /proc."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def merge(ranks: Sequence[Sequence[Interval]]) -> list[Interval]:
    """Add the ranks' memory and rows up. Every rank has counted the samples of all."""
    count = min(len(own) for own in ranks)  # a rank may have ended just before its last
    return [
        Interval(
            minutes=ranks[0][i].minutes,
            samples_per_s=ranks[0][i].samples_per_s,
            resident_bytes=sum(own[i].resident_bytes for own in ranks),
            rows=sum(own[i].rows for own in ranks),
            row_bytes=sum(own[i].row_bytes for own in ranks),
        )
        for i in range(count)
    ]


def judge(intervals: Sequence[Interval]) -> Verdict:
    """Compare what came after the first tenth, in which the budget fills, with the second tenth."""
    if len(intervals) < TENTHS:
        raise ConfigError(f"{len(intervals)} measurements are too few: soak for longer")
    cuts = [len(intervals) * i // TENTHS for i in (1, 2, TENTHS - 1)]
    second, last = intervals[cuts[0] : cuts[1]], intervals[cuts[2] :]
    resident = mean(i.resident_bytes for i in second)
    return Verdict(
        max(abs(i.resident_bytes / resident - 1) for i in intervals[cuts[0] :]),
        mean(i.samples_per_s for i in last) / mean(i.samples_per_s for i in second),
    )


def line(interval: Interval) -> str:
    """One line of progress."""
    return (
        f"{interval.minutes:6.1f} min {interval.samples_per_s:12,.0f} samples/s"
        f" {interval.resident_bytes / 1e6:9,.1f} MB resident {interval.rows:12,} rows"
    )


def report(
    args: argparse.Namespace, ranks: int, intervals: list[Interval], verdict: Verdict
) -> None:
    """Print the verdict, write JSON and plot."""
    print(verdict)
    args.out.mkdir(parents=True, exist_ok=True)
    options = {k: v for k, v in vars(args).items() if isinstance(v, int | float | str)}
    content = {
        "study": "soak",
        "ranks": ranks,
        "options": options,
        "results": asdict(verdict) | {"passed": verdict.passed},
        "intervals": [asdict(interval) for interval in intervals],
    }
    path = args.out / "study.json"
    path.write_text(json.dumps(content, indent=1) + "\n")
    panels = {
        "MB resident": [i.resident_bytes / 1e6 for i in intervals],
        "samples/s": [i.samples_per_s for i in intervals],
        "rows": [float(i.rows) for i in intervals],
    }
    title = f"endless new ids, {ranks} ranks, reclaimed by {args.by}"
    plot_over_time(args.out / "soak.png", [i.minutes for i in intervals], panels, title=title)
    print(f"kept in {path} and {args.out / 'soak.png'}")
