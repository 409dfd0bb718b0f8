"""`fourfold bench store`: rows and plans of the pad against the machine's limit, and the index.

The limit is measured in the same run: prefetching C++ loops over a plain aligned table
(storage/native/bench_rows.cpp), at whichever of several prefetch distances is best, and the speed
of a stream. Ours and the reference take turns on the same ids, so that whatever else the machine
does hits both; ratios above 1 mean that ours is faster.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict

import numpy as np

from fourfold.jobs import bench_index
from fourfold.jobs.bench_plan import bench_plan
from fourfold.jobs.bench_rows import bench_gather, bench_update
from fourfold.jobs.bench_table_step import bench_kinds, bench_step
from fourfold.jobs.bench_turns import Result, aligned, interleave
from fourfold.storage import _native

HELP = "measure rows and the key index against the machine's limits"

PARTS = ("gather", "update", "kinds", "step", "plan", "index")


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
        "plan": bench_plan,
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
