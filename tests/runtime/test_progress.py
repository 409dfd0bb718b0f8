"""Figures of a run, merged over the ranks."""

from __future__ import annotations

import pytest
from mpi4py import MPI

from fourfold.runtime.progress import merge, tier_figures

COMM = MPI.COMM_WORLD


@pytest.mark.mpi
def test_sums_and_maxima_of_all_ranks() -> None:
    rank, size = COMM.rank, COMM.size
    merged = merge(COMM, {"rows": rank + 1, "loss": 0.5}, {"step_s": -rank, "wait_s": 2.0 * rank})

    assert merged == {
        "rows": size * (size + 1) / 2,
        "loss": 0.5 * size,
        "step_s": 0.0,
        "wait_s": 2.0 * (size - 1),
    }
    assert merge(COMM, {}, {}) == {}


def test_a_figure_is_merged_in_one_way() -> None:
    with pytest.raises(ValueError, match="either a sum or a maximum: rows"):
        merge(COMM, {"rows": 1}, {"rows": 2})


def test_what_a_step_moves_between_the_tiers() -> None:
    merged = {"pad_hits": 80, "host_hits": 10, "file_hits": 6, "born": 4, "host_read_bytes": 1000}
    merged |= {"host_written_bytes": 500, "file_read_bytes": 50, "file_written_bytes": 0, "loss": 1}
    figures = tier_figures(merged, steps=2)

    assert figures["hit_rate"] == 0.8
    assert (figures["pad_hits"], figures["born"]) == (40, 2)
    assert (figures["host_read_bytes"], figures["file_written_bytes"]) == (500, 0)
    assert tier_figures(dict.fromkeys(merged, 0), steps=1)["hit_rate"] == 1.0
