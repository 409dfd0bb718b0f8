"""`fourfold bench exchange`: rows and gradients between ranks, against MPI's own all-to-all.

Three parts, the first printed as nccl-tests prints it (`bytes` is the send buffer of a rank, self
part included; algbw = bytes / time, busbw = algbw * (n - 1) / n; `wrong` counts elements that are
not what they must be):

* Sizes. Every rank asks every rank for as many distinct rows as fill the size. `raw` is
  MPI_Alltoallv of exactly the bytes that travel, as plain bytes; `rows` and `grads` are the
  exchange's own all-to-alls of the same bytes, `ratio` = raw / it; `forward` and `backward` are
  whole calls, with pooling and spreading. All take turns, so that noise hits all alike.
* A DLRM batch. 26 tables with Criteo's sizes, Zipf ids, placed table-wise: milliseconds of routing,
  forward and backward, and bytes sent per rank beside those of TorchRec's pooled all-to-all.
* Routing of long bags. The 26 tables and 214 ids a sample of MLPerf's DLRM-DCNv2, almost half of
  them in one table, each rank by itself: on one thread, and on its share of the node's cores.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import statistics
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from mpi4py import MPI
from numpy.typing import NDArray

from fourfold.comm.backend import BLOCK, Blocks
from fourfold.comm.exchange import Exchange
from fourfold.comm.mpi import MpiBackend
from fourfold.comm.placement import Placement
from fourfold.comm.route import WIRE_BYTES, Feature
from fourfold.comm.tile import Shape, Tile
from fourfold.jobs.bench_batches import (
    batch_text,
    long_text,
    measure_batch,
    measure_long_bags,
    take_turns,
)
from fourfold.runtime.units import parse_bytes

HELP = "the exchange of rows and gradients against MPI's own all-to-all"

ELEMENT: dict[str, type[np.generic]] = {"fp32": np.float32, "bf16": np.uint16, "fp16": np.float16}
ONE: dict[str, int] = {"fp32": 0x3F800000, "bf16": 0x3F80, "fp16": 0x3C00}


@dataclass(frozen=True, slots=True)
class Line:
    """One row of the first table. Seconds, median and best over the rounds, slowest rank."""

    bytes: int
    count: int
    type: str
    op: str
    time_us: float
    best_us: float
    algbw_GBps: float  # noqa: N815 (the name nccl-tests gives it)
    busbw_GBps: float  # noqa: N815
    ratio: float | None
    ratio_best: float | None
    wrong: int


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the options."""
    parser.add_argument("-b", "--begin", type=parse_bytes, default="64KiB", help="smallest size")
    parser.add_argument("-e", "--end", type=parse_bytes, default="16MiB", help="largest size")
    parser.add_argument("-f", "--factor", type=int, default=4, help="from one size to the next")
    parser.add_argument("-n", "--rounds", type=int, default=40, help="turns of each contender")
    parser.add_argument("--dim", type=int, default=64, help="columns of a row")
    parser.add_argument("--wire", choices=tuple(WIRE_BYTES), default="fp32")
    parser.add_argument("--threads", type=int, default=1, help="per rank")
    parser.add_argument("--batch", type=int, default=2048, help="samples of a batch, all ranks")
    parser.add_argument("--pooling", type=int, nargs="+", default=[1, 20], help="ids per bag")
    parser.add_argument("--long", type=int, default=16384, help="samples of long bags, per rank")
    parser.add_argument("--rows", type=int, default=5_000_000, help="rows of the 26 tables")
    parser.add_argument("--alpha", type=float, default=1.05, help="skew of the ids (Zipf)")
    parser.add_argument("--json", action="store_true", help="one JSON object per line")


def run(args: argparse.Namespace) -> int:
    """Measure and print; 1 if an element was wrong. Collective over the world."""
    comm = MPI.COMM_WORLD
    wrong = 0
    with MpiBackend(comm) as backend:
        if comm.rank == 0 and not args.json:
            print_head(comm, args)
        size = args.begin
        while size <= args.end:
            for line in measure_size(comm, backend, args, size):
                wrong += line.wrong
                if comm.rank == 0:
                    print(json.dumps(asdict(line)) if args.json else text_of(line), flush=True)
            size *= args.factor
        for pooling in args.pooling:
            record = measure_batch(comm, backend, args, pooling)
            if comm.rank == 0:
                print(json.dumps(record) if args.json else batch_text(record), flush=True)
        if args.long > 0:
            record = measure_long_bags(comm, args)
            if comm.rank == 0:
                print(json.dumps(record) if args.json else long_text(record), flush=True)
    return 1 if wrong else 0


