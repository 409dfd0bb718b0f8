"""Optimizers of embedding rows.

Each is applied once per distinct row of a batch, to the sum g of the row's gradients. `lr` and the
step t (counted from 1) come with every update, so schedules belong to the caller. State is fp32
whatever the type of the row, and lies inside the row; native/optimizer.h has the arithmetic. A row
that is not in the batch is not touched: no decay, no momentum (as torch.optim.SparseAdam does).

Letters: w weights, g gradient, both (D,); d runs over the D columns of the tile. So when a
table is cut by columns, row-wise state is kept per tile, as in Neo (ISCA 2022).
"""

import math
from dataclasses import dataclass
from typing import ClassVar


def _require(name: str, holds: bool, what: str) -> None:
    if not holds:
        raise ValueError(f"{name}: {what}")


def _require_eps(name: str, eps: float, initial: float) -> None:
    _require(name, math.isfinite(eps) and eps >= 0, f"eps must be finite and >= 0, got {eps}")
    ok = math.isfinite(initial) and initial >= 0
    _require(name, ok, f"initial_accumulator must be finite and >= 0, got {initial}")
    # Otherwise a zero gradient divides zero by zero.
    _require(name, eps > 0 or initial > 0, "eps or initial_accumulator must be above 0")


def _require_betas(name: str, beta1: float, beta2: float, eps: float) -> None:
    for label, beta in (("beta1", beta1), ("beta2", beta2)):
        _require(name, 0 <= beta < 1, f"{label} must be in [0, 1), got {beta}")
    _require(name, math.isfinite(eps) and eps > 0, f"eps must be finite and above 0, got {eps}")


@dataclass(frozen=True, slots=True, kw_only=True)
class SGD:
    """Stochastic gradient descent: w -= lr g."""

    kind: ClassVar[int] = 0
    element_states: ClassVar[int] = 0
    row_states: ClassVar[int] = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Adagrad:
    """Adagrad (Duchi, Hazan, Singer, JMLR 2011), diagonal form, as torch.optim.Adagrad.

    G_d += g_d^2;  w_d -= lr g_d / (sqrt(G_d) + eps). State: G, one float per element.
    """

    eps: float = 1e-10
    initial_accumulator: float = 0.0
    """First value of G."""

    kind: ClassVar[int] = 1
    element_states: ClassVar[int] = 1
    row_states: ClassVar[int] = 0

    def __post_init__(self) -> None:
        _require_eps("Adagrad", self.eps, self.initial_accumulator)


@dataclass(frozen=True, slots=True, kw_only=True)
class RowWiseAdagrad:
    """Row-wise Adagrad: Kraken's rAdaGrad (SC 2020), used by Neo (ISCA 2022).

    G += mean_d(g_d^2);  w -= lr g / (sqrt(G) + eps). State: G, one float per row.

    Texts write the last denominator sqrt(G + eps) or sqrt(G) + eps; what runs in DLRM's
    RWSAdagrad and in FBGEMM is the second, which is also Adagrad's own, so with D = 1 this is
    Adagrad.
    """

    eps: float = 1e-8
    initial_accumulator: float = 0.0
    """First value of G."""

    kind: ClassVar[int] = 2
    element_states: ClassVar[int] = 0
    row_states: ClassVar[int] = 1

    def __post_init__(self) -> None:
        _require_eps("RowWiseAdagrad", self.eps, self.initial_accumulator)


@dataclass(frozen=True, slots=True, kw_only=True)
class Adam:
    """Adam (Kingma and Ba, ICLR 2015, algorithm 1), on the rows of the batch only.

    m_d = beta1 m_d + (1 - beta1) g_d;  v_d = beta2 v_d + (1 - beta2) g_d^2;
    w_d -= lr (m_d / (1 - beta1^t)) / (sqrt(v_d / (1 - beta2^t)) + eps).
    t is the step of the job, not a count of the row's own. State: m and v, two floats per element.
    """

    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8

    kind: ClassVar[int] = 3
    element_states: ClassVar[int] = 2
    row_states: ClassVar[int] = 0

    def __post_init__(self) -> None:
        _require_betas("Adam", self.beta1, self.beta2, self.eps)


@dataclass(frozen=True, slots=True, kw_only=True)
class RowWiseAdam:
    """Adam with one second moment per row (FBGEMM's partial row-wise Adam).

    m_d = beta1 m_d + (1 - beta1) g_d;  v = beta2 v + (1 - beta2) mean_d(g_d^2);
    w_d -= lr (m_d / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + eps).
    State: m, one float per element, and v, one float per row.
    """

    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8

    kind: ClassVar[int] = 4
    element_states: ClassVar[int] = 1
    row_states: ClassVar[int] = 1

    def __post_init__(self) -> None:
        _require_betas("RowWiseAdam", self.beta1, self.beta2, self.eps)


@dataclass(frozen=True, slots=True, kw_only=True)
class FTRL:
    """FTRL-Proximal (McMahan et al., "Ad click prediction", KDD 2013, algorithm 1); alpha is lr.

    s = (sqrt(n_d + g_d^2) - sqrt(n_d)) / lr;  z_d += g_d - s w_d;  n_d += g_d^2;
    w_d = 0 if |z_d| <= l1, else -(z_d - sign(z_d) l1) / ((beta + sqrt(n_d)) / lr + l2).
    State: z and n, two floats per element. The regulariser pulls to zero, so the first update
    shrinks whatever value the row was born with, as published.
    """

    beta: float = 1.0
    l1: float = 0.0
    l2: float = 0.0
    initial_accumulator: float = 0.0
    """First value of n."""

    kind: ClassVar[int] = 5
    element_states: ClassVar[int] = 2
    row_states: ClassVar[int] = 0

    def __post_init__(self) -> None:
        for label in ("beta", "l1", "l2", "initial_accumulator"):
            value = getattr(self, label)
            _require(
                "FTRL", math.isfinite(value) and value >= 0, f"{label} must be finite and >= 0"
            )
        positive = self.beta > 0 or self.l2 > 0 or self.initial_accumulator > 0
        _require("FTRL", positive, "beta, l2 or initial_accumulator must be above 0")


Optimizer = SGD | Adagrad | RowWiseAdagrad | Adam | RowWiseAdam | FTRL

optimizer_names: dict[str, type[Optimizer]] = {
    "sgd": SGD,
    "adagrad": Adagrad,
    "rowwise_adagrad": RowWiseAdagrad,
    "adam": Adam,
    "rowwise_adam": RowWiseAdam,
    "ftrl": FTRL,
}
"""Names for job files."""
