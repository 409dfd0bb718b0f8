"""The hidden model that decides who clicks: a factorisation of users and items, plus integers.

    logit = bias + a * sum_f w_f(id) + b * <sum over user fields v_f(id), sum over item fields
            v_f(id)> + c * sum_d g_d(integer)

An id's weight w and its latent vector v (`LATENT` numbers) are normal, drawn from the id by a
counter-based generator, so there is no table of them however many ids there are. Both shrink for
rare ids by sqrt(rate / (rate + rare)): nobody could learn an id's own effect from a few clicks, so
the best reachable figures would be out of reach were rare ids to carry as much as common ones. A
bag of several ids gives the sum of its ids over sqrt(mean length). A missing value has no effect;
an integer's is tanh of its centred log(1 + x), with negative and missing as zero.

a, b, c and bias are solved on a pilot sample of the log: the three parts get their shares of the
logit's variance, `strength`^2 in total, and the mean click rate is as asked. Every model that sees
ids and integers can represent this function closely: DLRM's dot products are its second part.
"""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy.special import expit, ndtri

from fourfold.runtime.data.scatter import bits64, mix64
from fourfold.runtime.data.traffic import BLOCK, Bags, Impressions, Traffic, of_user

LATENT = 3

# The normal law at 2^16 equally likely values: 64 random bits give an id its weight and its vector.
_NORMAL = ndtri((np.arange(2**16) + 0.5) / 2**16).astype(np.float32)
_PILOT_BLOCKS = 8
# Width of an integer's response, in units of log(1 + x).
_WIDTH = float(__import__('os').environ.get('WID',3.0))


@dataclass(frozen=True, slots=True, kw_only=True)
class ClickModel:
    """The hidden model; `solved` gives one whose coefficients fit a log.

    rare: share of its field's lookups at which an id's effect has lost half of its variance
    """

    seed: int
    rare: float
    hot: tuple[int, ...]
    coefficients: tuple[float, float, float] = (1.0, 1.0, 1.0)
    bias: float = 0.0

    def logits(self, seen: Impressions) -> npt.NDArray[np.float64]:
        """True log odds of a click, float64 (n,)."""
        return self.bias + self.parts(seen) @ np.array(self.coefficients)

    def parts(self, seen: Impressions) -> npt.NDArray[np.float64]:
        """Give the sums behind a, b and c, before the coefficients, float64 (n, 3)."""
        total = np.zeros((seen.size, 1 + LATENT))
        user = np.zeros((seen.size, LATENT))
        for field, bags in enumerate(seen.sparse):
            effect = self._effect(field, bags)
            total += effect
            if of_user(field):
                user += effect[:, 1:]
        item = total[:, 1:] - user
        linear, pairs = total[:, 0], np.einsum("nk,nk->n", user, item)
        return np.stack([linear, pairs, self._integers(seen.dense)], axis=1)

    def _effect(self, field: int, bags: Bags) -> npt.NDArray[np.float32]:
        """Weight and vector of each bag, float32 (n, 1 + LATENT)."""
        bits = bits64(bags.index.astype(np.uint64), mix64(self.seed) ^ (field + 1))
        normal = _NORMAL[bits.view(np.uint16).reshape(-1, 1 + LATENT)]
        normal *= np.sqrt(bags.rate / (bags.rate + np.float32(self.rare)))[:, None]
        effect = np.zeros((len(bags.lengths), 1 + LATENT), np.float32)
        filled = bags.lengths > 0
        if self.hot[field] == 1:
            effect[filled] = normal
        else:
            start = np.cumsum(bags.lengths) - bags.lengths
            effect[filled] = np.add.reduceat(normal, start[filled]) / np.sqrt(self.hot[field])
        return effect

    def _integers(self, dense: npt.NDArray[np.int32]) -> npt.NDArray[np.float64]:
        """Sum of the integers' effects, float64 (n,)."""
        numbers = np.arange(dense.shape[1], dtype=np.uint64)
        bits = bits64(numbers, mix64(self.seed)).view(np.uint16).reshape(-1, 4)
        slope, centre = _NORMAL[bits[:, 0]], 1.5 + _NORMAL[bits[:, 1]] / 2
        return np.tanh((np.log1p(np.maximum(dense, 0)) - centre) / _WIDTH) @ slope.astype(np.float64)


def solved(
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