class Ladder:
    """A rank asks every rank for `rows` distinct rows, one per sample; the row of an id is its id.

    One table per rank, so the bytes of every pair are equal.
    """

    def __init__(self, backend: MpiBackend, args: argparse.Namespace, rows: int) -> None:
        size = backend.size
        self.backend, self.rows, self.dim, self.wire = backend, rows, args.dim, args.wire
        tables = tuple(Shape(f"table {rank}", args.dim, rows) for rank in range(size))
        tiles = tuple(Tile(rank, 0, 1, 0, args.dim, (rank,)) for rank in range(size))
        features = [Feature(f"field {rank}", rank, "sum") for rank in range(size)]
        self.exchange = Exchange(
            backend,
            Placement(tables, tiles, size),
            features,
            replies=["rows"] * size,
            wire=args.wire,
            threads=args.threads,
        )
        ids = np.tile(np.arange(rows, dtype=np.int64), size)
        self.routed = self.exchange.route(ids, np.arange(rows * size + 1), None, rows)
        self.out = np.zeros((rows, size * args.dim), np.float32)
        self.grad = np.ones_like(self.out)

    def segments(self, addresses: NDArray[np.uint64]) -> Iterator[NDArray[Any]]:
        """View the rows at each address, (rows, dim) as unsigned integers of the wire's width."""
        dtype = np.dtype(ELEMENT[self.wire])
        count = self.rows * self.dim
        for address in addresses.tolist():
            memory = (ctypes.c_char * (count * dtype.itemsize)).from_address(address)
            yield np.frombuffer(memory, f"u{dtype.itemsize}").reshape(self.rows, self.dim)

    def forward(self) -> None:
        """One whole forward call."""
        self.exchange.forward(self.routed, self.out)

    def backward(self) -> None:
        """One whole backward call."""
        self.exchange.backward(self.routed, self.grad)

    def wrong(self) -> int:
        """Run forward and backward on ones with a mark per rank; count what is not right."""
        for segment in self.segments(self.exchange.reply(self.routed)):
            segment[:] = ONE[self.wire]
            segment[:, 0] *= self.backend.rank % 2  # 1 or 0 says who sent it
        self.forward()
        want = np.ones_like(self.out)
        want[:, :: self.dim] = (np.arange(self.backend.size) % 2)[None, :]
        missing = int(np.count_nonzero(self.out != want))
        for segment in self.segments(self.exchange.backward(self.routed, self.grad)):
            missing += int(np.count_nonzero(segment != ONE[self.wire]))
        return missing


def in_bytes(blocks: Blocks) -> list[Any]:
    """Describe the same bytes to MPI as bytes."""
    return [blocks.memory, (blocks.counts * BLOCK, blocks.starts * BLOCK), MPI.BYTE]


def contenders_of(comm: MPI.Intracomm, ladder: Ladder) -> dict[str, Callable[[], object]]:
    """Name the calls that take turns."""
    route = ladder.routed.route
    ladder.exchange.reply(ladder.routed)
    ladder.backward()

    def owned(layout: Any) -> Blocks:
        return Blocks(np.ones(layout[2] + BLOCK, np.uint8), layout[0], layout[1])

    rows = owned(route.reply_sent), owned(route.reply_got)
    grads = owned(route.gradient_sent), owned(route.gradient_got)
    raw_sent, raw_got = (in_bytes(blocks) for blocks in rows)
    return {
        "raw": lambda: comm.Alltoallv(raw_sent, raw_got),
        "rows": lambda: ladder.backend.step(*rows),
        "grads": lambda: ladder.backend.step(*grads),
        "forward": ladder.forward,
        "backward": ladder.backward,
    }


def measure_size(
    comm: MPI.Intracomm, backend: MpiBackend, args: argparse.Namespace, size: int
) -> list[Line]:
    """Measure one size: the bytes that a rank sends to each rank."""
    rows = max(1, size // (args.dim * WIRE_BYTES[args.wire]))
    ladder = Ladder(backend, args, rows)
    wrong = comm.allreduce(ladder.wrong())
    times = take_turns(comm, contenders_of(comm, ladder), args.rounds)
    num_bytes = rows * args.dim * WIRE_BYTES[args.wire] * backend.size
    lines = []
    for name, values in times.items():
        median, best = statistics.median(values), min(values)
        transport = name in ("rows", "grads")
        against = [raw / own for raw, own in zip(times["raw"], values, strict=True)]
        lines.append(
            Line(
                bytes=num_bytes,
                count=num_bytes // WIRE_BYTES[args.wire],
                type=args.wire,
                op=name,
                time_us=round(median * 1e6, 1),
                best_us=round(best * 1e6, 1),
                algbw_GBps=round(num_bytes / median / 1e9, 2),
                busbw_GBps=round(num_bytes / median / 1e9 * (comm.size - 1) / comm.size, 2),
                ratio=round(statistics.median(against), 2) if transport else None,
                ratio_best=round(min(times["raw"]) / best, 2) if transport else None,
                wrong=wrong if name in ("forward", "backward") else 0,
            )
        )
    return lines


def print_head(comm: MPI.Intracomm, args: argparse.Namespace) -> None:
    """Print what runs, and the heads of the columns."""
    library = MPI.Get_library_version().split(",")[0]
    print(f"{library}, {comm.size} ranks x {args.threads} threads, rows of {args.dim} {args.wire}")
    print(
        f"{'bytes':>11}{'count':>11}{'type':>6}  {'op':9}{'time_us':>10}{'best_us':>10}"
        f"{'algbw':>8}{'busbw':>8}{'ratio':>7}{'best':>6}{'wrong':>7}"
    )


def text_of(line: Line) -> str:
    """One row of the first table."""
    ratio = "" if line.ratio is None else f"{line.ratio:.2f}"
    best = "" if line.ratio_best is None else f"{line.ratio_best:.2f}"
    return (
        f"{line.bytes:>11}{line.count:>11}{line.type:>6}  {line.op:9}{line.time_us:>10.1f}"
        f"{line.best_us:>10.1f}{line.algbw_GBps:>8.2f}{line.busbw_GBps:>8.2f}{ratio:>7}{best:>6}"
        f"{line.wrong:>7}"
    )
