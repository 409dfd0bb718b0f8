"""`fourfold convert JOB.toml OUT.h5`: rewrite a job's data in a format that reads faster."""

from __future__ import annotations

import argparse
from pathlib import Path

from fourfold.jobs.progress import progress
from fourfold.runtime.config import load_job
from fourfold.runtime.data.convert import convert
from fourfold.runtime.data.hashing import describe_hashing
from fourfold.runtime.units import show_bytes, show_seconds

HELP = "Rewrite the data that a job reads as one HDF5 or Parquet file."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the options."""
    parser.add_argument("job", help="job file (TOML) whose [data] section is read")
    parser.add_argument("out", type=Path, help="new file, .h5 (Fourfold's own format) or .parquet")
    parser.add_argument(
        "--split", choices=("train", "eval"), default="train", help="which rows (default: train)"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace OUT if it exists")


def run(args: argparse.Namespace) -> int:
    """Convert, and report what was done."""
    config = load_job(args.job, args.overrides).data
    if config.hashed:
        print(describe_hashing(config.hashed))
    done = convert(
        config, args.out, split=args.split, overwrite=args.overwrite, report=progress("rows")
    )
    rate = done.rows / max(done.seconds, 1e-9)
    print(
        f"{args.out}: {done.rows:,} rows with {done.ids:,} ids, {show_bytes(done.file_bytes)}, "
        f"in {show_seconds(done.seconds)} ({rate:,.0f} rows/s)"
    )
    if done.skipped:
        print(f"left out {done.skipped:,} malformed rows (data.on_error = skip)")
    return 0
