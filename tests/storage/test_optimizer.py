"""Optimizers on rows, against straightforward NumPy in float64 and against torch.optim."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from fourfold.storage import (
    FTRL,
    SGD,
    Adagrad,
    Adam,
    Optimizer,
    Pad,
    RowSpec,
    RowWiseAdagrad,
    RowWiseAdam,
    Segment,
    SegmentedRequest,
    Uniform,
)

LR = 0.05
State = dict[str, np.ndarray]


def sgd(o: SGD, w: np.ndarray, g: np.ndarray, s: State, t: int) -> np.ndarray:
    return w - LR * g


def adagrad(o: Adagrad, w: np.ndarray, g: np.ndarray, s: State, t: int) -> np.ndarray:
    s["G"] = s.get("G", o.initial_accumulator) + g**2
    return w - LR * g / (np.sqrt(s["G"]) + o.eps)


def rowwise_adagrad(
    o: RowWiseAdagrad, w: np.ndarray, g: np.ndarray, s: State, t: int
) -> np.ndarray:
    s["G"] = s.get("G", o.initial_accumulator) + (g**2).mean(1, keepdims=True)
    return w - LR * g / (np.sqrt(s["G"]) + o.eps)


def adam(o: Adam, w: np.ndarray, g: np.ndarray, s: State, t: int) -> np.ndarray:
    s["m"] = o.beta1 * s.get("m", 0) + (1 - o.beta1) * g
    s["v"] = o.beta2 * s.get("v", 0) + (1 - o.beta2) * g**2
    m, v = s["m"] / (1 - o.beta1**t), s["v"] / (1 - o.beta2**t)
    return w - LR * m / (np.sqrt(v) + o.eps)


def rowwise_adam(o: RowWiseAdam, w: np.ndarray, g: np.ndarray, s: State, t: int) -> np.ndarray:
    s["m"] = o.beta1 * s.get("m", 0) + (1 - o.beta1) * g
    s["v"] = o.beta2 * s.get("v", 0) + (1 - o.beta2) * (g**2).mean(1, keepdims=True)
    m, v = s["m"] / (1 - o.beta1**t), s["v"] / (1 - o.beta2**t)
    return w - LR * m / (np.sqrt(v) + o.eps)


def ftrl(o: FTRL, w: np.ndarray, g: np.ndarray, s: State, t: int) -> np.ndarray:
    z, n = s.get("z", 0), s.get("n", o.initial_accumulator)
    sigma = (np.sqrt(n + g**2) - np.sqrt(n)) / LR
    s["z"], s["n"] = z + g - sigma * w, n + g**2
    z, n = s["z"], s["n"]
    moved = -(z - np.sign(z) * o.l1) / ((o.beta + np.sqrt(n)) / LR + o.l2)
    return np.where(np.abs(z) <= o.l1, 0.0, moved)


CASES: list[tuple[Optimizer, Callable[..., np.ndarray]]] = [
    (SGD(), sgd),
    (Adagrad(), adagrad),
    (Adagrad(eps=1e-3, initial_accumulator=0.1), adagrad),
    (RowWiseAdagrad(), rowwise_adagrad),
    (RowWiseAdagrad(eps=1e-2, initial_accumulator=0.5), rowwise_adagrad),
    (Adam(), adam),
    (Adam(beta1=0.5, beta2=0.8, eps=1e-3), adam),
    (RowWiseAdam(), rowwise_adam),
    (FTRL(), ftrl),
    (FTRL(beta=0.5, l1=0.3, l2=0.1, initial_accumulator=0.2), ftrl),
]


def pad_of(optimizer: Optimizer, dim: int, rows: int | None = 40, **spec: Any) -> Pad:
    fields = {"dtype": "fp32", "init": Uniform(0.5), "seed": 7} | spec
    return Pad([RowSpec(table=0, name="t", dim=dim, rows=rows, optimizer=optimizer, **fields)])


def step(pad: Pad, ids: np.ndarray, gradient: np.ndarray, t: int) -> None:
    request = SegmentedRequest.of([Segment(0, ids)])
    ticket = pad.plan(request, train=True)
    pad.update(ticket, request.addresses([gradient]), "fp32", LR, t)
    pad.release(ticket)


@pytest.mark.parametrize(("optimizer", "reference"), CASES)
@pytest.mark.parametrize("dim", [1, 3, 8, 16, 20, 32, 64, 100, 128, 256, 300])
def test_formula(optimizer: Optimizer, reference: Callable[..., np.ndarray], dim: int) -> None:
    rng = np.random.default_rng(dim)
    pad = pad_of(optimizer, dim)
    ids = rng.permutation(40)[:9]
    expected = pad.weights(0, ids).astype(np.float64)
    untouched = np.setdiff1d(np.arange(40), ids)
    before = pad.weights(0, untouched)
    state: State = {}
    for t in range(1, 7):
        gradient = rng.standard_normal((9, dim)).astype(np.float32)
        expected = reference(optimizer, expected, gradient.astype(np.float64), state, t)
        step(pad, ids, gradient, t)

    np.testing.assert_allclose(pad.weights(0, ids), expected, rtol=2e-5, atol=2e-6)
    assert (pad.weights(0, untouched) == before).all()


@pytest.mark.parametrize(
    ("optimizer", "torch_optimizer"),
    [
        (SGD(), lambda p: torch.optim.SGD(p, lr=LR)),
        (Adagrad(), lambda p: torch.optim.Adagrad(p, lr=LR)),
        (
            Adagrad(initial_accumulator=0.3),
            lambda p: torch.optim.Adagrad(p, lr=LR, initial_accumulator_value=0.3),
        ),
        (Adam(), lambda p: torch.optim.Adam(p, lr=LR)),
    ],
)
def test_torch_agrees(optimizer: Optimizer, torch_optimizer: Callable[..., Any]) -> None:
    pad = pad_of(optimizer, 32)
    ids = np.arange(40)
    parameter = torch.nn.Parameter(torch.from_numpy(pad.weights(0, ids)).clone())
    reference = torch_optimizer([parameter])
    for t in range(1, 6):
        gradient = torch.randn(40, 32)
        parameter.grad = gradient
        reference.step()
        step(pad, ids, gradient.numpy(), t)
    np.testing.assert_allclose(pad.weights(0, ids), parameter.detach(), rtol=2e-5, atol=2e-6)


def test_rowwise_adagrad_of_one_column_is_adagrad() -> None:
    rng = np.random.default_rng(0)
    pads = [pad_of(RowWiseAdagrad(eps=1e-6), 1), pad_of(Adagrad(eps=1e-6), 1)]
    for t in range(1, 5):
        gradient = rng.standard_normal((40, 1)).astype(np.float32)
        for pad in pads:
            step(pad, np.arange(40), gradient, t)
    a, b = (pad.weights(0, np.arange(40)) for pad in pads)
    np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("optimizer", [case[0] for case in CASES])
def test_a_zero_gradient_gives_no_nan(optimizer: Optimizer) -> None:
    pad = pad_of(optimizer, 16)
    step(pad, np.arange(40), np.zeros((40, 16), np.float32), 1)
    assert np.isfinite(pad.weights(0, np.arange(40))).all()


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
@pytest.mark.parametrize("dim", [12, 64])
def test_16_bit_rows_follow_fp32_rows_on_average(dtype: str, dim: int) -> None:
    # Each step is far below the spacing of bf16 near 0.5, so rounding to nearest would not move.
    rows, steps = 2000, 50
    pad = pad_of(SGD(), dim, rows, dtype=dtype, init=Uniform(0.5))
    ids = np.arange(rows)
    begin = pad.weights(0, ids)
    for t in range(1, steps + 1):
        step(pad, ids, np.full((rows, dim), 1e-3, np.float32), t)
    moved = (pad.weights(0, ids) - begin).mean(dtype=np.float64)

    expected = -LR * 1e-3 * steps
    # The standard error is below spacing / 2 * sqrt(steps / (rows * dim)) ~ 5e-5.
    assert abs(moved - expected) < (2.5e-4 if dtype == "bf16" else 5e-5)
    assert (pad.weights(0, ids) != begin).any()


@pytest.mark.parametrize("bad", [-1.0, float("nan"), float("inf")])
@pytest.mark.parametrize("make", [Adagrad, RowWiseAdagrad, Adam, RowWiseAdam])
def test_impossible_constants_are_refused(make: Callable[..., Optimizer], bad: float) -> None:
    with pytest.raises(ValueError, match="eps"):
        make(eps=bad)


def test_more_impossible_constants_are_refused() -> None:
    with pytest.raises(ValueError, match=r"beta1 must be in \[0, 1\), got 1.0"):
        Adam(beta1=1.0)
    with pytest.raises(ValueError, match="above 0"):
        Adagrad(eps=0.0)
    with pytest.raises(ValueError, match="beta, l2 or initial_accumulator"):
        FTRL(beta=0.0)


def test_metadata_takes_four_bytes() -> None:
    spec = RowSpec(
        table=0, name="t", dim=16, rows=None, optimizer=RowWiseAdagrad(), init=Uniform(1)
    )
    assert spec.record.itemsize == 16 * 4 + 4 + 4
    assert spec.row_bytes == 16 * 4 + 4 + 4
