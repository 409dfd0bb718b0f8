"""Plots of the studies, as PNG files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a plot: at each x the values of all seeds."""

    x: Sequence[float]
    y: Sequence[Sequence[float]]
    faint: bool = False
    dashed: bool = False


def plot_lines(
    path: Path, lines: Mapping[str, Line], *, title: str, x: str, y: str, log_x: bool = False
) -> None:
    """Draw lines through the means, with bars from the least to the largest value.

    Logs differ more than contenders do, so each log's values are moved to the same mean.
    """
    from matplotlib.figure import Figure  # needs no display

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    moves = to_one_mean([seeds for line in lines.values() for seeds in line.y])
    for name, line in lines.items():
        values = [np.array(seeds) + moves for seeds in line.y]
        mean = np.array([v.mean() for v in values])
        bars = [
            mean - np.array([v.min() for v in values]),
            np.array([v.max() for v in values]) - mean,
        ]
        axes.errorbar(
            line.x,
            mean,
            yerr=bars,
            label=name,
            capsize=3,
            marker="" if line.dashed else "o",
            linestyle="--" if line.dashed else "-",
            alpha=0.35 if line.faint else 1.0,
        )
    if log_x:
        axes.set_xscale("log", base=2)
    axes.set(title=title, xlabel=x, ylabel=y)
    axes.grid(alpha=0.3)
    axes.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


def to_one_mean(points: Sequence[Sequence[float]]) -> NDArray[np.float64]:
    """Give by how much to move the values of each seed, for all seeds to have the same mean."""
    means = np.array(points).mean(axis=0)
    moves: NDArray[np.float64] = means.mean() - means
    return moves


def plot_over_time(
    path: Path, minutes: Sequence[float], panels: Mapping[str, Sequence[float]], *, title: str
) -> None:
    """Draw one panel above the other over the same time, each from zero."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 2.4 * len(panels)), layout="constrained")
    for axes, (name, values) in zip(
        figure.subplots(len(panels), squeeze=False)[:, 0], panels.items(), strict=True
    ):
        axes.plot(minutes, values)
        axes.set(ylabel=name, ylim=(0, 1.1 * max(values)))
        axes.grid(alpha=0.3)
    figure.axes[-1].set_xlabel("minutes")
    figure.suptitle(title)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
