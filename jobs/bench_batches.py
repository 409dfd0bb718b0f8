"""Whole batches for `fourfold bench exchange`: their step, and the routing of long bags."""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from mpi4py import MPI
from numpy.typing import NDArray

from fourfold.comm._native import Router
from fourfold.comm.exchange import Exchange, Routed
from fourfold.comm.mpi import MpiBackend
from fourfold.comm.placement import Placement
from fourfold.comm.route import Feature, Wire, choose_replies, measure_lookups
from fourfold.comm.tile import Shape, Tile
from fourfold.jobs.bench_device_train import IDS, ROWS, ZIPF
from fourfold.runtime.data.synthetic import criteo_sizes, zipf_ids

WARM_UP = 3
BATCHES = 6
LONG_ROUNDS = 10
LONG_ROWS = 10_000_000
"""Of a table in memory that is not there: routing needs none of its rows."""


def take_turns(
    comm: MPI.Intracomm, contenders: dict[str, Callable[[], object]], rounds: int
) -> dict[str, list[float]]:
    """Seconds of each call in each round, of the slowest rank. Collective."""
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(WARM_UP + rounds):
        for name, call in contenders.items():
            call()  # all find their own buffers in the cache, as far as they fit
            comm.Barrier()
            start = time.perf_counter()
            call()
            seconds = time.perf_counter() - start
            if turn >= WARM_UP:
                times[name].append(seconds)
    return {name: np.max(comm.allgather(values), axis=0).tolist() for name, values in times.items()}


def draw_batches(
    args: argparse.Namespace, sizes: Sequence[int], samples: int, pooling: int, rank: int
) -> list[tuple[NDArray[np.int64], NDArray[np.int64], int]]:
    """Draw BATCHES batches of one rank: ids, offsets, samples."""
    rng = np.random.default_rng(7 + rank)
    offsets = np.arange(0, len(sizes) * samples * pooling + 1, pooling)
    return [
        (
            np.concatenate([zipf_ids(rng, samples * pooling, n, args.alpha) for n in sizes]),
            offsets,
            samples,
        )
        for _ in range(BATCHES)
    ]


def measure_batch(
    comm: MPI.Intracomm, backend: MpiBackend, args: argparse.Namespace, pooling: int
) -> dict[str, Any]:
    """Route, forward and backward of a DLRM batch; bytes beside TorchRec's."""
    sizes = criteo_sizes(args.rows)
    rank, size = backend.rank, backend.size
    samples = args.batch * (rank + 1) // size - args.batch * rank // size
    batches = draw_batches(args, sizes, samples, pooling, rank)
    features = [Feature(f"C{t + 1}", t, "sum") for t in range(len(sizes))]
    shapes = tuple(Shape(f"C{t + 1}", args.dim, rows) for t, rows in enumerate(sizes))
    tiles = tuple(Tile(t, 0, 1, 0, args.dim, (t % size,)) for t in range(len(sizes)))
    placement = Placement(shapes, tiles, size)
    stats = comm.bcast(measure_lookups(features, len(sizes), batches))
    wire: Wire = args.wire
    replies = choose_replies(features, placement, stats, wire=wire)
    exchange = Exchange(
        backend, placement, features, replies=replies, wire=wire, threads=args.threads
    )
    routed: list[Routed] = [exchange.route(*batches[0][:2], None, samples)]
    out = np.zeros((samples, exchange.output_dim), np.float32)
    exchange.reply(routed[0])

    def route_next() -> None:
        ids, offsets, batch = batches[len(turns) % BATCHES]
        turns.append(0)
        exchange.route(ids, offsets, None, batch)

    turns: list[int] = []
    times = take_turns(
        comm,
        {
            "route": route_next,
            "forward": lambda: exchange.forward(routed[0], out),
            "backward": lambda: exchange.backward(routed[0], out),
        },
        args.rounds,
    )
    traffic = {
        name: comm.allreduce(getattr(routed[0].stats, name)) / size
        for name in ("num_bytes", "torchrec_bytes", "lookups", "rows")
    }
    return {
        "bench": "exchange",
        "ranks": size,
        "batch": args.batch,
        "pooling": pooling,
        "wire": args.wire,
        "pooled_tables": replies.count("pooled"),
        **{f"{name}_ms": round(statistics.median(v) * 1e3, 3) for name, v in times.items()},
        **{f"{name}_best_ms": round(min(v) * 1e3, 3) for name, v in times.items()},
        **{name: round(value) for name, value in traffic.items()},
        "bytes_over_torchrec": round(traffic["num_bytes"] / max(traffic["torchrec_bytes"], 1), 3),
    }


