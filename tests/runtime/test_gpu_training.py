"""A job trains on a GPU as it does on the CPU, up to the rounding of sums in another order."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
from mpi4py import MPI
from test_graphs import Parts, dcn, dlrm, step
from test_trainer import Batches, Scores, batch_of
from training import Case, Outcome, train

from fourfold.comm.cut import Cut
from fourfold.runtime import (
    EmbeddingConfig,
    RolesConfig,
    TableConfig,
    Trainer,
    embedding_bags,
    graphs,
    trainer,
)
from fourfold.runtime.device import Devices, RankDevice
from fourfold.runtime.errors import Error
from fourfold.runtime.graphs import StepGraphs
from fourfold.runtime.roles import Roles
from fourfold.storage import StorageConfig

pytestmark = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="no GPU that torch can use: `fourfold env` says why"
)

ALONE = Roles(1, (0,), (0,))
WHOLE = [Cut(ranks=(0,))] * 3
ON_GPU = Devices((RankDevice("cuda"),), "a test")
ONE_TIER = StorageConfig(pad_bytes="1MiB")
TWO_TIERS = StorageConfig(pad_bytes="64KiB", host_bytes="8MiB")


@pytest.mark.parametrize("lookahead", [0, 2])
@pytest.mark.parametrize(
    "case",
    [
        Case(),
        Case(reply="pooled"),
        Case(pooling="mean", weighted=True),
        Case(sequence=True, wire="bf16"),
        Case(dtype="bf16", optimizer="rowwise_adagrad"),
    ],
    ids=str,
)
def test_a_gpu_trains_as_the_cpu_does(case: Case, lookahead: int) -> None:
    more = {"lookahead": lookahead, "evaluate_every": 2}
    cpu = train(MPI.COMM_SELF, case, ALONE, WHOLE, **more)
    gpu = train(MPI.COMM_SELF, case, ALONE, WHOLE, devices=ON_GPU, storage=ONE_TIER, **more)
    loose = 2e-2 if "bf16" in (case.wire, case.dtype) else 1e-4

    np.testing.assert_allclose(gpu.losses, cpu.losses, rtol=loose)
    for mine, theirs in zip(gpu.dense, cpu.dense, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=loose, atol=loose)
    for name, rows in cpu.rows.items():
        np.testing.assert_allclose(gpu.rows[name], rows, rtol=loose, atol=loose)
    for mine, theirs in zip(gpu.metrics, cpu.metrics, strict=True):
        assert mine.samples == theirs.samples
        assert mine.log_loss == pytest.approx(theirs.log_loss, rel=loose)


def test_a_gpu_gives_the_same_bits_twice_and_in_any_tiers() -> None:
    one, two, tiered = (
        train(MPI.COMM_SELF, Case(), ALONE, WHOLE, devices=ON_GPU, storage=storage)
        for storage in (ONE_TIER, ONE_TIER, TWO_TIERS)
    )

    for other in (two, tiered):
        assert other.losses == one.losses
        for name, rows in one.rows.items():
            np.testing.assert_array_equal(other.rows[name], rows)


@pytest.mark.parametrize("storage", [ONE_TIER, TWO_TIERS])
def test_graphs_train_the_same_model(
    storage: StorageConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While other threads take memory and copy; and the same bits twice."""
    captured = []

    def record(function: graphs.Function, static: tuple[torch.Tensor, ...]) -> graphs.Recording:
        captured.append(graphs.record(function, static))
        return captured[-1]

    def run(*, cuda_graphs: bool) -> Outcome:
        return train(
            MPI.COMM_SELF,
            Case(samples=64),
            ALONE,
            WHOLE,
            devices=ON_GPU,
            storage=storage,
            steps=20,
            evaluate_every=5,
            make_model=Parts,
            cuda_graphs=cuda_graphs,
        )

    monkeypatch.setattr(trainer, "StepGraphs", partial(StepGraphs, capture=record))
    eager, one, two = run(cuda_graphs=False), run(cuda_graphs=True), run(cuda_graphs=True)

    assert [recording.turn for recording in captured] == [19] * 4, "two parts, twice"
    np.testing.assert_allclose(one.losses, eager.losses, rtol=1e-4)
    for mine, theirs in zip(one.dense, eager.dense, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-4)
    for name, rows in eager.rows.items():
        np.testing.assert_allclose(one.rows[name], rows, rtol=1e-4, atol=1e-4)
    assert two.losses == one.losses
    for name, rows in one.rows.items():
        np.testing.assert_array_equal(two.rows[name], rows)


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("make", [dlrm, dcn])
def test_graphs_give_the_outputs_and_gradients_of_the_models(
    make: Callable[[], torch.nn.Module], autocast: bool
) -> None:
    gpu = torch.device("cuda")
    model = make().to(gpu)
    parts = StepGraphs(model, gpu)
    loose = 2e-2 if autocast else 1e-5
    for number, size in enumerate([5, 7, 7, 7, 3, 7]):
        with torch.no_grad():  # as an optimizer does
            for parameter in model.parameters():
                parameter.mul_(0.9)
        expected = step(model, size, number, gpu, autocast=autocast)
        with parts():
            got = step(model, size, number, gpu, autocast=autocast)
        for mine, theirs in zip(got, expected, strict=True):
            torch.testing.assert_close(mine, theirs, rtol=loose, atol=loose)


def test_a_loss_that_is_not_finite_is_found_in_its_step() -> None:
    bags = embedding_bags(
        [TableConfig(name="id", dim=4)],
        MPI.COMM_SELF,
        embedding=EmbeddingConfig(dim=4),
        roles=RolesConfig(device="cuda"),
    )
    trainer = Trainer(Scores(), bags)
    bad = batch_of([1], [1], dense=float("nan"))
    with pytest.raises(Error, match=r"step 2: the loss of this rank's 1 samples is nan"):
        list(trainer.steps(Batches(batch_of([1], [1]), bad, batch_of([1], [1]))))
    bags.close()
