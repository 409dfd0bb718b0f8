"""Ranks with and without samples make the calls of a step in one order, where that matters."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from mpi4py import MPI
from test_invariants import cuts_of, roles_of
from torch import Tensor, nn
from training import NUM_DENSE, Case, train

from fourfold.comm.mpi import MpiBackend
from fourfold.runtime.embedding import Embeddings


class Wide(nn.Module):
    """Its top fills buckets of gradients before those of the rows are known."""

    def __init__(self, pooled_width: int, _: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.bottom = nn.Linear(NUM_DENSE, NUM_DENSE)
        self.top = nn.Sequential(
            nn.Linear(NUM_DENSE + pooled_width, 600),
            nn.ReLU(),
            nn.Linear(600, 600),
            nn.ReLU(),
            nn.Linear(600, 1),
        )

    def forward(self, dense: Tensor, embeddings: Embeddings) -> Tensor:
        return self.top(embeddings.after(self.bottom(dense))).squeeze(1)


def calls_of(comm: MPI.Intracomm, patch: pytest.MonkeyPatch) -> list[str]:
    """What each rank called while one of them had no samples left."""
    log: list[str] = []
    step, start_allreduce = MpiBackend.step, MpiBackend.start_allreduce

    def recorded(name: str, call: Callable[..., object]) -> Callable[..., object]:
        return lambda *args: log.append(name) or call(*args)

    patch.setattr(MpiBackend, "step", recorded("step", step))
    patch.setattr(MpiBackend, "start_allreduce", recorded("sum", start_allreduce))
    roles = roles_of("colocated", comm.size)
    cuts = cuts_of("row", roles)
    train(comm, Case(), roles, cuts, uneven=True, steps=4, make_model=Wide)
    return comm.allgather(",".join(log))


@pytest.mark.mpi(min_size=2)
def test_calls_have_one_order_where_they_wait_for_each_other(
    comm: MPI.Intracomm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MpiBackend, "in_order", True)
    assert len(set(calls_of(comm, monkeypatch))) == 1


@pytest.mark.mpi(min_size=2)
def test_elsewhere_sums_start_while_backward_runs(
    comm: MPI.Intracomm, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert len(set(calls_of(comm, monkeypatch))) > 1
