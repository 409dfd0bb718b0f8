"""`fourfold bench store`: rows of the pad against the machine's limit, and the key index.

The limit is measured in the same run: prefetching C++ loops over a plain aligned table
(storage/native/bench_rows.cpp), at whichever of several prefetch distances is best, and the speed
of a stream. Ours and the reference take turns on the same ids, so that whatever else the machine
does hits both; ratios above 1 mean that ours is faster.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fourfold.jobs import bench_index
from fourfold.storage import (
    Pad,
    RowSpec,
    RowWiseAdagrad,
    Segment,
    SegmentedRequest,
    Ticket,
    Uniform,
    _native,
)

HELP = "measure rows and the key index against the machine's limits"

LOOKUPS = 655_360  # per call, at any pooling
STEP_LOOKUPS = 163_840  # of a training step: 8,192 bags of 20
DISTANCES = (4, 8, 16, 32, 64)  # rows that the reference may look ahead
ZIPF = 1.05
CHUNK = 1 << 20  # rows created at a time
PARTS = ("gather", "update", "kinds", "step", "index")

Ids = NDArray[np.int64]
Call = Callable[[int], object]
Seconds = dict[str, list[float]]


@dataclass(frozen=True, slots=True)
class Result:
    """One comparison. Rates are million rows (or lookups) per second."""

    what: str
    dim: int
    pooling: int
    ids: str
    threads: int
    ours: float
    ours_best: float
    reference: float
    reference_best: float
    against: str

    @property
    def ratio(self) -> float:
        """Median over median."""
        return self.ours / self.reference

    @property
    def ratio_best(self) -> float:
        """Best over best."""
        return self.ours_best / self.reference_best


def draw(rows: int, n: int, skewed: bool, rng: np.random.Generator) -> Ids:
    """Draw ids (n,) in [0, rows): uniform, or Zipf with the popular ids spread over the table."""
    if not skewed:
        return rng.integers(0, rows, n)
    power = 1 - ZIPF
    rank = (1 + rng.random(n) * (float(rows) ** power - 1)) ** (1 / power) - 1
    scattered: Ids = (np.minimum(rank, rows - 1).astype(np.int64) * 2654435761 + 12345) % rows
    return scattered


def distinct(ids: Ids) -> Ids:
    """Keep the first of equal ids, in the order in which they come (as an exchange sends them)."""
    first = np.unique(ids, return_index=True)[1]
    return ids[np.sort(first)]


def aligned(rows: int, dim: int) -> NDArray[np.float32]:
    """Make a table (rows, dim) of ones that starts on a cache line, its memory all touched."""
    room = np.ones(rows * dim + 16, np.float32)
    skip = -room.ctypes.data % 64 // 4
    return room[skip : skip + rows * dim].reshape(rows, dim)


def filled_pad(
    rows: int, dim: int, threads: int, *, dynamic: bool = False, dtype: str = "fp32"
) -> Pad:
    """Make a pad with one table whose rows all exist."""
    spec = RowSpec(
        table=0,
        name="bench",
        dim=dim,
        rows=None if dynamic else rows,
        dtype=dtype,
        optimizer=RowWiseAdagrad(),
        init=Uniform(0.01),
    )
    pad = Pad([spec], threads=threads)
    for start in range(0, rows, CHUNK):
        ids = np.arange(start, min(rows, start + CHUNK))
        pad.release(pad.plan(SegmentedRequest.of([Segment(0, ids)]), train=True))
    return pad


def bags_of(ids: Ids, pooling: int) -> SegmentedRequest:
    """Ask for sums of `pooling` consecutive ids, or for rows as they are."""
    if pooling == 1:
        return SegmentedRequest.of([Segment(0, ids)])
    lengths = np.full(len(ids) // pooling, pooling, np.int32)
    return SegmentedRequest.of([Segment(0, ids, lengths)])


def interleave(calls: dict[str, Call], rounds: int) -> Seconds:
    """Let all calls take turns, `rounds` times; the first two rounds only warm up."""
    seconds: Seconds = {name: [] for name in calls}
    for turn in range(rounds + 2):
        for name, call in calls.items():
            start = time.perf_counter()
            call(turn)
            if turn >= 2:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def take_turns(ours: Call, loop: Callable[[int, int], object], rounds: int) -> Seconds:
    """Pick the loop's best prefetch distance, then let it and ours take turns.

    Two only, so that both find the caches as the other left them.
    """

    def at(distance: int) -> Call:
        return lambda turn: loop(turn, distance)

    trial = interleave({str(d): at(d) for d in DISTANCES}, 5)
    best = min(DISTANCES, key=lambda d: float(np.median(trial[str(d)])))
    return interleave({"ours": ours, "reference": at(best)}, rounds)


def compare(
    seconds: Seconds, work: float, ours: str, reference: str, against: str, **labels: Any
) -> Result:
    """Set ours against the reference. `work` is what one call does."""
    rate = [work / float(np.median(seconds[name])) / 1e6 for name in (ours, reference)]
    peak = [work / min(seconds[name]) / 1e6 for name in (ours, reference)]
    return Result(
        ours=rate[0],
        ours_best=peak[0],
        reference=rate[1],
        reference_best=peak[1],
        against=against,
        **labels,
    )


def stream_rates(threads: int, rounds: int) -> dict[str, float]:
    """GB/s of reading and of copying 512 MiB once (copies count both ways)."""
    source, target = aligned(1 << 21, 64).ravel(), aligned(1 << 21, 64).ravel()
    seconds = interleave(
        {
            "read": lambda _: _native.stream_read(source, threads),
            "copy": lambda _: _native.stream_copy(source, target, threads),
        },
        rounds,
    )
    size = source.nbytes / 1e9
    return {
        "read_GBps": size / float(np.median(seconds["read"])),
        "copy_GBps": 2 * size / float(np.median(seconds["copy"])),
    }


def bench_gather(rows: int, threads: Sequence[int], rounds: int) -> Iterator[Result]:
    """Rows and sums against the prefetching gather loop."""
    rng = np.random.default_rng(1)
    for dim in (64, 128):
        count = rows * 64 // dim
        table = aligned(count, dim)
        for n in threads:
            pad = filled_pad(count, dim, n)
            for skewed in (False, True):
                batches = [draw(count, LOOKUPS, skewed, rng) for _ in range(3)]
                for pooling in (1, 20):
                    seconds = gather_turns(pad, table, batches, pooling, n, rounds)
                    yield compare(
                        seconds,
                        LOOKUPS,
                        "ours",
                        "reference",
                        "gather loop",
                        what="gather",
                        dim=dim,
                        pooling=pooling,
                        ids="zipf" if skewed else "uniform",
                        threads=n,
                    )


def gather_turns(
    pad: Pad,
    table: NDArray[np.float32],
    batches: list[Ids],
    pooling: int,
    threads: int,
    rounds: int,
) -> Seconds:
    """Time ours and the loop, in turns, into buffers of the same size."""
    dim = table.shape[1]
    out, reply = aligned(LOOKUPS // pooling, dim), aligned(LOOKUPS // pooling, dim)
    requests = [bags_of(ids, pooling) for ids in batches]
    tickets = [pad.plan(request, train=False) for request in requests]
    addresses = requests[0].addresses([reply])

    def loop(turn: int, distance: int) -> None:
        ids = batches[turn % 3]
        _native.reference_gather(table, ids, pooling, distance, out.ravel(), threads)

    def ours(turn: int) -> None:
        pad.gather(tickets[turn % 3], addresses, "fp32")

    seconds = take_turns(ours, loop, rounds)
    for ticket in tickets:
        pad.release(ticket)
    return seconds


def bench_update(rows: int, threads: Sequence[int], rounds: int) -> Iterator[Result]:
    """Row-wise Adagrad of distinct rows against the prefetching read-modify-write loop."""
    rng = np.random.default_rng(2)
    for dim in (64, 128):
        count = rows * 64 // dim
        table, sums = aligned(count, dim), np.ones(count, np.float32)
        for n in threads:
            pad = filled_pad(count, dim, n)
            for skewed in (False, True):
                batches = [distinct(draw(count, LOOKUPS, skewed, rng)) for _ in range(3)]
                size = min(map(len, batches))
                batches = [ids[:size] for ids in batches]
                seconds = update_turns(pad, table, sums, batches, n, rounds)
                yield compare(
                    seconds,
                    size,
                    "ours",
                    "reference",
                    "update loop",
                    what="update",
                    dim=dim,
                    pooling=1,
                    ids="zipf" if skewed else "uniform",
                    threads=n,
                )


def update_turns(
    pad: Pad,
    table: NDArray[np.float32],
    sums: NDArray[np.float32],
    batches: list[Ids],
    threads: int,
    rounds: int,
) -> Seconds:
    """Time ours and the loop, in turns, with the same gradients."""
    gradient = aligned(len(batches[0]), table.shape[1])
    gradient[:] = 0.01
    requests = [bags_of(ids, 1) for ids in batches]
    tickets = [pad.plan(request, train=True) for request in requests]
    addresses = requests[0].addresses([gradient])

    def loop(turn: int, distance: int) -> None:
        ids = batches[turn % 3]
        _native.reference_update(table, sums, ids, gradient.ravel(), distance, threads)

    def ours(turn: int) -> None:
        pad.update(tickets[turn % 3], addresses, "fp32", 0.01, turn + 1)

    seconds = take_turns(ours, loop, rounds)
    for ticket in tickets:
        pad.release(ticket)
    return seconds


class Step:
    """Plan, forward, backward and update of one table, 20 ids per bag, on one rank."""

    def __init__(self, pad: Pad, batches: list[Ids], wire: str = "fp32", pooling: int = 20) -> None:
        self.pad, self.wire = pad, wire
        self.requests = [bags_of(ids, pooling) for ids in batches]
        dim = pad.specs[0].dim
        out = aligned(len(batches[0]) // pooling, dim)
        out[:] = 0.01
        if wire != "fp32":
            out = np.zeros(out.shape, np.uint16)
        self.rows = out
        self.addresses = self.requests[0].addresses([out])
        self.tickets: list[Ticket] = [pad.plan(request, train=True) for request in self.requests]

    def plan(self, turn: int) -> None:
        """Plan a batch and drop the plan."""
        self.pad.release(self.pad.plan(self.requests[turn % len(self.requests)], train=True))

    def gather(self, turn: int) -> None:
        """Forward."""
        self.pad.gather(self.tickets[turn % len(self.tickets)], self.addresses, self.wire)

    def update(self, turn: int) -> None:
        """Backward and optimizer."""
        ticket = self.tickets[turn % len(self.tickets)]
        self.pad.update(ticket, self.addresses, self.wire, 0.01, turn + 1)

    def whole(self, turn: int) -> None:
        """All of it, one after the other; in training, `plan` runs ahead beside other work."""
        request = self.requests[turn % len(self.requests)]
        ticket = self.pad.plan(request, train=True)
        self.pad.gather(ticket, self.addresses, self.wire)
        self.pad.update(ticket, self.addresses, self.wire, 0.01, turn + 1)
        self.pad.release(ticket)


def bench_kinds(rows: int, threads: Sequence[int], rounds: int) -> Iterator[Result]:
    """Dynamic tables against static ones, and 16-bit rows against fp32 rows."""
    rng = np.random.default_rng(3)
    for n in threads:
        for skewed in (False, True):
            batches = [draw(rows, STEP_LOOKUPS, skewed, rng) for _ in range(4)]
            fp32 = Step(filled_pad(rows, 64, n), batches)
            others = {
                "dynamic": (Step(filled_pad(rows, 64, n, dynamic=True), batches), "static"),
                "bf16": (Step(filled_pad(rows, 64, n, dtype="bf16"), batches, "bf16"), "fp32"),
                "fp16": (Step(filled_pad(rows, 64, n, dtype="fp16"), batches, "fp16"), "fp32"),
            }
            for part in ("plan", "gather", "update", "whole"):
                calls = {name: getattr(step, part) for name, (step, _) in others.items()}
                seconds = interleave({"fp32 static": getattr(fp32, part)} | calls, rounds)
                for name, (_, against) in others.items():
                    yield compare(
                        seconds,
                        STEP_LOOKUPS,
                        name,
                        "fp32 static",
                        against,
                        what=f"{name} {part}",
                        dim=64,
                        pooling=20,
                        ids="zipf" if skewed else "uniform",
                        threads=n,
                    )


def fbgemm_step(rows: int, batches: list[Ids], threads: int) -> Call | None:
    """The same step in FBGEMM, if it is installed."""
    try:
        import torch
        from fbgemm_gpu.split_embedding_configs import EmbOptimType
        from fbgemm_gpu.split_table_batched_embeddings_ops_common import (
            BoundsCheckMode,
            EmbeddingLocation,
            PoolingMode,
        )
        from fbgemm_gpu.split_table_batched_embeddings_ops_training import (
            ComputeDevice,
            SplitTableBatchedEmbeddingBagsCodegen,
        )
    except ImportError:
        return None
    torch.set_num_threads(threads)
    layer = SplitTableBatchedEmbeddingBagsCodegen(
        [(rows, 64, EmbeddingLocation.HOST, ComputeDevice.CPU)],
        optimizer=EmbOptimType.EXACT_ROWWISE_ADAGRAD,
        learning_rate=0.01,
        eps=1e-8,
        pooling_mode=PoolingMode.SUM,
        bounds_check_mode=BoundsCheckMode.NONE,
    )
    layer.init_embedding_weights_uniform(-0.01, 0.01)
    offsets = torch.arange(0, STEP_LOOKUPS + 1, 20)
    gradient = torch.full((STEP_LOOKUPS // 20, 64), 0.01)
    ids = [torch.from_numpy(batch) for batch in batches]
    return lambda turn: layer(ids[turn % len(ids)], offsets).backward(gradient)


def bench_step(rows: int, threads: Sequence[int], rounds: int) -> Iterator[Result]:
    """Forward, backward and update of 163,840 lookups, against FBGEMM; our parts one by one."""
    rng = np.random.default_rng(4)
    for n in threads:
        pad = filled_pad(rows, 64, n)
        for skewed in (False, True):
            batches = [draw(rows, STEP_LOOKUPS, skewed, rng) for _ in range(4)]
            step = Step(pad, batches)
            calls: dict[str, Call] = {
                "step": step.whole,
                "step, planned ahead": lambda turn, step=step: (  # type: ignore[misc]
                    step.gather(turn),
                    step.update(turn),
                ),
                "plan": step.plan,
                "gather": step.gather,
                "update": step.update,
            }
            peer = fbgemm_step(rows, batches, n)
            if peer is not None:
                calls["FBGEMM"] = peer
            seconds = interleave(calls, rounds)
            against = "step" if peer is None else "FBGEMM"
            for name in calls:
                yield compare(
                    seconds,
                    STEP_LOOKUPS,
                    name,
                    against,
                    against,
                    what=name,
                    dim=64,
                    pooling=20,
                    ids="zipf" if skewed else "uniform",
                    threads=n,
                )


def print_head() -> None:
    """Print the names of the columns."""
    print(
        f"{'':<22} {'dim':>4} {'pool':>4} {'ids':>8} {'threads':>7} {'ours M/s':>9} {'(best)':>8} "
        f"{'ref M/s':>9} {'(best)':>8} {'ratio':>6} {'(best)':>7}  against"
    )


def print_result(result: Result) -> None:
    """Print one line."""
    print(
        f"{result.what:<22} {result.dim:4} {result.pooling:4} {result.ids:>8} {result.threads:7} "
        f"{result.ours:9.1f} {result.ours_best:8.1f} {result.reference:9.1f} "
        f"{result.reference_best:8.1f} {result.ratio:6.2f} {result.ratio_best:7.2f}  "
        f"{result.against}",
        flush=True,
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the command."""
    parser.add_argument("--rows", type=int, default=5_000_000, help="rows of 64 columns per table")
    parser.add_argument("--keys", type=int, nargs="+", default=[10_000_000], help="index sizes")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=15, help="turns per measurement")
    parser.add_argument("--part", choices=PARTS, nargs="+", default=list(PARTS))
    parser.add_argument("--json", action="store_true", help="one JSON object per line")


def run(args: argparse.Namespace) -> int:
    """Measure the chosen parts; 0, or 1 if the index gave a wrong answer."""
    for n in args.threads:
        rates = stream_rates(n, args.rounds)
        if args.json:
            print(json.dumps({"stream": {"threads": n} | rates}))
        else:
            print(
                f"stream, {n} threads: read {rates['read_GBps']:.1f} GB/s, "
                f"copy {rates['copy_GBps']:.1f} GB/s"
            )
    parts = {
        "gather": bench_gather,
        "update": bench_update,
        "kinds": bench_kinds,
        "step": bench_step,
    }
    chosen = [parts[name] for name in args.part if name in parts]
    if chosen and not args.json:
        print_head()
    for part in chosen:
        for result in part(args.rows, args.threads, args.rounds):
            if args.json:
                ratios = {"ratio": result.ratio, "ratio_best": result.ratio_best}
                print(json.dumps({"rows": asdict(result) | ratios}), flush=True)
            else:
                print_result(result)
    if "index" not in args.part:
        return 0
    return bench_index.run(
        num_keys=args.keys, threads=args.threads, rounds=args.rounds, as_json=args.json
    )
