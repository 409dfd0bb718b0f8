"""`fourfold plot RUN_FOLDER`: draw a run's figures over its steps."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fourfold.runtime.errors import ConfigError
from fourfold.runtime.history import History, Series

if TYPE_CHECKING:
    from matplotlib.axes import Axes

HELP = (
    "Draw what a run reported, from the metrics.jsonl of its folder, as PNG files: loss and AUC,"
    " samples per second, and the rows of its tables, with how many came and went."
)

LARGEST = 8
"""Tables drawn one by one; the others are drawn together."""
CHANGES = ("admitted", "refused", "expired", "reclaimed")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the options."""
    parser.add_argument("folder", type=Path, metavar="RUN_FOLDER", help="folder of a run")
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="where the files go (default: RUN_FOLDER/plots)"
    )


def run(args: argparse.Namespace) -> int:
    """Draw, and say which files there are."""
    history = History.load(args.folder)
    for path in draw(history, args.out or args.folder / "plots"):
        print(path)
    return 0


def draw(history: History, folder: Path) -> list[Path]:
    """Draw all that the run reported; gives the files, which replace older ones.

    Raises DataError for figures that are none, ConfigError for a folder that cannot be written.
    """
    from matplotlib.figure import Figure

    drawings: dict[str, Callable[[History, Axes], bool]] = {
        "quality": quality,
        "speed": speed,
        "rows": rows,
        "changes": changes,
    }
    paths = []
    for name, drawing in drawings.items():
        figure = Figure(figsize=(8, 4.5), layout="constrained")
        axes = figure.add_subplot()
        if not drawing(history, axes):
            continue
        axes.set_xlabel("step")
        axes.grid(alpha=0.3)
        path = folder / f"{name}.png"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            figure.savefig(path, dpi=150)
        except OSError as error:
            raise ConfigError(f"--out: {path} cannot be written: {error.strerror}") from error
        paths.append(path)
    return paths


def quality(history: History, axes: Axes) -> bool:
    """Draw the loss of training, and the AUC of evaluations on an axis of its own."""
    loss, auc = history.series("loss"), history.series("eval_auc")
    if not len(loss) and not len(auc):
        return False
    lines = axes.plot(loss.steps, loss.values, ".-", color="C0", label="loss (training)")
    axes.set_ylabel("loss")
    if len(auc):
        other = axes.twinx()
        lines += other.plot(auc.steps, auc.values, "o-", color="C1", label="AUC (held out)")
        other.set_ylabel("AUC")
    axes.legend(handles=lines)
    return True


def speed(history: History, axes: Axes) -> bool:
    """Draw samples per second."""
    found = history.series("samples_per_s")
    axes.plot(found.steps, found.values, ".-")
    axes.set_ylabel("samples/s")
    axes.set_ylim(bottom=0)
    return len(found) > 0


def rows(history: History, axes: Axes) -> bool:
    """Draw the rows of the largest tables and of the others together; of a run that counted no
    tables those of all.
    """
    tables = history.population("rows") or {"all tables": history.series("rows")}
    steps, stacked = stack(tables)
    if not len(steps):
        return False
    axes.stackplot(steps, list(stacked.values()), labels=list(stacked))
    axes.set_ylabel("rows")
    axes.set_ylim(bottom=0)
    handles, labels = axes.get_legend_handles_labels()
    axes.legend(handles[::-1], labels[::-1], loc="center left", bbox_to_anchor=(1, 0.5))
    return True


def changes(history: History, axes: Axes) -> bool:
    """Draw how many rows came and went per step, of all tables together."""
    for figure in CHANGES:
        steps, stacked = stack(history.population(figure))
        if not len(steps):
            return False
        whole = np.sum(list(stacked.values()), axis=0)
        axes.plot(steps, per_step(Series(steps, whole)), ".-", label=figure)
    axes.set_ylabel("per step")
    axes.set_ylim(bottom=0)
    axes.legend()
    return True


def stack(
    tables: Mapping[str, Series], largest: int = LARGEST
) -> tuple[NDArray[np.int64], dict[str, NDArray[np.float64]]]:
    """Bring tables to the same steps (N,), largest first, and all but so many to one.

    A table that was not reported at a step counts 0 there.
    """
    steps = np.unique(np.concatenate([np.empty(0, np.int64), *(t.steps for t in tables.values())]))
    aligned: dict[str, NDArray[np.float64]] = {}
    for name, found in tables.items():
        aligned[name] = np.zeros(len(steps))
        aligned[name][np.searchsorted(steps, found.steps)] = found.values
    order = sorted(aligned, key=lambda name: -float(aligned[name].max(initial=0)))
    if len(order) <= largest + 1:
        return steps, {name: aligned[name] for name in order}
    kept = {name: aligned[name] for name in order[:largest]}
    rest = np.sum([aligned[name] for name in order[largest:]], axis=0)
    return steps, kept | {f"{len(order) - largest} other tables": rest}


def per_step(found: Series) -> NDArray[np.float64]:
    """Divide counts by the steps since the report before, or since the start."""
    steps = np.maximum(1, np.diff(found.steps, prepend=0))
    rates: NDArray[np.float64] = found.values / steps
    return rates
