"""`fourfold stats JOB.toml`: how a job's ids recur, and what keeping fewer rows would lose."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
from pathlib import Path

from fourfold.comm.placement import aligned
from fourfold.jobs.progress import progress
from fourfold.runtime.config import Job, load_job
from fourfold.runtime.errors import ConfigError
from fourfold.runtime.measurement import LIVES, measure
from fourfold.runtime.statistics import Setting, Statistics, TableStatistics
from fourfold.runtime.suggestion import Suggestion, suggest
from fourfold.runtime.table import TableConfig
from fourfold.runtime.toml_text import show, show_key
from fourfold.runtime.units import parse_bytes, show_bytes

HELP = (
    "Read the first samples of a job's training data, in order, and show per table how its ids"
    " recur, how long they stay away, what admission and time to live would save and lose, and"
    " settings to paste."
)

MOST_SAMPLES = 2**31 - 1
COLUMNS = 11
"""Columns of the reuse histogram; the last one has the rest."""
SUGGESTED = ("expected_rows", "admission", "admit_count", "admit_probability", "time_to_live")
"""Keys of a table that are suggested anew."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the options."""
    parser.add_argument("job", help="job file (TOML); override any key with --section.key=value")
    parser.add_argument(
        "--samples",
        type=int,
        default=1_000_000,
        help="samples to read, up to whole batches (default: 1000000)",
    )
    parser.add_argument(
        "--share",
        type=float,
        default=1.0,
        help="share of the ids to keep, by hash, with all of their lookups (default: 1)",
    )
    parser.add_argument(
        "--memory",
        default="1GiB",
        help="memory for lookups; where it is short, the ids of the largest tables are halved until"
        " it suffices (default: 1GiB)",
    )
    parser.add_argument("--out", type=Path, help="write JSON, for `fourfold plan JOB --stats OUT`")


def run(args: argparse.Namespace) -> int:
    """Measure, print, and save if asked to."""
    memory = _check(args)
    job = load_job(args.job, args.overrides)
    statistics = measure(
        job,
        samples=args.samples,
        memory_bytes=memory,
        share=args.share,
        report=progress("samples"),
    )
    print(as_text(job, statistics))
    if args.out:
        statistics.save(args.out)
        print(f"\nsaved: use it with fourfold plan --stats {args.out} or placement.stats")
    return 0


def _check(args: argparse.Namespace) -> int:
    """Give the bytes of `--memory`. Raises ConfigError for options that cannot be."""
    if not 1 <= args.samples <= MOST_SAMPLES:
        raise ConfigError(f"--samples must be in [1, {MOST_SAMPLES}], got {args.samples}")
    if not 0 < args.share <= 1:
        raise ConfigError(f"--share must be in (0, 1], got {args.share:g}")
    try:
        memory = parse_bytes(args.memory)
    except ValueError as error:
        raise ConfigError(f"--memory: {error}") from error
    if memory < 1 << 20:
        raise ConfigError(f"--memory must be at least 1 MiB, got {args.memory}")
    return memory


def as_text(job: Job, statistics: Statistics) -> str:
    """Print lookups, reuse, gaps and memory of every table, and lines for the job file."""
    tables = statistics.tables
    read = "all" if statistics.complete else "the first"
    thinned = [table for table in tables if table.share < 1]
    head = (
        f"{read} {statistics.samples:,} samples of the training data, in order:"
        f" {statistics.batches:,} batches of {statistics.batch_size:,}"
    )
    if thinned:
        head += (
            "\nids were thinned out by hash, with all of their lookups (column `kept`): gaps are as"
            " they are,\ncounts of ids and rows are scaled up"
        )
    return "\n\n".join(
        (
            head,
            _lookups(tables),
            _reuse("ids seen so many times, % of the ids", tables, "ids"),
            _reuse("... and % of the lookups that are of them", tables, "lookups"),
            _gaps(tables),
            *_tried(tuple(table for table in tables if table.dynamic)),
            "\n\n".join(_toml(job, statistics)),
        )
    )


def _tried(tables: tuple[TableStatistics, ...]) -> list[str]:
    """Show what the settings do to dynamic tables; a static one has its rows whoever comes."""
    if not tables:
        return []
    return [
        "what admission (a row from the n-th sighting on; by lot at every sighting) and a time to"
        " live (of a percentile\nof the gaps) would do: a lookup is refused if it gets no row, cold"
        " if it reads a newborn row instead of a trained one",
        _settings("rows at most", tables, _rows),
        _settings("memory over all ranks", tables, _bytes),
        _settings("% of lookups refused", tables, _share("refused")),
        _settings("% of lookups cold", tables, _share("cold")),
    ]


def _lookups(tables: tuple[TableStatistics, ...]) -> str:
    lines: list[tuple[str, ...]] = [
        ("table", "rows", "lookups", "distinct ids", "seen once", "per batch", "growth", "kept")
    ]
    lines += [
        (
            table.name,
            "dynamic" if table.dynamic else f"{table.settings[0].rows:,}",
            f"{table.lookups:,}",
            f"{table.distinct:,}",
            f"{table.once:.1%}",
            f"{table.unique:,.0f}",
            f"{table.growth:.2f}",
            f"{table.share:.3g}",
        )
        for table in tables
    ]
    return aligned(lines, right=range(1, 8))


