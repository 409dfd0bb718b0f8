"""The hidden model that decides who clicks: weights of ids, pairs of ids, and integers.

    logit = bias + a * sum over all fields of w(id)
                 + b * <sum over `_USER_TASTE` fields of v(id), sum over `_ITEM_TASTE` of v(id)>
                 + c * sum over the integers of g(x)

An id's weight w and its vector v (`_LATENT` numbers) are normal, drawn from the id by a
counter-based generator, so there is no table of them however many ids there are. Both shrink for
rare ids, by `rate / (rate + rare)` in variance for w and by its square at `_COMMON` for v: nobody
could learn an id's own effect from a few clicks, so the best figures would be out of every model's
reach were rare ids to carry as much as common ones. A bag of several ids has the sum of their
effects over sqrt(mean length). A missing id has no effect. g is a soft step of log(1 + x), with
negative and missing integers as zero, different for each field.

a, b, c and bias are solved on a pilot sample of the log: the three parts get their shares of the
log odds' variance, `strength`^2 in total, and the mean click rate is as asked. A model that sees
ids and integers can come as close to this function as it likes: DLRM's dot products are its
second part.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy.special import expit, ndtri

from fourfold.runtime.data.scatter import bits64, mix64
from fourfold.runtime.data.traffic import Bags, Impressions, Traffic

_LATENT = 3

# Fields of the user and of the item whose ids interact. They have few ids or some that everybody
# meets, so that there are enough clicks on each pair to learn from.
_USER_TASTE = (4, 12)
_ITEM_TASTE = (7, 17)
# Share of its field's lookups at which an id has lost three quarters of its vector's variance.
_COMMON = 0.05

# Width of an integer's response in units of log(1 + x).
_WIDTH = 4.0

# The normal law at 2^16 equally likely values: 64 random bits give an id its weight and its vector.
_NORMAL = ndtri((np.arange(2**16) + 0.5) / 2**16).astype(np.float32)
_PILOT_BLOCKS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class ClickModel:
    """The hidden model; `solve` gives one whose coefficients fit a log.

    rare: share of its field's lookups at which an id has lost half of its weight's variance
    hot:  ids per bag of each field, on average
    """

    seed: int
    rare: float
    hot: tuple[int, ...]
    coefficients: tuple[float, float, float] = (1.0, 1.0, 1.0)
    bias: float = 0.0

    def logits(self, seen: Impressions) -> npt.NDArray[np.float64]:
        """True log odds of a click, float64 (n,)."""
        logits: npt.NDArray[np.float64] = self.bias + self.parts(seen) @ self.coefficients
        return logits

    def parts(self, seen: Impressions) -> npt.NDArray[np.float64]:
        """Give the sums behind a, b and c, before the coefficients, float64 (n, 3)."""
        linear = np.zeros(seen.size)
        user, item = np.zeros((2, seen.size, _LATENT))
        for field, bags in enumerate(seen.sparse):
            normal = self._normal(field, bags)
            weight = normal[:, 0] * np.sqrt(bags.rate / (bags.rate + self.rare))
            linear += self._pooled(field, bags, weight[:, None])[:, 0]
            if field in _USER_TASTE or field in _ITEM_TASTE:
                vector = normal[:, 1:] * (bags.rate / (bags.rate + _COMMON))[:, None]
                side = user if field in _USER_TASTE else item
                side += self._pooled(field, bags, vector)
        pairs = np.einsum("nk,nk->n", user, item)
        return np.stack([linear, pairs, self._integers(seen.dense)], axis=1)

    def _normal(self, field: int, bags: Bags) -> npt.NDArray[np.float32]:
        """Normal numbers of each id, float32 (L, 1 + _LATENT)."""
        bits = bits64(bags.index.astype(np.uint64), mix64(self.seed) ^ (field + 1))
        normal: npt.NDArray[np.float32] = _NORMAL[bits.view(np.uint16).reshape(-1, 1 + _LATENT)]
        return normal

    def _pooled(
        self, field: int, bags: Bags, effects: npt.NDArray[np.floating]
    ) -> npt.NDArray[np.floating]:
        """Pool effects of ids (L, k) into bags (n, k)."""
        pooled = np.zeros((len(bags.lengths), effects.shape[1]))
        filled = bags.lengths > 0
        if self.hot[field] == 1:
            pooled[filled] = effects
        elif filled.any():
            first = (np.cumsum(bags.lengths) - bags.lengths)[filled]
            pooled[filled] = np.add.reduceat(effects, first) / np.sqrt(self.hot[field])
        return pooled

    def _integers(self, dense: npt.NDArray[np.int32]) -> npt.NDArray[np.float64]:
        """Sum of the integers' effects, float64 (n,)."""
        numbers = np.arange(dense.shape[1], dtype=np.uint64)
        bits = bits64(numbers, mix64(self.seed)).view(np.uint16).reshape(-1, 1 + _LATENT)
        slope, centre = _NORMAL[bits[:, 0]], 1.5 + _NORMAL[bits[:, 1]] / 2
        step = np.tanh((np.log1p(np.maximum(dense, 0)) - centre) / _WIDTH)
        total: npt.NDArray[np.float64] = step @ slope.astype(np.float64)
        return total


def solve(
    model: ClickModel,
    traffic: Traffic,
    *,
    strength: float,
    shares: tuple[float, float, float],
    click_rate: float,
) -> ClickModel:
    """Set coefficients and bias so that the log has this click rate and strength (see above)."""
    blocks = np.unique(np.linspace(0, traffic.blocks - 1, _PILOT_BLOCKS).astype(int))
    parts = np.concatenate([model.parts(traffic.block(int(b))) for b in blocks])
    spread = np.maximum(parts.std(axis=0), 1e-9)
    coefficients = np.sqrt(np.array(shares) / sum(shares)) / spread
    logits = parts @ coefficients
    coefficients *= strength / logits.std()
    logits = parts @ coefficients
    low, high = -100.0, 100.0
    while high - low > 1e-9:
        bias = (low + high) / 2
        low, high = (bias, high) if expit(logits + bias).mean() < click_rate else (low, bias)
    a, b, c = (float(x) for x in coefficients)
    return replace(model, coefficients=(a, b, c), bias=bias)
