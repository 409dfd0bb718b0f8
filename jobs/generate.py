"""`fourfold generate --out FOLDER`: write click logs whose best reachable AUC is known."""

from __future__ import annotations

import argparse
import time
from dataclasses import fields
from pathlib import Path

from fourfold.jobs.progress import progress
from fourfold.runtime.data.generate import GenerateConfig, Generated, generate
from fourfold.runtime.data.truth import FILE, Truth
from fourfold.runtime.errors import ConfigError
from fourfold.runtime.units import show_bytes, show_seconds

HELP = (
    "Write click logs in Criteo's format with the published table sizes, the reuse skew of "
    "production traces, drift, and labels from a hidden model, so that the best reachable AUC and "
    "log loss are known."
)

_DEFAULT = GenerateConfig()

_OPTIONS = {
    "samples": "impressions to train on",
    "eval_samples": "impressions to evaluate on, later in time",
    "format": "criteo (text) or parquet",
    "files": "training files, in time order",
    "seed": "same settings and seed: same bytes",
    "scale": "size of the larger tables, 1 as published (default: as many rows per sample)",
    "trace": "production trace whose reuse of ids is followed: 2021 or 2022",
    "drift": "how often every role in a field passes on to a new id over the log",
    "cooccurrence": "chance that a field goes with the others of its user or item",
    "click_rate": "expected share of clicks",
    "strength": "standard deviation of the true log odds",
    "pairs": "share of the log odds' variance that only pairs of ids explain",
    "integers": "share of the log odds' variance that the integers explain; ids have the rest",
    "sightings": "ids seen this often keep half of their effect's variance, rarer ones less",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the options."""
    parser.add_argument("--out", type=Path, required=True, help="new folder for the logs")
    parser.add_argument("--overwrite", action="store_true", help="replace generated logs in OUT")
    for name, text in _OPTIONS.items():
        default = getattr(_DEFAULT, name)
        shown = "" if default is None else f" (default: {default})"
        kind = float if default is None else type(default)
        parser.add_argument(
            f"--{name.replace('_', '-')}", type=kind, default=default, help=text + shown
        )
    parser.add_argument("--gzip", action="store_true", help="compress text files")
    parser.add_argument(
        "--hot",
        default="1",
        metavar="N[,N...]",
        help="mean ids per bag, for every field or for all 26; above 1 a bag has 1 to 2N - 1 of "
        "them, between commas in text files, lists in Parquet (default: 1)",
    )


def run(args: argparse.Namespace) -> int:
    """Generate, and say what the best possible model reaches."""
    given = {f.name: getattr(args, f.name) for f in fields(GenerateConfig)}
    config = GenerateConfig(**given | {"hot": _parse_hot(args.hot)})
    start = time.perf_counter()
    generated = generate(config, args.out, overwrite=args.overwrite, report=progress("impressions"))
    seconds = time.perf_counter() - start
    for line in describe(args.out, config, generated, seconds):
        print(line)
    return 0


def describe(
    folder: Path, config: GenerateConfig, generated: Generated, seconds: float
) -> list[str]:
    """Lines about the logs that were written."""
    files = generated.train_files + generated.eval_files
    size = sum((folder / name).stat().st_size for name in files)
    samples = config.samples + config.eval_samples
    lines = [
        f"{folder}: {samples:,} impressions in {len(files)} files, {show_bytes(size)}, in "
        f"{show_seconds(seconds)} ({samples / seconds:,.0f} impressions/s)",
        f"tables: {sum(config.rows):,} ids, the largest {max(config.rows):,}",
        "the best that any model can reach (a model on the labels drawn here):",
    ]
    splits = {"training": generated.train, "evaluation": generated.eval}
    lines += [_line(name, truth) for name, truth in splits.items() if truth.samples]
    return [*lines, f"kept in {folder / FILE}"]


def _line(name: str, truth: Truth) -> str:
    return (
        f"  {name:10}  AUC {truth.auc:.4f} ({truth.drawn_auc:.4f})  "
        f"log loss {truth.log_loss:.4f} ({truth.drawn_log_loss:.4f})  "
        f"normalized entropy {truth.normalized_entropy:.4f}  click rate {truth.click_rate:.4f}"
    )


def _parse_hot(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(word) for word in text.split(","))
    except ValueError:
        raise ConfigError(f"--hot: expected whole numbers between commas, got {text!r}") from None