def _reuse(title: str, tables: tuple[TableStatistics, ...], key: str) -> str:
    longest = max((table.reuse for table in tables), key=len)
    shown = longest[:COLUMNS]
    names = [str(b.least) if b.least == b.most else f"{b.least}-{b.most}" for b in shown]
    if len(longest) > COLUMNS:
        names[-1] = f"{shown[-1].least}-"
    lines: list[tuple[str, ...]] = [(title, *names)]
    for table in tables:
        shares = [100 * getattr(some, key) for some in table.reuse]
        cells = [*shares[: len(names) - 1], sum(shares[len(names) - 1 :])]
        cells += [0.0] * (len(names) - len(cells))
        lines.append((table.name, *(f"{cell:.1f}" if cell else "-" for cell in cells)))
    return aligned(lines, right=range(1, len(names) + 1))


def _gaps(tables: tuple[TableStatistics, ...]) -> str:
    percents = ("50%", "90%", "99%", "99.9%")
    names = ("gaps between samples with the same id", "gaps")
    units = (f"{unit} {percents[0]}" for unit in ("in samples", "in batches"))
    heads = (head for unit in units for head in (unit, *percents[1:]))
    lines: list[tuple[str, ...]] = [(*names, *heads)]
    for table in tables:
        cells = [f"{gap:,}" for gap in (*table.gap_samples, *table.gap_batches)]
        lines.append((table.name, f"{table.gaps:,}", *(cells or ["-"] * 8)))
    return aligned(lines, right=range(1, 10))


def _settings(
    title: str,
    tables: tuple[TableStatistics, ...],
    cell: Callable[[Sequence[Setting], Sequence[int]], str],
) -> str:
    """Show something of every setting, by table and in total.

    cell: of settings of some tables and of these tables' lookups.
    """
    columns = [_columns(table) for table in tables]
    names = list(dict.fromkeys(name for column in columns for name in column))
    lines: list[tuple[str, ...]] = [(title, *names)]
    for table, column in zip(tables, columns, strict=True):
        cells = (cell([column[n]], [table.lookups]) if n in column else "-" for n in names)
        lines.append((table.name, *cells))
    lookups = [table.lookups for table in tables]
    lines.append(
        (
            "total",
            *(cell([column.get(n, column["all"]) for column in columns], lookups) for n in names),
        )
    )
    return aligned(lines, right=range(1, len(names) + 1))


def _columns(table: TableStatistics) -> dict[str, Setting]:
    """Name the settings of a table; its times to live go by their percentiles."""
    lives = iter(LIVES)
    short = {"always": "all", "count": "count {:g}", "probability": "lot {:g}"}
    return {
        short.get(setting.kind, "{:g}% gap").format(
            next(lives) if setting.kind == "time_to_live" else setting.value
        ): setting
        for setting in table.settings
    }


def _rows(settings: Sequence[Setting], lookups: Sequence[int]) -> str:
    return f"{sum(setting.rows for setting in settings):,}"


def _bytes(settings: Sequence[Setting], lookups: Sequence[int]) -> str:
    return show_bytes(sum(setting.row_bytes for setting in settings))


def _share(key: str) -> Callable[[Sequence[Setting], Sequence[int]], str]:
    def cell(settings: Sequence[Setting], lookups: Sequence[int]) -> str:
        parts = (getattr(s, key) * n for s, n in zip(settings, lookups, strict=True))
        return f"{100 * sum(parts) / max(1, sum(lookups)):.2f}"

    return cell


def _toml(job: Job, statistics: Statistics) -> list[str]:
    """Write every dynamic table's entry as the job has it, with what is suggested."""
    configs = {table.name: table for table in job.table}
    steps = job.train.steps
    samples = None if steps is None else steps * job.train.batch_size
    entries = ["# suggested; the entries replace those that the job has, whose keys they repeat"]
    for table in statistics.tables:
        if table.dynamic:
            config = configs.get(table.name, TableConfig(name=table.name))
            lines = ["[[table]]", *_given(config)]
            rows = statistics.expected_rows(table, samples)
            lines.append(f"expected_rows = {rows}  # {_growth(statistics, table, samples)}")
            entries.append("\n".join([*lines, *_suggested(suggest(statistics, table))]))
    return entries


def _given(config: TableConfig) -> Iterator[str]:
    for f in fields(config):
        value = getattr(config, f.name)
        if value != f.default and f.name not in SUGGESTED:
            yield f"{show_key(f.name)} = {show(value, f.name)}"


def _suggested(best: Suggestion) -> Iterator[str]:
    match best.admission.kind, best.admission.value:
        case "count", count:
            yield f'admission = "count"  # {best.admission_reason}'
            yield f"admit_count = {count:g}"
        case "probability", probability:
            yield f'admission = "probability"  # {best.admission_reason}'
            yield f"admit_probability = {probability:g}"
        case _ if best.time_to_live_reason == best.admission_reason:
            yield f"# no admission and no time_to_live: {best.admission_reason}"
            return
        case _:
            yield f"# no admission: {best.admission_reason}"
    if best.time_to_live:
        yield f"time_to_live = {best.time_to_live.value:g}  # {best.time_to_live_reason}"
    else:
        yield f"# no time_to_live: {best.time_to_live_reason}"


def _growth(statistics: Statistics, table: TableStatistics, samples: int | None) -> str:
    if statistics.complete:
        return "distinct ids of all data"
    if samples is None or samples <= statistics.samples:
        return "distinct ids of the sample, more come later"
    return f"distinct ids of {samples:,} samples, if they grow on with exponent {table.growth:.2f}"
