"""Training with rows and exchange on a device gives the model that training on the CPU gives.

For every optimizer and type of rows, every way to cut tables, with tiers below the device's
memory, and with ranks of both kinds in one world. The device is the stand-in (half_gpu.py); what
needs torch on a GPU, too, is in tests/runtime/test_gpu_training.py.
"""

from __future__ import annotations

from dataclasses import replace

import half_gpu
import numpy as np
import pytest
from mpi4py import MPI
from test_invariants import cuts_of, roles_of
from training import Case, Outcome, train

from fourfold.storage import StorageConfig

STORAGE = StorageConfig(pad_bytes="1MiB")
STEPS = 6


def compare(mine: Outcome, theirs: Outcome, loose: float) -> None:
    np.testing.assert_allclose(mine.losses, theirs.losses, rtol=loose)
    for a, b in zip(mine.dense, theirs.dense, strict=True):
        np.testing.assert_allclose(a, b, rtol=loose, atol=loose)
    for name, rows in theirs.rows.items():
        np.testing.assert_array_equal(np.isnan(mine.rows[name]), np.isnan(rows))
        np.testing.assert_allclose(mine.rows[name], rows, rtol=loose, atol=loose)
    for a, b in zip(mine.metrics, theirs.metrics, strict=True):
        assert a.samples == b.samples
        assert a.log_loss == pytest.approx(b.log_loss, rel=loose)
        assert a.auc == pytest.approx(b.auc, abs=1e-3)


def both(comm: MPI.Intracomm, case: Case, mix: str, axis: str, **options: object) -> None:
    """Train on the device and on the CPU."""
    roles = roles_of(mix, comm.size)
    cuts = cuts_of(axis, roles)
    which = options.pop("ranks", range(comm.size))
    storage = options.pop("storage", STORAGE)
    devices = half_gpu.half_gpus(which, comm.size)
    options = {"steps": STEPS, "evaluate_every": 3} | options
    cpu = train(comm, case, roles, cuts, **options)
    with half_gpu.opened():
        device = train(comm, case, roles, cuts, devices=devices, storage=storage, **options)
    if not case.optimizer.startswith("rowwise"):
        compare(device, cpu, 0)
    else:  # the mean square of a gradient is a sum in another order
        exact = case.dtype == case.wire == "fp32"
        compare(device, cpu, 2e-5 if exact else 2e-2)


@pytest.mark.mpi
@pytest.mark.parametrize("dtype", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize(
    "optimizer", ["sgd", "adagrad", "rowwise_adagrad", "adam", "rowwise_adam", "ftrl"]
)
def test_every_optimizer_and_type_of_rows(comm: MPI.Intracomm, optimizer: str, dtype: str) -> None:
    both(comm, Case(optimizer=optimizer, dtype=dtype, reply="auto"), "colocated", "row")


@pytest.mark.mpi
@pytest.mark.parametrize("reply", ["rows", "pooled"])
@pytest.mark.parametrize("axis", ["table", "row", "column", "grid", "data", "mixed"])
def test_every_placement(comm: MPI.Intracomm, axis: str, reply: str) -> None:
    mix = "colocated"
    both(comm, Case(reply=reply, weighted=True, pooling="mean"), mix, axis, uneven=True)


@pytest.mark.mpi
@pytest.mark.parametrize("wire", ["bf16", "fp16"])
def test_types_of_the_wire_and_sequences(comm: MPI.Intracomm, wire: str) -> None:
    both(comm, Case(wire=wire, sequence=True), "colocated", "row")


@pytest.mark.mpi
def test_rows_in_tiers_below_the_device(comm: MPI.Intracomm) -> None:
    case = Case(dim=96, d_rows=600, samples=16)
    small = StorageConfig(pad_bytes="256KiB", host_bytes="8MiB")
    both(comm, case, "colocated", "row", storage=small, steps=12)


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("mix", ["split", "overlapping", "one holder"])
@pytest.mark.parametrize("who", ["dense", "embedding", "first"])
def test_ranks_with_and_without_a_device(comm: MPI.Intracomm, mix: str, who: str) -> None:
    roles = roles_of(mix, comm.size)
    ranks = {"dense": roles.dense, "embedding": roles.embedding, "first": (0,)}[who]
    both(comm, Case(reply="auto"), mix, "row", ranks=ranks)


@pytest.mark.mpi
def test_the_same_bits_twice_whatever_the_order_of_warps(comm: MPI.Intracomm) -> None:
    roles = roles_of("colocated", comm.size)
    cuts = cuts_of("row", roles)
    devices = half_gpu.half_gpus(range(comm.size), comm.size)
    found = []
    for seed in (0, 7):
        with half_gpu.opened(), half_gpu.gpu.shaken(seed, 200 * (seed > 0)):
            case = replace(Case(), dtype="bf16", optimizer="rowwise_adagrad")
            found.append(
                train(comm, case, roles, cuts, devices=devices, storage=STORAGE, steps=STEPS)
            )
    one, two = found
    assert one.losses == two.losses
    for name, rows in one.rows.items():
        np.testing.assert_array_equal(two.rows[name], rows)