def measure_long_bags(comm: MPI.Intracomm, args: argparse.Namespace) -> dict[str, Any]:
    """Route long bags on one thread and on all of the rank's, every rank for itself."""
    rng = np.random.default_rng(7 + comm.rank)
    sizes = [min(rows, LONG_ROWS) for rows in ROWS]
    batches = [
        np.concatenate(
            [zipf_ids(rng, args.long * n, rows, ZIPF) for n, rows in zip(IDS, sizes, strict=True)]
        )
        for _ in range(2)
    ]
    offsets = np.concatenate([[0], np.cumsum(np.repeat(IDS, args.long))]).astype(np.int64)
    node = comm.Split_type(MPI.COMM_TYPE_SHARED)
    threads = max(1, len(os.sched_getaffinity(0)) // node.size)
    node.Free()
    tables = [(f"C{t + 1}", args.dim, n, False, False, False, False) for t, n in enumerate(sizes)]
    features = [(f"C{t + 1}", t, 0) for t in range(len(sizes))]
    tiles = [(t, 0, 0, args.dim, [0]) for t in range(len(sizes))]
    turns: list[int] = []

    def contender(threads: int) -> Callable[[], object]:
        router = Router(0, 1, threads, 0, tables, features, tiles)

        def route_next() -> None:
            turns.append(0)
            router.route(batches[len(turns) % 2], offsets, None, args.long)

        return route_next

    times = take_turns(comm, {"one": contender(1), "all": contender(threads)}, LONG_ROUNDS)
    return {
        "bench": "long bags",
        "ranks": comm.size,
        "batch": args.long,
        "lookups": int(offsets[-1]),
        "threads": threads,
        **{f"{name}_ms": round(statistics.median(v) * 1e3, 3) for name, v in times.items()},
        **{f"{name}_best_ms": round(min(v) * 1e3, 3) for name, v in times.items()},
        **{f"{n}_ns_per_id": round(min(v) / offsets[-1] * 1e9, 2) for n, v in times.items()},
    }


def batch_text(record: dict[str, Any]) -> str:
    """Show what a DLRM batch costs."""
    times = ", ".join(
        f"{name} {record[f'{name}_ms']:.2f} (best {record[f'{name}_best_ms']:.2f})"
        for name in ("route", "forward", "backward")
    )
    return (
        f"\nDLRM batch of {record['batch']}, {record['pooling']} ids per bag, 26 tables"
        f" ({record['pooled_tables']} pooled by the holder), per rank and batch:\n"
        f"  ms: {times}\n"
        f"  {record['lookups']:,} ids ask for {record['rows']:,} reply rows;"
        f" {record['num_bytes']:,} bytes off rank, TorchRec {record['torchrec_bytes']:,}:"
        f" {record['bytes_over_torchrec']:.2f} x"
    )


def long_text(record: dict[str, Any]) -> str:
    """Show what routing of long bags costs."""
    times = "; ".join(
        f"{threads} threads {record[f'{name}_ms']:.2f} (best {record[f'{name}_best_ms']:.2f},"
        f" {record[f'{name}_ns_per_id']:.2f} ns per id)"
        for name, threads in (("one", 1), ("all", record["threads"]))
    )
    return (
        f"\nRouting of {record['batch']:,} samples with long bags, {record['lookups']:,} ids"
        f" per rank:\n  ms: {times}"
    )
