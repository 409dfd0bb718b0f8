"""DESIGN's invariants of training: placement, repeat and uneven input change nothing."""

from __future__ import annotations

import functools
import itertools

import numpy as np
import pytest
from mpi4py import MPI
from training import Case, Outcome, train

from fourfold.comm.cut import Cut
from fourfold.runtime.roles import Roles

TABLES = 3


def roles_of(name: str, size: int) -> Roles:
    """Dense and embedding ranks of a small world."""
    everyone = tuple(range(size))
    half = size // 2
    return {
        "colocated": lambda: Roles(size, everyone, everyone),
        "split": lambda: Roles(size, everyone[:half], everyone[half:]),
        "overlapping": lambda: Roles(size, everyone[: half + 1], everyone[half:]),
        "one reader": lambda: Roles(size, (size - 1,), everyone),
        "one holder": lambda: Roles(size, everyone, (0,)),
    }[name]()


def cuts_of(axis: str, roles: Roles) -> list[Cut]:
    """One cut per table."""
    holders = roles.embedding
    n = len(holders)
    two = 2 if n % 2 == 0 else 1
    match axis:
        case "table":
            return [Cut(ranks=(holders[i % n],)) for i in range(TABLES)]
        case "row":
            return [Cut(rows=n, ranks=holders)] * TABLES
        case "more buckets than ranks":
            return [Cut(rows=3 * n, ranks=holders)] * TABLES
        case "column":
            return [Cut(columns=two, ranks=holders[:two])] * TABLES
        case "grid":
            return [Cut(rows=n, columns=2, ranks=holders)] * TABLES
        case "data":
            return [Cut(replicas=len(roles.dense), ranks=roles.dense)] * TABLES
        case "replicated rows":
            return [Cut(rows=n // two, replicas=two, ranks=holders)] * TABLES
        case "hierarchical":  # rows inside one half of the ranks per table
            groups = (holders[: max(1, n // 2)], holders[-max(1, n // 2) :])
            return [Cut(rows=len(groups[i % 2]), ranks=groups[i % 2]) for i in range(TABLES)]
        case "mixed":
            return [
                Cut(rows=n, ranks=holders),
                Cut(replicas=len(roles.dense), ranks=roles.dense),
                Cut(columns=two, ranks=holders[:two]),
            ]
    raise AssertionError(axis)


AXES = (
    "table",
    "row",
    "more buckets than ranks",
    "column",
    "grid",
    "data",
    "replicated rows",
    "hierarchical",
    "mixed",
)
ROLES = ("colocated", "split", "overlapping", "one reader", "one holder")


@functools.cache
def one_rank(case: Case) -> Outcome:
    """The same training on one rank that holds everything."""
    return train(MPI.COMM_SELF, case, Roles(1, (0,), (0,)), [Cut(ranks=(0,))] * TABLES)


def assert_same_model(got: Outcome, expected: Outcome, rtol: float, atol: float) -> None:
    np.testing.assert_allclose(got.losses, expected.losses, rtol=rtol, atol=atol)
    for mine, theirs in zip(got.dense, expected.dense, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=rtol, atol=atol)
    for name, rows in expected.rows.items():
        np.testing.assert_array_equal(np.isnan(got.rows[name]), np.isnan(rows), err_msg=name)
        np.testing.assert_allclose(got.rows[name], rows, rtol=rtol, atol=atol, err_msg=name)


@pytest.mark.mpi
@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("roles_name", ROLES)
def test_any_placement_trains_the_model_of_one_rank(roles_name: str, axis: str) -> None:
    comm = MPI.COMM_WORLD
    if comm.size == 1 and roles_name != "colocated":
        pytest.skip("one rank has one way to share out roles")
    roles = roles_of(roles_name, comm.size)
    cuts = cuts_of(axis, roles)
    for pooling, reply in itertools.product(("sum", "mean", "none"), ("rows", "pooled")):
        case = Case(
            pooling="sum" if pooling == "none" else pooling,
            sequence=pooling == "none",
            reply=reply,
            weighted=reply == "pooled",
        )
        got = train(comm, case, roles, cuts)

        assert_same_model(got, one_rank(case), rtol=2e-5, atol=2e-6)


@pytest.mark.mpi
@pytest.mark.parametrize(
    ("wire", "dtype", "tolerance"),
    [
        ("bf16", "fp32", 3e-2),
        ("fp16", "fp32", 4e-3),
        ("fp32", "bf16", 3e-2),
        ("fp32", "fp16", 4e-3),
    ],
)
def test_half_types_stay_within_their_precision(wire: str, dtype: str, tolerance: float) -> None:
    comm = MPI.COMM_WORLD
    case = Case(wire=wire, dtype=dtype)
    exact = Case(dtype=dtype)
    roles = roles_of("colocated", comm.size)
    for axis in ("row", "mixed"):
        got = train(comm, case, roles, cuts_of(axis, roles))

        assert_same_model(got, one_rank(exact), rtol=tolerance, atol=tolerance)


@pytest.mark.mpi
@pytest.mark.parametrize(
    "optimizer", ["sgd", "adagrad", "rowwise_adagrad", "adam", "rowwise_adam", "ftrl"]
)
def test_every_row_optimizer_is_placement_independent(optimizer: str) -> None:
    comm = MPI.COMM_WORLD
    case = Case(optimizer=optimizer)
    roles = roles_of("colocated", comm.size)
    for axis in ("row", "data"):
        got = train(comm, case, roles, cuts_of(axis, roles))

        assert_same_model(got, one_rank(case), rtol=1e-4, atol=1e-5)


@pytest.mark.mpi
@pytest.mark.parametrize("threads", [1, 2])
def test_the_same_job_twice_gives_the_same_bits(threads: int) -> None:
    comm = MPI.COMM_WORLD
    roles = roles_of("colocated", comm.size)
    for axis, dtype in itertools.product(("mixed", "grid"), ("fp32", "bf16")):
        case = Case(dtype=dtype, weighted=True)
        cuts = cuts_of(axis, roles)
        first = train(comm, case, roles, cuts, threads=1, lookahead=3)
        second = train(comm, case, roles, cuts, threads=threads, lookahead=0)

        assert first.losses == second.losses
        for name in first.rows:
            np.testing.assert_array_equal(first.rows[name], second.rows[name])
        for mine, theirs in zip(first.dense, second.dense, strict=True):
            np.testing.assert_array_equal(mine, theirs)


@pytest.mark.mpi(min_size=2)
@pytest.mark.parametrize("roles_name", ["colocated", "overlapping"])
def test_ranks_that_run_out_of_data_neither_hang_nor_skew(roles_name: str) -> None:
    comm = MPI.COMM_WORLD
    roles = roles_of(roles_name, comm.size)
    for axis in ("row", "mixed"):
        case = Case(weighted=True)
        got = train(comm, case, roles, cuts_of(axis, roles), uneven=True)

        assert len(got.losses) == 5
        assert_same_model(got, one_rank(case), rtol=2e-5, atol=2e-6)
