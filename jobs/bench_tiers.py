"""`fourfold bench tiers`: what it costs that rows lie in host memory or in a file.

    step       a DLRM step on batches never seen before, its rows in one, two and three tiers
    plan       planning and fetching a batch against gathering and updating it
    traffic    rows that the pad moves per batch, against LRU and the offline optimum

The parts are in bench_step.py, bench_pad.py and bench_traffic.py, with how they are measured.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from mpi4py import MPI

from fourfold.jobs import bench_pad, bench_step, bench_traffic
from fourfold.jobs.bench_model import add_model_arguments

HELP = "measure the tiers below the pad against rows in memory"

PARTS = ("step", "plan", "traffic")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the options."""
    parser.add_argument("--part", choices=PARTS, nargs="+", default=list(PARTS))
    add_model_arguments(parser)
    parser.add_argument("--folder", type=Path, default=Path(), help="where the files go for now")
    parser.add_argument("--buffered", action="store_true", help="file through the page cache")
    parser.add_argument("--host-share", type=float, default=0.05, help="of all rows, above a file")
    parser.add_argument("--rounds", type=int, default=7, help="turns of each variant of the step")
    parser.add_argument("--steps", type=int, default=12, help="timed steps of a turn")
    parser.add_argument("--warm", type=int, default=120, help="batches that fill the pad before")
    parser.add_argument(
        "--keys", type=int, default=100_000, help="distinct keys of a planned batch"
    )
    parser.add_argument("--hits", type=float, default=0.9, help="share of them that is in the pad")
    parser.add_argument("--plan-threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--plan-rounds", type=int, default=20, help="planned batches")
    parser.add_argument("--traffic-rows", type=int, default=500_000, help="rows of the traffic")
    parser.add_argument("--json", action="store_true", help="one JSON object per line")


def run(args: argparse.Namespace) -> int:
    """Measure the chosen parts; collective over the world. Only the step uses all ranks."""
    comm = MPI.COMM_WORLD
    if "step" in args.part:
        results = bench_step.measure(args)
        if comm.rank == 0:
            show_step(args, comm.size, results)
    if comm.rank == 0:
        parts: dict[str, Callable[[argparse.Namespace], None]]
        parts = {"plan": run_plan, "traffic": run_traffic}
        for name, part in parts.items():
            if name in args.part:
                part(args)
    wait_for_all(comm)
    return 0


def wait_for_all(comm: MPI.Comm) -> None:
    """A barrier that leaves the processor to those who are still at work. Collective."""
    done = comm.Ibarrier()
    while not done.Test():
        time.sleep(0.02)


def show_step(args: argparse.Namespace, ranks: int, results: list[bench_step.Result]) -> None:
    """Print the steps, and where their time went."""
    if args.json:
        said = ("batch", "pooling", "dim", "rows", "alpha", "dtype", "threads", "lookahead")
        facts = {"ranks": ranks, **{name: getattr(args, name) for name in said}}
        for result in results:
            print(json.dumps({"step": facts | asdict(result)}), flush=True)
        return
    print(
        f"DLRM on fresh batches, {ranks} ranks x {args.threads} threads, batch {args.batch},"
        f" 26 tables x {args.dim}, {args.rows:,} rows {args.dtype}, Zipf {args.alpha},"
        f" pad {bench_step.PAD_SHARE:.0%}, host {args.host_share:.0%} above a file"
    )
    print(f"{'':8}{'ms':>8}{'best':>8}{'speed':>7}{'hits':>8}{'overlap':>9}{'hidden':>8}")
    for result in results:
        print(
            f"{result.variant:8}{result.step_ms:8.1f}{result.best_ms:8.1f}{result.ratio:7.2f}"
            f"{result.traffic.get('hit_rate', 1.0):8.1%}{result.overlap:9.2f}{result.hidden:8.2f}"
        )
    print("per step, stages of the slowest rank, moves of all ranks:")
    for result in results:
        print(f"{result.variant:8}busy ms: {listed(result.stages_ms)}")
        print(f"{'':8}waits ms: {listed(result.waits_ms)}")
        rows = {k[:-5]: v for k, v in result.traffic.items() if k.endswith("_hits")}
        kilobytes = {k[:-6]: v / 1e3 for k, v in result.traffic.items() if k.endswith("_bytes")}
        if rows:
            print(f"{'':8}rows from {listed(rows, 0)}; KB {listed(kilobytes, 0)}")


def listed(figures: dict[str, float], digits: int = 1) -> str:
    """Figures by name, in one line; zeros are left out."""
    said = [f"{name} {value:,.{digits}f}" for name, value in figures.items()]
    return ", ".join(text for text in said if float(text.split()[-1].replace(",", "")))


def run_plan(args: argparse.Namespace) -> None:
    """Measure and print the plan."""
    if not args.json:
        print(f"{args.keys:,} distinct keys x {bench_pad.DIM}, ms of a batch (median)")
        print(
            f"{'threads':>8}{'hits':>8}"
            + "".join(f"{name:>9}" for name in bench_pad.STAGES)
            + f"{'(plan + fetch) / (gather + update)':>37}{'best':>7}"
        )
    for result in bench_pad.measure(args.keys, args.hits, args.plan_threads, args.plan_rounds):
        if args.json:
            print(json.dumps({"plan": asdict(result)}), flush=True)
            continue
        print(
            f"{result.threads:8}{result.hit_rate:8.1%}"
            + "".join(f"{result.ms[name]:9.2f}" for name in bench_pad.STAGES)
            + f"{result.ratio:37.2f}{result.ratio_best:7.2f}",
            flush=True,
        )


def run_traffic(args: argparse.Namespace) -> None:
    """Measure and print the traffic."""
    ahead = [f"{planned}/{foreseen}" for planned, foreseen in bench_traffic.AHEAD]
    if not args.json:
        print(
            f"rows moved per batch, pad for {bench_traffic.PAD_SHARE:.0%} of"
            f" {args.traffic_rows:,} rows; ours by batches planned / foreseen"
        )
        print(
            f"{'locality':10}{'Zipf':>6}{'keys':>8}"
            + "".join(f"{'pad ' + name:>10}" for name in ahead)
            + f"{'lru':>9}{'optimum':>9}{'of the optimum, ' + ahead[0]:>22}"
        )
    for locality in bench_traffic.LOCALITY:
        result = bench_traffic.measure(locality, args.traffic_rows)
        if args.json:
            print(json.dumps({"traffic": asdict(result)}), flush=True)
            continue
        print(
            f"{locality:10}{result.alpha:6}{result.keys:8,.0f}"
            + "".join(f"{result.pad[name]:10,.0f}" for name in ahead)
            + f"{result.lru:9,.0f}{result.optimum:9,.0f}"
            + f"{result.pad[ahead[0]] / result.optimum:21.2f}x",
            flush=True,
        )
