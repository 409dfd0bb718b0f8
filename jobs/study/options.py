"""Options that the studies share."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from fourfold.runtime.errors import ConfigError

TUNING_SEED = 1000
"""Learning rates are chosen on a log that no figure comes from."""


def add_study_arguments(parser: argparse.ArgumentParser, name: str, samples: int) -> None:
    """Describe the options that every study of AUC has."""
    parser.add_argument("--out", type=Path, default=Path(f"runs/study-{name}"))
    parser.add_argument(
        "--logs", type=Path, default=Path("runs/study-logs"), help="where generated logs are kept"
    )
    parser.add_argument("--seeds", type=int, default=3, help="logs, each with its own model")
    parser.add_argument("--samples", type=int, default=samples, help="impressions of a log")
    parser.add_argument("--batch", type=int, default=1024, help="samples of a step")
    parser.add_argument(
        "--jobs", type=int, default=os.cpu_count() or 1, help="trials side by side, a thread each"
    )


def add_policy_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe how rows are scored and taken back."""
    parser.add_argument(
        "--interval", type=float, default=0.01, help="share of the log after which scores decay"
    )
    parser.add_argument("--decay", type=float, default=0.1, help="share that they lose")
    parser.add_argument("--free", type=float, default=0.05, help="of the budget, taken at a time")


def check_study_arguments(args: argparse.Namespace) -> None:
    """Raise ConfigError for what cannot be."""
    for name in ("seeds", "samples", "batch", "jobs"):
        if getattr(args, name) < 1:
            raise ConfigError(f"--{name}: expected at least 1, got {getattr(args, name)}")
