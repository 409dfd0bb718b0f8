"""Progress of a run over all ranks: what a stretch of steps was like, figure by figure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from mpi4py import MPI


def merge(
    comm: MPI.Intracomm, sums: Mapping[str, float], maxima: Mapping[str, float]
) -> dict[str, float]:
    """Merge the figures of all ranks: sums in rank order, and maxima. Collective, once.

    Every rank gives the same names. A figure in both is a ValueError.
    """
    if both := sums.keys() & maxima.keys():
        raise ValueError(f"a figure is either a sum or a maximum: {', '.join(sorted(both))}")
    mine = np.array([*sums.values(), *maxima.values()], dtype=np.float64)
    everyone = np.empty((comm.size, len(mine)))
    comm.Allgather(mine, everyone)
    merged = [*everyone[:, : len(sums)].sum(axis=0), *everyone[:, len(sums) :].max(axis=0)]
    return dict(zip((*sums, *maxima), map(float, merged), strict=True))


def tier_figures(merged: Mapping[str, float], steps: int) -> dict[str, float]:
    """Give what a step moved between the tiers, on average, from merged `Store.take_traffic`.

    Rows (`pad_hits`, `host_hits`, `file_hits`, `born`) and bytes are those of all ranks together;
    `hit_rate` is the share of rows that were in the pad already.
    """
    rows = [f"{tier}_hits" for tier in ("pad", "host", "file")] + ["born"]
    moved = [f"{tier}_{way}_bytes" for tier in ("host", "file") for way in ("read", "written")]
    wanted = sum(merged[name] for name in rows)
    figures = {name: merged[name] / steps for name in (*rows, *moved)}
    return {"hit_rate": merged["pad_hits"] / wanted if wanted else 1.0, **figures}
